//! One thread that parents every container: it starts them, owns their stdio, writes their logs,
//! records their exits, and hands copies of their output to the daemon's clients.
//!
//! It outlives the daemon. When it dies itself, its containers live on, and the next supervisor
//! takes them over ([`adopt`]); when it is to be replaced by a newer program, it executes that in
//! its own process and stays the parent ([`handover`]).
//!
//! Everything is driven by one epoll ([`poll`]). Nothing in here blocks but the work of a start
//! (see [`start`]), the `fdatasync` of an exit ([`exit`]) and a freeze. Each process is a [`Run`]:
//!
//! ```text
//! Starting --reports end--> Running --pidfd--> Ended (clients read the rest) --> forgotten
//!     \--Failed, then pidfd--> forgotten, the request is answered with the failure
//! ```
//!
//! An exit is told to the daemon only when it is in `exits.log`, and what it left (directory,
//! cgroup) is removed only after that: a crash at any point lets the next supervisor find it.

mod adopt;
mod clients;
mod exit;
mod handover;
mod launch;
mod oci;
mod poll;
mod recorder;
mod requests;
mod spares;
mod start;
mod state;
mod streams;
mod subscriber;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::epoll::EventFlags;
use spec::Id;

use crate::cgroup::{Cgroup, Hierarchies};
use crate::exits::ExitLog;
use crate::init::Pending;
use crate::protocol::{Exit, Failure};
use crate::resolver;
use crate::spec::ContainerSpec;
use clients::Clients;
pub(crate) use launch::{DETACH_VARIABLE, READY};
use oci::OciStart;
use poll::{Part, Poller, Source};
use spares::Spares;
use start::Asked;
use state::Saved;
use streams::{CHUNK, Io, Streams};

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the supervisor keeps what it owns.
#[derive(Debug, Clone)]
pub struct Config {
    /// `<exec-root>`: the socket, and `containers/<id>/` with FIFOs and `state.json`.
    pub exec_root: PathBuf,
    /// `<data-root>/exits.log`.
    pub exits_log: PathBuf,
}

/// Serves requests until told to stop. Never returns while containers run. Call it before the
/// process has a second thread; it closes every descriptor above 2.
pub fn run(config: &Config) -> io::Result<()> {
    let Some(mut supervisor) = launch::launch(config)? else {
        // This process was only there to start the real one.
        return Ok(());
    };
    supervisor.serve()
}

#[derive(Debug)]
struct Supervisor {
    config: Config,
    poller: Poller,
    /// Readable when children have ended.
    child_signals: OwnedFd,
    /// Children have ended that may be in no book.
    strays: bool,
    listener: OwnedFd,
    /// Held locked: one supervisor for an exec-root.
    lock: OwnedFd,
    clients: Clients,
    hierarchies: Hierarchies,
    exit_log: ExitLog,
    runs: HashMap<u32, Run>,
    /// Those that have not ended.
    by_id: HashMap<Id, u32>,
    last_key: u32,
    /// Ended processes whose exits are not recorded yet: all of one round share a sync.
    unrecorded: Vec<Unrecorded>,
    /// Ended processes whose streams are not all delivered.
    ended: Vec<u32>,
    timers: Vec<(Instant, Timer)>,
    boot_id: String,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    spares: Spares,
    stopping: bool,
}

/// One process: a container's first, or an exec's.
#[derive(Debug)]
struct Run {
    saved: Saved,
    pidfd: Option<OwnedFd>,
    /// Whether waiting for it is ours. A process adopted from a dead supervisor has another
    /// parent, which reaps it.
    is_child: bool,
    streams: Streams,
    /// An exec shares its container's.
    cgroup: Rc<Cgroup>,
    oom_watch: Option<OwnedFd>,
    /// The daemon's, held while the process runs and never looked at: published ports.
    kept: Option<OwnedFd>,
    /// Held for the next daemon; a query that comes meanwhile waits in it.
    resolver: Option<resolver::Sockets>,
    /// Kills for want of memory that were told.
    oom_kills_told: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Starting(Box<Starting>),
    /// An external runtime's program works on it.
    Oci(Box<OciStart>),
    Running,
    Ended,
}

#[derive(Debug)]
struct Starting {
    client: u32,
    sequence: u64,
    pending: Pending,
    failure: Option<Failure>,
    /// A size that was asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

#[derive(Debug)]
struct Unrecorded {
    exit: Exit,
    directory: PathBuf,
    /// Of a container.
    cgroup: Option<Rc<Cgroup>>,
    /// What a container's runtime has to be called with to forget it.
    oci: Option<oci::Call>,
}

/// Things to do later.
#[derive(Debug)]
enum Timer {
    /// No connection could be accepted.
    Listen,
    /// Processes were still leaving the cgroup.
    RemoveCgroup { id: Id, cgroup: Rc<Cgroup>, attempts: u32 },
    /// The cgroup of the container's last run was still busy.
    Start { spec: Box<ContainerSpec>, asked: Asked, attempts: u32 },
    /// Somebody may still hold the output of an ended process.
    EndStreams { key: u32 },
    /// The process's parent may have reaped it by now.
    AskExit { key: u32, attempts: u32 },
    /// v1 tells of out-of-memory before it kills.
    RecountOom { key: u32 },
}

impl Run {
    fn new(saved: Saved, streams: Streams, cgroup: Rc<Cgroup>, phase: Phase) -> Self {
        Self {
            oom_kills_told: saved.oom_kills,
            saved,
            pidfd: None,
            is_child: true,
            streams,
            cgroup,
            oom_watch: None,
            kept: None,
            resolver: None,
            phase,
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting(_) | Phase::Oci(_))
    }
}

impl Supervisor {
    fn serve(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        // A cgroup that is to be removed is a timer.
        while !self.stopping || !self.timers.is_empty() {
            self.poller.wait(&mut ready, self.until_next_timer())?;
            for (source, events) in ready.drain(..) {
                self.on_event(source, events);
            }
            self.reap_strays();
            self.run_timers();
            self.record_exits();
            self.forget_finished();
            // While nobody waits for a start.
            if self.spares.are_short()
                && !self.stopping
                && !self.runs.values().any(Run::is_starting)
            {
                self.spares.add();
            }
        }
        Ok(())
    }

