//! Trees to tar: a container's root as it sees it (`docker export`), and its changes as a layer
//! (`docker commit`).
//!
//! Both walk a pinned directory and follow no link. A running container may change the tree
//! meanwhile: what vanishes is left out, a file that shrinks is filled with zeros.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use spec::Digest;
use sys::RootDir;
use sys::mount::MountAttrFlags;
use sys::overlay::Overlay;
use sys::process::{UnshareFlags, unshare};

use crate::changes::{is_opaque, os_name};
use crate::containers::OverlayDirs;
use crate::error::StorageError;
use crate::storage::Storage;
use crate::tar::write::Writer;
use crate::tar::{Entry, Kind};
use crate::tree::is_whiteout;

/// Attributes of overlay's own are no part of a layer.
const OVERLAY_XATTR: &[u8] = b"trusted.overlay.";

impl Storage {
    /// Writes the whole root of a container, layers merged.
    pub fn export(&self, id: &str, output: &mut dyn Write) -> Result<(), StorageError> {
        let dirs = self.rootfs(id)?;
        let root = merged(&dirs).map_err(StorageError::file("mount", dirs.upper))?;
        write_tree(root, false, output)
    }

    /// The root of a container that is being made and has no record yet, read-only: what fills its
    /// volumes.
    pub fn prepared_root(&self, id: &str, chain: Option<&Digest>) -> Result<RootDir, StorageError> {
        let place = self.path().join("containers").join(id);
        let dirs = OverlayDirs::new(self.chain_lowers(chain)?, &place);
        merged(&dirs).map_err(StorageError::file("mount", dirs.upper))
    }

    /// Writes what a container changed, in the form of an image layer.
    pub fn write_changes(&self, id: &str, output: &mut dyn Write) -> Result<(), StorageError> {
        let upper = self.rootfs(id)?.upper;
        let root = RootDir::open(&upper).map_err(StorageError::file("open", upper))?;
        write_tree(root, true, output)
    }
}

/// A detached read-only overlay of all layers, the writable one as the topmost: it needs no mount
/// point and does not disturb the container's own mount.
fn merged(dirs: &OverlayDirs) -> rustix::io::Result<RootDir> {
    if dirs.lower.is_empty() {
        return RootDir::open(&dirs.upper);
    }
    let lower = std::iter::once(&dirs.upper).chain(&dirs.lower).map(PathBuf::as_path).collect();
    let overlay = Overlay { lower, upper: None, volatile: false };
    mount(&overlay, MountAttrFlags::MOUNT_ATTR_RDONLY).map(RootDir::from_fd)
}

/// Mounts on a thread with a working directory of its own, as that may change.
pub(crate) fn mount(
    overlay: &Overlay<'_>,
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let mount = || {
            unshare(UnshareFlags::FS)?;
            overlay.mount(attributes)
        };
        scope.spawn(mount).join().expect("mounting does not panic")
    })
}

fn write_tree(root: RootDir, layer: bool, output: &mut dyn Write) -> Result<(), StorageError> {
    let failed = |source| StorageError::Output { source };
    let top = root.open_strict("", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    let top = top.map_err(|errno| failed(errno.into()))?;
    let mut walk = Walk::new(output, layer);
    walk.directory(&top, b"").map_err(failed)?;
    walk.writer.finish().map_err(failed)
}

/// Writes the directory, called `shown`, and all that is in it: `.` gives `./`, `./a`; an empty
/// name `/`, `/a`. Directories of the kernel's own file systems are left out, as in an image.
pub fn write_directory(dir: &OwnedFd, shown: &[u8], output: &mut dyn Write) -> io::Result<()> {
    let mut walk = Walk { skip_kernel: true, ..Walk::new(output, false) };
    walk.open_directory(dir, shown.to_vec(), &fstat(dir)?)?;
    walk.writer.finish()
}

/// Writes what is at `name` in `parent`, called `shown`; a link as the link it is.
pub fn write_entry(
    parent: &OwnedFd,
    name: &OsStr,
    shown: &[u8],
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut walk = Walk { skip_kernel: true, ..Walk::new(output, false) };
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    walk.entry(parent, name, shown.to_vec(), &stat)?;
    walk.writer.finish()
}

/// A container may nest directories deeper than a stack and the table of descriptors are.
const DEPTH_MAX: usize = 256;

/// Whether a file is one of those that the kernel makes up: sizes mean nothing there, and some
/// wait for ever.
pub fn is_kernels_own(file: impl AsFd) -> rustix::io::Result<bool> {
    // linux/magic.h: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, devpts.
    const KERNELS: [i64; 9] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
        0x1cd1,
    ];
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(KERNELS.contains(&(kind as i64)))
}

