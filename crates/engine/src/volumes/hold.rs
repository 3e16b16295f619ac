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
}

impl Holds {
    pub(crate) fn new(volumes: &Arc<Volumes>) -> Self {
        Self { volumes: Arc::clone(volumes), names: Vec::new() }
    }

    /// Holds the volume of that name, a new one if there is none; an empty name makes an anonymous
    /// one. Returns the name.
    pub(crate) fn add(&mut self, name: &str, wanted: &Wanted) -> Result<String> {
        let anonymous = name.is_empty();
        let name = match anonymous {
            true => Id::from_random(sys::random::bytes()).to_string(),
            false => name.to_owned(),
        };
        let create = |reason| VolumeError::Create { name: name.clone(), reason };
        if !matches!(wanted.driver.as_str(), "" | "local") {
            let driver = wanted.driver.clone();
            return Err(create(CreateReason::Driver { driver }).into());
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
                let mut labels = wanted.labels.clone();
                if anonymous {
                    labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
                }
                let options = wanted.options.clone();
                let record = Record { created_nanos: now_nanos(), labels, options };
                let entry = Entry { phase: Phase::Making, holds: 1, ..Entry::ready(record) };
                entries.insert(name.clone(), entry);
            }
        }
        self.names.push(name.clone());
        Ok(name)
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
        let making = self.making();
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
        for (name, _) in self.making() {
            if let Err(error) = self.settle_directory(&name) {
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
            if let Err(error) = self.volumes.throw_away(&format!(".making/{name}")) {
                tracing::debug!(volume = name, %error, "left for the next start");
            }
            entries.remove(name);
        }
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

fn is_empty(directory: impl AsFd) -> rustix::io::Result<bool> {
    let readable = openat(directory, ".", DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(readable)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sync_all(directory: impl AsFd) -> io::Result<()> {
    Ok(syncfs(openat(directory, ".", DIRECTORY, Mode::empty())?)?)
}
