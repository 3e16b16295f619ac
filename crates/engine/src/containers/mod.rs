//! Containers.
//!
//! [`Containers`] is what the API calls; its methods are spread over the files here, one concern
//! each. Every container has one owner, a [`task::Task`], and a handle [`snapshot::Container`]
//! that everyone else holds. A life: [`create`] → [`start`] → [`exit`] → [`remove`].

mod archive;
mod attach;
mod check;
mod commit;
mod connect;
mod create;
pub mod detach;
mod exec;
mod exit;
pub(crate) mod filters;
mod health;
mod inspect;
mod late;
mod lifecycle;
mod links;
mod list;
mod logs;
mod merge;
pub(crate) mod mounts;
pub mod options;
mod persist;
mod plan;
mod ports;
mod record;
pub(crate) mod registry;
mod remove;
mod resources;
mod restart;
mod snapshot;
mod start;
mod stats;
mod task;
mod top;
mod validate;
mod wait;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use api_types::container::Change;
use arc_swap::ArcSwap;
use metadata::{Store, WriteTxn};
use network::Networks;
use runtime::protocol::{Event, Running};
use spec::Id;
use storage::Storage;
use tokio::sync::{mpsc, oneshot, watch};

pub use archive::{Archive, PutOptions};
pub use commit::CommitRequest;
pub(crate) use connect::is_gateway;
pub(crate) use create::RunImage;
pub use detach::{DetachKeys, Typed};
pub(crate) use filters::until;
pub use options::{
    AttachHandle, AttachOptions, Detached, ExecHandle, ListOptions, LogOptions, LogStream,
    RemoveOptions, StopOptions, WaitCondition, WaitHandle,
};
pub(crate) use record::{now_nanos, time_text};
pub use resources::UpdateConflict;
pub(crate) use snapshot::{Container, Snapshot};
pub(crate) use start::external_servers;

use crate::EngineConfig;
use crate::errors::{Error, Result};
use crate::events::Events;
use crate::images::Images;
use crate::supervisor::{Listener, Supervisor};
use crate::sysinfo::SysInfo;
use crate::volumes::Volumes;
use exec::Execs;
use persist::Persist;
use record::{DEFINITIONS, Definition, Progress, STATES};
use registry::Registry;
use snapshot::Notices;
use task::{ContainerCommand, Task};

/// Commands that wait for a container's owner. More would only be a longer queue.
const QUEUE: usize = 8;

/// Of the directory of each container, and of the one above them.
const DIRECTORY_MODE: u32 = 0o710;

#[derive(Debug)]
pub struct Containers {
    shared: Arc<Shared>,
}

/// The handles that containers are made and run with.
#[derive(Debug)]
pub(crate) struct Shared {
    config: Arc<ArcSwap<EngineConfig>>,
    /// `<data>/containers`
    containers: PathBuf,
    pub volumes: Arc<Volumes>,
    pub events: Arc<Events>,
    pub store: Store,
    pub storage: Storage,
    pub images: Arc<Images>,
    pub networks: Arc<Networks>,
    pub sysinfo: Arc<SysInfo>,
    pub registry: Arc<Registry>,
    pub execs: Execs,
    pub persist: Arc<Persist>,
    supervisor: OnceLock<Supervisor>,
    /// Held by whoever edits the hosts file of a container that runs.
    hosts: Mutex<()>,
}

/// What [`Containers::open`] needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub config: Arc<ArcSwap<EngineConfig>>,
    pub events: Arc<Events>,
    pub store: Store,
    pub storage: Storage,
    pub images: Arc<Images>,
    pub networks: Arc<Networks>,
    pub sysinfo: Arc<SysInfo>,
    pub registry: Arc<Registry>,
    pub volumes: Arc<Volumes>,
}

impl Shared {
    pub(crate) fn config(&self) -> Arc<EngineConfig> {
        self.config.load_full()
    }

