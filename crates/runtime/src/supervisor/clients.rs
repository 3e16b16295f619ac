//! Connections from daemons. One daemon is served at a time: the last that said hello. Whoever
//! connects must run as our own user or as root.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::poll::{Poller, Source};
use crate::protocol::{Event, Failure, FromSupervisor, Reply};
use crate::wire::{self, Packet};

/// Connections that have not said hello yet, beside the daemon's.
const STRANGERS_MAX: usize = 8;
/// A daemon that lets this many messages wait is stuck. It reads exits from the log later.
const QUEUE_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    queue: VecDeque<Packet>,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    all: HashMap<u32, Client>,
    daemon: Option<u32>,
    last_key: u32,
}

impl Clients {
    pub(super) fn accept(&mut self, listener: &OwnedFd, poller: &mut Poller) -> io::Result<()> {
        let socket = sys::socket::accept(listener)?;
        let uid = sys::socket::peer_uid(&socket)?;
        let known = uid == 0 || uid == rustix::process::geteuid().as_raw();
        if known && self.all.len() <= STRANGERS_MAX {
            self.insert(socket, poller);
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, socket: OwnedFd, poller: &mut Poller) -> u32 {
        self.last_key = self.last_key.wrapping_add(1);
        poller.watch(&socket, Source::Client(self.last_key), EventFlags::IN);
        self.all.insert(self.last_key, Client { socket, queue: VecDeque::new() });
        self.last_key
    }

    /// Makes this connection the daemon's; the one before is closed.
    pub(super) fn greet(&mut self, key: u32, poller: &mut Poller) {
        if let Some(before) = self.daemon.replace(key).filter(|before| *before != key) {
            self.drop_client(before, poller);
        }
    }

    pub(super) fn is_daemon(&self, key: u32) -> bool {
        self.daemon == Some(key)
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.all.values().any(|client| !client.queue.is_empty())
    }

    pub(super) fn daemon_socket(&self) -> Option<&OwnedFd> {
        self.all.get(&self.daemon?).map(|client| &client.socket)
    }

    /// One message's JSON and descriptors, if there is one. A connection that ended or broke is closed.
    pub(super) fn receive(
        &mut self,
        key: u32,
        poller: &mut Poller,
    ) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let client = self.all.get(&key)?;
        match wire::receive(&client.socket) {
            Ok(Some(message)) => return Some(message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(None) => {}
            Err(error) => super::note(format_args!("read a request: {error}")),
        }
        self.drop_client(key, poller);
        None
    }

    pub(super) fn reply(
        &mut self,
        key: u32,
        sequence: u64,
        result: Result<(Reply, Vec<OwnedFd>), Failure>,
        poller: &mut Poller,
    ) {
        let (result, fds) = match result {
            Ok((reply, fds)) => (Ok(reply), fds),
            Err(failure) => (Err(failure), Vec::new()),
        };
        self.send(key, &FromSupervisor::Reply { sequence, result }, fds, poller);
    }

    /// Tells the daemon, if there is one.
    pub(super) fn tell(&mut self, event: Event, poller: &mut Poller) {
        if let Some(key) = self.daemon {
            self.send(key, &FromSupervisor::Event(event), Vec::new(), poller);
        }
    }

    fn send(&mut self, key: u32, message: &FromSupervisor, fds: Vec<OwnedFd>, poller: &mut Poller) {
        let Some(client) = self.all.get_mut(&key) else { return };
        match Packet::new(message, fds) {
            Ok(packet) => client.queue.push_back(packet),
            Err(error) => super::note(format_args!("encode a message: {error}")),
        }
        self.flush(key, poller);
    }

    /// Sends what waits, as far as the daemon takes it.
    pub(super) fn flush(&mut self, key: u32, poller: &mut Poller) {
        let Some(client) = self.all.get_mut(&key) else { return };
        let mut events = EventFlags::IN;
        let mut broken = client.queue.len() > QUEUE_MAX;
        while let Some(packet) = client.queue.front() {
            match packet.send(&client.socket) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    events |= EventFlags::OUT;
                    break;
                }
                Err(_closed) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            self.drop_client(key, poller);
        } else {
            poller.watch(&client.socket, Source::Client(key), events);
        }
    }

    pub(super) fn drop_client(&mut self, key: u32, poller: &mut Poller) {
        if let Some(client) = self.all.remove(&key) {
            poller.forget(&client.socket);
        }
        if self.daemon == Some(key) {
            self.daemon = None;
        }
    }
}
