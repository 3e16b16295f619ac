//! Volumes that are made and filled for a container, or for the API, and the promise that nobody
//! removes them meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use metadata::{StoreError, WriteTxn};
use rustix::fs::{Dir, Mode, OFlags, fsync, mkdirat, openat, renameat, syncfs};
use rustix::io::Errno;
use spec::Id;
use sys::RootDir;

use super::plugins::{Patience, Plugin};
use super::{
    ANONYMOUS, DIRECTORY, Entry, Phase, Record, VOLUMES, Volumes, Wanted, check_name, io_error,
    local,
};
use crate::containers::now_nanos;
use crate::errors::{CreateReason, Error, Result, VolumeError};

/// Volumes that a container in the making refers to. Dropped without [`Holds::settle`], those that
/// nobody else wants and that have no record are gone again.
#[derive(Debug)]
pub(crate) struct Holds {
    volumes: Arc<Volumes>,
    names: Vec<String>,
    /// What plugins made for us.
    made: Vec<(Arc<Plugin>, String)>,
}

/// A volume that is held: its name, and the plugin that has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub name: String,
    pub driver: String,
}

impl Holds {
    pub(crate) fn new(volumes: &Arc<Volumes>) -> Self {
        Self { volumes: Arc::clone(volumes), names: Vec::new(), made: Vec::new() }
    }

    /// Holds the volume of that name, a new one if there is none; an empty name makes an anonymous
    /// one. May ask plugins.
    pub(crate) fn add(&mut self, name: &str, wanted: &Wanted) -> Result<Held> {
        let anonymous = name.is_empty();
        let name = match anonymous {
            true => Id::from_random(sys::random::bytes()).to_string(),
            false => name.to_owned(),
        };
        let create = |reason| VolumeError::Create { name: name.clone(), reason };
        let driver = self.choose_driver(&name, anonymous, wanted)?;
        if !driver.is_empty() {
            let record = new_record(&driver, anonymous, wanted);
            self.add_remote(&name, &driver, &record)?;
            self.names.push(name.clone());
            return Ok(Held { name, driver });
        }
        check_name(&name).map_err(create)?;
        let mut entries = self.volumes.entries();
        match entries.get_mut(&name) {
            Some(entry) if entry.phase == Phase::Removing => {
                return Err(VolumeError::Removing { name }.into());
            }
            Some(entry) => entry.holds += 1,
            None => {
                if self.volumes.stat(&name).is_ok() {
                    return Err(create(CreateReason::Occupied).into());
                }
                local::check(&wanted.options.clone().unwrap_or_default()).map_err(create)?;
                let record = new_record("", anonymous, wanted);
                let entry = Entry { phase: Phase::Making, holds: 1, ..Entry::ready(record) };
                entries.insert(name.clone(), entry);
            }
        }
        self.names.push(name.clone());
        Ok(Held { name, driver })
    }

    /// Whose the volume is, or is to be: empty for `local`. A name belongs to one driver, as long
    /// as that has a volume of the name.
    fn choose_driver(&self, name: &str, anonymous: bool, wanted: &Wanted) -> Result<String> {
        let create = |reason| VolumeError::Create { name: name.to_owned(), reason };
        let asked = match wanted.driver.as_str() {
            "local" => "",
            driver => driver,
        };
        match self.volumes.driver_of(name) {
            Some(known) if wanted.driver.is_empty() || known == asked => Ok(known),
            Some(known) if known.is_empty() => {
                let (name, driver) = (name.to_owned(), "local".to_owned());
                Err(create(CreateReason::Unique { name, driver }).into())
            }
            Some(known) => {
                self.volumes.check_unique(name, &known).map_err(create)?;
                self.volumes.forget_remote(name)?;
                if self.volumes.driver_of(name).is_some() {
                    // A container still refers to what its plugin lost.
                    let (name, driver) = (name.to_owned(), known);
                    return Err(create(CreateReason::Unique { name, driver }).into());
                }
                Ok(asked.to_owned())
            }
            None if wanted.driver.is_empty() && !anonymous => {
                let found = self.volumes.find_remote(name);
                Ok(found.map(|(plugin, _)| plugin.name.clone()).unwrap_or_default())
            }
            None => Ok(asked.to_owned()),
        }
    }

