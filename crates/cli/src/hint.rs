//! One more sentence for people: what a mistyped name was perhaps meant to be.
//!
//! Only where stderr is a terminal, and always behind Docker's own text, so that what scripts read
//! stays Docker's.

use crate::app::App;
use crate::completion::{container_names, image_names};

/// How long a name may be for hints: comparing is quadratic.
const LONGEST: usize = 128;

/// The hint for an error text, when there is a name like the one it misses.
pub(crate) async fn for_missing(app: &App, text: &str) -> Option<String> {
    let (is_container, name) = missing(text)?;
    let candidates: Vec<String> = if is_container {
        container_names(app, true).await.ok()?.into_iter().map(|(name, _image)| name).collect()
    } else {
        image_names(app).await.ok()?
    };
    closest(name, candidates.iter().map(String::as_str)).map(sentence)
}

pub(crate) fn sentence(name: &str) -> String {
    format!("Did you mean {name:?}?")
}

/// Whether a container (or else an image) is missing, and its name.
fn missing(text: &str) -> Option<(bool, &str)> {
    text.lines().find_map(|line| {
        let after = |words: &str| line.split_once(words).map(|(_before, name)| name.trim());
        after("No such container: ")
            .or_else(|| after("No such object: "))
            .map(|name| (true, name))
            .or_else(|| after("No such image: ").map(|name| (false, name)))
    })
}

/// The candidate nearest to a name; none when all are too far off.
pub(crate) fn closest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = match name.chars().count() {
        0..=1 => return None,
        2..=4 => 1,
        5..=LONGEST => 2,
        _ => return None,
    };
    candidates
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _candidate)| (1..=limit).contains(distance))
        .min()
        .map(|(_distance, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["web", "database", "busybox:latest", "x"];
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(closest(name, names.into_iter()), expect, "{name}");
        };
        check("wbe", Some("web"));
        check("wep", Some("web"));
        check("databsae", Some("database"));
        check("busybox:lates", Some("busybox:latest"));
        check("data", None);
        check("y", None);
        check("", None);
        check(&"w".repeat(1000), None);
    }

    #[test]
    fn the_missing_name_is_dockers_last_word() {
        let check = |text: &str, expect| assert_eq!(missing(text), expect, "{text}");
        check("Error response from daemon: No such container: wbe", Some((true, "wbe")));
        check(
            "Error response from daemon: No such image: busybx:latest",
            Some((false, "busybx:latest")),
        );
        check("a\nError: No such object: z", Some((true, "z")));
        check("Error response from daemon: conflict", None);
    }
}
