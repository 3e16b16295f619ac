//! Places inside the container where something is mounted or made: found, or created, below the
//! container's root by descriptor (CVE-2021-30465, CVE-2024-45310).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, mkdirat, mknodat, readlinkat};
use rustix::io::{Errno, Result};
use sys::RootDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// As many links as the kernel follows in one path.
const LINKS_MAX: usize = 40;

/// Opens what is at `path` below `root`, making an empty directory or file if nothing is.
pub(super) fn open_or_create(root: &RootDir, path: &str, kind: Kind) -> Result<OwnedFd> {
    let mut path = Path::new("/").join(path);
    for _ in 0..LINKS_MAX {
        match root.open_in(&path, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        match create(root, &path, kind)? {
            Created::Made => {}
            Created::LinkTo(target) => path = target,
        }
    }
    Err(Errno::LOOP)
}

enum Created {
    Made,
    /// There is a dangling link, which leads here (below the root as well).
    LinkTo(PathBuf),
}

fn create(root: &RootDir, path: &Path, kind: Kind) -> Result<Created> {
    // `.` and `..` at the end have no name; the directory they mean is made on the way.
    let Some(name) = path.file_name() else {
        return root.create_dir_all(path).map(|_| Created::Made);
    };
    let parent_path = path.parent().unwrap_or_else(|| Path::new("/"));
    let parent = root.create_dir_all(parent_path)?;
    let made = match kind {
        Kind::Directory => mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0),
    };
    match made {
        Ok(()) => Ok(Created::Made),
        Err(Errno::EXIST) => match readlinkat(&parent, name, Vec::new()) {
            Ok(link) => {
                let link = link.into_string().map_err(|_not_utf8| Errno::INVAL)?;
                Ok(Created::LinkTo(parent_path.join(link)))
            }
            // Somebody else made it in the meantime.
            Err(Errno::INVAL | Errno::NOENT) => Ok(Created::Made),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// Files in `/proc` over which programs like lxcfs are let to mount their view; runc's list.
const PROC_TARGETS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Whether an opened mount target lies in a procfs and `path` is not one of the few let through.
/// A mount there could fake what the program (or we) read about itself (CVE-2019-16884).
pub(super) fn is_forbidden_proc(target: &OwnedFd, path: &str) -> Result<bool> {
    if fstatfs(target)?.f_type != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    Ok(!PROC_TARGETS.contains(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn targets_never_leave_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let image = outside.path().join("image");
        std::fs::create_dir(&image).unwrap();
        let root = RootDir::open(&image).unwrap();
        symlink("../../outside", image.join("up")).unwrap();
        symlink("/run/resolve/stub", image.join("dangling")).unwrap();
        symlink("loop", image.join("loop")).unwrap();

        open_or_create(&root, "/up/a/b", Kind::File).unwrap_err();
        open_or_create(&root, "up", Kind::Directory).unwrap();
        open_or_create(&root, "/up/a/b", Kind::File).unwrap();
        open_or_create(&root, "/dangling", Kind::File).unwrap();
        open_or_create(&root, "/deep/er/", Kind::Directory).unwrap();
        assert_eq!(open_or_create(&root, "/loop", Kind::File).unwrap_err(), Errno::LOOP);

        assert!(image.join("outside/a/b").is_file());
        assert!(image.join("run/resolve/stub").is_file());
        assert!(image.join("deep/er").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "only the image");
    }
}
