//! One attached client: a stream socket, of which the daemon has the other end.
//!
//! Output is written to it at once; what it does not take waits in a backlog. A full backlog
//! makes [`super::streams`] stop reading the container (no byte is ever dropped); a client that
//! is gone is forgotten at once.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown};

use crate::log::Stream;
use crate::protocol::AttachOptions;

/// A client that is this far behind holds the container up.
pub(super) const BACKLOG_FULL: usize = 1 << 20;
const HEADER: usize = 8;

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) number: u32,
    pub(super) socket: OwnedFd,
    pub(super) options: AttachOptions,
    backlog: VecDeque<u8>,
    /// The client may still send to the container's stdin.
    pub(super) sends: bool,
    /// The client does not read any more.
    pub(super) gone: bool,
    /// Close when the backlog is written.
    pub(super) ending: bool,
}

impl Subscriber {
    /// `socket` is our end of the pair that the daemon made.
    pub(super) fn new(
        number: u32,
        socket: OwnedFd,
        options: AttachOptions,
        backlog: VecDeque<u8>,
    ) -> Self {
        let sends = options.stdin;
        Self { number, socket, options, backlog, sends, gone: false, ending: false }
    }

    pub(super) fn wants(&self, stream: Stream) -> bool {
        !self.gone
            && match stream {
                Stream::Stdout => self.options.stdout,
                Stream::Stderr => self.options.stderr,
            }
    }

    pub(super) fn backlog(&self) -> &VecDeque<u8> {
        &self.backlog
    }

    /// What epoll must tell about it. `stdin_open` is whether stdin takes more just now. `None`
    /// when there is nothing to hear: its hang-up is known and its input has to wait.
    pub(super) fn interest(&self, stdin_open: bool) -> Option<EventFlags> {
        let mut events = EventFlags::empty();
        if self.sends && stdin_open {
            events |= EventFlags::IN | EventFlags::RDHUP;
        }
        if !self.backlog.is_empty() {
            events |= EventFlags::OUT;
        }
        (!self.gone || !events.is_empty()).then_some(events)
    }

    /// Nothing is left to do for it.
    pub(super) fn is_done(&self) -> bool {
        (self.gone && !self.sends) || (self.ending && self.backlog.is_empty())
    }

    /// Hands it a piece of output, with a stdcopy header unless it is raw.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8], raw: bool) {
        let header = header(stream, bytes.len());
        let header = if raw { &[][..] } else { &header[..] };
        let mut sent = 0;
        if self.backlog.is_empty() {
            sent = self.send(&[IoSlice::new(header), IoSlice::new(bytes)]);
        }
        if !self.gone {
            let of_header = sent.min(header.len());
            self.backlog.extend(&header[of_header..]);
            self.backlog.extend(&bytes[sent - of_header..]);
        }
    }

    /// Writes what waits, as far as it goes.
    pub(super) fn flush(&mut self) {
        let (head, tail) = self.backlog.as_slices();
        let parts = [IoSlice::new(head), IoSlice::new(tail)];
        match send(&self.socket, &parts) {
            Some(sent) => drop(self.backlog.drain(..sent)),
            None => self.lose(),
        }
        if self.backlog.is_empty() {
            self.backlog = VecDeque::new();
        }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> usize {
        send(&self.socket, parts).unwrap_or_else(|| {
            self.lose();
            0
        })
    }

    /// The client's end is closed.
    pub(super) fn lose(&mut self) {
        self.gone = true;
        self.backlog = VecDeque::new();
    }

    /// Reads input: `None` when there is none now, 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {}
            Ok((read, _)) => return Some(read),
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_reset) => {}
        }
        self.sends = false;
        Some(0)
    }

    /// Ends the stream so that the client reads everything and then its end. Input that nobody
    /// read would turn that end into ECONNRESET, so it is read away.
    pub(super) fn close(self) {
        if shutdown(&self.socket, Shutdown::Both).is_err() {
            return;
        }
        let mut input = [0; 4096];
        while matches!(recv(&self.socket, &mut input, RecvFlags::DONTWAIT), Ok((1.., _))) {}
    }
}

/// How much the socket took; `None` when the other end is closed.
fn send(socket: impl AsFd, parts: &[IoSlice<'_>]) -> Option<usize> {
    let mut space: [MaybeUninit<u8>; 0] = [];
    let mut control = SendAncillaryBuffer::new(&mut space);
    match sendmsg(socket, parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Some(sent),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_closed) => None,
    }
}

/// Docker's frame header: stream, three zero bytes, length.
fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_slow_client_gets_every_byte_and_then_the_end() {
        let options = AttachOptions { stdin: true, stdout: true, stderr: false };
        let (ours, theirs) = sys::socket::stream_pair().unwrap();
        let mut subscriber = Subscriber::new(1, ours, options, VecDeque::new());
        let mut client = UnixStream::from(theirs);
        let piece = vec![b'x'; 100_000];
        for _ in 0..20 {
            subscriber.push(Stream::Stdout, &piece, false);
        }
        assert!(subscriber.backlog().len() > BACKLOG_FULL);
        std::io::Write::write_all(&mut client, b"unread input").unwrap();
        let mut received = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while !subscriber.backlog().is_empty() {
            let read = client.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..read]);
            subscriber.flush();
        }
        subscriber.close();
        client.read_to_end(&mut received).unwrap();
        let frame = [&[1, 0, 0, 0, 0, 1, 0x86, 0xa0], piece.as_slice()].concat();
        assert!(received == frame.repeat(20));
    }

    #[test]
    fn a_vanished_client_costs_nothing() {
        let options = AttachOptions { stdout: true, ..AttachOptions::default() };
        let (ours, theirs) = sys::socket::stream_pair().unwrap();
        let mut subscriber = Subscriber::new(1, ours, options, VecDeque::new());
        drop(theirs);
        subscriber.push(Stream::Stdout, b"x", true);
        assert!(subscriber.gone && subscriber.is_done() && subscriber.backlog().is_empty());
    }
}
