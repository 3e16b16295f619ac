//! What a container changed in its root: `docker diff`.
//!
//! The upper directory of an overlay has exactly the changes; whether a path is new or changed is
//! told by looking it up in the layers below, with their whiteouts.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fgetxattr, openat, statat};
use rustix::io::{Errno, Result};
use sys::RootDir;

use crate::error::StorageError;
use crate::storage::Storage;
use crate::tree::{is_directory, is_whiteout};

/// The numbers are those of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, as the container sees it.
    pub path: PathBuf,
    pub kind: ChangeKind,
}

impl Storage {
    /// The changes of a container against its image, sorted by path.
    pub fn changes(&self, id: &str) -> std::result::Result<Vec<Change>, StorageError> {
        let dirs = self.rootfs(id)?;
        let open = |path: &PathBuf| RootDir::open(path).map_err(StorageError::file("open", path));
        let lowers = dirs.lower.iter().map(open).collect::<std::result::Result<Vec<_>, _>>()?;
        let upper = open(&dirs.upper)?;
        changes(&upper, &lowers).map_err(StorageError::file("compare", dirs.upper))
    }
}

fn changes(upper: &RootDir, lowers: &[RootDir]) -> Result<Vec<Change>> {
    let mut walk = Walk { upper, lowers, changes: Vec::new() };
    walk.directory(Path::new(""), false)?;
    walk.changes.sort();
    Ok(walk.changes)
}

struct Walk<'a> {
    upper: &'a RootDir,
    lowers: &'a [RootDir],
    changes: Vec<Change>,
}

impl Walk<'_> {
    /// Walks one directory of the upper; `fresh` when nothing below it shows through. Says
    /// whether there was any change in it.
    fn directory(&mut self, path: &Path, fresh: bool) -> Result<bool> {
        let mut touched = false;
        for (name, stat) in list(self.upper, path)? {
            touched |= self.entry(&path.join(name), &stat, fresh)?;
        }
        Ok(touched)
    }

    fn entry(&mut self, path: &Path, stat: &Stat, fresh: bool) -> Result<bool> {
        let below = if fresh { None } else { lookup(self.lowers, path)? };
        let kind = match &below {
            Some(_) if is_whiteout(stat) => ChangeKind::Deleted,
            // Without anything below there is nothing to be seen missing.
            None if is_whiteout(stat) => return Ok(false),
            Some(_) => ChangeKind::Modified,
            None => ChangeKind::Added,
        };
        let mut touched = false;
        if is_directory(stat) {
            let covers = below.as_ref().is_some_and(is_directory);
            let opaque = self.is_opaque(path)?;
            touched = self.directory(path, !covers || opaque)?;
            if covers && opaque {
                touched |= self.missing(path)?;
            }
        }
        // A path is in the upper as soon as something in it is, or when it was opened for
        // writing; that alone is no change.
        if touched || !below.is_some_and(|below| is_same(stat, &below)) {
            self.changes.push(Change { path: Path::new("/").join(path), kind });
            return Ok(true);
        }
        Ok(false)
    }

    /// What an opaque directory hides and does not have itself.
    fn missing(&mut self, path: &Path) -> Result<bool> {
        let mut names = BTreeSet::new();
        for lower in self.lowers {
            names.extend(list(lower, path)?.into_iter().map(|(name, _)| name));
        }
        for (name, stat) in list(self.upper, path)? {
            if !is_whiteout(&stat) {
                names.remove(&name);
            }
        }
        let mut found = false;
        for path in names.into_iter().map(|name| path.join(name)) {
            if lookup(self.lowers, &path)?.is_some() {
                let path = Path::new("/").join(path);
                self.changes.push(Change { path, kind: ChangeKind::Deleted });
                found = true;
            }
        }
        Ok(found)
    }

    fn is_opaque(&self, path: &Path) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match self.upper.open_strict(path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other?,
        };
        is_opaque(&dir)
    }
}

/// The entries of a directory. One that is gone is empty: a running container may be at work.
fn list(root: &RootDir, path: &Path) -> Result<Vec<(OsString, Stat)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = match root.open_strict(path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut entries = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = os_name(entry.file_name());
        if name == "." || name == ".." {
            continue;
        }
        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            stat => entries.push((name.to_owned(), stat?)),
        }
    }
    Ok(entries)
}

/// Finds a path in the merged layers: the topmost that has it wins, unless a whiteout or an
/// opaque directory on the way hides it.
pub(crate) fn lookup(lowers: &[RootDir], path: &Path) -> Result<Option<Stat>> {
    for lower in lowers {
        match look_in(lower, path)? {
            Found::Here(stat) => return Ok(Some(stat)),
            Found::Hidden => return Ok(None),
            Found::Nothing => {}
        }
    }
    Ok(None)
}

enum Found {
    Here(Stat),
    Hidden,
    Nothing,
}

fn look_in(lower: &RootDir, path: &Path) -> Result<Found> {
    let mut dir = openat(lower, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut opaque = false;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let name = component.as_os_str();
        let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(if opaque { Found::Hidden } else { Found::Nothing }),
            other => other?,
        };
        if is_whiteout(&stat) {
            return Ok(Found::Hidden);
        }
        if components.peek().is_none() {
            return Ok(Found::Here(stat));
        }
        if !is_directory(&stat) {
            return Ok(Found::Hidden);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = openat(&dir, name, flags, Mode::empty())?;
        opaque |= is_opaque(&dir)?;
    }
    Ok(Found::Nothing)
}

pub(crate) fn is_opaque(dir: impl std::os::fd::AsFd) -> Result<bool> {
    let mut value = [0u8; 1];
    match fgetxattr(dir, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What Docker compares; the content of a file is told by its time and size.
fn is_same(one: &Stat, other: &Stat) -> bool {
    one.st_mode == other.st_mode
        && (one.st_uid, one.st_gid, one.st_rdev) == (other.st_uid, other.st_gid, other.st_rdev)
        && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
        && (is_directory(one) || one.st_size == other.st_size)
}

pub(crate) fn os_name(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
