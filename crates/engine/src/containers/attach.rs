//! Attaching clients. The daemon makes a pair of sockets, hands one to the supervisor and the
//! other to whoever speaks HTTP; no byte of a container passes through here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use runtime::protocol::{self, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

use super::detach::{DetachKeys, Notice};
use super::options::{AttachHandle, AttachOptions, Detached, LogOptions};
use super::record::Phase;
use super::task::{ContainerCommand, Task};
use super::{Containers, validate};
use crate::errors::{ContainerError, Error, Result};

impl Containers {
    /// Attaches to a container, running or not: a client that comes before the start sees every
    /// byte from the first.
    pub async fn attach(&self, reference: &str, options: AttachOptions) -> Result<AttachHandle> {
        let keys = DetachKeys::parse(options.detach_keys.as_deref())?;
        let container = self.shared.registry.find(reference)?;
        let snapshot = container.snapshot();
        let id = || container.id.clone();
        if snapshot.progress.paused {
            return Err(ContainerError::AttachPaused { id: id() }.into());
        }
        if snapshot.progress.phase == Phase::Restarting {
            return Err(ContainerError::AttachRestarting { id: id() }.into());
        }
        let config = &snapshot.definition.config;
        let logs = if options.logs && readable(&snapshot.definition.host_config.log_config.kind) {
            let past = LogOptions {
                stdout: options.stdout,
                stderr: options.stderr,
                ..LogOptions::default()
            };
            Some(self.logs(container.id.as_str(), past).await?)
        } else {
            None
        };
        let stream = if options.stream {
            let (ours, theirs) = socket_pair()?;
            let options = protocol::AttachOptions {
                stdin: options.stdin && config.open_stdin,
                stdout: options.stdout,
                stderr: options.stderr,
            };
            let attach = |reply| ContainerCommand::Attach { options, stream: theirs, reply };
            container.ask(attach).await?;
            Some(ours)
        } else {
            None
        };
        snapshot.emit(&self.shared.events, "attach", []);
        let detached = Detached(Notice {
            events: Arc::clone(&self.shared.events),
            action: "detach",
            container: Arc::clone(&container),
            exec: None,
        });
        Ok(AttachHandle { tty: config.tty, stream, logs, keys, detached })
    }
}

fn readable(driver: &str) -> bool {
    validate::logging::log_path(driver, std::path::Path::new("/"), "").is_some()
}

/// A pair of connected stream sockets: ours for the runtime, the other for the supervisor.
pub(super) fn socket_pair() -> Result<(UnixStream, OwnedFd)> {
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
    };
    pair().map_err(Error::io("make a pair of sockets"))
}

impl Task {
    pub(super) async fn attach(
        &mut self,
        options: protocol::AttachOptions,
        stream: OwnedFd,
    ) -> Result<()> {
        if self.state.progress.is_alive() {
            let request = Request::Attach { id: self.container.id.clone(), options };
            return match self.shared.supervisor().request(request, vec![stream]).await {
                Ok(_attached) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        self.streams.retain(|(_, stream)| is_open(stream));
        self.streams.push((options, stream));
        Ok(())
    }
}

/// Whether the client at the other end is still there.
fn is_open(stream: &OwnedFd) -> bool {
    let fd = stream.as_fd();
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut polled, Some(&now)), Ok(1..))
        || !polled[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_left_is_noticed() {
        let (ours, theirs) = socket_pair().unwrap();
        assert!(is_open(&theirs));
        drop(ours);
        assert!(!is_open(&theirs));
    }
}
