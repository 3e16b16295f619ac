//! The owner of one container: a task that takes [`ContainerCommand`]s, hears what the supervisor
//! says, and publishes a [`Snapshot`] after every change. Nobody else changes anything.
//!
//! Commands are short: at most one question to the supervisor. Whoever stops a container waits for
//! its end outside (`lifecycle`), so that a second client may still kill it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use api_types::container::UpdateRequest;
use runtime::protocol::{AttachOptions, Exit, Failure, Request};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Shared;
use super::health::Monitor;
use super::options::RemoveOptions;
use super::record::Phase;
use super::restart::Backoff;
use super::snapshot::{Container, Notices, Snapshot};
use crate::errors::{ContainerError, Error, Result};
use crate::resolver::Resolver;
use crate::supervisor::SupervisorError;
use crate::watched::Process;

type Answer<T = ()> = oneshot::Sender<Result<T>>;

/// All that can be asked of a container's owner.
#[derive(Debug)]
pub(crate) enum ContainerCommand {
    Start {
        reply: Answer,
    },
    Signal {
        signal: i32,
        intent: Intent,
        reply: Answer,
    },
    Pause {
        reply: Answer,
    },
    Resume {
        reply: Answer,
    },
    Rename {
        name: String,
        reply: Answer,
    },
    Reconfigure {
        late: Box<super::late::Late>,
        reply: Answer,
    },
    Unlink {
        alias: String,
        reply: Answer,
    },
    Update {
        request: Box<UpdateRequest>,
        reply: Answer<Vec<String>>,
    },
    Remove {
        options: RemoveOptions,
        reply: Answer,
    },
    /// Connects a stream, now or when the container starts.
    Attach {
        options: AttachOptions,
        stream: OwnedFd,
        reply: Answer,
    },
    Connect {
        info: Box<network::NetworkInfo>,
        settings: Box<api_types::network::EndpointSettings>,
        reply: Answer,
    },
    Disconnect {
        info: Box<network::NetworkInfo>,
        reply: Answer,
    },
    /// The daemon stops: no more restarts; answered when nothing is under way.
    Retire {
        reply: Answer,
    },
}

/// What a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// `docker kill`
    Kill,
    /// `docker stop`: no policy starts it again.
    Stop,
    /// It is started again by the one who asks: not a user's stop, and no auto-removal.
    Restart,
    /// The daemon goes down and takes its containers along: not a user's stop.
    Shutdown,
}

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) container: Arc<Container>,
    /// The working copy of what is published.
    pub(super) state: Snapshot,
    /// Clients that attached before the start.
    pub(super) streams: Vec<(AttachOptions, OwnedFd)>,
    /// The first process, readable when it is gone.
    pub(super) process: Option<Process>,
    pub(super) backoff: Backoff,
    pub(super) restart_at: Option<Instant>,
    /// Set by a stop; the next start clears it.
    pub(super) stay_down: bool,
    /// The next exit is part of a restart: the container is not removed for it.
    pub(super) restarting_by_hand: bool,
    /// The supervisor does not know this process: its end shows only in `process`.
    pub(super) orphaned: bool,
    pub(super) health: Option<Monitor>,
    /// While it runs in a user's network.
    pub(super) resolver: Option<Resolver>,
    pub(super) removed: bool,
    retired: bool,
    notices: watch::Receiver<Notices>,
    seen: Seen,
}

