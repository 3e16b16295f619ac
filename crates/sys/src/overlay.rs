//! Overlays as detached mounts, on every kernel that Docker runs on.
//!
//! Since kernel 6.8 each lower layer is an option of its own (`lowerdir+`). Before, one option
//! names them all, and an option has at most 255 bytes: enough for two layers by their paths. So
//! there the layers get names of one letter, symlinks in a tmpfs that nobody else sees, which is
//! the working directory while the kernel looks them up; that is enough for 106 layers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, symlinkat};
use rustix::io::{Errno, Result};
use rustix::process::fchdir;

use crate::mount::{Context, MountAttrFlags, new_filesystem};

/// Names of links, in this order: none is special to overlay or to a mount table.
const LETTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// 62 names of one letter and 44 of two, with a colon between them: 255 bytes.
const MOST_LINKS: usize = LETTERS.len() + 44;

/// What an overlay is made of.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Absolute paths, the topmost layer first.
    pub lower: Vec<&'a Path>,
    /// Where changes go, and the kernel's working directory on the same filesystem.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Nothing is synced; a crash leaves an upper directory that may be torn.
    pub volatile: bool,
}

impl Overlay<'_> {
    /// Mounts it. The working directory of the caller changes meanwhile: where there are other
    /// threads, the calling one has its own (`unshare` with `FS`).
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let release = rustix::system::uname();
        if has_lowerdir_plus(&release.release().to_string_lossy()) {
            self.mount_each(attributes)
        } else {
            self.mount_links(attributes)
        }
    }

    fn mount_each(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let context = Context::open("overlay", "overlay")?;
        self.lower.iter().try_for_each(|layer| context.set_path("lowerdir+", layer))?;
        self.finish(&context, attributes)
    }

    fn mount_links(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        if self.lower.len() > MOST_LINKS {
            return Err(Errno::TOOBIG);
        }
        let links = new_filesystem("tmpfs", &[("mode", Some("700"))], MountAttrFlags::empty())?;
        let names: Vec<String> = (0..self.lower.len()).map(link_name).collect();
        for (layer, name) in self.lower.iter().zip(&names) {
            symlinkat(*layer, &links, name)?;
        }
        in_directory(&links, || {
            let context = Context::open("overlay", "overlay")?;
            context.set("lowerdir", Some(&names.join(":")))?;
            self.finish(&context, attributes)
        })
    }

    fn finish(&self, context: &Context, attributes: MountAttrFlags) -> Result<OwnedFd> {
        if let Some((upper, work)) = self.upper {
            context.set_path("upperdir", upper)?;
            context.set_path("workdir", work)?;
        }
        // Files of an image that were crafted for these features must stay plain files, whatever
        // the module's defaults are.
        for feature in ["index", "metacopy", "redirect_dir"] {
            match context.set(feature, Some("off")) {
                // Kernels that do not know a feature do not use it.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.volatile {
            context.set("volatile", None)?;
        }
        context.mount(attributes)
    }
}

/// Asked of the kernel's version, as trying puts an error into the kernel's log. A kernel that has
/// it by a backport does well without.
fn has_lowerdir_plus(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 8)
}

fn link_name(number: usize) -> String {
    let letter = |at: usize| char::from(LETTERS[at % LETTERS.len()]);
    match number.checked_sub(LETTERS.len()) {
        None => letter(number).to_string(),
        Some(rest) => format!("{}{}", letter(rest / LETTERS.len()), letter(rest)),
    }
}

fn in_directory<T>(directory: impl AsFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = openat(CWD, ".", flags, Mode::empty())?;
    fchdir(directory)?;
    let result = work();
    fchdir(here)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for release in ["6.8.0", "6.12.3-amd64", "7.0", "10.1"] {
            assert!(has_lowerdir_plus(release), "{release}");
        }
        for release in ["6.7.9", "6.1.0-56-cloud-amd64", "5.14.0-503.el9", "6", ""] {
            assert!(!has_lowerdir_plus(release), "{release}");
        }
    }

    #[test]
    fn names_fit_an_option() {
        let names: Vec<String> = (0..MOST_LINKS).map(link_name).collect();
        assert_eq!(names[..3].join(":"), "0:1:2");
        assert_eq!(names[LETTERS.len()..][..2].join(":"), "00:01");
        assert!(names.join(":").len() <= 255);
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
