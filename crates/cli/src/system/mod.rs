//! Commands on the daemon as a whole.

mod check;
mod df;
mod dial;
mod events;
mod info;
mod prune;
mod search;
mod version;

use crate::failure::Outcome;
use crate::{output, terminal};

pub(crate) use check::check;
pub(crate) use df::df;
pub(crate) use dial::dial_stdio;
pub(crate) use events::events;
pub(crate) use info::info;
pub(crate) use prune::prune;
pub(crate) use search::search;
pub(crate) use version::version;

/// Shows a warning and asks; anything but `y` is a no.
///
/// Docker ends with 0 when the answer is no, so callers treat it as having nothing to do.
pub(crate) async fn confirm(warning: &str) -> Outcome<bool> {
    output::print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let answer = terminal::read_line().await?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