/// How much of [`Notices`] was handled.
#[derive(Debug, Default)]
struct Seen {
    ooms: u64,
    lists: u64,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, container: Arc<Container>) -> Self {
        let state = Snapshot::clone(&container.snapshot());
        let stay_down = state.progress.manually_stopped;
        let mut notices = container.notices();
        // What came before the task did is handled first of all.
        notices.mark_changed();
        Self {
            shared,
            container,
            state,
            streams: Vec::new(),
            process: None,
            backoff: Backoff::default(),
            restart_at: None,
            // A stop that the daemon before us was asked for and did not see to its end.
            stay_down,
            restarting_by_hand: false,
            orphaned: false,
            health: None,
            resolver: None,
            removed: false,
            retired: false,
            notices,
            seen: Seen::default(),
        }
    }

    /// Lives as long as the container.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<ContainerCommand>) {
        let mut epoch = self.shared.supervisor().epoch();
        while !self.removed {
            let connected = *epoch.borrow_and_update() % 2 == 1;
            let by_pidfd = self.process.is_some() && (self.orphaned || !connected);
            tokio::select! {
                biased;
                changed = self.notices.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.hear().await;
                }
                changed = epoch.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                code = end_of(self.process.as_ref()), if by_pidfd => self.found_dead(code).await,
                () = sleep_until(self.restart_at) => self.start_again().await,
                result = probe(self.health.as_mut()) => self.take_probe(result),
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
            }
        }
        // Those who still ask hear that there is no such container.
        commands.close();
    }

    async fn obey(&mut self, command: ContainerCommand) {
        match command {
            ContainerCommand::Start { reply } => answer(reply, Box::pin(self.start()).await),
            ContainerCommand::Signal { signal, intent, reply } => {
                answer(reply, self.signal(signal, intent).await);
            }
            ContainerCommand::Pause { reply } => answer(reply, self.pause().await),
            ContainerCommand::Resume { reply } => answer(reply, self.resume().await),
            ContainerCommand::Rename { name, reply } => answer(reply, self.rename(&name).await),
            ContainerCommand::Reconfigure { late, reply } => {
                answer(reply, Box::pin(self.reconfigure(*late)).await);
            }
            ContainerCommand::Unlink { alias, reply } => answer(reply, self.unlink(&alias).await),
            ContainerCommand::Update { request, reply } => {
                answer(reply, self.update(*request).await);
            }
            ContainerCommand::Remove { options, reply } => {
                answer(reply, Box::pin(self.remove(options)).await);
            }
            ContainerCommand::Attach { options, stream, reply } => {
                answer(reply, self.attach(options, stream).await);
            }
            ContainerCommand::Connect { info, settings, reply } => {
                answer(reply, Box::pin(self.connect(&info, *settings)).await);
            }
            ContainerCommand::Disconnect { info, reply } => {
                answer(reply, Box::pin(self.disconnect(&info)).await);
            }
            ContainerCommand::Retire { reply } => {
                self.retired = true;
                self.restart_at = None;
                answer(reply, Ok(()));
            }
        }
    }

    /// Handles what the supervisor said since the last time.
    async fn hear(&mut self) {
        let notices = self.notices.borrow_and_update().clone();
        if notices.ooms > self.seen.ooms {
            self.seen.ooms = notices.ooms;
            self.state.progress.oom_killed = true;
            self.publish();
            self.state.emit(&self.shared.events, "oom", []);
        }
        if let Some(exit) = notices.exit {
            self.take_exit(&exit).await;
        }
        if notices.lists > self.seen.lists {
            self.seen.lists = notices.lists;
            self.compare(notices.present).await;
        }
    }

    async fn take_exit(&mut self, exit: &Exit) {
        let progress = &self.state.progress;
        // A generation above ours: the daemon died before it wrote down that start.
        let ours = exit.generation == progress.generation && progress.is_alive()
            || exit.generation > progress.generation;
        if ours {
            self.state.progress.generation = exit.generation;
            // Who was no parent of it may not know; we may have inherited it.
            let code = exit.code.map(i64::from);
            let code = code.or_else(|| super::exit::reap(self.process.as_ref()?.get_ref()));
            let code = code.unwrap_or(super::exit::UNKNOWN);
            Box::pin(self.exited(code, exit.oom_killed, exit.at_nanos)).await;
        }
    }

    /// Writes the state behind and shows it to readers.
    pub(super) fn publish(&self) {
        self.container.publish(&self.state);
        self.shared.persist.note(&self.container.id, &self.state.progress);
    }

    /// Like [`Self::publish`], when waiters are told by other means.
    pub(super) fn show(&self) {
        self.container.show(&self.state);
        self.shared.persist.note(&self.container.id, &self.state.progress);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Asks the supervisor for something about this container that is only done or not. The
    /// container may have ended, and its end not have been heard of yet.
    pub(super) async fn order(&self, request: Request) -> Result<()> {
        match self.shared.supervisor().order(request).await {
            Err(SupervisorError::Failed(Failure::NotFound | Failure::NotRunning)) => {
                Err(ContainerError::NotRunning { id: self.container.id.clone() }.into())
            }
            done => Ok(done?),
        }
    }

    async fn start_again(&mut self) {
        self.restart_at = None;
        if self.state.progress.phase != Phase::Restarting {
            return;
        }
        self.state.progress.restart_count += 1;
        if let Err(error) = Box::pin(self.launch()).await {
            tracing::warn!(container = %self.container.id, %error, "restart");
            Box::pin(self.failed_restart(&error)).await;
        }
    }
}

/// The asker may have gone away; what was done stays done.
fn answer<T>(reply: oneshot::Sender<Result<T>>, result: Result<T>) {
    drop(reply.send(result));
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

async fn probe(monitor: Option<&mut Monitor>) -> super::health::Probe {
    match monitor {
        Some(monitor) => monitor.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for the process to be gone; its exit code if it was our child.
async fn end_of(process: Option<&Process>) -> Option<i64> {
    let Some(process) = process else { return std::future::pending().await };
    loop {
        match process.readable().await {
            Ok(_ready) => return super::exit::reap(process.get_ref()),
            Err(error) => {
                // The runtime is going down.
                tracing::debug!(%error, "watch a process");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl From<oneshot::error::RecvError> for Error {
    fn from(_dropped: oneshot::error::RecvError) -> Self {
        Self::ShuttingDown
    }
}
