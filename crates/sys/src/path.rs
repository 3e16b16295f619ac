//! Paths below a pinned directory. A [`RootDir`] is an open directory; every look-up through it
//! treats that directory as `/`, so that neither `..` nor a symbolic link (nor a race with either)
//! leads out of it. Nothing is ever resolved twice: callers keep the descriptor they got.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::{Errno, Result};

/// An open directory that look-ups cannot leave.
#[derive(Debug)]
pub struct RootDir(OwnedFd);

impl RootDir {
    /// Opens a directory of the host by a trusted path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path.as_ref(), flags, Mode::empty()).map(Self)
    }

    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens `path` with this directory as its root. Absolute paths and absolute links start
    /// here; magic links (`/proc/self/fd/N`) are refused.
    pub fn open_in(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        retry(|| {
            let path = non_empty(path.as_ref());
            openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve)
        })
    }

    /// Opens `path` strictly below this directory: no symbolic link anywhere, no `..` above it.
    /// For trees whose shape is known, where a link would mean that something went wrong.
    pub fn open_strict(
        &self,
        path: impl AsRef<Path>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        retry(|| {
            let path = path.as_ref();
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve)
        })
    }

    /// Opens `path` below this directory. Links are followed as long as they stay below it; what
    /// leads out, and every absolute link, is EXDEV.
    pub fn open_beneath(
        &self,
        path: impl AsRef<Path>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        retry(|| {
            let path = path.as_ref();
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve)
        })
    }

    /// Opens the directory at `path` and pins it.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self> {
        self.open_in(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map(Self)
    }

    /// Opens the directory at `path`, making what is missing on the way (mode 0755).
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match self.open_dir(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut walked = std::path::PathBuf::from("/");
        let mut here = self.open_dir("/")?;
        for component in path.components() {
            match component {
                Component::Normal(name) => walked.push(name),
                Component::ParentDir => drop(walked.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            }
            here = match self.open_dir(&walked) {
                Err(Errno::NOENT) => {
                    let name = walked.file_name().unwrap_or_else(|| OsStr::new("."));
                    match mkdirat(&here.0, name, Mode::from_raw_mode(0o755)) {
                        // A dangling link stays an error: the open below says ENOENT.
                        Ok(()) | Err(Errno::EXIST) => self.open_dir(&walked)?,
                        Err(errno) => return Err(errno),
                    }
                }
                other => other?,
            };
        }
        Ok(here)
    }

    /// Splits `path` into its parent, opened below this root, and its last component, which the
    /// caller uses with `*at` calls that do not follow links.
    pub fn open_parent<'a>(&self, path: &'a Path) -> Result<(Self, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or_else(|| Path::new("/"));
        Ok((self.open_dir(parent)?, name))
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<RootDir> for OwnedFd {
    fn from(dir: RootDir) -> Self {
        dir.0
    }
}

fn non_empty(path: &Path) -> &Path {
    if path.as_os_str().as_bytes().is_empty() { Path::new("/") } else { path }
}

/// `openat2` answers EAGAIN when a rename raced with the look-up.
fn retry(mut open: impl FnMut() -> Result<OwnedFd>) -> Result<OwnedFd> {
    for _ in 0..128 {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}
