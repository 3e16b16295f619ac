//! A layer's entries, one by one, to a tree in memory. The rules, and the words of refusal, are
//! those of `crate::tree`, which does the same with directories; the tests hold one against the
//! other. No file is named by anything here but `tar` and `toc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::SystemTime;

use rustix::io::Errno;

use super::model::{Attributes, Body, Data, Directory, Extent, HOLE, Id, Inode, ROOT, Tree};
use super::{BLOCK, BLOCK_BITS, toc, xattr};
use crate::error::StorageError;
use crate::names;
use crate::steps::{Action, Step, Subject, check_device, link_target, step};
use crate::tar::{Entry, Fragment, Kind, Reader, Sink, TarError};

/// As in the kernel: links followed in one look-up, bytes of a name, bytes of a path with its end.
const LINKS_MAX: usize = 40;
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;
/// Where copied content begins, and the size of its pieces at least.
const PAGE: u64 = 4096;
/// Pieces that a file with holes has at most, which bounds how much a small tar can make us write.
const PIECES_MAX: u64 = 1024;

/// Sees whether the bytes that fill up a file's last block are zeros. They should be: who maps the
/// file can read them.
#[derive(Debug, Default)]
pub(crate) struct Padding {
    left: usize,
    dirty: bool,
}

impl Sink for Padding {
    fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let padding = self.left.min(bytes.len());
        self.dirty |= bytes[..padding].iter().any(|byte| *byte != 0);
        self.left -= padding;
        Ok(())
    }
}

/// A layer in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    tree: Tree,
    last: Option<Rc<Parent>>,
    /// Paths whose directories are opaque in the end, whatever was there in between.
    opaques: BTreeSet<Vec<u8>>,
    /// Times of directories that had to go: one that comes back under the name has it.
    graves: BTreeMap<Vec<u8>, (i64, u32)>,
    /// Content that cannot be shown where it is in the tar.
    copies: Vec<Copy>,
    /// The file whose padding has not been seen yet.
    unpadded: Option<Copy>,
    weight: u64,
    now: (i64, u32),
    /// Bytes in files and links, each inode once: what Docker calls the size of a layer.
    pub(crate) size: u64,
    /// The layer hides everything below its root.
    pub(crate) opaque: bool,
}

/// A directory under the name it was asked for and the one it has.
#[derive(Debug)]
struct Parent {
    asked: Vec<u8>,
    real: Vec<u8>,
    id: Id,
}

#[derive(Debug)]
struct Copy {
    inode: Id,
    /// Of the first fragment's data, in the tar.
    position: u64,
    fragments: Vec<Fragment>,
}

struct Place {
    parent: Rc<Parent>,
    name: Box<[u8]>,
}

impl Place {
    fn real(&self) -> Vec<u8> {
        names::join(&self.parent.real, &self.name)
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = (now.as_secs().cast_signed(), now.subsec_nanos());
        let attributes = Attributes { mode: 0o755, mtime: now, ..Attributes::default() };
        let root = Directory { implied: true, ..Directory::default() };
        Self {
            tree: Tree::new(Inode::directory(attributes, root)),
            last: None,
            opaques: BTreeSet::new(),
            graves: BTreeMap::new(),
            copies: Vec::new(),
            unpadded: None,
            weight: 0,
            now,
            size: 0,
            opaque: false,
        }
    }

