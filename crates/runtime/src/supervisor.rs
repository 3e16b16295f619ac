//! One thread that parents every container.

use std::path::PathBuf;

/// Where the supervisor keeps what it owns.
#[derive(Debug, Clone)]
pub struct Config {
    /// `<exec-root>`: the socket, and `containers/<id>/` with FIFOs and `state.json`.
    pub exec_root: PathBuf,
    /// `<data-root>/exits.log`.
    pub exits_log: PathBuf,
}

/// Serves requests until told to stop. Never returns while containers run.
pub fn run(_config: &Config) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
