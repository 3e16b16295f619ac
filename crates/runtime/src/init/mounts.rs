//! The user's mounts: volumes, `/etc/hosts`, tmpfs.
//!
//! Sources are opened, as detached copies, while the host's mounts still have their propagation;
//! they are attached later, each to a descriptor found below the container's root.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawMode, fstat, openat};
use rustix::io::Errno;
use sys::RootDir;
use sys::mount::{Change, MountAttrFlags, attach, change, clone_tree, new_filesystem};
use sys::overlay::Overlay;

use super::cgroupfs::{self, View};
use super::options::{TmpfsOptions, parse_tmpfs};
use super::standard;
use super::step::{Step, invalid};
use super::targets::{Kind, is_forbidden_proc, open_or_create};
use crate::protocol::{Failure, errno_text};
use crate::spec::{Mount, MountSource, Propagation, RecursiveReadonly};

/// One mount with its source opened, if it has one on the host.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    mount: &'a Mount,
    bind: Option<OwnedFd>,
}

/// Opens all sources on the host. Call while still in a copy of the host's mount namespace whose
/// propagation is untouched, or a `shared` volume would not be one.
pub(super) fn open_sources(mounts: &[Mount]) -> Result<Vec<Opened<'_>>, Failure> {
    mounts.iter().map(Opened::open).collect()
}

impl<'a> Opened<'a> {
    fn open(mount: &'a Mount) -> Result<Self, Failure> {
        if let MountSource::Image { lower, empty, .. } = &mount.source {
            let image = image(lower, empty).map_err(|errno| cannot_mount(mount, errno))?;
            return Ok(Self { mount, bind: Some(image) });
        }
        let MountSource::Bind { path, recursive, within, .. } = &mount.source else {
            return Ok(Self { mount, bind: None });
        };
        let source = match within {
            Some(directory) => RootDir::open(directory)
                .and_then(|root| root.open_in(path, OFlags::PATH, Mode::empty())),
            None => openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
        };
        let opened = source
            .and_then(|source| clone_tree(source, *recursive))
            .and_then(|tree| set_bind_attributes(&tree, mount).map(|()| tree));
        let bind = opened.map_err(|errno| cannot_mount(mount, errno))?;
        Ok(Self { mount, bind: Some(bind) })
    }

    /// Mounts at the target below `root`.
    pub(super) fn attach(mut self, root: &RootDir, view: &View) -> Result<(), Failure> {
        let mount = self.mount;
        let failed = |errno| cannot_mount(mount, errno);
        if let (MountSource::Image { subpath, .. }, Some(image)) = (&mount.source, &self.bind)
            && !subpath.is_empty()
        {
            self.bind = Some(part_of(image, subpath, root).map_err(failed)?);
        }
        let kind = match &self.bind {
            Some(tree) if !is_directory(tree).map_err(failed)? => Kind::File,
            _ => Kind::Directory,
        };
        let existing = match &mount.source {
            MountSource::Tmpfs { .. } => existing_mode(root, &mount.target),
            _ => None,
        };
        let target = self.open_target(root, kind)?;
        match self.bind {
            Some(tree) => attach(tree, target).map_err(failed),
            None => attach_filesystem(mount, target, existing, view),
        }
    }

    fn open_target(&self, root: &RootDir, kind: Kind) -> Result<OwnedFd, Failure> {
        let path = &self.mount.target;
        let failed = |errno| cannot_mount(self.mount, errno);
        let target = open_or_create(root, path, kind).map_err(failed)?;
        if is_forbidden_proc(&target, path).map_err(failed)? {
            let why = format!("{path:?} cannot be mounted because it is inside /proc");
            return Err(invalid(format!("{}: {why}", describe(self.mount))));
        }
        let is_file = !is_directory(&target).map_err(failed)?;
        if is_file != (kind == Kind::File) {
            return Err(failed(Errno::NOTDIR));
        }
        Ok(target)
    }
}

fn attach_filesystem(
    mount: &Mount,
    target: OwnedFd,
    existing: Option<RawMode>,
    view: &View,
) -> Result<(), Failure> {
    let made = match &mount.source {
        MountSource::Tmpfs { options } => {
            let options = parse_tmpfs(options)?;
            tmpfs(&options, existing).map_err(|errno| cannot_mount(mount, errno))?
        }
        MountSource::Cgroup => {
            let staged = cgroupfs::stage(view, mount.readonly)?;
            return staged.attach(&target);
        }
        MountSource::Mqueue => standard::mqueue()?,
        MountSource::Proc => standard::proc()?,
        MountSource::Sysfs => standard::sysfs(mount.readonly)?,
        MountSource::Devpts => standard::devpts()?,
        MountSource::Bind { .. } | MountSource::Image { .. } => {
            return Err(cannot_mount(mount, Errno::INVAL));
        }
    };
    if mount.readonly {
        change(&made, &Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY))
            .map_err(|errno| cannot_mount(mount, errno))?;
    }
    attach(made, target).map_err(|errno| cannot_mount(mount, errno))
}

