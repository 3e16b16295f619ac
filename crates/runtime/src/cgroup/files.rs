//! Small files in a directory of cgroupfs, and walks over the directories below one.
//!
//! A container with a writable cgroup mount names and nests the groups below its own as it likes,
//! so walks keep one descriptor and no path, and go back up by `..`.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, accessat, fstat, mkdirat, openat,
    unlinkat,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory of cgroupfs.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    /// Opens a mount point of the host.
    pub(super) fn open_host(path: &Path) -> Result<Self> {
        openat(CWD, path, DIRECTORY, Mode::empty()).map(Self)
    }

    /// Opens a group below this one.
    pub(super) fn open_dir(&self, path: impl Arg) -> Result<Self> {
        openat(&self.0, path, DIRECTORY, Mode::empty()).map(Self)
    }

    pub(super) const fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub(super) fn make_dir(&self, path: &str) -> Result<()> {
        mkdirat(&self.0, path, Mode::from_raw_mode(0o755))
    }

    pub(super) fn remove_dir(&self, path: impl Arg) -> Result<()> {
        unlinkat(&self.0, path, AtFlags::REMOVEDIR)
    }

    pub(super) fn has(&self, file: &str) -> bool {
        accessat(&self.0, file, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlags) -> Result<OwnedFd> {
        openat(&self.0, file, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Writes `value` in one call, as every file here demands.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        write_once(&self.open_file(file, OFlags::WRONLY)?, value)
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        read_all(self.open_file(file, OFlags::RDONLY)?.as_fd())
    }

    /// Reads a file of one number; `max` is `u64::MAX`.
    pub(super) fn read_number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        match text.trim_ascii() {
            "max" => Ok(u64::MAX),
            digits => digits.parse().map_err(|_not_a_number| Errno::INVAL),
        }
    }

    /// Names the groups directly below. A cgroup directory's link count is 2 plus their number,
    /// which saves the listing in the usual case of none.
    fn children(&self) -> Result<Vec<CString>> {
        if fstat(&self.0)?.st_nlink == 2 {
            return Ok(Vec::new());
        }
        let listing = self.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&listing, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes to an open control file.
pub(super) fn write_once(file: &OwnedFd, value: &str) -> Result<()> {
    let written = rustix::io::retry_on_intr(|| rustix::io::write(file, value.as_bytes()))?;
    if written == value.len() { Ok(()) } else { Err(Errno::INVAL) }
}

pub(super) fn read_all(file: BorrowedFd<'_>) -> Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    String::from_utf8(text).map_err(|_not_text| Errno::ILSEQ)
}

/// A group on the way down: its name in its parent, and those below it still to visit.
struct Level {
    name: CString,
    pending: Vec<CString>,
}

/// Calls `visit(parent, name, group)` for every group below `top`, children before parents.
/// Groups that vanish meanwhile are passed over.
pub(super) fn walk_below(
    top: &Dir,
    mut visit: impl FnMut(&Dir, &CString, &Dir) -> Result<()>,
) -> Result<()> {
    let mut pending = top.children()?;
    if pending.is_empty() {
        return Ok(());
    }
    let mut here = top.open_dir(".")?;
    let mut above = vec![];
    loop {
        if let Some(name) = pending.pop() {
            match here.open_dir(&name) {
                Ok(child) => {
                    let below = child.children()?;
                    above.push(Level { name, pending: std::mem::replace(&mut pending, below) });
                    here = child;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        } else if let Some(level) = above.pop() {
            let parent = here.open_dir("..")?;
            visit(&parent, &level.name, &here)?;
            here = parent;
            pending = level.pending;
        } else {
            return Ok(());
        }
    }
}

/// Removes the group `path` below `root` and all below it. `Ok(false)` when something is inside.
pub(super) fn remove_tree(root: &Dir, path: &str) -> Result<bool> {
    match root.remove_dir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::BUSY) => {}
        Err(errno) => return Err(errno),
    }
    let Some(top) = gone_is_none(root.open_dir(path))? else { return Ok(true) };
    let emptied = walk_below(&top, |parent, name, _| match parent.remove_dir(name) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    });
    match emptied.and_then(|()| root.remove_dir(path)) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The processes of `top` and of every group below it, each once.
pub(super) fn pids_below(top: &Dir) -> Result<Vec<u32>> {
    let mut pids = pids_of(top)?;
    walk_below(top, |_, _, group| {
        pids.extend(pids_of(group)?);
        Ok(())
    })?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn pids_of(group: &Dir) -> Result<Vec<u32>> {
    match group.read("cgroup.procs") {
        // 0 is a process outside of our pid namespace.
        Ok(text) => {
            Ok(text.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != 0).collect())
        }
        // A threaded v2 group: its processes are listed in the group above.
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        // Removed since it was opened.
        Err(Errno::NODEV | Errno::NOENT) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// Turns "no such file" into `None`.
pub(super) fn gone_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The proper ancestors of a group path below the root, outermost first: `a` and `a/b` of `a/b/c`.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}
