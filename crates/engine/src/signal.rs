//! Signals by name or number, as `docker kill -s` takes them.

/// The names of signals 1 to 31 on Linux.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same.
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Parses `TERM`, `SIGTERM`, `15`, `RTMIN+3`. A number may be one that does not exist.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (number != 0).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str| name.strip_prefix(prefix);
    if let Some(rest) = offset("RTMIN") {
        let more = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return (0..=15).contains(&more).then_some(RTMIN + more);
    }
    if let Some(rest) = offset("RTMAX") {
        let less = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
        return (0..=14).contains(&less).then_some(RTMAX - less);
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    alias.or_else(|| NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1))
}

/// Whether the kernel has this signal (and programs may be sent it: 32 and 33 are glibc's own).
pub(crate) const fn exists(number: i32) -> bool {
    matches!(number, 1..=31 | RTMIN..=RTMAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in [
            ("TERM", Some(15)),
            ("sigkill", Some(9)),
            ("15", Some(15)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("POLL", Some(29)),
            ("99", Some(99)),
            ("0", None),
            ("FOO", None),
            ("RTMIN+99", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
        assert!(exists(64) && !exists(33) && !exists(99) && !exists(-1));
    }
}
