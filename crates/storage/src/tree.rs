//! Putting the entries of a layer into a directory, one by one, whoever made them.
//!
//! Every look-up starts at the pinned `diff/` of the layer; symbolic links on the way are
//! resolved inside it (`openat2`), a link in the last place is never followed: what is there
//! makes room for the new entry. Nothing is written through an existing file.
//!
//! Order does not matter for whiteouts: a name that the layer itself has wins over its whiteout,
//! and a directory with both is opaque. Whiteouts take overlay's form (a 0:0 character device) at
//! once; opaque directories are listed in `<layer>/opaque`, for [`mark_opaque`] to give them
//! overlay's attribute, which takes a privilege that the unpacker need not have.
//!
//! Device nodes and setuid files are real: what keeps them inert on the host is that all of
//! this lies below a directory of mode 0700.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, fstat, ftruncate, futimens, linkat,
    lsetxattr, makedev, mkdirat, mknodat, openat, readlinkat, renameat, seek, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::RootDir;

use crate::error::StorageError;
use crate::names;
use crate::recipe::RecipeWriter;
use crate::steps::{Action, Step, Subject, check_device, link_target, step};
use crate::tar::{Entry, Kind, Reader};

const OPAQUE: &str = "trusted.overlay.opaque";
/// The longest path that can be opened.
const LONGEST: usize = 4096;
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// A layer being unpacked.
pub(crate) struct Tree<'lowers> {
    layer: RootDir,
    diff: RootDir,
    /// The layers below, top first: where directories that the archive only implies come from.
    lowers: &'lowers [RootDir],
    last: Option<Rc<Parent>>,
    times: Times,
    opaques: RefCell<BufWriter<File>>,
    /// Bytes in files and links, each inode once: what Docker calls the size of a layer.
    pub(crate) size: u64,
    /// The layer hides everything below its root.
    pub(crate) opaque: bool,
}

/// An open directory, under the name it was asked for and the one it has.
struct Parent {
    asked: Vec<u8>,
    real: Vec<u8>,
    dir: RootDir,
}

struct Place {
    parent: Rc<Parent>,
    name: Vec<u8>,
}

