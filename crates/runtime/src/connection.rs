//! The daemon's end of the supervisor's socket: packets in and out, with descriptors.
//!
//! Nothing here blocks after [`Connection::connect`], and nothing depends on an async runtime:
//! the daemon waits on the descriptor ([`AsFd`]) in whatever way it likes and calls
//! [`Connection::recv`] until it says `WouldBlock`. Both calls take `&self` and may be used from
//! two tasks.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::protocol::{Envelope, FromSupervisor};
use crate::supervisor::{Config, DETACH_VARIABLE, READY};
use crate::wire::{self, Packet};

/// A connection to the supervisor. The first message to send is `Request::Hello`.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Connects to the socket at `path` (see [`socket_path`]).
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: sys::socket::connect(path)? })
    }

    /// Sends one request. `WouldBlock` when the supervisor does not keep up.
    pub fn send(&self, message: &Envelope, fds: Vec<OwnedFd>) -> io::Result<()> {
        Packet::new(message, fds)?.send(&self.socket)
    }

    /// Receives one message with its descriptors: `None` when the supervisor is gone,
    /// `WouldBlock` when there is no message now.
    pub fn recv(&self) -> io::Result<Option<(FromSupervisor, Vec<OwnedFd>)>> {
        let Some((json, fds)) = wire::receive(&self.socket)? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&json)?, fds)))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where the supervisor of an exec-root listens.
pub fn socket_path(exec_root: &Path) -> PathBuf {
    exec_root.join("supervisor.sock")
}

/// Starts a supervisor that outlives the caller: `exe supervisor --exec-root .. --exits-log ..`,
/// which must call [`crate::supervisor::run`] before it has a thread. Returns when it accepts
/// connections.
///
/// The process started here forks the real supervisor and exits, and is reaped here. The
/// supervisor is thus a child of the machine's init (or of the nearest subreaper), which reaps
/// it; it is in a session of its own, out of reach of the caller's terminal and process group.
/// Blocks for some milliseconds: not for an async task.
pub fn spawn_detached(exe: &Path, config: &Config) -> io::Result<()> {
    let mut directory = std::fs::DirBuilder::new();
    directory.recursive(true).mode(0o700).create(&config.exec_root)?;
    let log_path = config.exec_root.join("supervisor.log");
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path)?;
    let mut first = Command::new(exe)
        .arg("supervisor")
        .arg("--exec-root")
        .arg(&config.exec_root)
        .arg("--exits-log")
        .arg(&config.exits_log)
        .env(DETACH_VARIABLE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let stdout = first.stdout.take();
    first.wait()?;
    let mut answer = String::new();
    if let Some(stdout) = stdout {
        BufReader::new(stdout).read_line(&mut answer)?;
    }
    if answer == READY {
        Ok(())
    } else {
        Err(io::Error::other(format!("the supervisor did not start, see {}", log_path.display())))
    }
}
