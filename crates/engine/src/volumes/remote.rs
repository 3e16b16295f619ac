//! Volumes that a plugin has. The plugin makes, keeps and mounts them; ours are the labels, who
//! uses them, and the promise that each Mount is followed by an Unmount.
//!
//! A mount has a record (table `volume_mounts`, by the id under which the plugin knows it) that is
//! written before the plugin is asked and removed after it unmounted. So a crash leaves records:
//! of containers that still run they are taken over, for all others the plugin is told to unmount,
//! again and again until it answers ([`Volumes::note_mounts`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::plugin;
use api_types::volume::Volume;
use metadata::{StoreError, Table};
use serde::{Deserialize, Serialize};
use spec::Id;
use sys::RootDir;

use super::hold::{is_empty, sync_all};
use super::plugins::{Patience, Plugin};
use super::{Entry, Phase, Record, VOLUMES, Volumes};
use crate::containers::now_nanos;
use crate::errors::{CreateReason, Error, PluginError, Result, VolumeError};

pub(super) const MOUNTS: Table<PluginMount> = Table::new("volume_mounts");
/// Between two attempts to reach a plugin that has something to unmount.
const AGAIN: Duration = Duration::from_secs(3);

pub(super) type Mounts = BTreeMap<String, PluginMount>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PluginMount {
    volume: String,
    driver: String,
    /// The container, or whoever it was mounted for a moment.
    user: String,
    /// Empty until the plugin answered.
    mountpoint: String,
    #[serde(skip)]
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Of the daemon before this one.
    #[default]
    Inherited,
    Held,
    /// To be unmounted.
    Released,
}

/// What the plugins have, and who did not say.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub volumes: Vec<Volume>,
    pub warnings: Vec<String>,
}

impl Volumes {
    /// The plugin of a volume, empty for the driver `local`; none for a volume nobody knows of.
    pub(super) fn driver_of(&self, name: &str) -> Option<String> {
        self.entries().get(name).map(|entry| entry.record.driver.clone())
    }

    /// The plugins for `info`: those that were used.
    pub(crate) fn drivers(&self) -> BTreeSet<String> {
        let mut drivers: BTreeSet<_> = self.plugins.known().into_iter().collect();
        drivers.extend(self.recorded_drivers());
        drivers
    }

    fn recorded_drivers(&self) -> Vec<String> {
        let entries = self.entries();
        let remote = entries.values().filter(|entry| !entry.is_local());
        remote.map(|entry| entry.record.driver.clone()).collect()
    }

    /// Everyone who may have volumes.
    pub(super) fn all_drivers(&self) -> BTreeSet<String> {
        let mut drivers = self.plugins.names();
        drivers.extend(self.recorded_drivers());
        drivers
    }

    /// The plugin that has a volume of which we have no record.
    pub(super) fn find_remote(&self, name: &str) -> Option<(Arc<Plugin>, plugin::Volume)> {
        let mut drivers = self.plugins.names().into_iter();
        drivers.find_map(|driver| {
            let plugin = self.plugins.get(&driver, Patience::of_questions()).ok()?;
            plugin.volume(name).ok().map(|volume| (plugin, volume))
        })
    }

    /// Takes note of a volume that its plugin has and we did not know of.
    pub(super) fn note_remote(&self, name: &str, driver: &str) {
        let record = Record { driver: driver.to_owned(), ..Record::default() };
        self.entries().entry(name.to_owned()).or_insert_with(|| Entry::ready(record));
    }

    // The API.

    /// Asks all plugins at once, none longer than a list may take.
    pub(super) fn list_remote(&self, drivers: &BTreeSet<String>) -> Answers {
        let mut all = Answers::default();
        let ask = |driver: &str| {
            let patience = Patience::of_lists();
            let plugin = self.plugins.get(driver, patience)?;
            plugin.list(patience).map(|volumes| (plugin, volumes))
        };
        let answers = std::thread::scope(|scope| {
            let asked: Vec<_> =
                drivers.iter().map(|driver| (driver, scope.spawn(move || ask(driver)))).collect();
            let answers = asked
                .into_iter()
                .filter_map(|(driver, thread)| thread.join().ok().map(|answer| (driver, answer)));
            answers.collect::<Vec<_>>()
        });
        for (driver, answer) in answers {
            match answer {
                Ok((plugin, volumes)) => {
                    let shown = volumes.iter().filter_map(|volume| {
                        let record = self.record_for(&volume.name, driver)?;
                        Some(self.describe_remote(&volume.name, &record, &plugin.scope, volume))
                    });
                    all.volumes.extend(shown);
                }
                Err(error) => self.list_unheard(driver, &error, &mut all),
            }
        }
        all
    }