impl Place {
    fn dir(&self) -> BorrowedFd<'_> {
        self.parent.dir.as_fd()
    }

    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    fn real(&self) -> Vec<u8> {
        names::join(&self.parent.real, &self.name)
    }

    fn stat(&self) -> rustix::io::Result<Option<Stat>> {
        match statat(self.dir(), self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl<'lowers> Tree<'lowers> {
    /// Makes `diff/` and `replaced/` in the empty directory `layer`. Without an entry of its own
    /// the root is like the one below.
    pub(crate) fn new(layer: RootDir, lowers: &'lowers [RootDir]) -> Result<Self, StorageError> {
        let subject = Subject(b"/");
        let failed = |attempt| subject.failed(attempt);
        mkdirat(&layer, "diff", Mode::from_raw_mode(0o700)).map_err(failed("create"))?;
        mkdirat(&layer, "replaced", Mode::from_raw_mode(0o700)).map_err(failed("create"))?;
        let diff = layer.open_dir("diff").map_err(failed("open"))?;
        let times = Times::new(&layer).map_err(failed("create"))?;
        let opaques = create(&layer, "opaque").map_err(failed("create"))?;
        let opaques = RefCell::new(BufWriter::new(opaques));
        let mut tree =
            Self { layer, diff, lowers, last: None, times, opaques, size: 0, opaque: false };
        let root = openat(&tree.diff, ".", DIR_FLAGS | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open"))?;
        tree.inherit(b"", root.as_fd()).map_err(failed("create"))?;
        Ok(tree)
    }

    /// Puts the entry that `reader` stands at in its place.
    pub(crate) fn put<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R, RecipeWriter>,
    ) -> Result<(), StorageError> {
        let subject = Subject(&entry.path);
        let (parents, action) = match step(entry, &subject)? {
            Step::Nothing => return Ok(()),
            Step::Root => return self.put_root(entry, &subject),
            Step::Below { parents, action } => (parents, action),
        };
        let parent = self.parent(&parents, &subject)?;
        let name = match action {
            Action::HideAll => return self.hide_all(&parent).map_err(subject.failed("mark")),
            Action::Hide(name) => {
                let place = Place { parent, name: name.to_vec() };
                return self.hide(&place).map_err(subject.failed("white out"));
            }
            Action::Put(name) => name,
        };
        let place = Place { parent, name: name.to_vec() };
        match entry.kind {
            Kind::Directory => self.put_directory(&place, entry, &mut reader.sink, &subject),
            Kind::File => self.put_file(&place, entry, reader, &subject),
            Kind::HardLink => self.put_hard_link(&place, entry, &mut reader.sink, &subject),
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.put_node(&place, entry, &mut reader.sink, &subject)
            }
        }
    }

    /// Gives directories their times, which making their content changed.
    pub(crate) fn finish(self) -> Result<(), StorageError> {
        self.opaques.borrow_mut().flush().map_err(errno).map_err(Subject(b"/").failed("mark"))?;
        self.times.apply(&self.diff).map_err(Subject(b"/").failed("set times below"))
    }

    fn put_root(&self, entry: &Entry, subject: &Subject<'_>) -> Result<(), StorageError> {
        let root = openat(&self.diff, ".", DIR_FLAGS | OFlags::CLOEXEC, Mode::empty())
            .map_err(subject.failed("open"))?;
        set_owner_and_mode(root.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        set_xattrs(root.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        self.times.push(b"", entry.mtime).map_err(subject.failed("keep the time of"))
    }

    fn put_directory(
        &mut self,
        place: &Place,
        entry: &Entry,
        recipe: &mut RecipeWriter,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = place.stat().map_err(subject.failed("look up"))?;
        let is_directory = old.as_ref().is_some_and(is_directory);
        let was_hidden = old.as_ref().is_some_and(is_whiteout);
        if !is_directory {
            self.make_room(place, old.as_ref(), recipe, subject)?;
            mkdirat(place.dir(), place.name(), Mode::from_raw_mode(0o700))
                .map_err(subject.failed("create"))?;
        }
        let dir = openat(place.dir(), place.name(), DIR_FLAGS | OFlags::CLOEXEC, Mode::empty())
            .map_err(subject.failed("open"))?;
        if was_hidden {
            self.note_opaque(&place.real()).map_err(subject.failed("mark"))?;
        }
        set_owner_and_mode(dir.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        set_xattrs(dir.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        self.times.push(&place.real(), entry.mtime).map_err(subject.failed("keep the time of"))
    }

    fn put_file<R: BufRead>(
        &mut self,
        place: &Place,
        entry: &Entry,
        reader: &mut Reader<R, RecipeWriter>,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = place.stat().map_err(subject.failed("look up"))?;
        self.make_room(place, old.as_ref(), &mut reader.sink, subject)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = openat(place.dir(), place.name(), flags | OFlags::NOFOLLOW, mode)
            .map_err(subject.failed("create"))?;
        let file = File::from(fd);
        self.copy_data(&file, &place.real(), entry, reader)?;
        self.size += entry.size;
        // The owner first: changing it takes away setuid bits and capabilities.
        set_owner_and_mode(file.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        set_xattrs(file.as_fd(), entry).map_err(subject.failed("set attributes of"))?;
        futimens(&file, &timestamps(entry.mtime)).map_err(subject.failed("set the time of"))
    }

    /// Moves the member's data to `file` and notes in the recipe where it went.
    fn copy_data<R: BufRead>(
        &self,
        mut file: &File,
        real: &[u8],
        entry: &Entry,
        reader: &mut Reader<R, RecipeWriter>,
    ) -> Result<(), StorageError> {
        let failed = |source| StorageError::Tar(crate::tar::TarError::Read { source });
        let whole = [crate::tar::Fragment { offset: 0, length: entry.size }];
        for fragment in entry.sparse.as_deref().unwrap_or(&whole) {
            if fragment.length == 0 {
                continue;
            }
            if entry.sparse.is_some() {
                seek(file, rustix::fs::SeekFrom::Start(fragment.offset))
                    .map_err(Subject(real).failed("seek"))?;
            }
            reader.sink.file(real, fragment.offset, fragment.length).map_err(failed)?;
            let end = reader.remaining() - fragment.length;
            while reader.remaining() > end {
                let wanted = usize::try_from(reader.remaining() - end).unwrap_or(usize::MAX);
                let bytes = reader.data()?;
                let bytes = &bytes[..bytes.len().min(wanted)];
                let written = file.write(bytes).map_err(write_error(real))?;
                reader.consume(written);
            }
        }
        if entry.sparse.is_some() {
            ftruncate(file, entry.size).map_err(Subject(real).failed("extend"))?;
        }
        Ok(())
    }

    fn put_hard_link(
        &mut self,
        place: &Place,
        entry: &Entry,
        recipe: &mut RecipeWriter,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let (parents, name) = link_target(entry, subject)?;
        let dir = self.diff.open_dir(as_path(&parents)).map_err(subject.failed("link"))?;
        let target = OsStr::from_bytes(name);
        let found =
            statat(&dir, target, AtFlags::SYMLINK_NOFOLLOW).map_err(subject.failed("link"))?;
        if is_directory(&found) || is_whiteout(&found) {
            return Err(subject.refused("hard link to something that cannot have two names"));
        }
        let old = place.stat().map_err(subject.failed("look up"))?;
        if old.as_ref().is_some_and(|old| old.st_dev == found.st_dev && old.st_ino == found.st_ino)
        {
            return Ok(());
        }
        self.make_room(place, old.as_ref(), recipe, subject)?;
        linkat(&dir, target, place.dir(), place.name(), AtFlags::empty())
            .map_err(subject.failed("link"))
    }

    /// Symbolic links, devices and pipes: what has no content and cannot be opened to change it.
    fn put_node(
        &mut self,
        place: &Place,
        entry: &Entry,
        recipe: &mut RecipeWriter,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = place.stat().map_err(subject.failed("look up"))?;
        self.make_room(place, old.as_ref(), recipe, subject)?;
        if entry.kind == Kind::Symlink {
            if entry.link.contains(&0) {
                return Err(subject.refused("zero byte in a link"));
            }
            symlinkat(OsStr::from_bytes(&entry.link), place.dir(), place.name())
                .map_err(subject.failed("create"))?;
            self.size += entry.link.len() as u64;
        } else {
            check_device(entry, subject)?;
            let kind = match entry.kind {
                Kind::CharDevice => FileType::CharacterDevice,
                Kind::BlockDevice => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            let device = makedev(entry.device.0, entry.device.1);
            mknodat(place.dir(), place.name(), kind, Mode::from_raw_mode(0o600), device)
                .map_err(subject.failed("create"))?;
        }
        set_node_attributes(place, entry).map_err(subject.failed("set attributes of"))
    }

    /// Removes what is in the place of a new entry. Content that is part of the tar is kept under
    /// `replaced/`.
    fn make_room(
        &mut self,
        place: &Place,
        old: Option<&Stat>,
        recipe: &mut RecipeWriter,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let Some(old) = old else { return Ok(()) };
        // Whatever goes may have been on the way to the directory that is held open.
        self.last = None;
        if is_directory(old) {
            self.clear(&place.real(), recipe, subject)?;
            return unlinkat(place.dir(), place.name(), AtFlags::REMOVEDIR)
                .map_err(subject.failed("replace"));
        }
        self.retire(place.dir(), place.name(), &place.real(), old, recipe)
            .map_err(subject.failed("replace"))
    }

    fn retire(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        real: &[u8],
        old: &Stat,
        recipe: &mut RecipeWriter,
    ) -> rustix::io::Result<()> {
        let kind = FileType::from_raw_mode(old.st_mode);
        if old.st_nlink == 1 && matches!(kind, FileType::RegularFile | FileType::Symlink) {
            self.size = self.size.saturating_sub(old.st_size.cast_unsigned());
        }
        if kind != FileType::RegularFile || old.st_size == 0 {
            return unlinkat(dir, name, AtFlags::empty());
        }
        let number = recipe.replace(real).map_err(|_io| Errno::IO)?;
        let place = Path::new("replaced").join(number.to_string());
        renameat(dir, name, &self.layer, place)
    }

    /// Empties the directory at `real`, depth first, with one directory open at a time.
    fn clear(
        &mut self,
        real: &[u8],
        recipe: &mut RecipeWriter,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let failed = || subject.failed("replace");
        let mut stack = vec![(real.to_vec(), false)];
        while let Some((path, emptied)) = stack.pop() {
            if emptied {
                if path != real {
                    unlinkat(&self.diff, as_path(&path), AtFlags::REMOVEDIR).map_err(failed())?;
                }
                continue;
            }
            stack.push((path.clone(), true));
            let dir =
                self.diff.open_strict(as_path(&path), DIR_FLAGS, Mode::empty()).map_err(failed())?;
            for entry in Dir::read_from(&dir).map_err(failed())? {
                let entry = entry.map_err(failed())?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if matches!(name.as_bytes(), b"." | b"..") {
                    continue;
                }
                let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
                let child = names::join(&path, name.as_bytes());
                if is_directory(&stat) {
                    stack.push((child, false));
                } else {
                    self.retire(dir.as_fd(), name, &child, &stat, recipe).map_err(failed())?;
                }
            }
        }
        Ok(())
    }

    /// Opens the directory that an entry goes into, making what the archive left out.
    fn parent(
        &mut self,
        parents: &[&[u8]],
        subject: &Subject<'_>,
    ) -> Result<Rc<Parent>, StorageError> {
        let asked = parents.join(&b'/');
        if let Some(last) = self.last.as_ref().filter(|last| last.asked == asked) {
            return Ok(Rc::clone(last));
        }
        let parent = match self.open_parent(&asked) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_parents(parents).map_err(subject.failed("create the directory of"))?;
                self.open_parent(&asked)
            }
            other => other,
        };
        let parent = Rc::new(parent.map_err(subject.failed("open the directory of"))?);
        self.last = Some(Rc::clone(&parent));
        Ok(parent)
    }

    fn open_parent(&self, asked: &[u8]) -> rustix::io::Result<Parent> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.diff.open_strict(as_path(asked), flags, Mode::empty()) {
            Ok(fd) => {
                let dir = RootDir::from_fd(fd);
                Ok(Parent { asked: asked.to_vec(), real: asked.to_vec(), dir })
            }
            Err(Errno::LOOP) => {
                let dir = self.diff.open_dir(as_path(asked))?;
                let real = self.real_path(&dir)?;
                Ok(Parent { asked: asked.to_vec(), real, dir })
            }
            Err(errno) => Err(errno),
        }
    }

    /// The name a directory has below `diff/`, links resolved.
    fn real_path(&self, dir: &RootDir) -> rustix::io::Result<Vec<u8>> {
        let root = proc_path(self.diff.as_fd());
        let root = readlinkat(rustix::fs::CWD, root, Vec::new())?.into_bytes();
        let path = readlinkat(rustix::fs::CWD, proc_path(dir.as_fd()), Vec::new())?.into_bytes();
        let below = path.strip_prefix(root.as_slice()).ok_or(Errno::XDEV)?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    fn make_parents(&mut self, parents: &[&[u8]]) -> rustix::io::Result<()> {
        let mut asked = Vec::new();
        let mut above = self.open_parent(b"")?;
        for name in parents {
            asked = names::join(&asked, name);
            above = match self.open_parent(&asked) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.make_parent(above, name)?;
                    self.open_parent(&asked)?
                }
                other => other?,
            };
        }
        Ok(())
    }

    /// A directory that only the names of its content tell of: like the one in the layers below
    /// if there is one, unless this layer hides that.
    fn make_parent(&mut self, above: Parent, name: &[u8]) -> rustix::io::Result<()> {
        let place = Place { parent: Rc::new(above), name: name.to_vec() };
        let hidden = match place.stat()? {
            None => false,
            Some(stat) if is_whiteout(&stat) => {
                unlinkat(place.dir(), place.name(), AtFlags::empty())?;
                true
            }
            Some(_) => return Err(Errno::NOTDIR),
        };
        mkdirat(place.dir(), place.name(), Mode::from_raw_mode(0o755))?;
        let dir = openat(place.dir(), place.name(), DIR_FLAGS | OFlags::CLOEXEC, Mode::empty())?;
        if hidden {
            make_plain(dir.as_fd())?;
            return self.note_opaque(&place.real());
        }
        self.inherit(&place.real(), dir.as_fd())
    }

    /// Copies owner, mode and time from the directory of the same name below, if any.
    fn inherit(&mut self, real: &[u8], dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
        for lower in self.lowers {
            match lower.open_strict(as_path(real), DIR_FLAGS, Mode::empty()) {
                Ok(below) => {
                    let stat = fstat(&below)?;
                    let mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
                    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                    fchown(dir, Some(owner.0), Some(owner.1))?;
                    fchmod(dir, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                    return self.times.push(real, mtime);
                }
                Err(Errno::NOENT) => {}
                // Something else of that name hides the layers further down.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno),
            }
        }
        make_plain(dir)
    }

    fn hide(&self, place: &Place) -> rustix::io::Result<()> {
        match place.stat()? {
            None => {
                let mode = Mode::empty();
                mknodat(place.dir(), place.name(), FileType::CharacterDevice, mode, 0)
            }
            Some(stat) if is_directory(&stat) => self.note_opaque(&place.real()),
            // The layer's own file wins over its whiteout.
            Some(_) => Ok(()),
        }
    }

    fn hide_all(&mut self, parent: &Parent) -> rustix::io::Result<()> {
        if parent.real.is_empty() {
            // Overlay does not look at the attribute of a root: the list of lowers ends here.
            self.opaque = true;
        }
        self.note_opaque(&parent.real)
    }

    fn note_opaque(&self, real: &[u8]) -> rustix::io::Result<()> {
        put_path(&mut *self.opaques.borrow_mut(), real).map_err(errno)
    }
}

/// Gives the directories in `<layer>/opaque` their attribute and removes the list. The list is not
/// trusted: it cannot name anything but directories of the layer.
pub(crate) fn mark_opaque(layer: &RootDir) -> rustix::io::Result<()> {
    let list = layer.open_strict("opaque", OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let mut list = BufReader::new(File::from(list));
    let diff = RootDir::from_fd(layer.open_strict(
        "diff",
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )?);
    while !list.fill_buf().map_err(errno)?.is_empty() {
        let path = get_path(&mut list).map_err(errno)?;
        match diff.open_strict(as_path(&path), DIR_FLAGS, Mode::empty()) {
            Ok(dir) => fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty())?,
            // Replaced by something else later in the layer.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno),
        }
    }
    unlinkat(layer, "opaque", AtFlags::empty())
}

fn create(layer: &RootDir, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    openat(layer, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

fn put_path(output: &mut impl Write, path: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(path.len()).map_err(|_range| Errno::NAMETOOLONG)?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(path)
}

fn get_path(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut path = vec![0; length];
    input.read_exact(&mut path)?;
    Ok(path)
}

/// Times of directories, kept in a file without a name: a hostile layer may have millions.
struct Times {
    file: RefCell<BufWriter<File>>,
}

impl Times {
    fn new(layer: &RootDir) -> rustix::io::Result<Self> {
        let file = create(layer, "times")?;
        unlinkat(layer, "times", AtFlags::empty())?;
        Ok(Self { file: RefCell::new(BufWriter::new(file)) })
    }

    fn push(&self, path: &[u8], (seconds, nanos): (i64, u32)) -> rustix::io::Result<()> {
        let mut file = self.file.borrow_mut();
        let time = [&seconds.to_le_bytes()[..], &nanos.to_le_bytes()].concat();
        put_path(&mut *file, path).and_then(|()| file.write_all(&time)).map_err(errno)
    }

    /// Sets them in the order they came, so that the last one of a name stays.
    fn apply(self, diff: &RootDir) -> rustix::io::Result<()> {
        let mut file = self.file.into_inner().into_inner().map_err(|error| errno(error.into()))?;
        file.rewind().map_err(errno)?;
        let mut file = BufReader::new(file);
        while !file.fill_buf().map_err(errno)?.is_empty() {
            let path = get_path(&mut file).map_err(errno)?;
            let (mut seconds, mut nanos) = ([0; 8], [0; 4]);
            file.read_exact(&mut seconds).map_err(errno)?;
            file.read_exact(&mut nanos).map_err(errno)?;
            let mtime = (i64::from_le_bytes(seconds), u32::from_le_bytes(nanos));
            match diff.open_strict(as_path(&path), DIR_FLAGS, Mode::empty()) {
                Ok(dir) => futimens(&dir, &timestamps(mtime))?,
                // Replaced by something else later in the layer.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

pub(crate) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn write_error(path: &[u8]) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = String::from_utf8_lossy(path).into_owned();
    move |error| StorageError::Entry { attempt: "write", path, errno: errno(error) }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) },
    }
}

fn set_owner_and_mode(fd: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry)?;
    fchown(fd, Some(uid), Some(gid))?;
    fchmod(fd, Mode::from_raw_mode(entry.mode & 0o7777))
}

/// Makes a directory root's, also where the one above it would hand its group down.
fn make_plain(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchown(dir, Some(Uid::ROOT), Some(Gid::ROOT))?;
    fchmod(dir, Mode::from_raw_mode(0o755))
}

fn owner(entry: &Entry) -> rustix::io::Result<(Uid, Gid)> {
    // All ones means "leave it" to chown.
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

fn set_xattrs(fd: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| names::keeps_xattr(name)) {
        tolerate(fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()))?;
    }
    Ok(())
}

fn set_node_attributes(place: &Place, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry)?;
    chownat(place.dir(), place.name(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        chmodat(place.dir(), place.name(), Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    if !entry.xattrs.is_empty() {
        // There is no call that takes a directory and a name (before 6.13); the last component
        // is not followed.
        let path = proc_path(place.dir()).join(place.name());
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| names::keeps_xattr(name)) {
            tolerate(lsetxattr(&path, name.as_slice(), value, XattrFlags::empty()))?;
        }
    }
    utimensat(place.dir(), place.name(), &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Attributes that this file system, or this kind of file, cannot have are left out, as Docker
/// does.
fn tolerate(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        other => other,
    }
}
