//! Putting a client's tar into a directory of a container (`docker cp`).
//!
//! Unlike a layer (`tree`), the tree is live: the container may run and change it under our hands.
//! So the directory is pinned, every look-up is made below it and cannot leave it, whatever links
//! there are or come to be, and nothing is written or changed through something that was there:
//! a file is made new, under a descriptor that stays ours. Whiteouts mean nothing here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, makedev,
    mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::RootDir;

use crate::decode::{Decoder, Ratio, as_storage_error};
use crate::error::StorageError;
use crate::names;
use crate::tar::{Entry, Kind, Reader, TarError};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BUFFER: usize = 256 << 10;

#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Refuse to put a file in the place of a directory, or the other way round.
    pub keep_kinds: bool,
    /// Everything belongs to these, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// What the directory is called, for error texts.
    pub shown: String,
}

/// Unpacks a tar (plain, gzip or zstd) below `target`. A failure half-way leaves what came before
/// it, as Docker does.
pub fn extract(
    target: &RootDir,
    stream: &mut (dyn Read + Send),
    options: &ExtractOptions,
) -> Result<(), StorageError> {
    let decoder = Decoder::new(stream, Ratio::default())?;
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER, decoder), ());
    let mut times = Vec::new();
    let extract = Extract { target, options };
    loop {
        let next = reader.next_entry().map_err(unwrap_bomb);
        let Some(mut entry) = next? else { break };
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some(directory) = extract.put(&entry, &mut reader)? {
            times.push((directory, entry.mtime));
        }
    }
    reader.drain().map_err(unwrap_bomb)?;
    // Last, for making what is in them changed them. A directory that is gone has no time.
    for (directory, mtime) in times.iter().rev() {
        if let Ok(directory) = target.open_strict(directory, DIRECTORY, Mode::empty()) {
            futimens(directory, &timestamps(*mtime)).map_err(failed("set the time of", b"."))?;
        }
    }
    Ok(())
}

fn unwrap_bomb(error: TarError) -> StorageError {
    match &error {
        TarError::Read { source } => as_storage_error(source).unwrap_or(StorageError::Tar(error)),
        _ => error.into(),
    }
}

type Input<'a> = Reader<BufReader<Decoder<'a>>>;

struct Extract<'a> {
    target: &'a RootDir,
    options: &'a ExtractOptions,
}