    /// What we know of the volumes of a plugin that does not answer.
    fn list_unheard(&self, driver: &str, error: &PluginError, all: &mut Answers) {
        let known: Vec<_> = {
            let entries = self.entries();
            let own = entries.iter().filter(|(_, entry)| entry.record.driver == driver);
            own.map(|(name, entry)| (name.clone(), entry.record.clone())).collect()
        };
        // A socket that was never a volume driver's is nobody's affair here.
        if known.is_empty() && !self.plugins.known().iter().any(|name| name == driver) {
            return tracing::debug!(plugin = driver, %error, "no list");
        }
        all.warnings.push(format!("list {driver}: {error}"));
        for (name, record) in known {
            let nothing = plugin::Volume::default();
            all.volumes.push(self.describe_remote(&name, &record, "local", &nothing));
        }
    }

    /// Our record of a plugin's volume, if any; nothing when another driver has the name.
    fn record_for(&self, name: &str, driver: &str) -> Option<Record> {
        let unknown = || Record { driver: driver.to_owned(), ..Record::default() };
        let entries = self.entries();
        let record = entries.get(name).map_or_else(unknown, |entry| entry.record.clone());
        (record.driver == driver).then_some(record)
    }

    pub(super) fn inspect_remote(&self, name: &str, record: &Record) -> Result<Volume> {
        let (driver, unsure) = (record.driver.as_str(), unsure(name, &record.driver));
        let plugin = self.plugins.get(driver, Patience::of_questions()).map_err(unsure)?;
        match plugin.volume(name) {
            Ok(volume) => {
                let shown = self.describe_remote(name, record, &plugin.scope, &volume);
                Ok(Volume { status: volume.status, ..shown })
            }
            Err(error) if error.is_refusal() => {
                tracing::debug!(volume = name, %error, "its plugin does not have it");
                Err(VolumeError::NotFound { name: name.to_owned() }.into())
            }
            Err(error) => Err(unsure(error)),
        }
    }

    pub(super) fn describe_remote(
        &self,
        name: &str,
        record: &Record,
        scope: &str,
        volume: &plugin::Volume,
    ) -> Volume {
        let mountpoint = match volume.mountpoint.as_str() {
            "" => self.mounted_at(|mount| mount.volume == name),
            given => given.to_owned(),
        };
        let created_at = match volume.created_at.as_str() {
            "" => spec::time::ZERO.to_owned(),
            given => given.to_owned(),
        };
        Volume {
            created_at,
            driver: record.driver.clone(),
            labels: record.labels.clone(),
            mountpoint,
            name: name.to_owned(),
            options: record.options.clone(),
            scope: scope.to_owned(),
            ..Volume::default()
        }
    }

    /// Takes a volume from its plugin. A crash before its record is gone leaves the record of a
    /// volume that its plugin does not have: not found, and made anew by who wants it.
    pub(super) fn remove_remote(&self, name: &str, driver: &str) -> Result<()> {
        self.unmount_released(|mount| mount.volume == name);
        let unsure = unsure(name, driver);
        let plugin = self.plugins.get(driver, Patience::of_questions()).map_err(unsure)?;
        match plugin.volume(name) {
            Ok(_) => {}
            Err(error) if error.is_refusal() => {
                return Err(VolumeError::NotFound { name: name.to_owned() }.into());
            }
            Err(error) => return Err(unsure(error)),
        }
        plugin.remove(name).map_err(|cause| {
            VolumeError::Plugin { attempt: "remove", name: name.to_owned(), cause }.into()
        })
    }

    /// `rm -f` of what its plugin will not or cannot remove: we know nothing of it any more.
    pub(super) fn forget_remote(&self, name: &str) -> Result<()> {
        if !self.users_of(name).is_empty() || self.driver_of(name).is_none_or(|own| own.is_empty())
        {
            return Ok(());
        }
        let forgotten = name.to_owned();
        self.store.write(move |txn| {
            VOLUMES.remove(txn, &forgotten);
            Ok::<(), StoreError>(())
        })?;
        self.entries().remove(name);
        Ok(())
    }

    // Mounts.

