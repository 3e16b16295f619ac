//! A tree of files without their content: inodes by number, and names for them.

use std::collections::BTreeMap;

/// The place of an inode in [`Tree::inodes`].
pub(super) type Id = usize;

pub(super) const ROOT: Id = 0;

/// The mark of a hole among [`Extent::Chunks`].
pub(super) const HOLE: u32 = u32::MAX;

#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// Inodes without a name are garbage: walks begin at [`ROOT`].
    pub(super) inodes: Vec<Inode>,
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) attributes: Attributes,
    /// By name, each once.
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Names it has; of a directory, one.
    pub(super) links: u32,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The twelve bits of chmod.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Directory(Directory),
    File(Data),
    Symlink(Box<[u8]>),
    /// The number in the kernel's form of 32 bits.
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Whiteout,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) names: BTreeMap<Box<[u8]>, Id>,
    /// Hides what the layers below have here.
    pub(super) opaque: bool,
    /// Only the names of its content tell of it: its attributes are those of the one below.
    pub(super) implied: bool,
}

/// Where the content of a file is.
#[derive(Debug, Clone)]
pub(super) struct Data {
    pub(super) size: u64,
    /// Which of the data files; 0 while there is one.
    pub(super) device: u16,
    pub(super) extent: Extent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it from this block on.
    Whole(u32),
    /// Pieces of `1 << bits` bytes, each from a block on or a [`HOLE`].
    Chunks { bits: u8, blocks: Box<[u32]> },
}

impl Inode {
    pub(super) const fn directory(attributes: Attributes, directory: Directory) -> Self {
        let body = Body::Directory(directory);
        Self { attributes, xattrs: BTreeMap::new(), links: 1, body }
    }

    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }
}

impl Tree {
    pub(super) fn new(root: Inode) -> Self {
        Self { inodes: vec![root] }
    }

    pub(super) fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    /// The directory with this number; nothing when it is something else.
    pub(super) fn directory(&self, id: Id) -> Option<&Directory> {
        match &self.inodes[id].body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, id: Id) -> Option<&mut Directory> {
        match &mut self.inodes[id].body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}
