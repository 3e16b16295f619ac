//! What the one thread waits for: an epoll whose events name their source.
//!
//! A source is a number, never a pointer: keys are not used twice, so an event that was already
//! fetched when its source went away finds nobody and is dropped. Descriptors are always taken
//! out before they are closed, because a child between clone and exec may hold a copy, and epoll
//! goes on reporting what any copy keeps open.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::log::Stream;

/// Who an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Children,
    Client(u32),
    Run(u32, Part),
}

/// One descriptor of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Process,
    Reports,
    Output(Stream),
    Stdin,
    Oom,
    /// Where an OCI runtime sends a terminal.
    Console,
    Subscriber(u32),
}

/// Bits for a subscriber's number; a container does not get that many clients at a time.
const SUBSCRIBER_BITS: u32 = 24;
pub(super) const SUBSCRIBER_MAX: u32 = (1 << SUBSCRIBER_BITS) - 1;

impl Source {
    fn encode(self) -> u64 {
        let (key, kind, number) = match self {
            Self::Listener => (0, 0, 0),
            Self::Client(key) => (key, 1, 0),
            Self::Run(key, Part::Process) => (key, 2, 0),
            Self::Run(key, Part::Reports) => (key, 3, 0),
            Self::Run(key, Part::Output(Stream::Stdout)) => (key, 4, 0),
            Self::Run(key, Part::Output(Stream::Stderr)) => (key, 5, 0),
            Self::Run(key, Part::Stdin) => (key, 6, 0),
            Self::Run(key, Part::Oom) => (key, 7, 0),
            Self::Run(key, Part::Subscriber(number)) => (key, 8, number),
            Self::Run(key, Part::Console) => (key, 9, 0),
            Self::Children => (0, 10, 0),
        };
        u64::from(key) << 32 | u64::from(number & SUBSCRIBER_MAX) << 8 | kind
    }

    fn decode(data: u64) -> Self {
        let key = (data >> 32) as u32;
        let number = (data >> 8) as u32 & SUBSCRIBER_MAX;
        match data as u8 {
            0 => Self::Listener,
            1 => Self::Client(key),
            2 => Self::Run(key, Part::Process),
            3 => Self::Run(key, Part::Reports),
            4 => Self::Run(key, Part::Output(Stream::Stdout)),
            5 => Self::Run(key, Part::Output(Stream::Stderr)),
            6 => Self::Run(key, Part::Stdin),
            7 => Self::Run(key, Part::Oom),
            8 => Self::Run(key, Part::Subscriber(number)),
            9 => Self::Run(key, Part::Console),
            _ => Self::Children,
        }
    }
}

/// The epoll and what each descriptor in it is watched for.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    watched: HashMap<i32, EventFlags>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, watched: HashMap::new() })
    }

    /// Watches `fd` for `events`, whether or not it was watched before. Errors and hang-ups are
    /// always reported.
    pub(super) fn watch(&mut self, fd: impl AsFd, source: Source, events: EventFlags) {
        let fd = fd.as_fd();
        let data = EventData::new_u64(source.encode());
        let before = self.watched.insert(fd.as_raw_fd(), events);
        let done = match before {
            Some(same) if same == events => Ok(()),
            Some(_) => epoll::modify(&self.epoll, fd, data, events),
            None => epoll::add(&self.epoll, fd, data, events),
        };
        if let Err(errno) = done {
            self.watched.remove(&fd.as_raw_fd());
            super::note(format_args!("watch {source:?}: {errno}"));
        }
    }

    /// Stops watching; call before `fd` is closed.
    pub(super) fn forget(&mut self, fd: impl AsFd) {
        let fd = fd.as_fd();
        if self.watched.remove(&fd.as_raw_fd()).is_some()
            && let Err(errno) = epoll::delete(&self.epoll, fd)
        {
            super::note(format_args!("stop watching descriptor {}: {errno}", fd.as_raw_fd()));
        }
    }

    /// Waits for events, or a signal, and puts them into `ready`.
    pub(super) fn wait(
        &self,
        ready: &mut Vec<(Source, EventFlags)>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        ready.clear();
        let mut events: Vec<Event> = Vec::with_capacity(256);
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        ready.extend(events.iter().map(|event| {
            let Event { data, flags } = *event;
            (Source::decode(data.u64()), flags)
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for source in [
            Source::Listener,
            Source::Children,
            Source::Client(7),
            Source::Run(u32::MAX, Part::Process),
            Source::Run(1, Part::Reports),
            Source::Run(1, Part::Output(Stream::Stdout)),
            Source::Run(1, Part::Output(Stream::Stderr)),
            Source::Run(1, Part::Stdin),
            Source::Run(1, Part::Oom),
            Source::Run(1, Part::Console),
            Source::Run(1, Part::Subscriber(SUBSCRIBER_MAX)),
        ] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }
}
