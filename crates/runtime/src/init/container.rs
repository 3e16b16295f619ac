//! The first process of a container, from its birth to its program.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, mknodat, openat};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Signal, fchdir, pivot_root, set_dumpable_behavior,
    set_parent_process_death_signal, umask,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::RootDir;
use sys::mount::{Change, MountAttrFlags, Propagation, attach, change, clone_tree};
use sys::process::{UnshareFlags, close_all_but, exit_now, unshare};

use super::cgroupfs::{Layout, View};
use super::channel::Channel;
use super::console::{self, Ends};
use super::identity::{self, HostProc};
use super::mounts;
use super::standard::{self, Attached, Shm};
use super::step::{Step, invalid};
use super::{JoinNamespaces, Stdio, hardening, rootfs};
use crate::cgroup::Cgroup;
use crate::interfaces::bring_up_loopback;
use crate::protocol::Failure;
use crate::seccomp::Filter;
use crate::spec::{ContainerSpec, DeviceKind, DeviceNode, Namespace, Rootfs};

/// Everything a first process is made from, prepared by the supervisor.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) spec: &'a ContainerSpec,
    pub(super) join: &'a JoinNamespaces<'a>,
    pub(super) cgroup: &'a Cgroup,
    pub(super) stdio: Stdio,
    pub(super) filter: Option<Filter>,
    pub(super) init: Option<OwnedFd>,
    pub(super) layout: Layout,
}

/// Becomes the container's program. Runs in the child that [`super::spawn_container`] cloned.
pub(super) fn run(order: Order<'_>, channel: &Channel) -> Result<Infallible, Failure> {
    quarantine(&order.descriptors(channel))?;
    let Order { spec, join, cgroup, stdio, filter, init, layout } = order;
    let process = &spec.process;
    let host = HostProc::prepare(process)?;
    enter_namespaces(spec, join, cgroup)?;
    let shm = open_shm(spec, join)?;
    let proc = open_joined_proc(join)?;
    let sources = mounts::open_sources(&spec.mounts)?;
    detach_from_host()?;

    let host_namespace = spec.namespaces.cgroup == Namespace::Host;
    let view = View { layout, host_namespace };
    let options = standard::Options { privileged: spec.privileged, proc, shm, cgroups: &view };
    let standard = standard::stage(options)?;
    // Above: generic but for the sources. Below: this container. A parked init waits here.
    let root = attach_root(&spec.rootfs)?;
    let attached = standard.attach(&root)?;
    let pts = || Ok(&attached.pts);
    let ends = console::open(stdio, process.console_size, channel, pts)?;
    for source in sources {
        source.attach(&root, &view)?;
    }
    finish_root(spec, &root, &attached, &ends)?;
    if spec.namespaces.net == Namespace::Private && join.spare_net.is_none() {
        bring_up_loopback()?;
    }
    set_names(spec)?;

    if !channel.wait_for_release() {
        // The supervisor is gone: nobody would ever hear of this container.
        exit_now(1);
    }
    // From here on the container lives on without the supervisor.
    set_parent_process_death_signal(None).step(|| "outlive the supervisor".to_owned())?;
    hardening::write_sysctls(&attached.proc_sys, spec)?;
    drop(attached);
    let program = identity::Order { process, filter: filter.as_ref(), init };
    let ready = identity::assume(program, host, ends, &root)?;
    drop(root);
    match &spec.namespaces.pid {
        Namespace::Container(_) => {
            close_all_but(&[channel.as_fd()]).step(|| "close the last descriptors".to_owned())?;
            ready.execute_as_sibling(channel)
        }
        Namespace::Private | Namespace::Host => ready.execute(),
    }
}

impl Order<'_> {
    /// Descriptors that the child still needs; all others are closed first of all.
    fn descriptors<'a>(&'a self, channel: &'a Channel) -> Vec<BorrowedFd<'a>> {
        let join = self.join;
        let mut keep = vec![channel.as_fd()];
        let joined = [join.pid, join.ipc, join.uts, join.net, join.cgroup, join.spare_net];
        keep.extend(joined.into_iter().flatten());
        keep.extend(self.cgroup.v1_tasks().iter().map(AsFd::as_fd));
        keep.extend(self.init.as_ref().map(AsFd::as_fd));
        keep.extend(self.stdio.descriptors());
        keep
    }
}

impl Stdio {
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Files { stdin, stdout, stderr } => {
                vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
            }
            Self::Tty => Vec::new(),
        }
    }
}

