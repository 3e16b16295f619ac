//! Replacing the supervisor's program while its process, children and descriptors stay.
//!
//! The state goes as JSON into a memory file whose descriptor number is in the environment; the
//! descriptors named there lose close-on-exec. The new program starts as if fresh ([`receive`])
//! and goes on where this one stopped. If it cannot be executed, nothing has changed. If it dies
//! before it serves, that is the death of a supervisor: the next one adopts.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::recorder::Recorder;
use super::start::failed;
use super::state::{Saved, StdinMode};
use super::streams::{Carry, Ends, Streams};
use super::{Config, Phase, Run, Supervisor, Timer};
use crate::protocol::{AttachOptions, Failure, Reply};
use crate::resolver::Sockets;

const STATE_VARIABLE: &str = "BOXSHIP_SUPERVISOR_STATE";

/// Descriptors by the numbers they keep.
#[derive(Debug, Serialize, Deserialize)]
struct Image {
    lock: RawFd,
    listener: RawFd,
    /// The daemon, and the request that is to be answered.
    daemon: Option<RawFd>,
    sequence: u64,
    runs: Vec<RunImage>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunImage {
    saved: Saved,
    is_child: bool,
    oom_kills_told: u64,
    /// None when the process has ended and its clients have not read everything yet.
    pidfd: Option<RawFd>,
    #[serde(default)]
    kept: Option<RawFd>,
    #[serde(default)]
    resolver: Option<[RawFd; 2]>,
    stdin: Option<RawFd>,
    stdout: Option<RawFd>,
    stderr: Option<RawFd>,
    subscribers: Vec<SubscriberImage>,
    carry: Carry,
}

#[derive(Debug, Serialize, Deserialize)]
struct SubscriberImage {
    socket: RawFd,
    options: AttachOptions,
    backlog: Vec<u8>,
}

/// What an earlier program in this process left.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) lock: OwnedFd,
    pub(super) listener: Option<OwnedFd>,
    pub(super) rest: Rest,
}

#[derive(Debug)]
pub(super) struct Rest {
    daemon: Option<OwnedFd>,
    sequence: u64,
    runs: Vec<RunImage>,
}

/// Takes the state that an earlier program in this process left; `None` in a fresh process.
pub(super) fn receive() -> io::Result<Option<Handover>> {
    let Some(number) = std::env::var_os(STATE_VARIABLE) else { return Ok(None) };
    let number = number.to_str().and_then(|text| text.parse().ok());
    let memory = number.and_then(sys::descriptors::inherit).ok_or_else(lost)?;
    let image: Image = serde_json::from_slice(&read_all(&memory)?)?;
    Ok(Some(Handover {
        lock: sys::descriptors::inherit(image.lock).ok_or_else(lost)?,
        listener: sys::descriptors::inherit(image.listener),
        rest: Rest {
            daemon: image.daemon.and_then(sys::descriptors::inherit),
            sequence: image.sequence,
            runs: image.runs,
        },
    }))
}

fn lost() -> io::Error {
    io::Error::other("the state of the program before is not there")
}

fn read_all(memory: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memory.try_clone()?);
    io::Seek::rewind(&mut file)?;
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

impl Supervisor {
    /// Executes the program at `path` in this process; returns only to say why not. Refused while
    /// something is under way that is not handed over: a start, a message to the daemon, the
    /// removal of a cgroup. None of these takes long.
    pub(super) fn re_exec(&mut self, client: u32, sequence: u64, path: &str) -> Failure {
        self.record_exits();
        self.forget_finished();
        let removing = |(_, timer): &(_, Timer)| {
            matches!(timer, Timer::RemoveCgroup { .. } | Timer::Start { .. })
        };
        if self.runs.values().any(Run::is_starting)
            || self.timers.iter().any(removing)
            || self.clients.has_unsent()
        {
            return Failure::Busy;
        }
        self.clients.greet(client, &mut self.poller);
        let mut kept = Vec::new();
        let error = self
            .image(sequence, &mut kept)
            .map_or_else(|error| error, |image| execute(&self.config, path, &image));
        // Still here: take everything back, also what `Command` did to SIGPIPE.
        let restored = kept.iter().try_for_each(|fd| fcntl_setfd(fd, FdFlags::CLOEXEC));
        if let Err(error) =
            restored.map_err(io::Error::from).and_then(|()| super::launch::survive())
        {
            super::note(format_args!("go on after a failed re-exec: {error}"));
        }
        failed(|| format!("execute {path}"))(error)
    }

