//! Deleting trees that strangers filled.
//!
//! A tree may be deeper than the longest path and wider than memory. So no path is built and
//! no stack kept: directories inside a directory are first moved up to the trash itself, after
//! which each one holds nothing but leaves.

use std::ffi::CStr;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};
use sys::RootDir;

/// Deletes everything in `trash`; returns how many trees went. What cannot be deleted (say, a file
/// made immutable) is stepped over and reported once the rest is gone.
pub fn reap(trash: &RootDir, unique: &str) -> Result<usize> {
    let mut reaper = Reaper { trash, unique, moved: 0 };
    let mut trees = 0;
    loop {
        let (removed, failure) = reaper.pass(&mut trees)?;
        if removed == 0 {
            return failure.map_or(Ok(trees), Err);
        }
    }
}

struct Reaper<'trash> {
    trash: &'trash RootDir,
    unique: &'trash str,
    moved: u64,
}

impl Reaper<'_> {
    /// Goes through the trash once; what was moved up on the way waits for the next pass.
    fn pass(&mut self, trees: &mut usize) -> Result<(usize, Option<Errno>)> {
        let (mut removed, mut failure) = (0, None);
        let top = openat(self.trash, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            match self.remove(name, entry.file_type()) {
                Ok(()) => {
                    removed += 1;
                    *trees += usize::from(!name.to_bytes().starts_with(b"up-"));
                }
                Err(errno) => failure = Some(errno),
            }
        }
        Ok((removed, failure))
    }

    fn remove(&mut self, name: &CStr, kind: FileType) -> Result<()> {
        if kind != FileType::Directory {
            match unlinkat(self.trash, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                other => return other,
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(self.trash, name, flags, Mode::empty())?;
        for child in Dir::read_from(&dir)? {
            let child = child?;
            let name = child.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            let as_leaf = match child.file_type() {
                FileType::Directory => Err(Errno::ISDIR),
                _ => unlinkat(&dir, name, AtFlags::empty()),
            };
            match as_leaf {
                Err(Errno::ISDIR) => {
                    self.moved += 1;
                    let up = format!("up-{}-{}", self.unique, self.moved);
                    renameat(&dir, name, self.trash, up)?;
                }
                other => other?,
            }
        }
        unlinkat(self.trash, name, AtFlags::REMOVEDIR)
    }
}

fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
