//! Mounts as descriptors: made detached, changed, and attached to an open target. No function
//! here takes the path of a target.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::{Errno, Result};
pub use rustix::mount::MountAttrFlags;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// Makes a filesystem, `(key, Some(value))` or `(flag, None)` an option each, and a detached
/// mount of it.
pub fn new_filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = Context::open(kind, kind)?;
    for (key, value) in options {
        context.set(key, *value)?;
    }
    context.mount(attributes)
}

/// A filesystem being configured.
#[derive(Debug)]
pub struct Context(OwnedFd);

impl Context {
    /// `source` is the first column of the mount table; the kernel shows `none` without one.
    pub fn open(kind: &str, source: &str) -> Result<Self> {
        let context = Self(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
        context.set("source", Some(source))?;
        Ok(context)
    }

    pub fn set(&self, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => fsconfig_set_string(&self.0, key, value),
            None => fsconfig_set_flag(&self.0, key),
        }
    }

    /// Sets an option whose value need not be UTF-8.
    pub fn set_path(&self, key: &str, value: &std::path::Path) -> Result<()> {
        fsconfig_set_string(&self.0, key, value)
    }

    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(&self.0)?;
        fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }
}

/// Makes a detached copy of the mount (or of the whole tree of mounts) at an open file.
pub fn clone_tree(source: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(source, "", flags)
}

/// Attaches a detached mount over an open file or directory.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// How mounts made later travel to and from a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
}

/// A change to existing mounts.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub set: MountAttrFlags,
    pub propagation: Option<Propagation>,
    pub recursive: bool,
}

impl Change {
    pub const fn set(set: MountAttrFlags) -> Self {
        Self { set, propagation: None, recursive: false }
    }
}

/// Changes the mount at an open file (kernel 5.12).
pub fn change(mount: impl AsFd, change: &Change) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(change.set.bits()),
        attr_clr: 0,
        propagation: change.propagation.map_or(0, |propagation| match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
        }),
        userns_fd: 0,
    };
    let recursive = if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads `attributes`, whose size is passed, and an empty path, which with
    // AT_EMPTY_PATH names the descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
