//! The terminal we run in, and our own standard streams as asynchronous ones.
//!
//! Standard streams are shared with the shell, so they are never made non-blocking. Instead a
//! stream is asked (poll) whether it is ready, and then given no more than it surely takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::failure::{Failure, Outcome};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

/// What a pipe or terminal that polls as writable takes without blocking.
const SURE_WRITE: usize = 4096;

pub(crate) fn stdin_is_terminal() -> bool {
    isatty(rustix::stdio::stdin())
}

pub(crate) fn stdout_is_terminal() -> bool {
    isatty(rustix::stdio::stdout())
}

pub(crate) fn stderr_is_terminal() -> bool {
    isatty(rustix::stdio::stderr())
}

/// Rows and columns of the terminal on stdout; zeros when it is not one.
pub(crate) fn size() -> (u16, u16) {
    tcgetwinsize(rustix::stdio::stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Raw mode on stdin, undone when dropped: on every way out, unwinding included.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode; `None` when stdin is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody left to tell when this fails: the terminal is gone.
        let _terminal_gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct NoEcho(RawMode);

impl NoEcho {
    fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self(RawMode { before }))
    }
}

impl std::fmt::Debug for NoEcho {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NoEcho").field(&self.0).finish()
    }
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawMode")
    }
}

/// Our stdin. Only waiting happens on a thread, never reading: a read that is abandoned when the
/// session ends would steal input from whoever has the terminal next.
#[derive(Debug)]
pub(crate) struct Stdin;

impl Stdin {
    /// Reads what there is; 0 at the end.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !is_ready(&rustix::stdio::stdin(), PollFlags::IN)? {
            wait(rustix::stdio::stdin(), PollFlags::IN).await?;
        }
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut *buffer) {
                Err(rustix::io::Errno::INTR) => {}
                // A terminal that hung up reads as EIO: the end.
                Err(rustix::io::Errno::IO) => return Ok(0),
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Reads a line that a person types, without its end. A signal that would end us is a failure
/// instead: whoever changed the terminal is to change it back.
pub(crate) async fn read_line() -> Outcome<String> {
    read_line_with(|| ()).await
}

/// The same, of what nobody else is to see.
pub(crate) async fn read_secret() -> Outcome<String> {
    read_line_with(NoEcho::enter).await
}

async fn read_line_with<M>(change: impl FnOnce() -> M) -> Outcome<String> {
    let line = async {
        // Signals are caught by now, as those are polled first: nothing ends us before this is
        // taken back.
        let _changed = change();
        let mut line = Vec::new();
        let mut byte = [0];
        // One at a time: what follows is somebody else's.
        while Stdin.read(&mut byte).await? > 0 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    };
    tokio::select! {
        biased;
        code = crate::attach::fatal(true) => Err(Failure::Silent(code)),
        line = line => line,
    }
}

/// Resolves when stdout is a pipe that nobody reads any more; never otherwise. Who only waits for
/// more to print would not notice by printing.
pub(crate) async fn reader_gone() {
    let is_pipe = rustix::fs::fstat(rustix::stdio::stdout())
        .is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode).is_fifo());
    if !is_pipe || wait(rustix::stdio::stdout(), PollFlags::empty()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The slow path: a thread of the runtime's pool waits in poll, since a descriptor that is not ours
/// alone can be neither made non-blocking nor (when it is a file) registered.
async fn wait(fd: BorrowedFd<'static>, flags: PollFlags) -> io::Result<()> {
    let wait = move || loop {
        match poll(&mut [PollFd::new(&fd, flags)], None) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.map(|_count| ()).map_err(io::Error::from),
        }
    };
    tokio::task::spawn_blocking(wait).await.map_err(io::Error::other)?
}

fn is_ready(fd: &impl AsFd, flags: PollFlags) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::new(fd, flags)], Some(&now)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// One of our output streams; writing to it never stops the runtime, so that signals still pass
/// while a reader (`| less`) is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
}

impl Sink {
    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Stderr => rustix::stdio::stderr(),
        }
    }

    pub(crate) async fn write_all(self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SURE_WRITE) {
            if !is_ready(&self.fd(), PollFlags::OUT)? {
                wait(self.fd(), PollFlags::OUT).await?;
            }
            crate::output::write_all(self.fd(), piece)?;
        }
        Ok(())
    }
}