    fn on_event(&mut self, source: Source, events: EventFlags) {
        match source {
            Source::Listener => {
                if let Err(error) = self.clients.accept(&self.listener, &mut self.poller) {
                    note(format_args!("accept a connection: {error}"));
                    // Out of descriptors, perhaps: the connection stays pending and would wake us
                    // without end.
                    self.poller.forget(&self.listener);
                    self.later(ACCEPT_PAUSE, Timer::Listen);
                }
            }
            Source::Children => {
                sys::descriptors::forget_signals(&self.child_signals);
                self.strays = true;
            }
            Source::Client(key) => self.on_client(key, events),
            Source::Run(key, Part::Process) => self.on_process(key),
            Source::Run(key, Part::Reports) => self.on_reports(key),
            Source::Run(key, Part::Console) => self.on_console_socket(key),
            Source::Run(key, Part::Oom) => self.on_oom(key),
            Source::Run(key, Part::Output(stream)) => {
                self.with_streams(key, |streams, io| streams.on_output(stream, io));
            }
            Source::Run(key, Part::Stdin) => {
                self.with_streams(key, |streams, io| streams.on_stdin(events, io));
            }
            Source::Run(key, Part::Subscriber(number)) => {
                self.with_streams(key, |streams, io| streams.on_subscriber(number, events, io));
            }
        }
    }

    fn on_client(&mut self, key: u32, events: EventFlags) {
        if events.contains(EventFlags::OUT) {
            self.clients.flush(key, &mut self.poller);
        }
        if events.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
            && let Some((json, fds)) = self.clients.receive(key, &mut self.poller)
        {
            self.on_message(key, &json, fds);
        }
    }

    /// Lends a run's streams together with the shared buffers; `None` when the run is gone.
    fn with_streams<T>(
        &mut self,
        key: u32,
        act: impl FnOnce(&mut Streams, &mut Io<'_>) -> T,
    ) -> Option<T> {
        let run = self.runs.get_mut(&key)?;
        let mut io = Io {
            poller: &mut self.poller,
            key,
            buffer: &mut self.buffer[..CHUNK],
            scratch: &mut self.scratch,
        };
        Some(act(&mut run.streams, &mut io))
    }

    fn insert(&mut self, run: Run) -> u32 {
        self.last_key += 1;
        if !matches!(run.phase, Phase::Ended) {
            self.by_id.insert(run.saved.id.clone(), self.last_key);
        }
        self.runs.insert(self.last_key, run);
        self.last_key
    }

    /// The process with this id, which has started and not ended.
    fn running(&self, id: &Id) -> Result<(u32, &Run), Failure> {
        let key = *self.by_id.get(id).ok_or(Failure::NotFound)?;
        let run = self.runs.get(&key).ok_or(Failure::NotFound)?;
        match run.phase {
            Phase::Running => Ok((key, run)),
            Phase::Starting(_) | Phase::Oci(_) | Phase::Ended => Err(Failure::NotRunning),
        }
    }

    fn later(&mut self, delay: Duration, timer: Timer) {
        self.timers.push((Instant::now() + delay, timer));
    }

    fn until_next_timer(&self) -> Option<Duration> {
        let next = self.timers.iter().map(|(at, _)| *at).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn run_timers(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        let due: Vec<_> = self.timers.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, timer) in due {
            match timer {
                Timer::Listen => {
                    self.poller.watch(&self.listener, Source::Listener, EventFlags::IN);
                }
                Timer::RemoveCgroup { id, cgroup, attempts } => {
                    self.remove_cgroup(id, cgroup, attempts);
                }
                Timer::Start { spec, asked, attempts } => {
                    let (client, sequence) = (asked.client, asked.sequence);
                    if let Err(failure) = self.start(spec, asked, attempts) {
                        self.clients.reply(client, sequence, Err(failure), &mut self.poller);
                    }
                }
                Timer::EndStreams { key } => {
                    self.with_streams(key, Streams::finish);
                }
                Timer::AskExit { key, attempts } => self.ask_exit(key, attempts),
                Timer::RecountOom { key } => self.count_oom(key),
            }
        }
    }

    /// Drops ended processes whose clients have read everything.
    fn forget_finished(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|key| {
            let Some(run) = self.runs.get(key) else { return false };
            if !run.streams.has_output() && !run.streams.is_finished() {
                self.with_streams(*key, Streams::finish);
            }
            let done = self.runs.get(key).is_none_or(|run| run.streams.is_done());
            if done {
                self.runs.remove(key);
            }
            !done
        });
        self.ended = ended;
    }
}

fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes a line to the supervisor's own log, which is its stderr. When that fails there is
/// nobody left to tell.
fn note(message: fmt::Arguments<'_>) {
    writeln!(io::stderr().lock(), "supervisor: {message}").unwrap_or_default();
}