    pub(crate) fn directory(&self, id: &Id) -> PathBuf {
        self.containers.join(id.as_str())
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        self.supervisor.get().expect("set before the first task or request exists")
    }

    pub(crate) fn lock_hosts(&self) -> MutexGuard<'_, ()> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One synced commit, together with those of others that come at the same time.
    pub(crate) async fn write<R, E>(
        &self,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R>
    where
        R: Send + 'static,
        E: From<metadata::StoreError> + Into<Error> + Send + 'static,
    {
        let (done, is_done) = oneshot::channel();
        // Whoever waited may be gone; the commit is not undone.
        self.store.write_then(work, move |result| drop(done.send(result)));
        is_done.await?.map_err(Into::into)
    }
}

impl Containers {
    /// Reads the records, connects to the supervisor, and puts one in line with the other.
    pub(crate) async fn open(parts: Parts) -> Result<Self> {
        let config = parts.config.load_full();
        let containers = config.data_root.join("containers");
        make_directory(&containers, DIRECTORY_MODE)?;
        let shared = Arc::new(Shared {
            config: parts.config,
            containers,
            volumes: parts.volumes,
            events: parts.events,
            store: parts.store,
            storage: parts.storage,
            images: parts.images,
            networks: parts.networks,
            sysinfo: parts.sysinfo,
            registry: parts.registry,
            execs: Execs::default(),
            persist: Arc::default(),
            supervisor: OnceLock::new(),
            hosts: Mutex::default(),
        });
        let known = Self::load(&shared)?;
        shared.volumes.note_running(None);
        sweep(&shared);
        let supervisor = Self::connect(&shared, &config).await?;
        shared.supervisor.set(supervisor).expect("set here only");
        Self::reconcile_network(&shared);
        for (container, commands) in known {
            tokio::spawn(Task::new(Arc::clone(&shared), container).run(commands));
        }
        let writer = Arc::clone(&shared);
        tokio::spawn(async move { writer.persist.run(&writer.store).await });
        Ok(Self { shared })
    }

    /// Every container of the records, known by id and name, not yet with an owner.
    fn load(shared: &Shared) -> Result<Vec<(Arc<Container>, mpsc::Receiver<ContainerCommand>)>> {
        shared.store.adopt(DEFINITIONS)?;
        shared.store.adopt(STATES)?;
        let mut states: HashMap<_, _> = shared.store.scan(STATES)?.into_iter().collect();
        let records = shared.store.scan(DEFINITIONS)?;
        let known = records.into_iter().map(|(id, definition)| {
            let progress = states.remove(&id).unwrap_or_default();
            handle(shared, definition, progress)
        });
        Ok(known.collect())
    }

    async fn connect(shared: &Arc<Shared>, config: &EngineConfig) -> Result<Supervisor> {
        let listener = Ears { shared: Arc::clone(shared) };
        let place = runtime::supervisor::Config {
            exec_root: config.exec_root.clone(),
            exits_log: config.data_root.join("exits.log"),
        };
        let program = config.supervisor.clone();
        Ok(Supervisor::connect(program, place, Arc::new(listener)).await?)
    }

    /// Gives back the addresses and ports of containers that were running when the daemon went.
    /// What the supervisor was told at their start counts, as our record may be older.
    fn reconcile_network(shared: &Shared) {
        let live: Vec<_> = shared
            .registry
            .all()
            .iter()
            .flat_map(|container| {
                let present = container.notices().borrow().present.clone();
                let noted = present.and_then(|running| start::noted_endpoints(&running));
                let snapshot = container.snapshot();
                let mut endpoints = noted.unwrap_or_else(|| snapshot.progress.endpoints.clone());
                snapshot.definition.name_endpoints(&mut endpoints);
                endpoints
            })
            .collect();
        for error in shared.networks.reconcile(&live) {
            tracing::warn!(%error, "reconcile the network");
        }
        for container in shared.registry.linking() {
            shared.refresh_links(&container);
        }
    }