impl Extract<'_> {
    /// Makes one member; for a directory returns where it is.
    fn put(&self, entry: &Entry, input: &mut Input<'_>) -> Result<Option<PathBuf>, StorageError> {
        let invalid = || StorageError::EntryName { name: text(&entry.path) };
        let components = names::components(&entry.path).map_err(|_reason| invalid())?;
        // The directory itself stays as it is.
        let Some((name, parents)) = components.split_last() else { return Ok(None) };
        let name = OsStr::from_bytes(name);
        let parent_path = parents.join(&b'/');
        let parent_path = Path::new(OsStr::from_bytes(&parent_path));
        let parent = self.parent(parent_path).map_err(|errno| match errno {
            Errno::XDEV | Errno::LOOP => StorageError::Escapes { name: text(&entry.path) },
            errno => failed("create the directory of", &entry.path)(errno),
        })?;
        let existing = self.make_room(&parent, name, entry)?;
        match entry.kind {
            Kind::Directory => {
                if !existing {
                    mkdirat(&parent, name, Mode::from_raw_mode(0o700))
                        .map_err(failed("create", &entry.path))?;
                }
                let dir = openat(&parent, name, DIRECTORY, Mode::empty())
                    .map_err(failed("open", &entry.path))?;
                attributes(&dir, entry).map_err(failed("set attributes of", &entry.path))?;
                return Ok(Some(parent_path.join(name)));
            }
            Kind::File => self.file(&parent, name, entry, input)?,
            Kind::HardLink => self.hard_link(&parent, name, entry)?,
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                node(&parent, name, entry).map_err(failed("create", &entry.path))?;
            }
        }
        Ok(None)
    }

    /// Opens the directory at `path`, making what is missing. Links on the way are followed as
    /// long as they stay below the target.
    fn parent(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.target.open_beneath(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let mut here = self.target.open_beneath("", flags, Mode::empty())?;
        let mut walked = PathBuf::new();
        for component in path.components() {
            walked.push(component);
            here = match self.target.open_beneath(&walked, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match mkdirat(&here, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                        // A dangling link stays an error: the open says so.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    self.target.open_beneath(&walked, flags, Mode::empty())?
                }
                opened => opened?,
            };
        }
        Ok(here)
    }

    /// Removes what is in the place of a new member; true when a directory may stay for one.
    fn make_room(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<bool, StorageError> {
        let old = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            old => old.map_err(failed("look up", &entry.path))?,
        };
        let (was, becomes) = (is_directory(&old), entry.kind == Kind::Directory);
        if was && becomes {
            return Ok(true);
        }
        if self.options.keep_kinds && was != becomes {
            let (old, new) =
                if was { ("directory", "non-directory") } else { ("non-directory", "directory") };
            let (name, target) = (text(&entry.path), self.options.shown.clone());
            return Err(StorageError::Overwrite { old, name, new, target });
        }
        let removed =
            if was { clear(parent, name) } else { unlinkat(parent, name, AtFlags::empty()) };
        removed.map(|()| false).map_err(failed("replace", &entry.path))
    }

    fn file(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        input: &mut Input<'_>,
    ) -> Result<(), StorageError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(failed("create", &entry.path))?;
        let mut file = File::from(fd);
        let whole = [crate::tar::Fragment { offset: 0, length: entry.size }];
        let write = |error: std::io::Error| {
            failed("write", &entry.path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        for fragment in entry.sparse.as_deref().unwrap_or(&whole) {
            if entry.sparse.is_some() {
                file.seek(SeekFrom::Start(fragment.offset)).map_err(write)?;
            }
            let end = input.remaining() - fragment.length;
            while input.remaining() > end {
                let wanted = usize::try_from(input.remaining() - end).unwrap_or(usize::MAX);
                let bytes = input.data().map_err(unwrap_bomb)?;
                let bytes = &bytes[..bytes.len().min(wanted)];
                let written = file.write(bytes).map_err(write)?;
                input.consume(written);
            }
        }
        if entry.sparse.is_some() {
            ftruncate(&file, entry.size).map_err(failed("extend", &entry.path))?;
        }
        attributes(&file, entry).map_err(failed("set attributes of", &entry.path))?;
        futimens(&file, &timestamps(entry.mtime)).map_err(failed("set the time of", &entry.path))
    }

    fn hard_link(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), StorageError> {
        let invalid = || StorageError::LinkName { name: text(&entry.link) };
        let components = names::components(&entry.link).map_err(|_reason| invalid())?;
        let (to, parents) = components.split_last().ok_or_else(invalid)?;
        let parents = parents.join(&b'/');
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = self
            .target
            .open_beneath(OsStr::from_bytes(&parents), flags, Mode::empty())
            .map_err(failed("link", &entry.path))?;
        // Of what the name is itself: a symbolic link is not followed.
        linkat(dir, OsStr::from_bytes(to), parent, name, AtFlags::empty())
            .map_err(failed("link", &entry.path))
    }
}

/// Removes a directory with everything in it, one level open at a time for each that it has.
fn clear(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let top = RootDir::from_fd(openat(parent, name, DIRECTORY, Mode::empty())?);
    let mut pending = vec![(PathBuf::new(), false)];
    while let Some((path, emptied)) = pending.pop() {
        if emptied {
            if !path.as_os_str().is_empty() {
                let above = path.parent().unwrap_or_else(|| Path::new(""));
                let above = top.open_strict(above, DIRECTORY, Mode::empty())?;
                let name = path.file_name().ok_or(Errno::INVAL)?;
                unlinkat(above, name, AtFlags::REMOVEDIR)?;
            }
            continue;
        }
        pending.push((path.clone(), true));
        let dir = top.open_strict(&path, DIRECTORY, Mode::empty())?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = crate::changes::os_name(entry.file_name());
            if name == "." || name == ".." {
                continue;
            }
            if is_directory(&statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?) {
                pending.push((path.join(name), false));
            } else {
                unlinkat(&dir, name, AtFlags::empty())?;
            }
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Symbolic links, devices and pipes.
fn node(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> rustix::io::Result<()> {
    if entry.kind == Kind::Symlink {
        symlinkat(OsStr::from_bytes(&entry.link), parent, name)?;
    } else {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = makedev(entry.device.0, entry.device.1);
        mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    }
    let (uid, gid) = owner(entry)?;
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        // The container could put a link there: the mode goes to what is pinned, if it is ours.
        let made =
            openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let is_link =
            FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) == FileType::Symlink;
        if !is_link {
            use std::os::fd::AsRawFd;
            let pinned = format!("/proc/self/fd/{}", made.as_raw_fd());
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            chmodat(rustix::fs::CWD, pinned, mode, AtFlags::empty())?;
        }
    }
    utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// The owner first: changing it takes away setuid bits and capabilities.
fn attributes(file: impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry)?;
    fchown(&file, Some(uid), Some(gid))?;
    fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| names::keeps_xattr(name)) {
        match fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            // What this file system cannot have is left out, as in Docker.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> rustix::io::Result<(Uid, Gid)> {
    // All ones means "leave it" to chown.
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) },
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn failed(attempt: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> StorageError {
    let path = text(path);
    move |errno| StorageError::Extract { attempt, path, errno }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::tar::write::{Writer, plain};

    fn archive(entries: &[(&str, Kind, &str, &str)]) -> Vec<u8> {
        let mut tar = Vec::new();
        let mut writer = Writer::new(&mut tar);
        for (path, kind, link, data) in entries {
            let mut entry = plain(path, *kind, 0o644, 1_700_000_000, data.len() as u64);
            entry.link = link.as_bytes().to_vec();
            writer.header(&entry).unwrap();
            writer.output.write_all(data.as_bytes()).unwrap();
            writer.pad(data.len() as u64).unwrap();
        }
        writer.finish().unwrap();
        tar
    }

    fn put(root: &Path, tar: &[u8], keep_kinds: bool) -> Result<(), String> {
        let target = RootDir::open(root).unwrap();
        let options = ExtractOptions { keep_kinds, owner: None, shown: "/d".to_owned() };
        extract(&target, &mut &*tar, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn c05_nothing_is_done_through_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (host, root) = (dir.path().join("host"), dir.path().join("root"));
        std::fs::create_dir_all(host.join("dir")).unwrap();
        std::fs::create_dir(&root).unwrap();
        std::fs::write(host.join("file"), "host").unwrap();
        std::fs::set_permissions(host.join("file"), PermissionsExt::from_mode(0o600)).unwrap();
        let check = |entries: &[(&str, Kind, &str, &str)], expect: &str| {
            for name in ["file", "dir"] {
                drop(std::fs::remove_file(root.join(name)));
                drop(std::fs::remove_dir_all(root.join(name)));
                symlink(host.join(name), root.join(name)).unwrap();
            }
            let result = put(&root, &archive(entries), false).err().unwrap_or_default();
            assert_eq!(result, expect, "{entries:?}");
            let stat = std::fs::metadata(host.join("file")).unwrap();
            assert_eq!(stat.mode() & 0o7777, 0o600);
            assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "host");
            assert_eq!(std::fs::read_dir(host.join("dir")).unwrap().count(), 0);
        };
        let escapes = |name: &str| format!("{name}: path escapes from parent");
        check(&[("file", Kind::Directory, "", "")], "");
        check(&[("file", Kind::File, "", "new")], "");
        check(&[("dir", Kind::Directory, "", "")], "");
        check(&[("dir/file", Kind::File, "", "x")], &escapes("dir/file"));
        check(&[("dir/sub/file", Kind::File, "", "x")], &escapes("dir/sub/file"));
        check(&[("../file", Kind::File, "", "x")], "invalid entry name \"../file\"");
        check(
            &[("x", Kind::HardLink, "../host/file", "")],
            "invalid hardlink target \"../host/file\"",
        );
        check(&[("/file", Kind::File, "", "absolute means here")], "");
        let link = ("ln", Kind::Symlink, "../host", "");
        check(&[link, ("ln/file", Kind::File, "", "x")], &escapes("ln/file"));
        // The link itself gets a second name, not what it shows.
        check(&[("hard", Kind::HardLink, "file", ""), ("hard", Kind::File, "", "x")], "");
    }

    #[test]
    fn kinds_are_kept_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/f"), "").unwrap();
        std::fs::write(dir.path().join("f"), "old").unwrap();
        let (file, sub) =
            (archive(&[("sub", Kind::File, "", "x")]), archive(&[("f", Kind::Directory, "", "")]));
        assert_eq!(
            put(dir.path(), &file, true).unwrap_err(),
            "cannot overwrite directory \"sub\" with non-directory \"/d\""
        );
        assert_eq!(
            put(dir.path(), &sub, true).unwrap_err(),
            "cannot overwrite non-directory \"f\" with directory \"/d\""
        );
        put(dir.path(), &file, false).unwrap();
        put(dir.path(), &sub, false).unwrap();
        assert!(dir.path().join("sub").is_file() && dir.path().join("f").is_dir());
        put(
            dir.path(),
            &archive(&[(".wh.f", Kind::File, "", ""), ("a/b/c", Kind::File, "", "deep")]),
            true,
        )
        .unwrap();
        assert!(dir.path().join("f").is_dir() && dir.path().join(".wh.f").is_file());
        assert_eq!(std::fs::read_to_string(dir.path().join("a/b/c")).unwrap(), "deep");
        assert_eq!(std::fs::metadata(dir.path().join("a/b/c")).unwrap().mtime(), 1_700_000_000);
    }

    #[test]
    fn c03_no_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0];
        put(dir.path(), &xz, false).unwrap_err();
        put(dir.path(), b"", false).unwrap();
        put(dir.path(), b"root:x:0:0", false).unwrap_err();
    }
}
