//! What a container changed in its root: `docker diff`.
//!
//! The upper directory of an overlay has exactly the changes; whether a path is new or changed is
//! told by looking it up in the layers below, with their whiteouts.

use std::ffi::{CStr, OsStr};
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
    /// whether anything in it was added or deleted.
    fn directory(&mut self, path: &Path, fresh: bool) -> Result<bool> {
        let mut touched = false;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match self.upper.open_strict(path, flags, Mode::empty()) {
            // A running container may have removed it since.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other?,
        };
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let path = path.join(os_name(entry.file_name()));
            touched |= self.entry(&path, &stat, fresh)?;
        }
        Ok(touched)
    }

    fn entry(&mut self, path: &Path, stat: &Stat, fresh: bool) -> Result<bool> {
        let below = if fresh { None } else { lookup(self.lowers, path)? };
        if is_whiteout(stat) {
            // Without anything below there is nothing to be seen missing.
            if below.is_some() {
                self.push(path, ChangeKind::Deleted);
            }
            return Ok(below.is_some());
        }
        let kind = if below.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        if !is_directory(stat) {
            self.push(path, kind);
            return Ok(kind == ChangeKind::Added);
        }
        let replaced = below.as_ref().is_some_and(|below| !is_directory(below));
        let opaque = self.is_opaque(path)?;
        let touched = self.directory(path, fresh || below.is_none() || replaced || opaque)?;
        // A directory is in the upper as soon as something in it is; that alone is no change.
        let same = below.as_ref().is_some_and(|below| {
            !opaque && is_directory(below) && same_directory(stat, below) && !touched
        });
        if !same {
            self.push(path, kind);
        }
        Ok(kind == ChangeKind::Added)
    }

    fn is_opaque(&self, path: &Path) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match self.upper.open_strict(path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other?,
        };
        is_opaque(&dir)
    }

    fn push(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: Path::new("/").join(path), kind });
    }
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

fn is_opaque(dir: impl std::os::fd::AsFd) -> Result<bool> {
    let mut value = [0u8; 1];
    match fgetxattr(dir, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn same_directory(one: &Stat, other: &Stat) -> bool {
    one.st_mode == other.st_mode
        && one.st_uid == other.st_uid
        && one.st_gid == other.st_gid
        && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
}

pub(crate) fn os_name(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
