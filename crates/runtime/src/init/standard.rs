//! What every container has: `/proc`, `/dev` with its nodes, `/sys`, the cgroups.
//!
//! [`stage`] makes all of it as detached mounts and needs to know nothing of the container but
//! its namespaces: this is the work that a parked init will have done beforehand.
//! [`Standard::attach`] then costs a few microseconds a mount.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, ResolveFlags, fstat, makedev, mkdirat, mknodat,
    openat, openat2, statat, symlinkat,
};
use rustix::io::Errno;
use sys::RootDir;
use sys::mount::{Context, MountAttrFlags, attach, clone_tree, new_filesystem};

use super::cgroupfs::{self, View};
use super::step::{Step, invalid};
use crate::protocol::Failure;

/// Where `/dev/shm` comes from.
#[derive(Debug)]
pub(super) enum Shm {
    Private {
        size: u64,
    },
    /// An empty directory: the container has no shared memory (`--ipc none`).
    None,
    /// A detached copy of the host's or of another container's.
    Shared(OwnedFd),
}

#[derive(Debug)]
pub(super) struct Options<'a> {
    pub(super) privileged: bool,
    /// A copy of the procfs of the pid namespace that is joined. One that is mounted now belongs
    /// to the namespace of whoever mounts it, which is not the one its children are born in.
    pub(super) proc: Option<OwnedFd>,
    pub(super) shm: Shm,
    pub(super) cgroups: &'a View,
}

/// Detached mounts, to be attached below a container's root.
#[derive(Debug)]
pub(super) struct Standard {
    proc: RootDir,
    dev: RootDir,
    pts: OwnedFd,
    shm: Option<OwnedFd>,
    mqueue: OwnedFd,
    sys: RootDir,
    cgroups: cgroupfs::Staged,
    /// Nodes that could not be made and are bound from the host's instead.
    bound_nodes: Vec<(&'static str, OwnedFd)>,
}

/// Name, major and minor number.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) fn stage(options: Options<'_>) -> Result<Standard, Failure> {
    let proc = RootDir::from_fd(match options.proc {
        Some(joined) => joined,
        None => proc()?,
    });
    let (dev, bound_nodes) = dev(&proc)?;
    let shm = match options.shm {
        Shm::Shared(mount) => Some(mount),
        Shm::Private { size } => Some(private_shm(size)?),
        Shm::None => None,
    };
    Ok(Standard {
        proc,
        dev,
        pts: devpts()?,
        shm,
        mqueue: mqueue()?,
        sys: RootDir::from_fd(sysfs(!options.privileged)?),
        cgroups: cgroupfs::stage(options.cgroups, !options.privileged)?,
        bound_nodes,
    })
}

const STRICT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The procfs of the caller's pid namespace.
pub(super) fn proc() -> Result<OwnedFd, Failure> {
    new_filesystem("proc", &[], STRICT).step(|| "mount proc".to_owned())
}

pub(super) fn mqueue() -> Result<OwnedFd, Failure> {
    new_filesystem("mqueue", &[], STRICT).step(|| "mount mqueue".to_owned())
}

/// Read-only is a matter of the mount: the filesystem of a shared network namespace is shared.
pub(super) fn sysfs(readonly: bool) -> Result<OwnedFd, Failure> {
    let mut attributes = STRICT;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, readonly);
    new_filesystem("sysfs", &[], attributes).step(|| "mount sysfs".to_owned())
}

