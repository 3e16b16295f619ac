//! The files of a container for those who copy from and to it, without a process of its own: its
//! root as a descriptor, with everything that is mounted in it.
//!
//! Both functions move the calling thread to another mount namespace for good: give them a thread
//! that ends with them. The host's namespace sees none of it. What they return lives on through
//! its descriptors, whatever becomes of the container.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::RootDir;
use sys::process::{UnshareFlags, unshare};

use super::cgroupfs::{Layout, View};
use super::container::{attach_root, detach_from_host, open_slash};
use super::mounts;
use super::step::Step;
use crate::protocol::Failure;
use crate::spec::{Mount, Rootfs};

/// A container's root, and what keeps its mounts.
#[derive(Debug)]
pub struct Still {
    pub root: RootDir,
    /// Without it the mounts below the root would come apart with their last process.
    pub namespace: OwnedFd,
}

/// Mounts the root of a container that does not run, and its mounts, in a namespace of its own.
/// Nothing else may mount that root meanwhile.
pub fn assemble_still(rootfs: &Rootfs, mounts: &[Mount]) -> Result<Still, Failure> {
    let own = own_namespaces()?;
    unshare(UnshareFlags::NEWNS).step(|| "leave the mount namespace".to_owned())?;
    let sources = mounts::open_sources(mounts)?;
    detach_from_host()?;
    let root = attach_root(rootfs)?;
    let view = View { layout: Layout::detect()?, host_namespace: true };
    sources.into_iter().try_for_each(|source| source.attach(&root, &view))?;
    Ok(Still { root, namespace: mount_namespace(&own)? })
}

/// Enters the namespace of a process: that of a container that runs.
pub fn enter_running(process: impl AsFd) -> Result<Still, Failure> {
    let own = own_namespaces()?;
    let failed = || "enter the container's mount namespace".to_owned();
    // A thread that shares its root and working directory with others may not.
    unshare(UnshareFlags::FS).step(failed)?;
    move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT).step(failed)?;
    // What the namespace has at its top, wherever the container's programs took their root since.
    let root = open_slash().map(RootDir::from_fd).step(failed)?;
    Ok(Still { root, namespace: mount_namespace(&own)? })
}

/// The thread's own directory of namespaces. Opened before another namespace is entered, where
/// `/proc` may be anything.
fn own_namespaces() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/proc/thread-self/ns", flags, Mode::empty())
        .step(|| "open the thread's namespaces".to_owned())
}

fn mount_namespace(own: &OwnedFd) -> Result<OwnedFd, Failure> {
    openat(own, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the mount namespace".to_owned())
}