    /// Makes the handle and the owner of a container that is written down.
    fn adopt(&self, definition: Definition, progress: Progress) -> Arc<Container> {
        let (container, commands) = handle(&self.shared, definition, progress);
        let task = Task::new(Arc::clone(&self.shared), Arc::clone(&container));
        tokio::spawn(task.run(commands));
        container
    }

    /// Starts what its restart policy wants up. Called once, when the API is about to be served.
    pub(crate) async fn start_at_boot(&self) {
        let starts = self.shared.registry.all().into_iter().filter_map(|container| {
            let snapshot = container.snapshot();
            let (definition, progress) = (&snapshot.definition, &snapshot.progress);
            let policy = &definition.host_config.restart_policy;
            let wanted = !progress.is_alive()
                && progress.generation > 0
                && restart::at_boot(policy, progress.exit_code, progress.manually_stopped);
            wanted.then_some(container)
        });
        let starts: Vec<_> =
            starts.map(|container| (container, watch::Sender::new(false))).collect();
        let tried: HashMap<_, _> = starts
            .iter()
            .map(|(container, done)| (container.id.clone(), done.subscribe()))
            .collect();
        let starts = starts.into_iter().map(|(container, done)| {
            let tried = &tried;
            async move {
                links::wait_for_targets(&container, tried).await;
                let started = container.ask(|reply| ContainerCommand::Start { reply }).await;
                if let Err(error) = started {
                    tracing::warn!(container = %container.id, %error, "start with the daemon");
                }
                done.send_replace(true);
            }
        });
        futures_util::future::join_all(starts).await;
    }

    /// Ends all restarts; without live-restore stops the containers; writes what is unwritten.
    pub(crate) async fn shutdown(&self) {
        let config = self.shared.config();
        let all = self.shared.registry.all();
        let stops = all.iter().map(|container| async {
            let retired = container.ask(|reply| ContainerCommand::Retire { reply }).await;
            if retired.is_ok() && !config.live_restore {
                self.stop_for_shutdown(container, config.shutdown_timeout).await;
            }
        });
        futures_util::future::join_all(stops).await;
        if let Err(error) = self.shared.persist.flush(&self.shared.store).await {
            tracing::error!(%error, "write the states of containers");
        }
        if let Some(supervisor) = self.shared.supervisor.get() {
            supervisor.dismiss().await;
        }
    }

    async fn stop_for_shutdown(&self, container: &Container, patience: i64) {
        if !container.snapshot().progress.is_running() {
            return;
        }
        let own = container.snapshot().definition.config.stop_timeout;
        let timeout = Some(own.unwrap_or(10).min(patience.max(0)));
        let options = StopOptions { signal: None, timeout };
        let name = container.id.as_str();
        let intent = task::Intent::Shutdown;
        if let Err(error) = self.stop_container(container, name, &options, intent).await {
            tracing::warn!(container = %container.id, %error, "stop for the shutdown");
        }
    }

