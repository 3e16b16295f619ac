//! A process's stdio: reads what it says, logs it, hands copies to the attached clients, and
//! feeds it what they send.
//!
//! Order of things: output is logged before any client sees it. A client that does not keep up
//! stops the reading, and with it, in the end, the container; nothing is dropped. When the
//! process has ended, everything it left in the pipes is read regardless of slow clients (the
//! pipes bound it), so that the log is whole before the exit is told; the clients then drain
//! their backlogs at their own pace.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::poll::{Part, Poller, SUBSCRIBER_MAX, Source};
use super::recorder::Recorder;
use super::subscriber::{BACKLOG_FULL, Subscriber};
use crate::log::{Stream, Unfinished};
use crate::protocol::AttachOptions;

/// The size of one read, and the size of a fresh pipe.
pub(super) const CHUNK: usize = 64 << 10;
/// The size of a pipe whose container was seen filling it. A larger pipe costs 40 bytes of kernel
/// memory per page even when empty, so quiet containers keep the small one.
const BUSY_PIPE: usize = 1 << 20;

/// What every operation on a run's streams needs of the supervisor.
#[derive(Debug)]
pub(super) struct Io<'a> {
    pub(super) poller: &'a mut Poller,
    /// The run's key.
    pub(super) key: u32,
    /// One read's worth of bytes.
    pub(super) buffer: &'a mut [u8],
    pub(super) scratch: &'a mut Vec<u8>,
}

impl Io<'_> {
    fn watch(&mut self, fd: impl AsFd, part: Part, events: EventFlags) {
        self.poller.watch(fd, Source::Run(self.key, part), events);
    }
}

/// The supervisor's ends of a process's stdio.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// For a tty a second descriptor of the master.
    pub(super) stdin: Option<OwnedFd>,
    /// The master of a tty.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) ends: Ends,
    pub(super) tty: bool,
    /// The first client that ends its input ends the process's.
    stdin_once: bool,
    /// Input that the process has not taken yet; clients are not read meanwhile.
    stdin_backlog: VecDeque<u8>,
    close_stdin_after_backlog: bool,
    log: Option<Recorder>,
    subscribers: Vec<Subscriber>,
    next_subscriber: u32,
    /// A client's backlog is full; output is not read.
    held_up: bool,
    busy: bool,
    finished: bool,
}

/// A run's bytes that are in no pipe and no file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Carry {
    unfinished: Unfinished,
    stdin_backlog: Vec<u8>,
    close_stdin: bool,
}

impl Streams {
    pub(super) fn new(tty: bool, stdin_once: bool, log: Option<Recorder>) -> Self {
        Self {
            ends: Ends::default(),
            tty,
            stdin_once,
            stdin_backlog: VecDeque::new(),
            close_stdin_after_backlog: false,
            log,
            subscribers: Vec::new(),
            next_subscriber: 0,
            held_up: false,
            busy: false,
            finished: false,
        }
    }

    /// Takes the ends and begins to read.
    pub(super) fn open(&mut self, ends: Ends, io: &mut Io<'_>) {
        self.ends = ends;
        self.watch_outputs(io);
        self.flush_stdin(io);
        self.settle(io);
    }

    pub(super) fn has_output(&self) -> bool {
        self.ends.stdout.is_some() || self.ends.stderr.is_some()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Nothing is left to read or to deliver.
    pub(super) fn is_done(&self) -> bool {
        !self.has_output() && self.subscribers.is_empty()
    }

    /// Adds a client, with what an earlier program had for it. Its input is forwarded from
    /// [`Self::watch_clients`] on.
    pub(super) fn attach(&mut self, socket: OwnedFd, options: AttachOptions, backlog: Vec<u8>) {
        let number = self.number();
        self.subscribers.push(Subscriber::new(number, socket, options, backlog.into()));
    }

    pub(super) fn watch_clients(&mut self, io: &mut Io<'_>) {
        self.settle(io);
    }

    /// The process never ran: its clients read the end at once.
    pub(super) fn abandon(&mut self, io: &mut Io<'_>) {
        self.log = None;
        self.finish(io);
        for subscriber in self.subscribers.drain(..) {
            io.poller.forget(&subscriber.socket);
            subscriber.close();
        }
    }

    fn number(&mut self) -> u32 {
        self.next_subscriber = (self.next_subscriber + 1) & SUBSCRIBER_MAX;
        self.next_subscriber
    }

    /// Output is there, or its end.
    pub(super) fn on_output(&mut self, stream: Stream, io: &mut Io<'_>) {
        if !self.held_up {
            self.read_output(stream, io);
            self.settle(io);
        }
    }

    /// Reads what the process left behind, without waiting for anybody.
    pub(super) fn drain(&mut self, io: &mut Io<'_>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read_output(stream, io) {}
        }
        self.settle(io);
    }

