//! Volumes: data that outlives containers. Those of the driver `local` are directories; those of
//! plugins are in [`remote`], and have nothing but a record here.
//!
//! ```text
//! <data-root>/volumes/<name>/_data   the data; mounted over when the volume has options
//!                     .making/<name> a volume on its way in
//!                     .removing/<n>  one on its way out
//!                     .trash/        what was removed, until it is deleted
//! ```
//!
//! The record (table `volumes`) says which volumes there are. A new one is filled below `.making`
//! and moved into place once its record is written; one that goes is moved to `.removing` before
//! its record is taken away. So a crash leaves, and the next start sees by the record:
//! `.making` or `.removing` with a record: moved into place; without one: deleted. A directory in
//! place without a record lost it (the metadata was damaged, or a boxship without volume records
//! made it): it becomes a volume again. Nothing in place is ever deleted for want of a record.
//!
//! A volume with options is mounted while a running container uses it, once, however many do:
//! on `_data`, which is ours, from where each container gets its copy. Enter at
//! [`Volumes::hold`] for containers, [`Volumes::create`] for the API.

mod check;
mod hold;
mod local;
mod plugins;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::volume::{CreateRequest, ListResponse, PruneResponse, UsageData, Volume};
use metadata::{Store, StoreError, Table, WriteTxn};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, mkdirat, renameat, statat};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};
use spec::filters::FilterError;
use spec::{Filters, Id};
use sys::RootDir;

use crate::containers::filters::name_matches;
use crate::containers::mounts::{Mount, Source, volumes_of};
use crate::containers::registry::Registry;
use crate::containers::{now_nanos, run_blocking, time_text};
use crate::errors::{CreateReason, Error, Result, VolumeError};
use crate::events::Events;

pub(crate) use self::hold::{Holds, Pending};
use self::plugins::{Places, Plugins};
use self::remote::{MOUNTS, Mounts};

const VOLUMES: Table<Record> = Table::new("volumes");
const FILTERS: &[&str] = &["dangling", "driver", "label", "name"];
const ANONYMOUS: &str = "com.docker.volume.anonymous";
const NAME_MAX: usize = 255;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

type Labels = BTreeMap<String, String>;

/// A volume on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    created_nanos: i64,
    /// The plugin that has it; empty for `local`.
    driver: String,
    labels: Option<Labels>,
    options: Option<Labels>,
}

/// A volume that a container asks for: made unless it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub driver: String,
    pub options: Option<Labels>,
    pub labels: Option<Labels>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    phase: Phase,
    /// Containers in the making that refer to it.
    holds: usize,
    /// Running containers, for which it is mounted.
    users: BTreeSet<Id>,
    /// Held while its content or its mount changes.
    busy: Arc<Mutex<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No record yet.
    Making,
    Ready,
    Removing,
}

#[derive(Debug)]
pub struct Volumes {
    path: PathBuf,
    root: RootDir,
    store: Store,
    registry: Arc<Registry>,
    events: Arc<Events>,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// What runs is known; until then nothing is unmounted.
    settled: AtomicBool,
    reaping: Arc<Mutex<()>>,
    plugins: Plugins,
    /// What plugins have mounted for us, by the ids they know.
    mounts: Mutex<Mounts>,
    /// Somebody unmounts what is left.
    sweeping: AtomicBool,
}

/// The files of a volume, below the directory of all.
pub(crate) fn mountpoint(volumes: &Path, name: &str) -> PathBuf {
    volumes.join(name).join("_data")
}