    /// `docker diff`.
    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>> {
        let id = self.shared.registry.find(reference)?.id.clone();
        let storage = self.shared.storage.clone();
        let changes = run_blocking(move || Ok(storage.changes(id.as_str())?)).await?;
        let change = |change: storage::Change| Change {
            kind: change.kind as u8,
            path: change.path.to_string_lossy().into_owned(),
        };
        Ok(hide_own(changes.into_iter().map(change).collect()))
    }
}

/// What the engine puts into every root to mount over, or to tell programs where they are; Docker
/// has it in a layer of its own.
const OWN_FILES: [&str; 7] =
    ["/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"];

/// Leaves out what the container did not do itself, and a directory that changed by that alone.
fn hide_own(changes: Vec<Change>) -> Vec<Change> {
    let own = |change: &Change| OWN_FILES.contains(&change.path.as_str()) && change.kind == 1;
    let (own, mut rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(own);
    let below = |change: &Change, parent: &str| {
        change.path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
    };
    let hides = own.iter().any(|change| below(change, "/etc"));
    if hides && !rest.iter().any(|change| below(change, "/etc")) {
        rest.retain(|change| change.path != "/etc");
    }
    rest
}

fn handle(
    shared: &Shared,
    definition: Definition,
    progress: Progress,
) -> (Arc<Container>, mpsc::Receiver<ContainerCommand>) {
    let (sender, commands) = mpsc::channel(QUEUE);
    let snapshot =
        Snapshot { definition: Arc::new(definition), progress, health: None, removing: false };
    let container = Arc::new(Container::new(snapshot, sender));
    shared.registry.insert(Arc::clone(&container));
    (container, commands)
}

/// Runs work that waits for the disk for long.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_panic_or_shutdown) => Err(Error::ShuttingDown),
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(Error::io(format!("create {}", path.display())))
}

/// Puts the directories of containers in line with the records: what a crash left without one goes,
/// and what a power cut took, for the making of one is not synced, is made again.
fn sweep(shared: &Shared) {
    let Ok(entries) = std::fs::read_dir(&shared.containers) else { return };
    let mut missing: HashSet<Id> =
        shared.registry.all().iter().map(|container| container.snapshot().id().clone()).collect();
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(Id::parse);
        let stray = id.is_some_and(|id| !missing.remove(&id));
        if stray && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, "sweep {}", entry.path().display());
        }
    }
    for id in missing {
        if let Err(error) = make_directory(&shared.directory(&id), DIRECTORY_MODE) {
            tracing::warn!(%error, "what a power cut took");
        }
    }
}

/// Passes on what the supervisor says.
struct Ears {
    shared: Arc<Shared>,
}

impl Listener for Ears {
    fn event(&self, event: Event) {
        match event {
            Event::Oom { id } => {
                if let Some(container) = self.shared.registry.get(&id) {
                    container.notify(|notices| notices.ooms += 1);
                }
            }
            Event::Exited(exit) => {
                let offset = exit.log_offset;
                if exit.container.is_some() {
                    self.shared.execs.exited(&self.shared, &exit);
                } else if let Some(container) = self.shared.registry.get(&exit.id) {
                    container.notify(|notices| notices.exit = Some(exit));
                }
                self.shared.persist.note_exits(offset);
            }
        }
    }

    fn list(&self, running: Vec<Running>) {
        let (execs, containers): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|running| running.container.is_some());
        self.shared.execs.compare(&execs);
        let alive = containers.iter().map(|running| &running.id).collect();
        self.shared.volumes.note_running(Some(&alive));
        let mut running: HashMap<_, _> =
            containers.into_iter().map(|running| (running.id.clone(), running)).collect();
        for container in self.shared.registry.all() {
            let present = running.remove(&container.id);
            container.notify(|notices: &mut Notices| {
                notices.lists += 1;
                notices.present = present;
            });
        }
        for id in running.keys() {
            tracing::warn!(container = %id, "the supervisor runs a container that has no record");
        }
    }

    fn exits_seen(&self) -> u64 {
        Persist::exits_seen(&self.shared.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_the_container_did() {
        let check = |paths: &[(u8, &str)], expect: &[&str]| {
            let change =
                |(kind, path): &(u8, &str)| Change { kind: *kind, path: (*path).to_owned() };
            let left = hide_own(paths.iter().map(change).collect());
            let left: Vec<_> = left.iter().map(|change| change.path.as_str()).collect();
            assert_eq!(left, expect);
        };
        check(&[(1, "/.dockerenv"), (0, "/etc"), (1, "/etc/hosts"), (1, "/proc")], &[]);
        check(
            &[(0, "/etc"), (1, "/etc/hosts"), (1, "/etc/x"), (1, "/tmp/a")],
            &["/etc", "/etc/x", "/tmp/a"],
        );
        check(&[(0, "/etc"), (2, "/etc/hosts")], &["/etc", "/etc/hosts"]);
    }
}
