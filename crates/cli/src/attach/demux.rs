//! Multiplexed output taken apart: frames of stdout and stderr become our stdout and stderr.

use std::io;

use api_types::stream::{HEADER_LEN, StreamKind, parse_header};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::failure::{Failure, Outcome};
use crate::terminal::Sink;

/// Large enough that a busy container costs one read for many frames.
const BUFFER: usize = 256 * 1024;

/// Copies a container's output until it ends; a terminal's is not multiplexed.
pub(crate) async fn copy_output(reader: impl AsyncRead + Unpin, tty: bool) -> Outcome<()> {
    if tty {
        super::copy_raw(reader).await?;
        return Ok(());
    }
    let mut demux = Demux::default();
    let mut reader = reader;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        demux.feed(&buffer[..count]).await?;
    }
}

/// Takes a stream in pieces of any size; frames and headers may be cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    header: Vec<u8>,
    frame: Option<(StreamKind, usize)>,
    /// An error text of the daemon's, which ends the stream.
    system: Vec<u8>,
}

impl Demux {
    /// Passes on what `bytes` bring. Neighbouring frames of one stream become one write: programs
    /// write line by line, and a system call for each would be the cost of the whole copy.
    pub(crate) async fn feed(&mut self, bytes: &[u8]) -> Outcome<()> {
        let mut rest = bytes;
        let mut together: (Sink, Vec<u8>) = (Sink::Stdout, Vec::new());
        while let Some((kind, piece)) = self.next(&mut rest)? {
            let sink = match kind {
                StreamKind::Stdin | StreamKind::Stdout => Sink::Stdout,
                StreamKind::Stderr => Sink::Stderr,
                StreamKind::System => {
                    self.system.extend_from_slice(piece);
                    continue;
                }
            };
            if sink != together.0 {
                together.0.write_all(&together.1).await?;
                together = (sink, Vec::new());
            }
            together.1.extend_from_slice(piece);
        }
        together.0.write_all(&together.1).await?;
        if self.system.is_empty() || self.frame.is_some() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.system);
        Err(Failure::new(format!("error from daemon in stream: {text}")))
    }

    /// Takes the next piece of a frame off `rest`.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> io::Result<Option<(StreamKind, &'a [u8])>> {
        while !rest.is_empty() {
            if let Some((kind, left)) = self.frame {
                let (piece, after) = rest.split_at(left.min(rest.len()));
                *rest = after;
                self.frame = (left > piece.len()).then(|| (kind, left - piece.len()));
                return Ok(Some((kind, piece)));
            }
            let (start, after) = rest.split_at((HEADER_LEN - self.header.len()).min(rest.len()));
            self.header.extend_from_slice(start);
            *rest = after;
            if let Ok(header) = <[u8; HEADER_LEN]>::try_from(self.header.as_slice()) {
                self.header.clear();
                let (kind, length) = parse_header(header).ok_or_else(|| {
                    io::Error::other(format!("unrecognized stream: {}", header[0]))
                })?;
                self.frame = (length > 0).then_some((kind, length as usize));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `size` and shows which stream got what.
    fn split(bytes: &[u8], size: usize) -> String {
        let mut demux = Demux::default();
        let mut out = String::new();
        let mut last = None;
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            while let Some((kind, text)) = demux.next(&mut rest).unwrap() {
                if last != Some(kind) {
                    out.push_str(&format!("[{kind:?}]"));
                    last = Some(kind);
                }
                out.push_str(std::str::from_utf8(text).unwrap());
            }
        }
        out
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(b"abc");
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend(b"de");
        for size in 1..=bytes.len() {
            assert_eq!(split(&bytes, size), "[Stdout]abc[Stderr]de", "{size}");
        }
    }

    #[test]
    fn unknown_streams_are_refused() {
        let mut rest: &[u8] = &[9, 0, 0, 0, 0, 0, 0, 1, 0];
        assert!(Demux::default().next(&mut rest).is_err());
    }
}