    fn mounts(&self) -> MutexGuard<'_, Mounts> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounted_at(&self, wanted: impl Fn(&PluginMount) -> bool) -> String {
        let mounts = self.mounts();
        let there = |mount: &&PluginMount| mount.state != State::Released && wanted(mount);
        mounts.values().find(there).map(|mount| mount.mountpoint.clone()).unwrap_or_default()
    }

    /// Where a container finds the files of a volume; an empty path while a plugin's is not
    /// mounted for it.
    pub(crate) fn source(&self, user: &Id, name: &str, driver: &str) -> PathBuf {
        match driver {
            "" => self.mountpoint(name),
            _ => {
                let own = |mount: &PluginMount| mount.user == user.as_str() && mount.volume == name;
                self.mounted_at(own).into()
            }
        }
    }

    /// Has the plugin mount a volume; its owner holds `busy`.
    pub(super) fn mount_remote(&self, user: &Id, name: &str, driver: &str) -> Result<()> {
        let failed = |mountpoint: &str, cause| {
            let mountpoint = mountpoint.to_owned();
            Error::from(VolumeError::PluginMount { mountpoint, cause })
        };
        let plugin = self.plugins.get(driver, Patience::of_questions());
        let plugin = plugin.map_err(|cause| failed("", cause))?;
        let id = Id::from_random(sys::random::bytes()).to_string();
        let mut mount = PluginMount {
            volume: name.to_owned(),
            driver: driver.to_owned(),
            user: user.to_string(),
            mountpoint: String::new(),
            state: State::Held,
        };
        self.put_mount(&id, &mount)?;
        let known = plugin.volume(name).map(|volume| volume.mountpoint).unwrap_or_default();
        let mounted = plugin.mount(name, &id).and_then(|place| match place.starts_with('/') {
            true => Ok(place),
            false => Err(PluginError::Refused { text: "the plugin named no directory".to_owned() }),
        });
        match mounted {
            Ok(place) => {
                mount.mountpoint = place;
                self.put_mount(&id, &mount)
            }
            // It may have mounted all the same, and is told not to have.
            Err(error) => {
                self.release(user, name);
                Err(failed(&known, error))
            }
        }
    }

    fn put_mount(&self, id: &str, mount: &PluginMount) -> Result<()> {
        let (key, record) = (id.to_owned(), mount.clone());
        self.store.write(move |txn| MOUNTS.put(txn, &key, &record))?;
        self.mounts().insert(id.to_owned(), mount.clone());
        Ok(())
    }

    /// A container has no use for a volume any more. [`Self::unmount_released`] tells the plugin.
    pub(super) fn release(&self, user: &Id, name: &str) {
        for mount in self.mounts().values_mut() {
            if mount.user == user.as_str() && mount.volume == name {
                mount.state = State::Released;
            }
        }
    }

    /// What runs is known: the mounts of all others that an earlier daemon left are for nobody.
    pub(super) fn note_mounts(self: &Arc<Self>, running: &BTreeSet<&Id>) {
        for mount in self.mounts().values_mut().filter(|mount| mount.state == State::Inherited) {
            let runs = running.iter().any(|id| id.as_str() == mount.user);
            mount.state = if runs { State::Held } else { State::Released };
        }
        self.sweep();
    }

    /// Tells plugins of the ends of mounts. What they refuse is over; who does not answer is asked
    /// again by [`Self::sweep`].
    pub(super) fn unmount_released(&self, chosen: impl Fn(&PluginMount) -> bool) {
        let released = |(id, mount): (&String, &PluginMount)| {
            (mount.state == State::Released && chosen(mount)).then(|| (id.clone(), mount.clone()))
        };
        let released: Vec<_> = self.mounts().iter().filter_map(released).collect();
        for (id, mount) in released {
            let busy = self.entries().get(&mount.volume).map(|entry| Arc::clone(&entry.busy));
            let _busy =
                busy.as_ref().map(|busy| busy.lock().unwrap_or_else(PoisonError::into_inner));
            // Somebody else was first.
            if self.mounts().contains_key(&id) {
                self.unmount_one(&id, &mount);
            }
        }
    }

    fn unmount_one(&self, id: &str, mount: &PluginMount) {
        let plugin = self.plugins.get(&mount.driver, Patience::of_questions());
        match plugin.and_then(|plugin| plugin.unmount(&mount.volume, id)) {
            Ok(()) => {}
            Err(error) if error.is_refusal() => {
                tracing::warn!(volume = mount.volume, %error, "unmount");
            }
            Err(error) => return tracing::debug!(volume = mount.volume, %error, "unmount later"),
        }
        let key = id.to_owned();
        let written = self.store.write(move |txn| {
            MOUNTS.remove(txn, &key);
            Ok::<(), StoreError>(())
        });
        if let Err(error) = written {
            // The next start tells the plugin once more.
            tracing::error!(volume = mount.volume, %error, "forget a mount");
        }
        self.mounts().remove(id);
    }

    /// The mounts of a container that ended; for those who wait for its end.
    pub(crate) fn unmount_for(&self, user: &Id) {
        self.unmount_released(|mount| mount.user == user.as_str());
    }

    /// Unmounts, on a thread of its own, until nothing is left to unmount.
    pub(crate) fn sweep(self: &Arc<Self>) {
        let left =
            |volumes: &Self| volumes.mounts().values().any(|mount| mount.state == State::Released);
        if !left(self) || self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let volumes = Arc::clone(self);
        let thread =
            std::thread::Builder::new().name("volume-unmount".to_owned()).spawn(move || {
                loop {
                    volumes.unmount_released(|_mount| true);
                    if left(&volumes) {
                        std::thread::sleep(AGAIN);
                        continue;
                    }
                    volumes.sweeping.store(false, Ordering::Release);
                    // Something was released after the look and before the word of the end.
                    if !left(&volumes) || volumes.sweeping.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            });
        if let Err(error) = thread {
            self.sweeping.store(false, Ordering::Release);
            tracing::warn!(%error, "start a thread");
        }
    }

    /// Copies `source` into a plugin's volume that is empty, mounted for the moment.
    pub(super) fn fill_remote(&self, name: &str, driver: &str, source: &RootDir) -> Result<()> {
        let user = Id::from_random(sys::random::bytes());
        let busy = self.entries().get(name).map(|entry| Arc::clone(&entry.busy));
        let filled = {
            let _busy =
                busy.as_ref().map(|busy| busy.lock().unwrap_or_else(PoisonError::into_inner));
            self.mount_remote(&user, name, driver).and_then(|()| {
                let fill = || -> std::io::Result<()> {
                    let data = RootDir::open(self.source(&user, name, driver))?;
                    if is_empty(&data)? {
                        storage::copy_tree(source, &data)?;
                        sync_all(&data)?;
                    }
                    Ok(())
                };
                fill().map_err(Error::io(format!("fill the volume {name} from the image")))
            })
        };
        self.release(&user, name);
        self.unmount_for(&user);
        filled
    }

    /// Holds a plugin's volume, made if it has none of that name; true if it was made. The plugin
    /// is asked for one creation at a time, so that of two who want a new volume one makes it.
    pub(super) fn hold_remote(&self, name: &str, plugin: &Plugin, wanted: &Record) -> Result<bool> {
        let _creating = plugin.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match self.entries().get_mut(name) {
            Some(entry) if entry.phase == Phase::Removing => {
                return Err(VolumeError::Removing { name: name.to_owned() }.into());
            }
            Some(entry) => {
                entry.holds += 1;
                true
            }
            None => false,
        };
        let made = self.find_or_make(name, plugin, wanted, known);
        let mut entries = self.entries();
        match (made, known) {
            (made, true) => made.inspect_err(|_error| {
                if let Some(entry) = entries.get_mut(name) {
                    entry.holds = entry.holds.saturating_sub(1);
                }
            }),
            (Err(error), false) => Err(error),
            (Ok(made), false) => {
                let new = || Entry { phase: Phase::Making, ..Entry::ready(wanted.clone()) };
                entries.entry(name.to_owned()).or_insert_with(new).holds += 1;
                Ok(made)
            }
        }
    }

    fn find_or_make(
        &self,
        name: &str,
        plugin: &Plugin,
        wanted: &Record,
        known: bool,
    ) -> Result<bool> {
        let create = |reason| {
            let name = name.to_owned();
            Error::from(VolumeError::Create { name, reason })
        };
        match plugin.volume(name) {
            Ok(_) => Ok(false),
            Err(cause) if known && !cause.is_refusal() => {
                let (name, driver) = (name.to_owned(), plugin.name.clone());
                Err(create(CreateReason::Unsure { name, driver, cause: Box::new(cause) }))
            }
            Err(_) => {
                let made = plugin.create(name, wanted.options.clone());
                made.map(|()| true).map_err(|cause| create(CreateReason::Plugin(cause)))
            }
        }
    }

    /// Whether the plugin that had a name still has it, and nobody else may take it.
    pub(super) fn check_unique(&self, name: &str, driver: &str) -> Result<(), CreateReason> {
        let (owned, driver) = (name.to_owned(), driver.to_owned());
        let plugin = self.plugins.get(&driver, Patience::of_questions());
        match plugin.and_then(|plugin| plugin.volume(name)) {
            Ok(_) => Err(CreateReason::Unique { name: owned, driver }),
            Err(cause) if !cause.is_refusal() => {
                Err(CreateReason::Unsure { name: owned, driver, cause: Box::new(cause) })
            }
            Err(_) => Ok(()),
        }
    }

    /// A record for a container's volume that lost it.
    pub(super) fn lost_record(driver: &str) -> Record {
        Record { created_nanos: now_nanos(), driver: driver.to_owned(), ..Record::default() }
    }
}

fn unsure(name: &str, driver: &str) -> impl Fn(PluginError) -> Error + Copy {
    move |cause| {
        let (name, driver) = (name.to_owned(), driver.to_owned());
        VolumeError::Unchecked { name, driver, cause: Box::new(cause) }.into()
    }
}
