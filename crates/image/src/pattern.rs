//! Matching references against shell patterns, by the rules of Go's `path.Match`.

use spec::Reference;

use crate::error::ImageError;

/// Refuses a pattern that can never be read, whatever it is matched against.
pub(crate) fn check(pattern: &str) -> Result<(), ImageError> {
    let mut rest = pattern.as_bytes();
    while !rest.is_empty() {
        rest = Token::read(rest).ok_or(ImageError::Pattern)?.1;
    }
    Ok(())
}

/// Whether a pattern fits the familiar form of a reference, with or without its tag.
pub(crate) fn matches(pattern: &str, reference: &Reference) -> bool {
    let fits = |text: &str| fits(pattern.as_bytes(), text.as_bytes());
    fits(&reference.familiar()) || fits(&reference.familiar_name())
}

enum Token<'pattern> {
    /// Anything but slashes.
    Star,
    /// One byte that is no slash.
    Any,
    Byte(u8),
    /// One of, or (negated) none of, these ranges.
    Set {
        negated: bool,
        ranges: &'pattern [u8],
    },
}

impl<'pattern> Token<'pattern> {
    fn read(pattern: &'pattern [u8]) -> Option<(Self, &'pattern [u8])> {
        match pattern {
            [b'*', rest @ ..] => Some((Self::Star, rest)),
            [b'?', rest @ ..] => Some((Self::Any, rest)),
            [b'\\', byte, rest @ ..] => Some((Self::Byte(*byte), rest)),
            [b'\\'] => None,
            [b'[', rest @ ..] => {
                let negated = rest.first() == Some(&b'^');
                let ranges = if negated { &rest[1..] } else { rest };
                let end = ranges.iter().skip(1).position(|byte| *byte == b']')? + 1;
                Some((Self::Set { negated, ranges: &ranges[..end] }, &ranges[end + 1..]))
            }
            [byte, rest @ ..] => Some((Self::Byte(*byte), rest)),
            [] => None,
        }
    }

    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Star => false,
            Self::Any => byte != b'/',
            Self::Byte(wanted) => byte == *wanted,
            Self::Set { negated, ranges } => byte != b'/' && in_ranges(ranges, byte) != *negated,
        }
    }
}

fn in_ranges(mut ranges: &[u8], byte: u8) -> bool {
    while let Some((low, rest)) = ranges.split_first() {
        let (high, rest) = match rest {
            [b'-', high, rest @ ..] => (high, rest),
            _ => (low, rest),
        };
        if (*low..=*high).contains(&byte) {
            return true;
        }
        ranges = rest;
    }
    false
}

/// Goes back to the last star on a mismatch, so the time is at most pattern times text.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match Token::read(pattern) {
            Some((Token::Star, rest)) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            Some((token, rest)) if text.first().is_some_and(|byte| token.takes(*byte)) => {
                pattern = rest;
                text = &text[1..];
                continue;
            }
            None if pattern.is_empty() && text.is_empty() => return true,
            _ => {}
        }
        match retry {
            Some((after_star, [byte, more @ ..])) if *byte != b'/' => {
                retry = Some((after_star, more));
                pattern = after_star;
                text = more;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, reference, expect) in [
            ("busybox", "busybox:1", true),
            ("busybox:*", "busybox:1", true),
            ("busy*", "busybox:1", true),
            ("*", "user/app:1", false),
            ("*/*", "user/app:1", true),
            ("*app*", "user/app:1", false),
            ("user/a?p", "user/app:1", true),
            ("user/[a-b]pp", "user/app:1", true),
            ("user/[^a]pp", "user/app:1", false),
            ("busybox:[12]", "busybox:2", true),
            ("box", "busybox:1", false),
            ("b*s*x*:*1", "busybox:1", true),
        ] {
            let parsed = Reference::parse(reference).unwrap();
            assert_eq!(matches(pattern, &parsed), expect, "{pattern} {reference}");
        }
        assert!(check("[x").is_err());
        assert!(check("a\\").is_err());
        assert!(check("[]a]*?").is_ok());
    }
}