    fn add_remote(&mut self, name: &str, driver: &str, record: &Record) -> Result<()> {
        let unknown = |cause| {
            let reason = CreateReason::Driver { driver: driver.to_owned(), cause };
            VolumeError::Create { name: name.to_owned(), reason }
        };
        let plugin = self.volumes.plugins.get(driver, Patience::of_questions()).map_err(unknown)?;
        if self.volumes.hold_remote(name, &plugin, record)? {
            self.made.push((plugin, name.to_owned()));
        }
        Ok(())
    }

    fn making(&self) -> Vec<(String, Record)> {
        let entries = self.volumes.entries();
        let names: BTreeSet<_> = self.names.iter().collect();
        let making = names.into_iter().filter_map(|name| {
            let entry = entries.get(name).filter(|entry| entry.phase == Phase::Making)?;
            Some((name.clone(), entry.record.clone()))
        });
        making.collect()
    }

    /// Makes the directories of new volumes.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut making = self.making();
        making.retain(|(_, record)| record.driver.is_empty());
        for (name, _) in &making {
            self.volumes.make_directory(&format!(".making/{name}"), 0o701)?;
            self.volumes.make_directory(&format!(".making/{name}/_data"), 0o755)?;
            self.volumes.sync(&format!(".making/{name}"))?;
        }
        if making.is_empty() { Ok(()) } else { self.volumes.sync(".making") }
    }

    /// Copies what the image has at `target` into an empty volume.
    pub(crate) fn fill(&self, name: &str, image: &RootDir, target: &str) -> Result<()> {
        match image.open_in(target, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(source) => self.volumes.fill(name, &RootDir::from_fd(source)),
            // Nothing there, or something that is no directory, or a link to nowhere.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(io_error("open in the image", Path::new(target))(errno)),
        }
    }

    /// The records of new volumes, for the commit that makes them.
    pub(crate) fn pending(&self) -> Pending {
        Pending(self.making())
    }

    /// After the commit: the volumes are there.
    pub(crate) fn settle(&self) {
        for (name, record) in self.making() {
            if record.driver.is_empty()
                && let Err(error) = self.settle_directory(&name)
            {
                // The next start moves it.
                tracing::error!(volume = name, %error, "move a volume into place");
            }
            self.volumes.set_phase(&name, Phase::Ready);
            self.volumes.emit("create", &name, []);
        }
    }

    fn settle_directory(&self, name: &str) -> Result<()> {
        let making = format!(".making/{name}");
        if self.volumes.stat(name).is_err() && self.volumes.stat(&making).is_ok() {
            self.volumes.rename(&making, name)?;
        }
        Ok(())
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for name in &self.names {
            let mut entries = self.volumes.entries();
            let Some(entry) = entries.get_mut(name) else { continue };
            entry.holds = entry.holds.saturating_sub(1);
            if entry.holds > 0 || entry.phase != Phase::Making {
                continue;
            }
            let made = self.made.iter().find(|(_, made)| made == name);
            if let Some((plugin, name)) = made.cloned() {
                take_back(plugin, name);
                continue;
            }
            if let Err(error) = self.volumes.throw_away(&format!(".making/{name}")) {
                tracing::debug!(volume = name, %error, "left for the next start");
            }
            entries.remove(name);
        }
    }
}

fn new_record(driver: &str, anonymous: bool, wanted: &Wanted) -> Record {
    let mut labels = wanted.labels.clone();
    if anonymous {
        labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
    }
    let (driver, options) = (driver.to_owned(), wanted.options.clone());
    Record { created_nanos: now_nanos(), driver, labels, options }
}

/// Removes what a plugin made for nothing; it may take its time.
fn take_back(plugin: Arc<Plugin>, name: String) {
    let removal = move || {
        if let Err(error) = plugin.remove(&name) {
            tracing::warn!(volume = name, %error, "left with its plugin");
        }
    };
    let thread = std::thread::Builder::new().name("volume-remove".to_owned()).spawn(removal);
    if let Err(error) = thread {
        tracing::warn!(%error, "start a thread");
    }
}

