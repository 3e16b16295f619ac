//! The container's root as a detached mount: an overlay over the image's layers, or an existing
//! directory. The host's mount table never sees either.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use sys::mount::{Change, MountAttrFlags, Propagation, change, clone_tree};
use sys::overlay::Overlay;

use super::step::Step;
use crate::protocol::Failure;
use crate::spec::Rootfs;

pub(crate) fn mount(rootfs: &Rootfs) -> Result<OwnedFd, Failure> {
    match rootfs {
        Rootfs::Overlay { lower, upper, work, volatile } => {
            if *volatile {
                forget_volatile(work)?;
            }
            let overlay = Overlay {
                lower: lower.iter().map(PathBuf::as_path).collect(),
                upper: Some((upper, work)),
                volatile: *volatile,
            };
            overlay
                .mount(MountAttrFlags::empty())
                .step(|| format!("mount overlay on {}", upper.display()))
        }
        Rootfs::Directory { path } => {
            bind(path).step(|| format!("bind {} as the root", path.display()))
        }
    }
}

fn bind(path: &Path) -> Result<OwnedFd, Errno> {
    let directory =
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mount = clone_tree(directory, true)?;
    let private = Change {
        set: MountAttrFlags::empty(),
        propagation: Some(Propagation::Private),
        recursive: true,
    };
    change(&mount, &private)?;
    Ok(mount)
}

/// A volatile overlay leaves a mark that makes the next mount of the same upper directory fail,
/// as its contents may be torn after a power cut. Whoever asked for `volatile` accepted that.
fn forget_volatile(work: &Path) -> Result<(), Failure> {
    let mark = work.join("work/incompat/volatile");
    let removed = match unlinkat(CWD, mark.join("dirty"), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => unlinkat(CWD, &mark, AtFlags::REMOVEDIR),
        failed => failed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).step(|| format!("remove {}", mark.display())),
    }
}
