//! Copying one tree into another: what an image has where a new volume is mounted.
//!
//! Both trees are pinned and no link is followed in either. Devices and sockets stay behind: in a
//! volume they would lie outside the closed directory that keeps an image's devices inert.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use sys::RootDir;

use crate::export::{names, xattrs};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies everything below `from` into the empty directory `to`, and gives `to` the owner, mode
/// and times of `from`. The caller syncs.
pub fn copy_tree(from: &RootDir, to: &RootDir) -> io::Result<()> {
    let mut copy = Copy { from, to, links: HashMap::new() };
    let mut pending = vec![(PathBuf::new(), false)];
    while let Some((path, filled)) = pending.pop() {
        let source = from.open_strict(&path, DIRECTORY, Mode::empty())?;
        let target = to.open_strict(&path, DIRECTORY, Mode::empty())?;
        if filled {
            attributes(&source, &target)?;
            continue;
        }
        pending.push((path.clone(), true));
        for name in names(&source)? {
            let copied = copy.entry(&source, &target, &path, &name);
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.join(&name).display()))
            };
            if copied.map_err(named)? {
                pending.push((path.join(&name), false));
            }
        }
    }
    Ok(())
}

struct Copy<'a> {
    from: &'a RootDir,
    to: &'a RootDir,
    /// The copy of each file that has several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    /// Copies one entry; true for a directory, whose content is still to come.
    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        path: &Path,
        name: &OsStr,
    ) -> io::Result<bool> {
        let stat = match statat(source, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout of a name that is nowhere below: overlay lists it all the same.
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(target, name, Mode::from_raw_mode(0o700))?;
                return Ok(true);
            }
            FileType::RegularFile => self.file(target, &path.join(name), name, &stat)?,
            FileType::Symlink => {
                symlinkat(&*readlinkat(source, name, Vec::new())?, target, name)?;
                node_attributes(target, name, &stat)?;
            }
            FileType::Fifo => {
                mknodat(target, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                node_attributes(target, name, &stat)?;
                chmodat(target, name, mode, AtFlags::empty())?;
            }
            _device_or_socket => {}
        }
        Ok(false)
    }

    fn file(&mut self, target: &OwnedFd, path: &Path, name: &OsStr, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let (parent, first) = (first.parent().unwrap_or(first), first.file_name());
                let parent = self.to.open_strict(parent, DIRECTORY, Mode::empty())?;
                let first = first.ok_or(Errno::INVAL)?;
                return Ok(linkat(parent, first, target, name, AtFlags::empty())?);
            }
            self.links.insert(inode, path.to_owned());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut source = File::from(self.from.open_strict(path, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut copy = File::from(openat(target, name, flags, Mode::from_raw_mode(0o600))?);
        // `copy_file_range`, shared blocks where the file system can.
        io::copy(&mut source, &mut copy)?;
        attributes(&source, &copy)
    }
}

/// Owner first: a change of it takes away setuid bits and capabilities.
fn attributes(source: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let stat = fstat(&source)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(&target, Some(owner.0), Some(owner.1))?;
    fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in xattrs(&source)? {
        match fsetxattr(&target, name.as_slice(), &value, XattrFlags::empty()) {
            // The volume's file system cannot have it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(futimens(target, &times(&stat))?)
}

fn node_attributes(target: &OwnedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(target, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_keeps_its_links_modes_and_times() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| from.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "text").unwrap();
        std::fs::hard_link(at("a/b/file"), at("a/again")).unwrap();
        symlink("/etc/passwd", at("a/out")).unwrap();
        std::fs::set_permissions(at("a/b"), PermissionsExt::from_mode(0o2750)).unwrap();
        std::fs::set_permissions(from.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        let open = |dir: &tempfile::TempDir| RootDir::open(dir.path()).unwrap();
        copy_tree(&open(&from), &open(&to)).unwrap();
        let got = |path: &str| std::fs::symlink_metadata(to.path().join(path)).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("a/b/file")).unwrap(), "text");
        assert_eq!(got("a/b/file").ino(), got("a/again").ino());
        assert!(got("a/out").is_symlink());
        assert_eq!(got("a/b").mode() & 0o7777, 0o2750);
        assert_eq!(got("").mode() & 0o7777, 0o1777);
        let before = std::fs::metadata(at("a")).unwrap();
        assert_eq!(got("a").mtime_nsec(), before.mtime_nsec());
    }
}