    /// Describes everything for the next program. What it needs stays open over exec and is
    /// listed in `kept`.
    fn image<'a>(&'a self, sequence: u64, kept: &mut Vec<BorrowedFd<'a>>) -> io::Result<Image> {
        let mut keep = |fd: &'a OwnedFd| {
            kept.push(fd.as_fd());
            sys::descriptors::keep_over_exec(fd)
        };
        let mut runs = Vec::new();
        for run in self.runs.values() {
            let mut subscribers = Vec::new();
            for subscriber in run.streams.subscribers() {
                subscribers.push(SubscriberImage {
                    socket: keep(&subscriber.socket)?,
                    options: AttachOptions { stdin: subscriber.sends, ..subscriber.options },
                    backlog: subscriber.backlog().iter().copied().collect(),
                });
            }
            let Ends { stdin, stdout, stderr } = &run.streams.ends;
            runs.push(RunImage {
                saved: run.saved.clone(),
                is_child: run.is_child,
                oom_kills_told: run.oom_kills_told,
                pidfd: run.pidfd.as_ref().map(&mut keep).transpose()?,
                kept: run.kept.as_ref().map(&mut keep).transpose()?,
                resolver: match &run.resolver {
                    Some(Sockets { udp, tcp }) => Some([keep(udp)?, keep(tcp)?]),
                    None => None,
                },
                stdin: stdin.as_ref().map(&mut keep).transpose()?,
                stdout: stdout.as_ref().map(&mut keep).transpose()?,
                stderr: stderr.as_ref().map(&mut keep).transpose()?,
                subscribers,
                carry: run.streams.carry(),
            });
        }
        Ok(Image {
            lock: keep(&self.lock)?,
            listener: keep(&self.listener)?,
            daemon: self.clients.daemon_socket().map(&mut keep).transpose()?,
            sequence,
            runs,
        })
    }

    /// Goes on where the program before this one stopped.
    pub(super) fn take_over(&mut self, rest: Rest) {
        for image in rest.runs {
            let id = image.saved.id.clone();
            if let Err(failure) = self.take_over_run(image) {
                super::note(format_args!("take over {id}: {failure}"));
            }
        }
        if let Some(daemon) = rest.daemon {
            let client = self.clients.insert(daemon, &mut self.poller);
            self.clients.greet(client, &mut self.poller);
            let reply = Ok((Reply::Done, Vec::new()));
            self.clients.reply(client, rest.sequence, reply, &mut self.poller);
        }
    }

    fn take_over_run(&mut self, image: RunImage) -> Result<(), Failure> {
        let RunImage { saved, is_child, oom_kills_told, carry, .. } = image;
        let take = |number: Option<RawFd>| number.and_then(sys::descriptors::inherit);
        let ends = Ends {
            stdin: take(image.stdin),
            stdout: take(image.stdout),
            stderr: take(image.stderr),
        };
        let pidfd = take(image.pidfd);
        let kept = take(image.kept);
        let resolver = image
            .resolver
            .and_then(|[udp, tcp]| Some(Sockets { udp: take(Some(udp))?, tcp: take(Some(tcp))? }));
        let cgroup = Rc::new(self.hierarchies.adopt(&saved.cgroup)?);
        let directory = saved.directory(&self.config.exec_root);
        let log = Recorder::open(&saved.log, &directory, saved.tty)
            .map_err(failed(|| "open the log".to_owned()))?;
        let mut streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, log);
        streams.take_carry(carry);
        for SubscriberImage { socket, options, backlog } in image.subscribers {
            if let Some(socket) = take(Some(socket)) {
                streams.attach(socket, options, backlog);
            }
        }
        let is_container = saved.container.is_none();
        let ended = pidfd.is_none();
        let phase = if ended { Phase::Ended } else { Phase::Running };
        let run = Run::new(saved, streams, cgroup, phase);
        let run = Run { pidfd, is_child, oom_kills_told, kept, resolver, ..run };
        let key = self.insert(run);
        self.with_streams(key, |streams, io| streams.open(ends, io));
        if ended {
            self.linger(key);
            return Ok(());
        }
        self.watch_process(key);
        if is_container {
            self.watch_oom(key);
        }
        Ok(())
    }
}

/// Returns only when it failed.
fn execute(config: &Config, path: &str, image: &Image) -> io::Error {
    let written = memfd_create(c"boxship-supervisor", MemfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|memory| {
            let mut file = File::from(memory);
            file.write_all(&serde_json::to_vec(image)?)?;
            Ok(file)
        });
    let memory = match written {
        Ok(memory) => memory,
        Err(error) => return error,
    };
    let mut command = Command::new(path);
    command.arg("supervisor").arg("--exec-root").arg(&config.exec_root);
    command.arg("--exits-log").arg(&config.exits_log);
    command.env(STATE_VARIABLE, memory.as_raw_fd().to_string());
    command.exec()
}