/// Records that wait for their commit.
#[derive(Debug)]
pub(crate) struct Pending(Vec<(String, Record)>);

impl Pending {
    pub(crate) fn put(&self, txn: &mut WriteTxn<'_>) -> Result<(), StoreError> {
        for (name, record) in &self.0 {
            // Another container of the same moment may have been first.
            if VOLUMES.get(txn, name)?.is_none() {
                VOLUMES.put(txn, name, record)?;
            }
        }
        Ok(())
    }
}

impl Volumes {
    /// Copies `source` into an empty volume. One that is new is filled where it is made. One that
    /// was there is filled beside and swapped in by one rename, so that a crash leaves it empty or
    /// full; unless a running container has it open.
    fn fill(&self, name: &str, source: &RootDir) -> Result<()> {
        let failed =
            |error: io::Error| Error::io(format!("fill the volume {name} from the image"))(error);
        let open_failed = |errno: Errno| failed(errno.into());
        let (busy, options, in_use, new) = {
            let entries = self.entries();
            let Some(entry) = entries.get(name) else { return Ok(()) };
            let options = entry.record.options.clone().unwrap_or_default();
            let new = entry.phase == Phase::Making;
            if !entry.is_local() {
                let driver = entry.record.driver.clone();
                drop(entries);
                return self.fill_remote(name, &driver, source);
            }
            (Arc::clone(&entry.busy), options, !entry.users.is_empty(), new)
        };
        let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        // What its options say, when nobody has it mounted: mounted nowhere but here.
        let mountpoint = self.mountpoint(name).display().to_string();
        let elsewhere = if in_use { None } else { local::mount(&options, &mountpoint)? };
        let making = format!(".making/{name}");
        // Somebody else who wanted the new volume may have settled it by now.
        let new = new && self.stat(&making).is_ok();
        let direct = new || in_use || elsewhere.is_some();
        let data = match elsewhere {
            Some(mount) => RootDir::from_fd(mount),
            None => self.open_data(if new { &making } else { name }).map_err(open_failed)?,
        };
        if !is_empty(&data).map_err(open_failed)? {
            return Ok(());
        }
        if !direct && self.fill_beside(name, source).map_err(failed)? {
            return Ok(());
        }
        storage::copy_tree(source, &data).and_then(|()| sync_all(&data)).map_err(failed)
    }

    /// Fills a new directory and puts it in the place of the empty one; false when a container was
    /// started meanwhile, which would go on writing to the old one.
    fn fill_beside(&self, name: &str, source: &RootDir) -> io::Result<bool> {
        let making = format!(".making/{name}");
        let mode = Mode::from_raw_mode(0o700);
        mkdirat(&self.root, &making, mode)?;
        mkdirat(&self.root, format!("{making}/_data"), mode)?;
        let beside = self.open_data(&making)?;
        let copied = storage::copy_tree(source, &beside).and_then(|()| sync_all(&beside));
        let swapped = copied.and_then(|()| {
            let entries = self.entries();
            if entries.get(name).is_some_and(|entry| !entry.users.is_empty()) {
                return Ok(false);
            }
            let (from, to) = (format!("{making}/_data"), format!("{name}/_data"));
            Ok(renameat(&self.root, from, &self.root, to).map(|()| true)?)
        });
        if let Err(error) = self.throw_away(&making) {
            tracing::debug!(volume = name, %error, "left for the next start");
        }
        let swapped = swapped?;
        if swapped {
            fsync(self.root.open_strict(name, DIRECTORY, Mode::empty())?)?;
        }
        Ok(swapped)
    }

    pub(super) fn open_data(&self, place: &str) -> rustix::io::Result<RootDir> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.root.open_strict(format!("{place}/_data"), flags, Mode::empty()).map(RootDir::from_fd)
    }
}

pub(super) fn is_empty(directory: impl AsFd) -> rustix::io::Result<bool> {
    let readable = openat(directory, ".", DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(readable)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn sync_all(directory: impl AsFd) -> io::Result<()> {
    Ok(syncfs(openat(directory, ".", DIRECTORY, Mode::empty())?)?)
}
