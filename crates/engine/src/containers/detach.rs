//! Detach keys: the sequence of keystrokes that leaves a container without ending it
//! (`ctrl-p,ctrl-q` unless the client chose another).

use std::sync::Arc;

use super::options::Detached;
use crate::errors::ContainerError;

/// Watches a client's keystrokes. Bytes that might begin the sequence are held back until the
/// next ones decide.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    /// Empty: never detaches.
    keys: Vec<u8>,
    seen: usize,
}

/// What a chunk of keystrokes amounts to.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// These bytes are for the container.
    Forward(Vec<u8>),
    /// The sequence is complete; these bytes came before it.
    Detach(Vec<u8>),
}

/// The event that detaching makes, filled in beforehand.
#[derive(Debug)]
pub(crate) struct Notice {
    pub events: Arc<crate::events::Events>,
    pub action: &'static str,
    pub container: Arc<super::Container>,
    pub exec: Option<spec::Id>,
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`, `a,b`, `ctrl-\\`; `None` is the default.
    pub fn parse(text: Option<&str>) -> Result<Self, ContainerError> {
        let text = match text {
            None | Some("") => "ctrl-p,ctrl-q",
            Some(text) => text,
        };
        let error = || ContainerError::DetachKeys { keys: text.to_owned() };
        let keys = text.split(',').map(|key| parse_key(key).ok_or_else(error));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, seen: 0 })
    }

    /// Takes what the client typed.
    pub fn feed(&mut self, bytes: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Forward(bytes.to_vec());
        }
        let mut forward = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return Typed::Detach(forward);
                }
                continue;
            }
            forward.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(byte == self.keys[0] && self.keys.len() > 1);
            if self.seen == 0 {
                forward.push(byte);
            }
        }
        Typed::Forward(forward)
    }
}

impl Detached {
    /// Emits `detach` or `exec_detach`.
    pub fn emit(self) {
        let notice = self.0;
        let extra = notice.exec.iter().map(|id| ("execID", id.to_string()));
        notice.container.snapshot().emit(&notice.events, notice.action, extra);
    }
}

fn parse_key(key: &str) -> Option<u8> {
    match key.as_bytes() {
        [byte] => Some(*byte),
        [b'c', b't', b'r', b'l', b'-', letter] => match letter {
            b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        },
        _ if key == "DEL" => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &str, typed: &[&[u8]], forwarded: &[u8], detached: bool) {
        let mut keys = DetachKeys::parse(Some(keys)).unwrap();
        let mut seen = Vec::new();
        for chunk in typed {
            match keys.feed(chunk) {
                Typed::Forward(bytes) => seen.extend(bytes),
                Typed::Detach(bytes) => {
                    seen.extend(bytes);
                    assert_eq!((seen.as_slice(), true), (forwarded, detached));
                    return;
                }
            }
        }
        assert_eq!((seen.as_slice(), false), (forwarded, detached));
    }

    #[test]
    fn sequences_are_found_across_chunks() {
        check("", &[b"ab\x10\x11rest"], b"ab", true);
        check("", &[b"ab\x10", b"\x11"], b"ab", true);
        check("", &[b"\x10x"], b"\x10x", false);
        check("", &[b"\x10\x10\x11"], b"\x10", true);
        check("a", &[b"xyza"], b"xyz", true);
        check("ctrl-[,q", &[b"\x1bq"], b"", true);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = DetachKeys::parse(Some("ctrl-1,x")).unwrap_err();
        assert_eq!(error.to_string(), "Invalid detach keys (ctrl-1,x) provided");
    }
}