struct Walk<'a> {
    writer: Writer<&'a mut dyn Write>,
    /// Spell overlay's whiteouts in the layer form.
    layer: bool,
    /// First name of each inode that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    skip_kernel: bool,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(output: &'a mut dyn Write, layer: bool) -> Self {
        let writer = Writer::new(output);
        Self { writer, layer, links: HashMap::new(), skip_kernel: false, depth: 0 }
    }
}

impl Walk<'_> {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> io::Result<()> {
        for name in names(dir)? {
            let path = if path.is_empty() && !self.skip_kernel {
                name.as_bytes().to_vec()
            } else {
                [path, b"/", name.as_bytes()].concat()
            };
            match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                stat => self.entry(dir, &name, path, &stat?)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        if self.layer && is_whiteout(stat) {
            return self.whiteout(&path, name, stat);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.subdirectory(dir, name, path, stat),
            FileType::RegularFile => self.file(dir, name, path, stat),
            FileType::Symlink => {
                let target = match readlinkat(dir, name, Vec::new()) {
                    // Gone, or something else by now.
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    target => target?,
                };
                let mut entry = entry(path, Kind::Symlink, stat);
                entry.link = target.into_bytes();
                self.writer.header(&entry)
            }
            FileType::CharacterDevice => self.device(path, Kind::CharDevice, stat),
            FileType::BlockDevice => self.device(path, Kind::BlockDevice, stat),
            FileType::Fifo => self.writer.header(&entry(path, Kind::Fifo, stat)),
            // A socket is nothing without its process; Docker leaves them out as well.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn subdirectory(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: Vec<u8>,
        stat: &Stat,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other?,
        };
        self.open_directory(&below, path, stat)
    }

    fn open_directory(&mut self, below: &OwnedFd, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        let mut entry = entry(path, Kind::Directory, stat);
        entry.xattrs = xattrs(below)?;
        let path = entry.path.clone();
        entry.path.push(b'/');
        self.writer.header(&entry)?;
        if self.layer && is_opaque(below)? {
            self.marker([path.as_slice(), b"/.wh..wh..opq"].concat(), stat)?;
        }
        if self.skip_kernel && is_kernels_own(below)? {
            return Ok(());
        }
        if self.depth == DEPTH_MAX {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        self.depth += 1;
        let written = self.directory(below, &path);
        self.depth -= 1;
        written
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        let mut entry = entry(path, Kind::File, stat);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                return self.writer.header(&entry);
            }
            self.links.insert((stat.st_dev, stat.st_ino), entry.path.clone());
        }
        let Some(file) = open_regular(dir, name)? else { return Ok(()) };
        // The size that counts is that of what was opened. The kernel's own lie about theirs.
        entry.size = match self.skip_kernel && is_kernels_own(&file)? {
            true => 0,
            false => fstat(&file)?.st_size.cast_unsigned(),
        };
        entry.xattrs = xattrs(&file)?;
        self.writer.header(&entry)?;
        let mut contents = File::from(file).take(entry.size);
        let copied = io::copy(&mut contents, &mut self.writer.output)?;
        io::copy(&mut io::repeat(0).take(entry.size - copied), &mut self.writer.output)?;
        self.writer.pad(entry.size)
    }

    fn device(&mut self, path: Vec<u8>, kind: Kind, stat: &Stat) -> io::Result<()> {
        let mut entry = entry(path, kind, stat);
        entry.device = (major(stat.st_rdev), minor(stat.st_rdev));
        self.writer.header(&entry)
    }

    fn whiteout(&mut self, path: &[u8], name: &OsStr, stat: &Stat) -> io::Result<()> {
        let parent = &path[..path.len() - name.len()];
        self.marker([parent, b".wh.", name.as_bytes()].concat(), stat)
    }

    /// An empty file whose name says something.
    fn marker(&mut self, path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        let mut entry = entry(path, Kind::File, stat);
        entry.mode = 0o644;
        (entry.uid, entry.gid) = (0, 0);
        self.writer.header(&entry)
    }
}

/// Opens a regular file, or nothing: what the container put there in the meantime, a device say,
/// must not be opened at all.
fn open_regular(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let pinned = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(openat(rustix::fs::CWD, pinned, flags, Mode::empty())?))
}

pub(crate) fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = match entry {
            // The directory itself was removed.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = os_name(entry.file_name());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn entry(path: Vec<u8>, kind: Kind, stat: &Stat) -> Entry {
    Entry {
        path,
        link: Vec::new(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device: (0, 0),
        size: 0,
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// All attributes of an open file but overlay's own, sorted by name.
pub(crate) fn xattrs(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; 64 << 10];
    let length = match flistxattr(&file, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(OVERLAY_XATTR) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match fgetxattr(&file, OsStr::from_bytes(name), &mut value) {
            Err(Errno::NODATA) => continue,
            other => value.truncate(other?),
        }
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