    /// Puts the entry that `reader` stands at in its place.
    pub(crate) fn put<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R, Padding>,
    ) -> Result<(), StorageError> {
        self.judge_padding(&mut reader.sink);
        let subject = Subject(&entry.path);
        self.weigh(entry)?;
        let (parents, action) = match step(entry, &subject)? {
            Step::Nothing => return Ok(()),
            Step::Root => return self.put_root(entry, &subject),
            Step::Below { parents, action } => (parents, action),
        };
        let parent = self.parent(&parents, &subject)?;
        let name = match action {
            Action::HideAll => {
                self.hide_all(&parent);
                return Ok(());
            }
            Action::Hide(name) => {
                let place = Place { parent, name: name.into() };
                return self.hide(&place).map_err(subject.failed("white out"));
            }
            Action::Put(name) => name,
        };
        let place = Place { parent, name: name.into() };
        match entry.kind {
            Kind::Directory => self.put_directory(&place, entry, &subject),
            Kind::File => self.put_file(&place, entry, reader, &subject),
            Kind::HardLink => self.put_hard_link(&place, entry, &subject),
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.put_node(&place, entry, &subject)
            }
        }
    }

    /// Ends `tar`, which holds the `tar_size` bytes that came, and writes the table of contents.
    pub(crate) fn finish(
        mut self,
        padding: &mut Padding,
        tar: &File,
        tar_size: u64,
        table: File,
    ) -> Result<(), StorageError> {
        self.judge_padding(padding);
        let length = self.copy_out(tar, tar_size).map_err(write_failed)?;
        for path in std::mem::take(&mut self.opaques) {
            if let Some(directory) =
                self.find_strict(&path).and_then(|id| self.tree.directory_mut(id))
            {
                directory.opaque = true;
            }
        }
        let mut table = BufWriter::with_capacity(64 << 10, table);
        toc::write(&self.tree, length, &mut table)
            .and_then(|()| table.flush())
            .map_err(write_failed)
    }

    /// What an entry costs in memory and in the table is bounded for the layer as a whole.
    fn weigh(&mut self, entry: &Entry) -> Result<(), StorageError> {
        let xattrs = entry.xattrs.iter().map(|(name, value)| 32 + name.len() + value.len());
        let fragments = entry.sparse.as_ref().map_or(0, |list| list.len() * size_of::<Fragment>());
        let strings = entry.path.len() + entry.link.len();
        self.weight += (64 + strings + fragments + xattrs.sum::<usize>()) as u64;
        if self.weight > toc::MAX_WEIGHT {
            return Err(StorageError::TooHeavy { limit: toc::MAX_WEIGHT });
        }
        Ok(())
    }

    fn put_root(&mut self, entry: &Entry, subject: &Subject<'_>) -> Result<(), StorageError> {
        self.dress_directory(ROOT, entry).map_err(subject.failed("set attributes of"))
    }

    fn put_directory(
        &mut self,
        place: &Place,
        entry: &Entry,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = self.look_up(place).map_err(subject.failed("look up"))?;
        let kept = old.filter(|id| self.tree.inodes[*id].is_directory());
        let id = match kept {
            Some(id) => id,
            None => {
                let was_hidden =
                    old.is_some_and(|id| matches!(self.tree.inodes[id].body, Body::Whiteout));
                self.make_room(place, old);
                if was_hidden {
                    self.opaques.insert(place.real());
                }
                let attributes = Attributes { mtime: self.now, ..Attributes::default() };
                let inode = Inode::directory(attributes, Directory::default());
                self.insert(place, inode).map_err(subject.failed("create"))?
            }
        };
        self.dress_directory(id, entry).map_err(subject.failed("set attributes of"))
    }

    fn dress_directory(&mut self, id: Id, entry: &Entry) -> rustix::io::Result<()> {
        dress(&mut self.tree.inodes[id], entry)?;
        if let Some(directory) = self.tree.directory_mut(id) {
            directory.implied = false;
        }
        Ok(())
    }

    fn put_file<R: BufRead>(
        &mut self,
        place: &Place,
        entry: &Entry,
        reader: &mut Reader<R, Padding>,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = self.look_up(place).map_err(subject.failed("look up"))?;
        self.make_room(place, old);
        let position = reader.position();
        let block = u32::try_from(position / BLOCK).ok().filter(|block| *block != HOLE);
        let block = block.ok_or(StorageError::TooLarge { limit: BLOCK << 32 })?;
        let data = Data { size: entry.size, device: 0, extent: Extent::Whole(block) };
        let inode = self.new_inode(Body::File(data));
        let inode = self.insert(place, inode).map_err(subject.failed("create"))?;
        while reader.remaining() > 0 {
            let length = reader.data()?.len();
            reader.consume(length);
        }
        let stored = reader.position() - position;
        reader.sink = Padding { left: (stored.wrapping_neg() % BLOCK) as usize, dirty: false };
        match &entry.sparse {
            Some(fragments) => {
                let fragments = fragments.clone();
                self.copies.push(Copy { inode, position, fragments });
            }
            None => {
                let fragments = vec![Fragment { offset: 0, length: entry.size }];
                self.unpadded = Some(Copy { inode, position, fragments });
            }
        }
        self.size += entry.size;
        dress(&mut self.tree.inodes[inode], entry).map_err(subject.failed("set attributes of"))
    }

    fn put_hard_link(
        &mut self,
        place: &Place,
        entry: &Entry,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let (parents, name) = link_target(entry, subject)?;
        let (dir, _) = self.walk(&parents).map_err(subject.failed("link"))?;
        let target = Place {
            parent: Rc::new(Parent { asked: Vec::new(), real: Vec::new(), id: dir }),
            name: name.into(),
        };
        let found = self.look_up(&target).map_err(subject.failed("link"))?;
        let found = found.ok_or(Errno::NOENT).map_err(subject.failed("link"))?;
        if matches!(self.tree.inodes[found].body, Body::Directory(_) | Body::Whiteout) {
            return Err(subject.refused("hard link to something that cannot have two names"));
        }
        let old = self.look_up(place).map_err(subject.failed("look up"))?;
        if old == Some(found) {
            return Ok(());
        }
        self.make_room(place, old);
        // Making room may have taken the target away.
        if self.look_up(&target).ok().flatten() != Some(found) {
            return Err(subject.failed("link")(Errno::NOENT));
        }
        self.tree.inodes[found].links += 1;
        self.name(place, found).map_err(subject.failed("link"))
    }

    fn put_node(
        &mut self,
        place: &Place,
        entry: &Entry,
        subject: &Subject<'_>,
    ) -> Result<(), StorageError> {
        let old = self.look_up(place).map_err(subject.failed("look up"))?;
        let body = match entry.kind {
            Kind::Symlink if entry.link.contains(&0) => {
                return Err(subject.refused("zero byte in a link"));
            }
            Kind::Symlink => Body::Symlink(entry.link.as_slice().into()),
            Kind::CharDevice => Body::CharDevice(device(entry, subject)?),
            Kind::BlockDevice => Body::BlockDevice(device(entry, subject)?),
            _ => Body::Fifo,
        };
        self.make_room(place, old);
        if let Body::Symlink(target) = &body {
            let bad = match target.len() {
                0 => Some(Errno::NOENT),
                PATH_MAX.. => Some(Errno::NAMETOOLONG),
                _ => None,
            };
            bad.map_or(Ok(()), Err).map_err(subject.failed("create"))?;
            self.size += target.len() as u64;
        }
        let inode = self.new_inode(body);
        let id = self.insert(place, inode).map_err(subject.failed("create"))?;
        dress(&mut self.tree.inodes[id], entry).map_err(subject.failed("set attributes of"))
    }

    fn new_inode(&self, body: Body) -> Inode {
        let attributes = Attributes { mode: 0o600, mtime: self.now, ..Attributes::default() };
        Inode { attributes, xattrs: BTreeMap::new(), links: 1, body }
    }

    fn insert(&mut self, place: &Place, inode: Inode) -> rustix::io::Result<Id> {
        let id = self.tree.add(inode);
        self.name(place, id)?;
        Ok(id)
    }

    fn name(&mut self, place: &Place, id: Id) -> rustix::io::Result<()> {
        let directory = self.tree.directory_mut(place.parent.id).ok_or(Errno::NOTDIR)?;
        directory.names.insert(place.name.clone(), id);
        Ok(())
    }

    fn look_up(&self, place: &Place) -> rustix::io::Result<Option<Id>> {
        if place.name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let directory = self.tree.directory(place.parent.id).ok_or(Errno::NOENT)?;
        Ok(directory.names.get(&place.name).copied())
    }

    /// Removes what is in the place of a new entry.
    fn make_room(&mut self, place: &Place, old: Option<Id>) {
        let Some(old) = old else { return };
        // Whatever goes may have been on the way to the directory that is remembered.
        self.last = None;
        if let Some(directory) = self.tree.directory_mut(place.parent.id) {
            directory.names.remove(&place.name);
        }
        let mut stack = vec![(place.real(), old)];
        while let Some((path, id)) = stack.pop() {
            let inode = &mut self.tree.inodes[id];
            inode.links -= 1;
            let gone = inode.links == 0;
            match &mut inode.body {
                Body::Directory(directory) => {
                    for (name, child) in std::mem::take(&mut directory.names) {
                        stack.push((names::join(&path, &name), child));
                    }
                    if !directory.implied {
                        self.graves.insert(path, inode.attributes.mtime);
                    }
                }
                Body::File(data) if gone => self.size -= data.size,
                Body::Symlink(target) if gone => self.size -= target.len() as u64,
                _ => {}
            }
        }
    }

    /// Finds the directory that an entry goes into, making what the archive left out.
    fn parent(
        &mut self,
        parents: &[&[u8]],
        subject: &Subject<'_>,
    ) -> Result<Rc<Parent>, StorageError> {
        let asked = parents.join(&b'/');
        if let Some(last) = self.last.as_ref().filter(|last| last.asked == asked) {
            return Ok(Rc::clone(last));
        }
        let found = match self.walk(&asked) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_parents(parents).map_err(subject.failed("create the directory of"))?;
                self.walk(&asked)
            }
            other => other,
        };
        let (id, real) = found.map_err(subject.failed("open the directory of"))?;
        let parent = Rc::new(Parent { asked, real, id });
        self.last = Some(Rc::clone(&parent));
        Ok(parent)
    }

    /// Follows a path, links included, to a directory; says what that is called.
    fn walk(&self, path: &[u8]) -> rustix::io::Result<(Id, Vec<u8>)> {
        if path.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut here: Vec<(&[u8], Id)> = Vec::new();
        let mut rest: Vec<&[u8]> = path.split(|byte| *byte == b'/').rev().collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name {
                b"" | b"." => continue,
                b".." => {
                    here.pop();
                    continue;
                }
                _ if name.len() > NAME_MAX => return Err(Errno::NAMETOOLONG),
                _ => {}
            }
            let at = here.last().map_or(ROOT, |(_, id)| *id);
            let directory = self.tree.directory(at).ok_or(Errno::NOTDIR)?;
            let (name, id) = directory.names.get_key_value(name).ok_or(Errno::NOENT)?;
            match &self.tree.inodes[*id].body {
                Body::Directory(_) => here.push((name, *id)),
                Body::Symlink(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    rest.extend(target.split(|byte| *byte == b'/').rev());
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        let real = here.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(&b'/');
        if real.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok((here.last().map_or(ROOT, |(_, id)| *id), real))
    }

    /// Finds what is at a path without following links.
    fn find_strict(&self, path: &[u8]) -> Option<Id> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |at, name| self.tree.directory(at)?.names.get(name).copied())
    }

    fn make_parents(&mut self, parents: &[&[u8]]) -> rustix::io::Result<()> {
        let mut asked = Vec::new();
        let mut above = (ROOT, Vec::new());
        for name in parents {
            asked = names::join(&asked, name);
            above = match self.walk(&asked) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.make_parent(above, name)?;
                    self.walk(&asked)?
                }
                other => other?,
            };
        }
        Ok(())
    }

    /// A directory that only the names of its content tell of.
    fn make_parent(&mut self, (id, real): (Id, Vec<u8>), name: &[u8]) -> rustix::io::Result<()> {
        let parent = Rc::new(Parent { asked: Vec::new(), real, id });
        let place = Place { parent, name: name.into() };
        let hidden = match self.look_up(&place)? {
            None => false,
            Some(old) if matches!(self.tree.inodes[old].body, Body::Whiteout) => true,
            Some(_) => return Err(Errno::NOTDIR),
        };
        if hidden {
            self.opaques.insert(place.real());
        }
        let mtime = self.graves.get(&place.real()).copied().unwrap_or(self.now);
        let attributes = Attributes { mode: 0o755, mtime, ..Attributes::default() };
        let directory = Directory { implied: !hidden, ..Directory::default() };
        self.insert(&place, Inode::directory(attributes, directory)).map(drop)
    }

    fn hide(&mut self, place: &Place) -> rustix::io::Result<()> {
        match self.look_up(place)? {
            None => {
                let whiteout = self.new_inode(Body::Whiteout);
                self.insert(place, whiteout).map(drop)
            }
            Some(id) if self.tree.inodes[id].is_directory() => {
                self.opaques.insert(place.real());
                Ok(())
            }
            // The layer's own file wins over its whiteout.
            Some(_) => Ok(()),
        }
    }

    fn hide_all(&mut self, parent: &Parent) {
        self.opaque |= parent.real.is_empty();
        self.opaques.insert(parent.real.clone());
    }

    /// By now the padding of the file before has been read.
    fn judge_padding(&mut self, padding: &mut Padding) {
        let last = self.unpadded.take();
        if std::mem::take(padding).dirty {
            self.copies.extend(last);
        }
    }

    /// Copies what needs it to the end of `tar`; returns the length that has then.
    fn copy_out(&mut self, tar: &File, tar_size: u64) -> std::io::Result<u64> {
        let mut end = tar_size.next_multiple_of(PAGE);
        for copy in std::mem::take(&mut self.copies) {
            let inode = &mut self.tree.inodes[copy.inode];
            let Body::File(data) = &mut inode.body else { continue };
            if inode.links > 0 {
                (data.extent, end) = copy.write(tar, data.size, end)?;
            }
        }
        end = end.next_multiple_of(PAGE).max(PAGE);
        tar.set_len(end)?;
        Ok(end)
    }
}

