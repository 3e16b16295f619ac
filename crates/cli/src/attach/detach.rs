//! The keys that leave a session without ending the container: `ctrl-p,ctrl-q` unless changed.

/// Parsed detach keys; none means that no keys detach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`; an empty text means the default.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        text.split(',').map(key).collect::<Option<Vec<u8>>>().map(Self).ok_or_else(|| {
            format!("invalid detach keys ({text}): Unknown character: '{}'", bad_key(text))
        })
    }

    pub(crate) fn matcher(&self) -> Matcher<'_> {
        Matcher { keys: &self.0, matched: 0 }
    }
}

fn bad_key(text: &str) -> &str {
    text.split(',').find(|part| key(part).is_none()).unwrap_or(text)
}

fn key(text: &str) -> Option<u8> {
    if let [byte] = text.as_bytes() {
        return Some(*byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

/// Holds back the first keys of the sequence until it is clear that the rest does not follow.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl Matcher<'_> {
    /// Returns the bytes to pass on, and whether the sequence is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_names() {
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys(vec![16, 17]));
        assert_eq!(DetachKeys::parse("a,ctrl-a,ctrl-@").unwrap(), DetachKeys(vec![b'a', 1, 0]));
        assert_eq!(
            DetachKeys::parse("ctrl-").unwrap_err(),
            "invalid detach keys (ctrl-): Unknown character: 'ctrl-'"
        );
    }

    #[test]
    fn partial_sequences_are_passed_on_late() {
        let keys = DetachKeys::parse("").unwrap();
        let check = |pieces: &[&[u8]], expect: &[u8], detached: bool| {
            let mut matcher = keys.matcher();
            let mut out = Vec::new();
            let mut done = false;
            for piece in pieces {
                let (bytes, end) = matcher.feed(piece);
                out.extend(bytes);
                done = end;
            }
            assert_eq!((out.as_slice(), done), (expect, detached), "{pieces:?}");
        };
        check(&[b"ab\x10", b"\x11"], b"ab", true);
        check(&[b"\x10x"], b"\x10x", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"plain"], b"plain", false);
    }
}