pub(super) fn devpts() -> Result<OwnedFd, Failure> {
    // Every devpts is a new instance since kernel 4.7.
    let options = [("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_filesystem("devpts", &options, attributes).step(|| "mount devpts".to_owned())
}

fn private_shm(size: u64) -> Result<OwnedFd, Failure> {
    let size = size.to_string();
    let mounted = Context::open("tmpfs", "shm").and_then(|context| {
        context.set("size", Some(&size))?;
        context.set("mode", Some("1777"))?;
        context.mount(STRICT)
    });
    mounted.step(|| "mount tmpfs for /dev/shm".to_owned())
}

type BoundNodes = Vec<(&'static str, OwnedFd)>;

fn dev(proc: &RootDir) -> Result<(RootDir, BoundNodes), Failure> {
    let options = [("mode", Some("755")), ("size", Some("65536k"))];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev =
        new_filesystem("tmpfs", &options, attributes).step(|| "mount tmpfs for /dev".to_owned())?;
    let mut bound = Vec::new();
    for (name, major, minor) in NODES {
        let number = makedev(major, minor);
        match make_node(&dev, name, number) {
            Ok(()) => {}
            Err(Errno::PERM) => bound.push((name, host_node(&dev, name, number)?)),
            Err(errno) => return Err(errno).step(|| format!("make /dev/{name}")),
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).step(|| format!("link /dev/{name}"))?;
    }
    if statat(proc, "kcore", AtFlags::empty()).is_ok() {
        symlinkat("/proc/kcore", &dev, "core").step(|| "link /dev/core".to_owned())?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).step(|| format!("make /dev/{name}"))?;
    }
    Ok((RootDir::from_fd(dev), bound))
}

fn make_node(dev: &OwnedFd, name: &str, number: Dev) -> Result<(), Errno> {
    mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)
}

/// Where `mknod` is not allowed (nested in another container), the host's node does as well.
fn host_node(dev: &OwnedFd, name: &str, number: Dev) -> Result<OwnedFd, Failure> {
    let path = format!("/dev/{name}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(CWD, &path, flags, Mode::empty()).step(|| format!("open {path}"))?;
    let stat = fstat(&node).step(|| format!("stat {path}"))?;
    if stat.st_rdev != number {
        return Err(invalid(format!("{path} of the host is another device")));
    }
    mknodat(dev, name, FileType::RegularFile, Mode::from_raw_mode(0o666), 0)
        .and_then(|()| clone_tree(node, false))
        .step(|| format!("bind {path}"))
}

impl Standard {
    /// Attaches everything below `root`, and gives back what later steps still use.
    pub(super) fn attach(self, root: &RootDir) -> Result<Attached, Failure> {
        attach_on_directory(&self.proc, root, "/proc")?;
        attach_on_directory(&self.dev, root, "/dev")?;
        attach_below(&self.pts, &self.dev, "pts")?;
        if let Some(shm) = &self.shm {
            attach_below(shm, &self.dev, "shm")?;
        }
        attach_below(&self.mqueue, &self.dev, "mqueue")?;
        for (name, node) in &self.bound_nodes {
            let target = self.dev.open_in(name, OFlags::PATH, Mode::empty());
            target
                .and_then(|target| attach(node, target))
                .step(|| format!("attach /dev/{name}"))?;
        }
        attach_on_directory(&self.sys, root, "/sys")?;
        // Kernels without cgroups lack the directory.
        match self.sys.open_dir("fs/cgroup") {
            Ok(target) => self.cgroups.attach(&target.into())?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).step(|| "open /sys/fs/cgroup".to_owned()),
        }
        let proc_sys = self.proc.open_dir("sys").step(|| "open /proc/sys".to_owned())?;
        Ok(Attached { proc_sys, dev: self.dev, pts: self.pts })
    }
}

/// The mounts that later steps look into by descriptor, whatever is mounted over them by then.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) proc_sys: RootDir,
    pub(super) dev: RootDir,
    pub(super) pts: OwnedFd,
}

fn attach_below(mount: &OwnedFd, directory: &RootDir, name: &str) -> Result<(), Failure> {
    directory
        .open_dir(name)
        .and_then(|target| attach(mount, target))
        .step(|| format!("attach /dev/{name}"))
}

/// Attaches at a directory of the image, which is made if it is missing. A link is refused, even
/// one that stays inside: what we mask by name later must be what we mounted (CVE-2026-41579).
fn attach_on_directory(mount: &RootDir, root: &RootDir, path: &str) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let open = || openat2(root, path, flags, Mode::empty(), resolve);
    let target = match open() {
        Err(Errno::NOENT) => {
            let name = path.trim_start_matches('/');
            mkdirat(root, name, Mode::from_raw_mode(0o755)).and_then(|()| open())
        }
        other => other,
    };
    match target {
        Err(Errno::LOOP | Errno::NOTDIR | Errno::EXIST) => {
            Err(invalid(format!("{path} of the image is not an ordinary directory")))
        }
        target => target.and_then(|target| attach(mount, target)).step(|| format!("attach {path}")),
    }
}
