//! The handle of a container, and the picture of it that readers see.
//!
//! The container's task replaces the picture whenever something changed; `ps` and `inspect` load
//! it and wait for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::container::Health;
use arc_swap::{ArcSwap, ArcSwapOption};
use runtime::protocol::Exit;
use spec::Id;
use tokio::sync::{mpsc, watch};

use super::list::SentRow;
use super::record::{Definition, Phase, Progress};
use super::task::ContainerCommand;
use crate::errors::{Error, Result};
use crate::events::Events;

/// What everyone may hold of a container: a way to read it and a way to ask its task.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: Id,
    /// Held by those who copy files, for itself alone by whoever mounts the writable layer: a
    /// start, or a copy while it does not run.
    pub(crate) files: Arc<tokio::sync::RwLock<()>>,
    snapshot: ArcSwap<Snapshot>,
    /// For the next list; whoever makes lists may replace it.
    pub(super) sent_row: ArcSwapOption<SentRow>,
    lifecycle: watch::Sender<Lifecycle>,
    notices: watch::Sender<Notices>,
    commands: mpsc::Sender<ContainerCommand>,
}

/// An immutable picture.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub definition: Arc<Definition>,
    pub progress: Progress,
    pub health: Option<Arc<Health>>,
    pub removing: bool,
}

/// What waiters look at. Each exit, and each failed start, counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle {
    pub running: bool,
    pub exits: u64,
    pub exit_code: i64,
    pub error: String,
    pub removed: bool,
    /// Why the removal failed.
    pub stuck: Option<String>,
}

/// What the supervisor says of a container. Only the newest exit can matter: no start happens
/// before the exit of the one before was handled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    pub exit: Option<Exit>,
    pub ooms: u64,
    /// Counts the lists after a reconnection; `present` is what the last one said.
    pub lists: u64,
    pub present: Option<runtime::protocol::Running>,
}

impl Container {
    pub(crate) fn new(snapshot: Snapshot, commands: mpsc::Sender<ContainerCommand>) -> Self {
        let lifecycle = Lifecycle {
            running: snapshot.progress.is_running(),
            exit_code: snapshot.progress.exit_code,
            ..Lifecycle::default()
        };
        Self {
            id: snapshot.definition.id.clone(),
            files: Arc::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            sent_row: ArcSwapOption::empty(),
            lifecycle: watch::Sender::new(lifecycle),
            notices: watch::Sender::default(),
            commands,
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Shows readers a new picture. For the container's task alone, as what follows.
    pub(super) fn show(&self, snapshot: &Snapshot) {
        self.snapshot.store(Arc::new(snapshot.clone()));
    }

    /// Shows it, and lets those wait on who wait for it to run or not to.
    pub(super) fn publish(&self, snapshot: &Snapshot) {
        self.show(snapshot);
        let progress = &snapshot.progress;
        let running = progress.is_running();
        self.lifecycle.send_if_modified(|lifecycle| {
            lifecycle.exit_code = progress.exit_code;
            std::mem::replace(&mut lifecycle.running, running) != running
        });
    }

    pub(super) fn tell_waiters(&self, change: impl FnOnce(&mut Lifecycle)) {
        self.lifecycle.send_modify(change);
    }

    pub(crate) fn lifecycle(&self) -> watch::Receiver<Lifecycle> {
        self.lifecycle.subscribe()
    }

    /// Whether it runs, or the supervisor said so and its owner has not heard of it yet.
    pub(crate) fn may_run(&self) -> bool {
        let snapshot = self.snapshot();
        let progress = &snapshot.progress;
        let notices = self.notices.borrow();
        let newer = |running: &runtime::protocol::Running| running.generation > progress.generation;
        progress.is_alive() || notices.present.as_ref().is_some_and(newer)
    }

    pub(crate) fn notices(&self) -> watch::Receiver<Notices> {
        self.notices.subscribe()
    }

    /// For the supervisor's reader alone; never waits.
    pub(crate) fn notify(&self, change: impl FnOnce(&mut Notices)) {
        self.notices.send_modify(change);
    }

    /// Asks the task and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<Result<T>>) -> ContainerCommand,
    ) -> Result<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        // A task that is gone belongs to a container that was removed, or to a daemon that stops.
        let gone = || super::registry::no_such(self.id.as_str());
        self.commands.send(command(reply)).await.map_err(|_closed| gone())?;
        answer.await.map_err(|_dropped| gone())?
    }
}

impl Snapshot {
    pub(crate) fn id(&self) -> &Id {
        &self.definition.id
    }

    /// `created`, `running`, `paused`, ... as inspect and list show it.
    pub(crate) fn status(&self) -> &'static str {
        match self.progress.phase {
            _ if self.removing => "removing",
            Phase::Created => "created",
            Phase::Running if self.progress.paused => "paused",
            Phase::Running => "running",
            Phase::Restarting => "restarting",
            Phase::Exited => "exited",
            Phase::Dead => "dead",
        }
    }

    /// Fails unless there is a process that is not frozen... or may be: a paused one passes.
    pub(crate) fn check_alive(&self) -> Result<()> {
        use crate::errors::ContainerError as E;
        let id = || self.id().clone();
        match self.progress.phase {
            Phase::Running => Ok(()),
            Phase::Restarting => Err(Error::Container(E::Restarting { id: id() })),
            _ => Err(Error::Container(E::NotRunning { id: id() })),
        }
    }

    /// Tells the event watchers: the container's labels, its image and name, and `extra`.
    pub(crate) fn emit(
        &self,
        events: &Events,
        action: &str,
        extra: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        let definition = &self.definition;
        let mut attributes: BTreeMap<String, String> = definition.config.labels.clone();
        attributes.insert("image".to_owned(), definition.config.image.clone());
        attributes.insert("name".to_owned(), definition.name.to_string());
        attributes.extend(extra.into_iter().map(|(key, value)| (key.to_owned(), value)));
        events.emit("container", action, self.id().as_str(), attributes);
    }
}
