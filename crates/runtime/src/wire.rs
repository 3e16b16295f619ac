//! Packets of the supervisor's socket, for both ends. The layout is drawn in [`crate::protocol`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;

use crate::protocol::INLINE_MAX;

/// A message in a memory file may be this long: a spec with a large environment and many mounts
/// stays far below.
const MESSAGE_MAX: usize = 64 << 20;
const LENGTH: usize = size_of::<u32>();

/// A message ready to be sent, with its descriptors.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Packet {
    pub(crate) fn new(message: &impl Serialize, mut fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut bytes = vec![0; LENGTH];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - LENGTH;
        if length <= INLINE_MAX {
            bytes[..LENGTH].copy_from_slice(&(length as u32).to_le_bytes());
        } else {
            fds.insert(0, sys::socket::sealed_memory(&bytes[LENGTH..])?);
            bytes.truncate(LENGTH);
        }
        Ok(Self { bytes, fds })
    }

    /// Sends it whole; `WouldBlock` when the peer does not keep up.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        sys::socket::send(socket, &self.bytes, &fds)
    }
}

/// Receives the JSON of one message and its descriptors; `None` at the end of the connection.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = Vec::new();
    let Some(mut fds) = sys::socket::receive(socket, &mut bytes, LENGTH + INLINE_MAX)? else {
        return Ok(None);
    };
    let (length, json) = bytes.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length != json.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if length > 0 {
        bytes.drain(..LENGTH);
        return Ok(Some((bytes, fds)));
    }
    if fds.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let memory = fds.remove(0);
    Ok(Some((sys::socket::read_sealed(memory, MESSAGE_MAX)?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) {
        let (left, right) = sys::socket::seqpacket_pair().unwrap();
        let (extra, _) = sys::socket::stream_pair().unwrap();
        Packet::new(&text, vec![extra]).unwrap().send(&left).unwrap();
        let (json, fds) = receive(&right).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn messages_of_any_length_arrive() {
        check("");
        check("short");
        check(&"x".repeat(INLINE_MAX - 2));
        check(&"x".repeat(INLINE_MAX - 1));
        check(&"y".repeat(3 << 20));
    }
}