    /// Ends everything: logs an unfinished line, closes stdin, lets the clients read to the end.
    pub(super) fn finish(&mut self, io: &mut Io<'_>) {
        self.close_output(Stream::Stdout, io);
        self.close_output(Stream::Stderr, io);
        self.stdin_backlog.clear();
        self.close_stdin(io);
        let finished = std::mem::replace(&mut self.finished, true);
        if let Some(log) = self.log.as_mut().filter(|_| !finished) {
            log.finish(io.scratch);
        }
        for subscriber in &mut self.subscribers {
            subscriber.ending = true;
            subscriber.sends = false;
        }
        self.settle(io);
    }

    /// A client can be written to, or has sent something, or is gone.
    pub(super) fn on_subscriber(&mut self, number: u32, events: EventFlags, io: &mut Io<'_>) {
        let found = self.subscribers.iter().position(|client| client.number == number);
        let Some(index) = found else { return };
        let subscriber = &mut self.subscribers[index];
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            subscriber.lose();
        }
        if events.contains(EventFlags::OUT) {
            subscriber.flush();
        }
        if subscriber.sends && self.stdin_backlog.is_empty() {
            self.read_input(index, io);
        }
        self.settle(io);
    }

    /// The process takes more input.
    pub(super) fn on_stdin(&mut self, events: EventFlags, io: &mut Io<'_>) {
        if events.contains(EventFlags::ERR) {
            self.stdin_backlog.clear();
            self.drop_stdin(io);
        }
        self.flush_stdin(io);
        self.settle(io);
    }

    /// Ends the process's input, once it has taken what is on its way.
    pub(super) fn close_stdin(&mut self, io: &mut Io<'_>) {
        if self.stdin_backlog.is_empty() {
            self.drop_stdin(io);
        } else {
            self.close_stdin_after_backlog = true;
        }
    }

    pub(super) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Recorder::reopen)
    }

    /// What only this process knows, for the program that takes over.
    pub(super) fn carry(&self) -> Carry {
        Carry {
            unfinished: self.log.as_ref().map(Recorder::unfinished).unwrap_or_default(),
            stdin_backlog: self.stdin_backlog.iter().copied().collect(),
            close_stdin: self.close_stdin_after_backlog,
        }
    }

    /// Call before [`Self::open`].
    pub(super) fn take_carry(&mut self, carry: Carry) {
        if let Some(log) = &mut self.log {
            log.resume(carry.unfinished);
        }
        self.stdin_backlog = carry.stdin_backlog.into();
        self.close_stdin_after_backlog = carry.close_stdin;
    }

    pub(super) fn subscribers(&self) -> impl Iterator<Item = &Subscriber> {
        self.subscribers.iter().filter(|subscriber| !subscriber.gone)
    }

    /// Reads one chunk; false when there is no more for now.
    fn read_output(&mut self, stream: Stream, io: &mut Io<'_>) -> bool {
        let end = match stream {
            Stream::Stdout => &self.ends.stdout,
            Stream::Stderr => &self.ends.stderr,
        };
        let Some(end) = end else { return false };
        let read = match &mut self.log {
            Some(log) => log.read(stream, end, io.buffer, io.scratch),
            None => rustix::io::read(end, &mut *io.buffer),
        };
        let read = match read {
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            // A pty whose last user is gone says EIO.
            Ok(0) | Err(_) => {
                self.close_output(stream, io);
                return false;
            }
            Ok(read) => read,
        };
        if read == CHUNK {
            self.grow_pipes();
        }
        let chunk = &io.buffer[..read];
        for subscriber in &mut self.subscribers {
            if subscriber.wants(stream) {
                subscriber.push(stream, chunk, self.tty);
            }
        }
        true
    }

    fn close_output(&mut self, stream: Stream, io: &mut Io<'_>) {
        let end = match stream {
            Stream::Stdout => &mut self.ends.stdout,
            Stream::Stderr => &mut self.ends.stderr,
        };
        if let Some(end) = end.take() {
            io.poller.forget(end);
        }
    }

    /// Fewer, larger reads for a process that fills its pipe. Refused when the user's pipe quota
    /// is used up, which costs only speed.
    fn grow_pipes(&mut self) {
        if !std::mem::replace(&mut self.busy, true) && !self.tty {
            for end in [&self.ends.stdout, &self.ends.stderr].into_iter().flatten() {
                rustix::pipe::fcntl_setpipe_size(end, BUSY_PIPE).unwrap_or_default();
            }
        }
    }

    /// Forwards one piece of a client's input.
    fn read_input(&mut self, index: usize, io: &mut Io<'_>) {
        let subscriber = &mut self.subscribers[index];
        match subscriber.read(io.buffer) {
            None => {}
            Some(0) if self.stdin_once && !self.tty => self.close_stdin(io),
            // dockerd ends the whole attachment when the input ends and stdin stays open.
            Some(0) => subscriber.ending = true,
            Some(read) if self.ends.stdin.is_some() => {
                self.stdin_backlog.extend(&io.buffer[..read]);
                self.flush_stdin(io);
            }
            Some(_for_a_closed_stdin) => {}
        }
    }

    fn flush_stdin(&mut self, io: &mut Io<'_>) {
        while let (Some(stdin), false) = (&self.ends.stdin, self.stdin_backlog.is_empty()) {
            match rustix::io::write(stdin, self.stdin_backlog.as_slices().0) {
                Ok(written) => drop(self.stdin_backlog.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    io.watch(stdin, Part::Stdin, EventFlags::OUT);
                    return;
                }
                Err(_nobody_reads) => {
                    self.stdin_backlog.clear();
                    self.drop_stdin(io);
                }
            }
        }
        self.stdin_backlog = VecDeque::new();
        if let Some(stdin) = &self.ends.stdin {
            io.poller.forget(stdin);
        }
        if self.close_stdin_after_backlog {
            self.drop_stdin(io);
        }
    }

    fn drop_stdin(&mut self, io: &mut Io<'_>) {
        if let Some(stdin) = self.ends.stdin.take() {
            io.poller.forget(stdin);
        }
    }

    /// Brings epoll's picture in line with ours, after any change.
    fn settle(&mut self, io: &mut Io<'_>) {
        let mut index = 0;
        while index < self.subscribers.len() {
            if self.subscribers[index].is_done() {
                let done = self.subscribers.swap_remove(index);
                io.poller.forget(&done.socket);
                done.close();
            } else {
                index += 1;
            }
        }
        let limit = if self.held_up { BACKLOG_FULL / 2 } else { BACKLOG_FULL };
        let held_up = self.subscribers.iter().any(|client| client.backlog().len() >= limit);
        if held_up != self.held_up {
            self.held_up = held_up;
            self.watch_outputs(io);
        }
        self.watch_subscribers(io);
    }

    fn watch_outputs(&self, io: &mut Io<'_>) {
        let outputs = [(Stream::Stdout, &self.ends.stdout), (Stream::Stderr, &self.ends.stderr)];
        for (stream, end) in outputs {
            match end {
                // Not with an empty set: epoll would go on telling of a hang-up.
                Some(end) if self.held_up => io.poller.forget(end),
                Some(end) => io.watch(end, Part::Output(stream), EventFlags::IN),
                None => {}
            }
        }
    }

    fn watch_subscribers(&self, io: &mut Io<'_>) {
        let stdin_open = self.stdin_backlog.is_empty();
        for subscriber in &self.subscribers {
            match subscriber.interest(stdin_open) {
                Some(events) => {
                    io.watch(&subscriber.socket, Part::Subscriber(subscriber.number), events);
                }
                None => io.poller.forget(&subscriber.socket),
            }
        }
    }
}