impl Copy {
    /// Puts the fragments at `end` of `tar`, in pieces of one size, those without data left out.
    /// A hole in a piece is a hole in `tar`.
    fn write(&self, tar: &File, size: u64, end: u64) -> std::io::Result<(Extent, u64)> {
        let piece = size.div_ceil(PIECES_MAX).next_power_of_two().max(PAGE);
        let pieces = usize::try_from(size.div_ceil(piece)).expect("at most PIECES_MAX");
        let mut blocks = vec![HOLE; pieces];
        let mut next = end;
        let mut source = self.position;
        let mut buffer = vec![0; 64 << 10];
        for fragment in &self.fragments {
            let (mut at, mut left) = (fragment.offset, fragment.length);
            while left > 0 {
                let block = &mut blocks[(at / piece) as usize];
                if *block == HOLE {
                    let number = u32::try_from(next / BLOCK).ok().filter(|block| *block != HOLE);
                    *block = number.ok_or(Errno::FBIG)?;
                    next += piece;
                }
                let length = left.min(piece - at % piece).min(buffer.len() as u64);
                let bytes = &mut buffer[..length as usize];
                tar.read_exact_at(bytes, source)?;
                tar.write_all_at(bytes, u64::from(*block) * BLOCK + at % piece)?;
                (source, at, left) = (source + length, at + length, left - length);
            }
        }
        let bits = u8::try_from(piece.trailing_zeros()).expect("64 bits") - BLOCK_BITS;
        Ok((Extent::Chunks { bits, blocks: blocks.into() }, next))
    }
}

/// Gives an inode what the entry says of it.
fn dress(inode: &mut Inode, entry: &Entry) -> rustix::io::Result<()> {
    // All ones is no owner.
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    inode.attributes.uid = entry.uid;
    inode.attributes.gid = entry.gid;
    inode.attributes.mtime = entry.mtime;
    let is_link = matches!(inode.body, Body::Symlink(_));
    xattr::set_mode(inode, if is_link { 0o777 } else { (entry.mode & 0o7777) as u16 });
    entry.xattrs.iter().try_for_each(|(name, value)| xattr::set(inode, name, value))
}

/// The kernel's form of 32 bits: 12 for the major number, 20 for the minor.
fn device(entry: &Entry, subject: &Subject<'_>) -> Result<u32, StorageError> {
    check_device(entry, subject)?;
    let (major, minor) = entry.device;
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

fn write_failed(error: std::io::Error) -> StorageError {
    StorageError::Tar(TarError::Read { source: error })
}
