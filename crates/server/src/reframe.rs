//! Output whose framing is not what its client reads.
//!
//! A process without a terminal says stdcopy frames, one with a terminal plain bytes. A websocket
//! always reads bytes, and whoever starts an exec may say other than its creator did.

use std::borrow::Cow;

use api_types::stream::{HEADER_LEN, StreamKind, header, parse_header};
use bytes::{Buf, BytesMut};

#[derive(Debug)]
pub(crate) enum Reframe {
    /// Both sides agree.
    Keep,
    /// Bytes of a terminal for a client that reads frames: all is stdout.
    Wrap,
    /// Frames for a client that reads bytes.
    Open { only: Option<StreamKind>, buffer: BytesMut },
}

impl Reframe {
    /// What a client that asked for a terminal, or did not, reads of an exec. Without frames it
    /// cannot be told what is stderr, so dockerd drops that.
    pub(crate) fn exec(process_tty: bool, client_tty: bool) -> Self {
        match (process_tty, client_tty) {
            (true, false) => Self::Wrap,
            (false, true) => Self::Open { only: Some(StreamKind::Stdout), buffer: BytesMut::new() },
            _ => Self::Keep,
        }
    }

    /// A websocket's messages hold both streams.
    pub(crate) fn websocket(process_tty: bool) -> Self {
        if process_tty { Self::Keep } else { Self::Open { only: None, buffer: BytesMut::new() } }
    }

    /// Returns what to send for the next bytes. An incomplete frame waits for its rest.
    pub(crate) fn feed<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Keep => Cow::Borrowed(bytes),
            Self::Wrap => Cow::Owned(frame(StreamKind::Stdout, bytes)),
            Self::Open { only, buffer } => {
                buffer.extend_from_slice(bytes);
                Cow::Owned(open(*only, buffer))
            }
        }
    }
}

/// One frame.
pub(crate) fn frame(kind: StreamKind, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("what is read at once is short");
    let mut framed = Vec::with_capacity(HEADER_LEN + bytes.len());
    framed.extend_from_slice(&header(kind, length));
    framed.extend_from_slice(bytes);
    framed
}

/// Takes the complete frames out of `buffer`.
fn open(only: Option<StreamKind>, buffer: &mut BytesMut) -> Vec<u8> {
    let mut output = Vec::new();
    while let Some(head) = buffer.first_chunk::<HEADER_LEN>() {
        // Our own supervisor writes these; a frame of no known stream has no length to skip.
        let Some((kind, length)) = parse_header(*head) else {
            buffer.clear();
            break;
        };
        let length = length as usize;
        if buffer.len() < HEADER_LEN + length {
            break;
        }
        buffer.advance(HEADER_LEN);
        let content = buffer.split_to(length);
        if only.is_none_or(|only| only == kind) {
            output.extend_from_slice(&content);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &[u8] = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!";

    /// Byte by byte, so that every frame comes in pieces.
    fn check(mut reframe: Reframe, wire: &[u8], expect: &[u8]) {
        let seen: Vec<u8> =
            wire.iter().flat_map(|byte| reframe.feed(&[*byte]).into_owned()).collect();
        assert_eq!(seen, expect, "{reframe:?}");
    }

    #[test]
    fn frames_are_opened_across_chunks() {
        check(Reframe::websocket(false), WIRE, b"hi!");
        check(Reframe::websocket(true), b"\x01x", b"\x01x");
        check(Reframe::exec(false, true), WIRE, b"hi");
    }

    #[test]
    fn a_terminals_output_becomes_frames_of_stdout() {
        check(Reframe::exec(true, false), b"a", b"\x01\0\0\0\0\0\0\x01a");
        check(Reframe::exec(true, true), b"a", b"a");
        check(Reframe::exec(false, false), WIRE, WIRE);
    }
}
