//! The container's root as a detached mount: an overlay over the image's layers, or an existing
//! directory. The host's mount table never sees either.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use sys::mount::{Change, Context, MountAttrFlags, Propagation, change, clone_tree};

use super::step::Step;
use crate::protocol::Failure;
use crate::spec::Rootfs;

pub(crate) fn mount(rootfs: &Rootfs) -> Result<OwnedFd, Failure> {
    match rootfs {
        Rootfs::Overlay { lower, upper, work, volatile } => {
            if *volatile {
                forget_volatile(work)?;
            }
            let layers = Layers { lower, upper, work, volatile: *volatile };
            layers.mount().step(|| format!("mount overlay on {}", upper.display()))
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

struct Layers<'a> {
    lower: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
    volatile: bool,
}

impl Layers<'_> {
    /// One `lowerdir+` a layer (kernel 6.8), else all in one option, which has to fit a page.
    /// Kernels before 6.5 take any option and refuse the mount.
    fn mount(&self) -> Result<OwnedFd, Errno> {
        match self.mount_with(Self::add_each) {
            Err(Errno::INVAL) => self.mount_with(Self::add_joined),
            mounted => mounted,
        }
    }

    fn mount_with(
        &self,
        add_lower: fn(&Self, &Context) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let overlay = Context::open("overlay", "overlay")?;
        add_lower(self, &overlay)?;
        overlay.set_path("upperdir", self.upper)?;
        overlay.set_path("workdir", self.work)?;
        // Files of an image that were crafted for these features must stay plain files, whatever
        // the module's defaults are.
        for feature in ["index", "metacopy", "redirect_dir"] {
            match overlay.set(feature, Some("off")) {
                // Kernels that do not know a feature do not use it.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.volatile {
            overlay.set("volatile", None)?;
        }
        overlay.mount(MountAttrFlags::empty())
    }

    fn add_each(&self, overlay: &Context) -> Result<(), Errno> {
        self.lower.iter().try_for_each(|layer| overlay.set_path("lowerdir+", layer))
    }

    fn add_joined(&self, overlay: &Context) -> Result<(), Errno> {
        overlay.set_path("lowerdir", &joined(self.lower))
    }
}

/// Joins layers with colons; those inside of a path are escaped.
fn joined(layers: &[PathBuf]) -> PathBuf {
    let mut bytes = Vec::new();
    for layer in layers {
        if !bytes.is_empty() {
            bytes.push(b':');
        }
        for &byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                bytes.push(b'\\');
            }
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_escaped() {
        let layers = ["/a", "/b:c", "/d\\e"].map(PathBuf::from);
        assert_eq!(joined(&layers), PathBuf::from("/a:/b\\:c:/d\\\\e"));
    }
}