fn image(lower: &[PathBuf], empty: &Path) -> Result<OwnedFd, Errno> {
    let readonly = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mut lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    match lower.len() {
        0 => return new_filesystem("tmpfs", &[("mode", Some("755"))], readonly),
        1 => lower.push(empty),
        _ => {}
    }
    Overlay { lower, upper: None, volatile: false }.mount(readonly)
}

/// Only what is mounted in our namespace can be cloned in part (before kernel 6.15), so the whole
/// is on top of the root for a moment.
fn part_of(image: &OwnedFd, subpath: &str, root: &RootDir) -> Result<OwnedFd, Errno> {
    attach(image, root)?;
    let whole = rustix::io::fcntl_dupfd_cloexec(image, 0)?;
    let part = RootDir::from_fd(whole)
        .open_in(subpath, OFlags::PATH, Mode::empty())
        .and_then(|part| clone_tree(part, false));
    let place = format!("/proc/self/fd/{}", image.as_raw_fd());
    rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH)?;
    part
}

/// A tmpfs over a directory of the image looks like that directory unless told otherwise.
fn tmpfs(options: &TmpfsOptions<'_>, existing: Option<RawMode>) -> Result<OwnedFd, Errno> {
    let inherited = existing.map(|mode| format!("{mode:o}"));
    let mut filesystem = options.filesystem.clone();
    if !filesystem.iter().any(|(key, _)| *key == "mode") {
        filesystem.extend(inherited.as_deref().map(|mode| ("mode", Some(mode))));
    }
    new_filesystem("tmpfs", &filesystem, options.attributes)
}

fn existing_mode(root: &RootDir, target: &str) -> Option<RawMode> {
    let found = root.open_in(target, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()?;
    Some(fstat(found).ok()?.st_mode & 0o7777)
}

fn set_bind_attributes(tree: &OwnedFd, mount: &Mount) -> Result<(), Errno> {
    let MountSource::Bind { propagation, .. } = &mount.source else { return Ok(()) };
    let (propagation, recursive) = kernel_propagation(*propagation);
    let set = MountAttrFlags::empty();
    change(tree, &Change { set, propagation: Some(propagation), recursive })?;
    if !mount.readonly {
        return Ok(());
    }
    let readonly =
        |recursive| Change { recursive, ..Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY) };
    match mount.recursive_readonly {
        RecursiveReadonly::No => change(tree, &readonly(false)),
        RecursiveReadonly::Force => change(tree, &readonly(true)),
        RecursiveReadonly::IfPossible => match change(tree, &readonly(true)) {
            Err(_) => change(tree, &readonly(false)),
            Ok(()) => Ok(()),
        },
    }
}

fn kernel_propagation(asked: Propagation) -> (sys::mount::Propagation, bool) {
    use sys::mount::Propagation as Kernel;
    match asked {
        Propagation::RPrivate => (Kernel::Private, true),
        Propagation::Private => (Kernel::Private, false),
        Propagation::RShared => (Kernel::Shared, true),
        Propagation::Shared => (Kernel::Shared, false),
        Propagation::RSlave => (Kernel::Slave, true),
        Propagation::Slave => (Kernel::Slave, false),
    }
}

fn is_directory(file: impl AsFd) -> Result<bool, Errno> {
    let mode = fstat(file)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

fn describe(mount: &Mount) -> String {
    let source = match &mount.source {
        MountSource::Bind { path, .. } => path.as_path(),
        MountSource::Tmpfs { .. } => Path::new("tmpfs"),
        MountSource::Image { .. } => Path::new("image"),
        MountSource::Mqueue => Path::new("mqueue"),
        MountSource::Cgroup => Path::new("cgroup"),
        MountSource::Proc => Path::new("proc"),
        MountSource::Sysfs => Path::new("sysfs"),
        MountSource::Devpts => Path::new("devpts"),
    };
    format!("error mounting {source:?} to rootfs at {:?}", mount.target)
}

fn cannot_mount(mount: &Mount, errno: Errno) -> Failure {
    // What people look for in the text.
    let hint = match (&mount.source, errno) {
        (MountSource::Bind { .. }, Errno::NOTDIR) => {
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the \
             specified host path exists and is the expected type"
        }
        _ => "",
    };
    invalid(format!("{}: {}{hint}", describe(mount), errno_text(errno.raw_os_error())))
}

/// Binds an open file over a target; for single files of ours such as `/dev/console`.
pub(super) fn bind_file(file: impl AsFd, target: impl AsFd, name: &str) -> Result<(), Failure> {
    clone_tree(file, false)
        .and_then(|mount| attach(mount, target))
        .step(|| format!("bind a file on {name}"))
}