/// Cuts a fresh copy of the supervisor off: it dies with the supervisor, shows its memory to
/// nobody, and has none of the supervisor's descriptors but `keep`.
pub(super) fn quarantine(keep: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let cut = || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        close_all_but(keep)
    };
    // Modes of what is made in /dev are as written.
    umask(Mode::empty());
    cut().step(|| "cut a new process off from the supervisor".to_owned())
}

/// Goes into the v1 cgroups (into v2's one is born).
pub(super) fn enter_cgroup(cgroup: &Cgroup) -> Result<(), Failure> {
    for tasks in cgroup.v1_tasks() {
        rustix::io::write(tasks, b"0").step(|| "enter the container's cgroup".to_owned())?;
    }
    Ok(())
}

/// Enters the cgroup and the namespaces that clone could not put us into.
fn enter_namespaces(
    spec: &ContainerSpec,
    join: &JoinNamespaces<'_>,
    cgroup: &Cgroup,
) -> Result<(), Failure> {
    enter_cgroup(cgroup)?;
    let namespaces = &spec.namespaces;
    let wanted = [
        ("ipc", &namespaces.ipc, join.ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("uts", &namespaces.uts, join.uts, ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("net", &namespaces.net, join.net, ThreadNameSpaceType::NETWORK),
        ("cgroup", &namespaces.cgroup, join.cgroup, ThreadNameSpaceType::CONTROL_GROUP),
        // Only for children: we stay outside until the program itself is made.
        ("pid", &namespaces.pid, join.pid, ThreadNameSpaceType::PROCESS_ID),
    ];
    for (name, namespace, descriptor, kind) in wanted {
        if let Namespace::Container(id) = namespace {
            descriptor
                .ok_or(Errno::SRCH)
                .and_then(|descriptor| move_into_thread_name_spaces(descriptor, kind))
                .step(|| format!("join the {name} namespace of container {id}"))?;
        }
    }
    if let (Namespace::Private, Some(spare)) = (&namespaces.net, join.spare_net) {
        move_into_thread_name_spaces(spare, ThreadNameSpaceType::NETWORK)
            .step(|| "enter a network namespace".to_owned())?;
    }
    if namespaces.cgroup == Namespace::Private {
        // Not by clone: the new namespace would have the supervisor's group as its root.
        unshare(UnshareFlags::NEWCGROUP).step(|| "make a cgroup namespace".to_owned())?;
    }
    Ok(())
}

/// Finds the `/dev/shm` that goes with the ipc namespace.
fn open_shm(spec: &ContainerSpec, join: &JoinNamespaces<'_>) -> Result<Shm, Failure> {
    let shared = match (&spec.namespaces.ipc, join.ipc) {
        (Namespace::Private, _) => {
            let size = spec.shm_size;
            return Ok(if size == 0 { Shm::None } else { Shm::Private { size } });
        }
        (Namespace::Host, _) => host_shm(),
        (Namespace::Container(_), Some(process)) => shm_of(process),
        (Namespace::Container(_), None) => Err(Errno::SRCH),
    };
    shared.map(Shm::Shared).step(|| "share /dev/shm".to_owned())
}

fn host_shm() -> Result<OwnedFd, Errno> {
    let directory = openat(CWD, "/dev/shm", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    private_copy(directory)
}

fn shm_of(process: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    copy_from(process, "/dev/shm", |directory| Ok(fstatfs(directory)?.f_type as i64 == TMPFS_MAGIC))
}

/// Finds the procfs of the pid namespace to be joined.
fn open_joined_proc(join: &JoinNamespaces<'_>) -> Result<Option<OwnedFd>, Failure> {
    const PROC_ROOT_INODE: u64 = 1;
    let is_whole_proc = |directory: &RootDir| {
        let is_proc = fstatfs(directory)?.f_type == PROC_SUPER_MAGIC;
        Ok(is_proc && fstat(directory)?.st_ino == PROC_ROOT_INODE)
    };
    let copied = join.pid.map(|process| copy_from(process, "/proc", is_whole_proc));
    copied.transpose().step(|| "share /proc".to_owned())
}

/// Copies a mount of another container, from a visit to its mount namespace. Nobody there sees
/// the visitor, who is in another pid namespace.
fn copy_from(
    process: BorrowedFd<'_>,
    path: &str,
    is_genuine: impl FnOnce(&RootDir) -> Result<bool, Errno>,
) -> Result<OwnedFd, Errno> {
    let own = openat(CWD, "/proc/self/ns/mnt", OFlags::CLOEXEC, Mode::empty())?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)?;
    let directory = RootDir::open("/")?.open_dir(path)?;
    if !is_genuine(&directory)? {
        return Err(Errno::NODEV);
    }
    let copy = private_copy(directory.into())?;
    move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::MOUNT)?;
    Ok(copy)
}

fn private_copy(directory: OwnedFd) -> Result<OwnedFd, Errno> {
    let copy = clone_tree(directory, false)?;
    change(&copy, &private(false))?;
    Ok(copy)
}

const fn private(recursive: bool) -> Change {
    Change { set: MountAttrFlags::empty(), propagation: Some(Propagation::Private), recursive }
}

/// Ends the exchange of mounts with the host, so that neither our mounts nor the unmounting of
/// the old root reach it.
pub(super) fn detach_from_host() -> Result<(), Failure> {
    open_slash()
        .and_then(|slash| change(slash, &private(true)))
        .step(|| "make the mounts private".to_owned())
}

pub(super) fn open_slash() -> Result<OwnedFd, Errno> {
    openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts the container's root over `/` of our mount namespace. It takes no directory of the
/// host, and our own root stays the one below until the pivot.
pub(super) fn attach_root(rootfs: &Rootfs) -> Result<RootDir, Failure> {
    let mount = rootfs::mount(rootfs)?;
    open_slash()
        .and_then(|slash| attach(&mount, slash))
        .step(|| "attach the container's root".to_owned())?;
    Ok(RootDir::from_fd(mount))
}

/// The last touches below the container's root, up to and including the pivot.
fn finish_root(
    spec: &ContainerSpec,
    root: &RootDir,
    attached: &Attached,
    ends: &Ends,
) -> Result<(), Failure> {
    for device in &spec.devices {
        make_device(root, device)?;
    }
    ends.bind_console(&attached.dev)?;
    hardening::make_readonly(root, &spec.readonly_paths)?;
    hardening::mask(root, &attached.dev, &spec.masked_paths)?;
    make_working_directory(root, &spec.process.cwd)?;
    if spec.readonly_rootfs {
        change(root, &Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY))
            .step(|| "make the root read-only".to_owned())?;
    }
    pivot(root)
}

/// Makes the working directory, owned by root, if there is none. What is there but is no
/// directory is an error later, when it is entered.
fn make_working_directory(root: &RootDir, path: &str) -> Result<(), Failure> {
    match root.create_dir_all(path) {
        Ok(_) | Err(Errno::NOTDIR | Errno::LOOP | Errno::ROFS) => Ok(()),
        Err(errno) => Err(Failure::Cwd { path: path.to_owned(), errno: errno.raw_os_error() }),
    }
}

/// Makes `root` the root of everything and lets go of the host's mounts.
fn pivot(root: &RootDir) -> Result<(), Failure> {
    let swap = || {
        fchdir(root)?;
        // The old root ends up on top of the new one, where the next line finds it.
        pivot_root(".", ".")?;
        rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
        fchdir(root)
    };
    swap().step(|| "pivot into the container's root".to_owned())
}

fn make_device(root: &RootDir, device: &DeviceNode) -> Result<(), Failure> {
    let path = std::path::Path::new("/").join(&device.path);
    let Some((directory, name)) = path.parent().zip(path.file_name()) else {
        return Err(invalid(format!("device path {:?} has no name", device.path)));
    };
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
        DeviceKind::All => {
            return Err(invalid(format!("device {:?} has no type", device.path)));
        }
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    let make = || {
        let directory = root.create_dir_all(directory)?;
        match mknodat(&directory, name, kind, mode, number) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
        // Made now, or by us before, or by an earlier start of this container.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = openat(&directory, name, flags, Mode::empty())?;
        let stat = fstat(&node)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == kind;
        if !is_device || (kind != FileType::Fifo && stat.st_rdev != number) {
            return Err(Errno::EXIST);
        }
        let (uid, gid) =
            (rustix::fs::Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags)
    };
    make().step(|| format!("make device {}", device.path))
}

/// Names of the container, in a uts namespace of its own.
fn set_names(spec: &ContainerSpec) -> Result<(), Failure> {
    if spec.namespaces.uts != Namespace::Private {
        return Ok(());
    }
    if let Some(hostname) = &spec.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .step(|| format!("set the host name {hostname:?}"))?;
    }
    if let Some(domain) = &spec.domainname {
        rustix::system::setdomainname(domain.as_bytes())
            .step(|| format!("set the domain name {domain:?}"))?;
    }
    Ok(())
}