impl Volumes {
    /// Opens the directory and brings it in line with the records.
    pub(crate) fn open(
        path: PathBuf,
        store: Store,
        registry: Arc<Registry>,
        events: Arc<Events>,
    ) -> Result<Self> {
        let failed = |errno: Errno| io_error("open", &path)(errno);
        for (place, mode) in
            [("", 0o701), (".making", 0o700), (".removing", 0o700), (".trash", 0o700)]
        {
            use std::os::unix::fs::DirBuilderExt;
            let place = path.join(place);
            let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&place);
            made.map_err(Error::io(format!("create {}", place.display())))?;
        }
        store.adopt(VOLUMES)?;
        store.adopt(MOUNTS)?;
        let root = RootDir::open(&path).map_err(failed)?;
        let records: BTreeMap<_, _> = store.scan(VOLUMES)?.into_iter().collect();
        let entries = records.into_iter().map(|(name, record)| (name, Entry::ready(record)));
        let mounts = store.scan(MOUNTS)?.into_iter().collect();
        let volumes = Self {
            plugins: Plugins::new(Places::default()),
            mounts: Mutex::new(mounts),
            sweeping: AtomicBool::new(false),
            root,
            store,
            registry,
            events,
            entries: Mutex::new(entries.collect()),
            settled: AtomicBool::new(false),
            reaping: Arc::default(),
            path,
        };
        volumes.recover()?;
        volumes.adopt_directories()?;
        volumes.reap();
        Ok(volumes)
    }

    pub(crate) fn mountpoint(&self, name: &str) -> PathBuf {
        mountpoint(&self.path, name)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes or takes back what a crash interrupted.
    fn recover(&self) -> Result<()> {
        for place in [".making", ".removing"] {
            for name in self.list_directory(place)? {
                let from = format!("{place}/{name}");
                let missing = self.stat(&name).is_err();
                if self.entries().contains_key(&name) && missing {
                    self.rename(&from, &name)?;
                } else {
                    self.throw_away(&from)?;
                }
            }
        }
        Ok(())
    }

    /// Gives directories without a record one.
    fn adopt_directories(&self) -> Result<()> {
        let mut lost = Vec::new();
        for name in self.list_directory("")? {
            if self.entries().contains_key(&name) || check_name(&name).is_err() {
                continue;
            }
            let data = self.root.open_strict(format!("{name}/_data"), DIRECTORY, Mode::empty());
            if let Err(error) = data {
                tracing::warn!(volume = name, %error, "a directory that is no volume");
                continue;
            }
            let anonymous = Id::parse(&name).is_some();
            let labels = anonymous.then(|| Labels::from([(ANONYMOUS.to_owned(), String::new())]));
            lost.push((name, Record { created_nanos: now_nanos(), labels, ..Record::default() }));
        }
        if lost.is_empty() {
            return Ok(());
        }
        let records = lost.clone();
        self.store.write(move |txn| {
            records.iter().try_for_each(|(name, record)| VOLUMES.put(txn, name, record))
        })?;
        let mut entries = self.entries();
        for (name, record) in lost {
            tracing::info!(volume = name, "has a record again");
            entries.insert(name, Entry::ready(record));
        }
        Ok(())
    }

    /// Takes note of what runs since before this daemon: first what the records say, then what the
    /// supervisor does (`running`), which may know of later starts. From then on what nobody uses
    /// is unmounted.
    pub(crate) fn note_running(self: &Arc<Self>, running: Option<&BTreeSet<&Id>>) {
        for container in self.registry.all() {
            let snapshot = container.snapshot();
            let runs = match running {
                None => snapshot.progress.is_alive(),
                Some(running) => running.contains(&container.id),
            };
            for name in snapshot.definition.volumes().filter(|_| runs) {
                if let Some(entry) = self.entries().get_mut(name) {
                    entry.users.insert(container.id.clone());
                }
            }
        }
        let Some(running) = running else { return };
        self.note_mounts(running);
        self.settled.store(true, Ordering::Release);
        let unused = |(name, entry): (&String, &Entry)| {
            (entry.has_options() && entry.users.is_empty()).then(|| name.clone())
        };
        let unused: Vec<_> = self.entries().iter().filter_map(unused).collect();
        unused.iter().for_each(|name| self.unmount(name));
    }

    // The API.

    pub async fn list(self: &Arc<Self>, filters: &Filters) -> Result<ListResponse> {
        filters.validate(FILTERS)?;
        let dangling = filters.boolean("dangling").map_err(bracketed)?;
        let drivers = self.all_drivers();
        let answers = if drivers.is_empty() {
            remote::Answers::default()
        } else {
            let volumes = Arc::clone(self);
            run_blocking(move || Ok(volumes.list_remote(&drivers))).await?
        };
        let used = self.references();
        let mut volumes = self.local_volumes();
        volumes.extend(answers.volumes);
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        volumes.retain(|volume| {
            let label = |key: &str| volume.labels.as_ref()?.get(key).map(String::as_str);
            filters.any("driver", |wanted| wanted == volume.driver)
                && filters.any("name", |wanted| name_matches(&volume.name, wanted))
                && filters.matches_labels("label", label)
                && dangling.is_none_or(|dangling| dangling != used.contains_key(&volume.name))
        });
        let warnings = Some(answers.warnings).filter(|warnings| !warnings.is_empty());
        Ok(ListResponse { volumes, warnings })
    }

    fn local_volumes(&self) -> Vec<Volume> {
        let entries = self.entries();
        let local = entries.iter().filter(|(_, entry)| entry.is_local());
        let ready = local.filter(|(_, entry)| entry.phase == Phase::Ready);
        ready.map(|(name, entry)| self.describe(name, &entry.record)).collect()
    }

    pub async fn inspect(self: &Arc<Self>, name: &str) -> Result<Volume> {
        let record = match self.entries().get(name) {
            Some(entry) if entry.phase == Phase::Making => None,
            Some(entry) if entry.is_local() => return Ok(self.describe(name, &entry.record)),
            Some(entry) => Some(entry.record.clone()),
            None => None,
        };
        let not_found = || VolumeError::NotFound { name: name.to_owned() };
        if record.is_none() && self.all_drivers().is_empty() {
            return Err(not_found().into());
        }
        let (volumes, owned) = (Arc::clone(self), name.to_owned());
        let found = run_blocking(move || match record {
            Some(record) => volumes.inspect_remote(&owned, &record).map(Some),
            None => Ok(volumes.find_remote(&owned).map(|(plugin, volume)| {
                let record = Record { driver: plugin.name.clone(), ..Record::default() };
                let shown = volumes.describe_remote(&owned, &record, &plugin.scope, &volume);
                Volume { status: volume.status, ..shown }
            })),
        });
        Ok(found.await?.ok_or_else(not_found)?)
    }

    /// As far as we know it ourselves.
    fn describe_made(&self, name: &str) -> Result<Volume> {
        let not_found = || VolumeError::NotFound { name: name.to_owned() };
        let record = self.entries().get(name).map(|entry| entry.record.clone());
        let record = record.ok_or_else(not_found)?;
        if record.driver.is_empty() {
            return Ok(self.describe(name, &record));
        }
        let plugin = self.plugins.get(&record.driver, plugins::Patience::of_questions());
        let scope = plugin.map(|plugin| plugin.scope.clone()).unwrap_or_default();
        Ok(self.describe_remote(name, &record, &scope, &api_types::plugin::Volume::default()))
    }

    /// Makes a volume, or finds the one of that name as it is.
    pub async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<Volume> {
        if request.cluster_volume_spec.is_some() {
            return Err(VolumeError::NotAManager.into());
        }
        let volumes = Arc::clone(self);
        run_blocking(move || {
            let CreateRequest { name, driver, driver_opts, labels, .. } = request;
            // Here no driver means `local`, while a container takes what is there.
            let driver = if driver.is_empty() { "local".to_owned() } else { driver };
            let wanted = Wanted { driver, options: driver_opts, labels };
            let mut holds = Holds::new(&volumes);
            let name = holds.add(&name, &wanted)?.name;
            holds.prepare()?;
            let pending = holds.pending();
            volumes.store.write(move |txn| pending.put(txn))?;
            holds.settle();
            volumes.describe_made(&name)
        })
        .await
    }

    pub async fn remove(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let (volumes, name) = (Arc::clone(self), name.to_owned());
        run_blocking(move || {
            if volumes.driver_of(&name).is_none()
                && let Some((plugin, _)) = volumes.find_remote(&name)
            {
                volumes.note_remote(&name, &plugin.name);
            }
            match volumes.remove_now(&name) {
                Err(Error::Volume(
                    VolumeError::NotFound { .. }
                    | VolumeError::Plugin { .. }
                    | VolumeError::Unchecked { .. },
                )) if force => volumes.forget_remote(&name),
                removed => removed,
            }
        })
        .await
    }

    fn remove_now(&self, name: &str) -> Result<()> {
        self.doom(name, None)?;
        let doomed = [name.to_owned()];
        let names = doomed.clone();
        let written = self.store.write(move |txn| {
            Self::drop_records(txn, &names);
            Ok::<(), StoreError>(())
        });
        match written {
            Ok(()) => self.bury(&doomed),
            Err(_) => self.spare(&doomed),
        }
        Ok(written?)
    }

    /// Removes what no container refers to: anonymous volumes, or with the filter `all` every one.
    pub async fn prune(
        self: &Arc<Self>,
        filters: Filters,
        all_by_default: bool,
    ) -> Result<PruneResponse> {
        filters.validate(&["label", "label!", "all"])?;
        let mut all = all_by_default;
        for value in filters.get("all") {
            all = spec::boolean::parse(value)
                .map_err(|_syntax| VolumeError::FilterAll { value: value.to_owned() })?;
        }
        let volumes = Arc::clone(self);
        run_blocking(move || Ok(volumes.prune_now(&filters, all))).await
    }

    fn prune_now(&self, filters: &Filters, all: bool) -> PruneResponse {
        let used = self.references();
        let wanted = |(name, entry): (&String, &Entry)| {
            let label = |key: &str| entry.label(key);
            let chosen = entry.is_local()
                && !used.contains_key(name)
                && (all || label(ANONYMOUS).is_some())
                && filters.matches_labels("label", label)
                && !filters.any_label("label!", label);
            chosen.then(|| name.clone())
        };
        let names: Vec<_> = self.entries().iter().filter_map(wanted).collect();
        let mut response = PruneResponse::default();
        for name in names {
            let size = self.size(&name).unwrap_or_default();
            match self.remove_now(&name) {
                Ok(()) => {
                    response.space_reclaimed += size;
                    response.volumes_deleted.get_or_insert_default().push(name);
                }
                // A container took it in the meantime.
                Err(error) => tracing::debug!(volume = name, %error, "prune"),
            }
        }
        let attributes = [("reclaimed".to_owned(), response.space_reclaimed.to_string())];
        self.events.emit("volume", "prune", "", attributes.into());
        response
    }

    /// All volumes with their sizes, for `system df`. What is elsewhere, by options, is not
    /// counted: a file system behind a network may take its time.
    pub(crate) async fn usage(self: &Arc<Self>) -> Result<Vec<Volume>> {
        let volumes = Arc::clone(self);
        run_blocking(move || {
            let used = volumes.references();
            let plain = |(name, entry): (&String, &Entry)| {
                let counted =
                    entry.phase == Phase::Ready && entry.is_local() && !entry.has_options();
                counted.then(|| volumes.describe(name, &entry.record))
            };
            let mut all: Vec<_> = volumes.entries().iter().filter_map(plain).collect();
            for volume in &mut all {
                let size = volumes.size(&volume.name).map(i64::try_from);
                let ref_count = used.get(&volume.name).map_or(0, |ids| ids.len() as i64);
                let size = size.ok().and_then(std::result::Result::ok).unwrap_or(-1);
                volume.usage_data = Some(UsageData { ref_count, size });
            }
            Ok(all)
        })
        .await
    }

    fn size(&self, name: &str) -> Result<u64> {
        if self.entries().get(name).is_some_and(Entry::has_options) {
            return Ok(0);
        }
        let path = self.mountpoint(name);
        let data = self.root.open_strict(format!("{name}/_data"), OFlags::PATH, Mode::empty());
        data.and_then(|data| storage::tree_size(&RootDir::from_fd(data)))
            .map_err(io_error("measure", &path))
    }

    fn describe(&self, name: &str, record: &Record) -> Volume {
        // Docker has whole seconds here.
        let created = record.created_nanos - record.created_nanos.rem_euclid(1_000_000_000);
        Volume {
            created_at: time_text(created),
            driver: "local".to_owned(),
            labels: record.labels.clone(),
            mountpoint: self.mountpoint(name).display().to_string(),
            name: name.to_owned(),
            options: record.options.clone(),
            scope: "local".to_owned(),
            ..Volume::default()
        }
    }

    /// Which containers refer to which volume.
    fn references(&self) -> BTreeMap<String, Vec<Id>> {
        let mut references: BTreeMap<String, Vec<Id>> = BTreeMap::new();
        for container in self.registry.all() {
            for name in container.snapshot().definition.volume_names() {
                references.entry(name).or_default().push(container.id.clone());
            }
        }
        references
    }

    /// Which containers refer to this one.
    fn users_of(&self, name: &str) -> Vec<Id> {
        let mut all = self.registry.all();
        all.retain(|container| container.snapshot().definition.volumes().any(|used| used == name));
        all.iter().map(|container| container.id.clone()).collect()
    }

    // Removal, in three steps around the commit that makes it so.

    /// Takes a volume out of sight, unless somebody other than `except` refers to it.
    pub(crate) fn doom(&self, name: &str, except: Option<&Id>) -> Result<()> {
        let driver = {
            let mut entries = self.entries();
            let not_found = || VolumeError::NotFound { name: name.to_owned() };
            let entry = entries.get_mut(name).ok_or_else(not_found)?;
            if entry.phase == Phase::Removing {
                return Err(VolumeError::Removing { name: name.to_owned() }.into());
            }
            let mut users = self.users_of(name);
            users.retain(|id| Some(id) != except);
            if !users.is_empty() || entry.holds > 0 || entry.phase == Phase::Making {
                return Err(VolumeError::InUse { name: name.to_owned(), users }.into());
            }
            entry.phase = Phase::Removing;
            entry.record.driver.clone()
        };
        let moved = match driver.as_str() {
            "" => self.move_out(name),
            driver => self.remove_remote(name, driver),
        };
        if moved.is_err() {
            self.set_phase(name, Phase::Ready);
        }
        moved
    }

    fn move_out(&self, name: &str) -> Result<()> {
        if let Some(mount) = mounted_below(&self.path.join(name)) {
            return Err(VolumeError::Mounted { name: name.to_owned(), mount }.into());
        }
        match renameat(&self.root, name, &self.root, format!(".removing/{name}")) {
            // A power cut took the directory.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(io_error("remove", &self.path.join(name))(errno)),
        }
        // Or a power cut after the commit would show the directory, and it would be a volume again.
        self.sync("")
    }

    /// After the commit: the volume is gone.
    pub(crate) fn bury(&self, names: &[String]) {
        for name in names {
            // What stays in `.removing` goes with the next start.
            match self.throw_away(&format!(".removing/{name}")) {
                Ok(()) => {}
                Err(error) => tracing::debug!(volume = name, %error, "throw away"),
            }
            // Last: who checks the store then finds either of the two.
            let entry = self.entries().remove(name);
            let driver = entry.map(|entry| entry.record.driver).unwrap_or_default();
            self.emit_of("destroy", name, &driver, []);
        }
        if !names.is_empty() {
            self.reap();
        }
    }

    /// After a commit that failed: everything as it was.
    pub(crate) fn spare(&self, names: &[String]) {
        for name in names {
            let local = self.driver_of(name).is_none_or(|driver| driver.is_empty());
            if local && let Err(error) = self.rename(&format!(".removing/{name}"), name) {
                tracing::error!(volume = name, %error, "put back a volume");
            }
            self.set_phase(name, Phase::Ready);
        }
    }

    /// For the transaction that removes a container with its anonymous volumes.
    pub(crate) fn drop_records(txn: &mut WriteTxn<'_>, names: &[String]) {
        names.iter().for_each(|name| VOLUMES.remove(txn, name));
    }

    // Running containers.

    /// Mounts the volumes of a container that is about to start. May take as long as a mount does.
    pub(crate) fn attach(self: &Arc<Self>, id: &Id, mounts: &[Mount]) -> Result<()> {
        let mut attached = Vec::new();
        for (name, driver) in volumes_of(mounts) {
            if let Err(error) = self.attach_one(id, name, driver) {
                self.detach(id, &attached);
                return Err(error);
            }
            attached.push(name.to_owned());
        }
        Ok(())
    }

    fn attach_one(&self, id: &Id, name: &str, driver: &str) -> Result<()> {
        let (busy, options) = {
            let mut entries = self.entries();
            // A record that was damaged and put aside: the container still wants its volume.
            let entry = entries.entry(name.to_owned()).or_insert_with(|| {
                tracing::warn!(volume = name, "its record is lost");
                Entry::ready(Self::lost_record(driver))
            });
            (Arc::clone(&entry.busy), entry.record.options.clone().unwrap_or_default())
        };
        let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        match driver {
            "" => self.mount_local(name, &options)?,
            driver => self.mount_remote(id, name, driver)?,
        }
        if let Some(entry) = self.entries().get_mut(name) {
            entry.users.insert(id.clone());
        }
        Ok(())
    }

    fn mount_local(&self, name: &str, options: &Labels) -> Result<()> {
        self.ensure_directory(name)?;
        let mountpoint = self.mountpoint(name);
        // Mounted already: for another container, or by the daemon before this one.
        if !options.is_empty() && mounted_below(&mountpoint).is_none() {
            let mountpoint = mountpoint.display().to_string();
            if let Some(mount) = local::mount(options, &mountpoint)? {
                self.root
                    .open_strict(
                        format!("{name}/_data"),
                        OFlags::PATH | OFlags::DIRECTORY,
                        Mode::empty(),
                    )
                    .and_then(|target| sys::mount::attach(mount, target))
                    .map_err(io_error("mount on", &self.mountpoint(name)))?;
            }
        }
        Ok(())
    }

    /// Undoes [`Self::attach`]; harmless for what was not attached. Plugins are told a moment
    /// later.
    pub(crate) fn detach(self: &Arc<Self>, id: &Id, names: &[String]) {
        self.release_all(id, names);
        self.sweep();
    }

    /// [`Self::detach`] without the word to the plugins.
    pub(crate) fn release_all(&self, id: &Id, names: &[String]) {
        for name in names {
            self.release(id, name);
            let local = self.entries().get_mut(name).and_then(|entry| {
                if !entry.is_local() {
                    entry.users.remove(id);
                    return None;
                }
                Some(Arc::clone(&entry.busy))
            });
            let Some(busy) = local else { continue };
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            let last = self.entries().get_mut(name).is_some_and(|entry| {
                entry.users.remove(id);
                entry.users.is_empty() && entry.has_options()
            });
            if last && self.settled.load(Ordering::Acquire) {
                self.unmount(name);
            }
        }
    }

    /// The part of a volume that a mount shows must be there. Whoever mounts it opens it again,
    /// below the volume.
    pub(crate) fn check_subpath(&self, id: &Id, mount: &Mount) -> Result<()> {
        let Source::Volume { name, subpath, driver, .. } = &mount.source else { return Ok(()) };
        if subpath.is_empty() {
            return Ok(());
        }
        let source = self.source(id, name, driver);
        let data = if driver.is_empty() { self.open_data(name) } else { RootDir::open(&source) };
        let found = data.and_then(|data| data.open_in(subpath, OFlags::PATH, Mode::empty()));
        let path = source.join(subpath).display().to_string();
        let failed = |errno: Errno| {
            let reason = runtime::protocol::errno_text(errno.raw_os_error());
            let missing = first_missing(&source, subpath);
            let reason = format!("lstat {}: {reason}", missing.display());
            VolumeError::Subpath { reason, path }
        };
        Ok(found.map(drop).map_err(failed)?)
    }

    fn unmount(&self, name: &str) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(self.mountpoint(name), flags) {
            // Not mounted.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => tracing::warn!(volume = name, %error, "unmount"),
        }
    }

    /// A power cut may have taken the directory of a volume that nobody wrote to.
    fn ensure_directory(&self, name: &str) -> Result<()> {
        let place = format!("{name}/_data");
        match self.root.open_strict(&place, DIRECTORY, Mode::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                self.make_directory(name, 0o701)?;
                self.make_directory(&place, 0o755)
            }
            Err(errno) => Err(io_error("open", &self.path.join(place))(errno)),
        }
    }

    pub(crate) fn emit<'a>(
        &self,
        action: &str,
        name: &str,
        extra: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let driver = self.driver_of(name).unwrap_or_default();
        self.emit_of(action, name, &driver, extra);
    }

    fn emit_of<'a>(
        &self,
        action: &str,
        name: &str,
        driver: &str,
        extra: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let driver = ("driver", if driver.is_empty() { "local" } else { driver });
        let extra = extra.into_iter().map(owned);
        self.events.emit("volume", action, name, extra.chain([owned(driver)]).collect());
    }

    // Files.

    fn set_phase(&self, name: &str, phase: Phase) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.phase = phase;
        }
    }

    fn stat(&self, place: &str) -> rustix::io::Result<rustix::fs::Stat> {
        statat(&self.root, place, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn list_directory(&self, place: &str) -> Result<Vec<String>> {
        let list = || -> rustix::io::Result<Vec<String>> {
            let dir = self.root.open_strict(place, DIRECTORY, Mode::empty())?;
            let mut names = Vec::new();
            for entry in Dir::read_from(dir)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') {
                    names.push(name);
                }
            }
            Ok(names)
        };
        list().map_err(io_error("list", &self.path.join(place)))
    }

    fn make_directory(&self, place: &str, mode: u32) -> Result<()> {
        match mkdirat(&self.root, place, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(io_error("create", &self.path.join(place))(errno)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        renameat(&self.root, from, &self.root, to).map_err(io_error("move", &self.path.join(from)))
    }

    fn sync(&self, place: &str) -> Result<()> {
        self.root
            .open_strict(place, DIRECTORY, Mode::empty())
            .and_then(fsync)
            .map_err(io_error("sync", &self.path.join(place)))
    }

    fn throw_away(&self, place: &str) -> Result<()> {
        match self.stat(place) {
            Err(Errno::NOENT) => Ok(()),
            _ => self.rename(place, &format!(".trash/{}", Id::from_random(sys::random::bytes()))),
        }
    }

    /// Deletes what was thrown away: anything from nothing to a database, on a thread of its own.
    fn reap(&self) {
        let trash = match self.root.open_dir(".trash") {
            Ok(trash) => trash,
            Err(error) => return tracing::warn!(%error, "open the trash of volumes"),
        };
        let reaping = Arc::clone(&self.reaping);
        let thread = std::thread::Builder::new().name("volume-trash".to_owned()).spawn(move || {
            let _reaping = reaping.lock().unwrap_or_else(PoisonError::into_inner);
            let unique = Id::from_random(sys::random::bytes());
            if let Err(error) = storage::reap(&trash, unique.short()) {
                tracing::warn!(%error, "empty the trash of volumes");
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "start a thread");
        }
    }
}

impl Entry {
    fn ready(record: Record) -> Self {
        let (phase, busy) = (Phase::Ready, Arc::default());
        Self { record, phase, holds: 0, users: BTreeSet::new(), busy }
    }

    fn is_local(&self) -> bool {
        self.record.driver.is_empty()
    }

    /// Mounted by us.
    fn has_options(&self) -> bool {
        self.is_local() && self.record.options.as_ref().is_some_and(|options| !options.is_empty())
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.record.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// Docker's rule for the driver `local`, and the file system's for the length.
pub(crate) fn check_name(name: &str) -> Result<(), CreateReason> {
    let word = |byte: u8| byte.is_ascii_alphanumeric();
    if name.len() < 2 {
        return Err(CreateReason::Short);
    }
    let legal = name.bytes().all(|byte| word(byte) || b"_.-".contains(&byte));
    if !legal || !name.bytes().next().is_some_and(word) {
        return Err(CreateReason::Characters { name: name.to_owned() });
    }
    if name.len() > NAME_MAX {
        return Err(CreateReason::Long { limit: NAME_MAX });
    }
    Ok(())
}

/// The part of a path at which looking it up ends; for the text of an error.
fn first_missing(source: &Path, subpath: &str) -> PathBuf {
    let mut path = source.to_owned();
    for part in Path::new(subpath) {
        path.push(part);
        if path.symlink_metadata().is_err() {
            break;
        }
    }
    path
}

/// The first mount at or below a path, as this process sees it.
fn mounted_below(path: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The table spells these four in octal.
    let path = path.display().to_string();
    let path = path.replace('\\', "\\134").replace(' ', "\\040");
    let path = path.replace('\t', "\\011").replace('\n', "\\012");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below = points.filter(|point| {
        point
            .strip_prefix(path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    below.next().map(str::to_owned)
}

fn io_error(attempt: &str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let attempt = format!("{attempt} {}", path.display());
    move |errno| Error::Io { attempt, source: errno.into() }
}

/// Docker names all values of this filter.
fn bracketed(error: FilterError) -> FilterError {
    match error {
        FilterError::InvalidValue { name, value } => {
            FilterError::InvalidValue { name, value: format!("[{value}]") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
