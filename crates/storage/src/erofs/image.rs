//! Writes a tree as an EROFS image without file content (kernel: fs/erofs/erofs_fs.h).
//!
//! ```text
//!    0  zeros
//! 1024  superblock
//! 1152  table of devices, 128 bytes each: the data files
//!    .  inodes from a block on, the root first, each at a multiple of 32 bytes: 64 bytes,
//!       extended attributes, then where its content is (8 bytes a piece) or a link's target
//!    .  blocks of directories and of long links
//! ```

use super::model::{Body, Data, Directory, Extent, HOLE, Id, Inode, ROOT, Tree};
use super::{BLOCK, BLOCK_BITS, xattr};

const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const SLOT: usize = 128;
const DEVICES: usize = SUPERBLOCK + SLOT;
const CHUNKED_FILES: u32 = 4;
const DEVICE_TABLE: u32 = 8;

const INODE: usize = 64;
const UNIT: usize = 32;
const EXTENDED: u16 = 1;
const PLAIN: u16 = 0;
const INLINE: u16 = 2 << 1;
const CHUNKS: u16 = 4 << 1;
const CHUNK_INDEXES: u32 = 0x20;
const DIRENT: usize = 12;

const WHOLE_BLOCK: usize = BLOCK as usize;

/// What overlay looks for on a directory that hides those below.
const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// What goes into the image beside the tree.
#[derive(Debug)]
pub(super) struct Options<'a> {
    /// Length of each data file, in blocks.
    pub(super) devices: &'a [u32],
    /// Whiteouts and opaque marks are written as overlay has them: more layers are below.
    pub(super) is_overlay: bool,
    pub(super) uuid: [u8; 16],
}

/// More inodes or bytes than the format can count.
#[derive(Debug)]
pub(super) struct TooLarge;

pub(super) fn write(tree: &Tree, options: &Options<'_>) -> Result<Vec<u8>, TooLarge> {
    let start = (DEVICES + options.devices.len() * SLOT).next_multiple_of(WHOLE_BLOCK);
    let plan = Plan::new(tree, options, start)?;
    let mut image = vec![0; plan.end];
    put_superblock(&mut image, options, start, &plan)?;
    for (slot, blocks) in image[DEVICES..start].chunks_exact_mut(SLOT).zip(options.devices) {
        put(slot, 64, &blocks.to_le_bytes());
    }
    for file in &plan.files {
        let inode = &tree.inodes[file.id];
        put_inode(&mut image[start + file.at..], inode, file)?;
        match &inode.body {
            Body::Directory(directory) => {
                let names = plan.names(tree, directory, file);
                put_directory(&mut image[file.data..], &names);
            }
            Body::Symlink(target) if file.format & INLINE == 0 => {
                put(&mut image, file.data, target);
            }
            _ => {}
        }
    }
    Ok(image)
}

/// Where everything goes.
struct Plan {
    /// The inodes in use, the root first.
    files: Vec<File>,
    /// By inode: its place in `files`.
    places: Vec<u32>,
    is_overlay: bool,
    end: usize,
}

struct File {
    id: Id,
    parent: usize,
    links: u32,
    format: u16,
    xattrs: Vec<u8>,
    /// From the first inode on.
    at: usize,
    /// Bytes of directories and long links.
    size: usize,
    /// Where those are in the image.
    data: usize,
}

impl File {
    const fn number(&self) -> u64 {
        (self.at / UNIT) as u64
    }
}

const NOWHERE: u32 = u32::MAX;

impl Plan {
    fn new(tree: &Tree, options: &Options<'_>, start: usize) -> Result<Self, TooLarge> {
        let mut plan = Self {
            files: Vec::new(),
            places: vec![NOWHERE; tree.inodes.len()],
            is_overlay: options.is_overlay,
            end: 0,
        };
        plan.collect(tree)?;
        let mut at = 0;
        for file in &mut plan.files {
            at = file.place(&tree.inodes[file.id], at);
        }
        let mut data = (start + at).next_multiple_of(WHOLE_BLOCK);
        for file in plan.files.iter_mut().filter(|file| file.size > 0) {
            file.data = data;
            data += file.size.next_multiple_of(WHOLE_BLOCK);
        }
        plan.end = data;
        // Blocks are counted in 32 bits.
        if u32::try_from(data as u64 / BLOCK).is_err() { Err(TooLarge) } else { Ok(plan) }
    }

    /// Lists the inodes in use and counts their names.
    fn collect(&mut self, tree: &Tree) -> Result<(), TooLarge> {
        let mut stack = vec![(ROOT, 0)];
        while let Some((id, parent)) = stack.pop() {
            let inode = &tree.inodes[id];
            let known = self.places[id];
            if known != NOWHERE {
                self.files[known as usize].links += 1;
                continue;
            }
            let place = self.files.len();
            self.places[id] = u32::try_from(place).map_err(|_range| TooLarge)?;
            let mut file = File {
                id,
                parent,
                links: 1,
                format: PLAIN,
                xattrs: Vec::new(),
                at: 0,
                size: 0,
                data: 0,
            };
            let mut opaque = false;
            if let Body::Directory(directory) = &inode.body {
                opaque = directory.opaque && self.is_overlay;
                let below = directory.names.iter().rev().filter(|(_, id)| self.shows(tree, **id));
                stack.extend(below.map(|(_, id)| (*id, place)));
                let directories = |id: &&Id| tree.inodes[**id].is_directory();
                file.links += 1 + directory.names.values().filter(directories).count() as u32;
                file.size = self.directory_size(tree, directory);
            }
            let xattrs = inode.xattrs.iter().map(|(name, value)| (&**name, &**value));
            file.xattrs = xattr::store(xattrs.chain(opaque.then_some(OPAQUE)));
            self.files.push(file);
        }
        Ok(())
    }

    fn shows(&self, tree: &Tree, id: Id) -> bool {
        self.is_overlay || !matches!(tree.inodes[id].body, Body::Whiteout)
    }

    /// The entries of a directory in the order of their bytes, itself and its parent among them.
    fn entries<'tree>(&self, tree: &'tree Tree, directory: &'tree Directory) -> Vec<&'tree [u8]> {
        let shown = directory.names.iter().filter(|(_, id)| self.shows(tree, **id));
        let mut names: Vec<&[u8]> = shown.map(|(name, _)| &**name).collect();
        for special in [&b"."[..], b".."] {
            let at = names.partition_point(|name| *name < special);
            names.insert(at, special);
        }
        names
    }

    fn directory_size(&self, tree: &Tree, directory: &Directory) -> usize {
        let mut size = 0usize;
        for_blocks(
            &self.entries(tree, directory),
            |block| *block,
            |block, used| {
                debug_assert!(!block.is_empty());
                size = used + size.next_multiple_of(WHOLE_BLOCK);
            },
        );
        size
    }

    fn names<'tree>(
        &self,
        tree: &'tree Tree,
        directory: &'tree Directory,
        this: &File,
    ) -> Vec<(&'tree [u8], u64, u8)> {
        let entry = |name: &'tree [u8]| {
            let id = match name {
                b"." => this.id,
                b".." => self.files[this.parent].id,
                name => directory.names[name],
            };
            let file = &self.files[self.places[id] as usize];
            (name, file.number(), directory_type(&tree.inodes[id].body))
        };
        self.entries(tree, directory).into_iter().map(entry).collect()
    }
}

impl File {
    /// Finds room for the inode from `at` on; returns where it ends.
    fn place(&mut self, inode: &Inode, at: usize) -> usize {
        let mut at = at.next_multiple_of(UNIT);
        // The first bytes lie in one block.
        if at % WHOLE_BLOCK > WHOLE_BLOCK - INODE {
            at = at.next_multiple_of(WHOLE_BLOCK);
        }
        let head = INODE + self.xattrs.len();
        let mut length = head;
        match &inode.body {
            Body::File(data) if data.size > 0 => {
                self.format = CHUNKS;
                length = (at + head).next_multiple_of(8) - at + 8 * pieces(data);
            }
            // Short targets follow the inode, in one block.
            Body::Symlink(target) => {
                let fits = |at: &usize| at % WHOLE_BLOCK + head + target.len() <= WHOLE_BLOCK;
                let mut units = (0..WHOLE_BLOCK / UNIT).map(|unit| at + unit * UNIT);
                match units.find(fits) {
                    Some(found) => {
                        at = found;
                        self.format = INLINE;
                        length = head + target.len();
                    }
                    None => self.size = target.len(),
                }
            }
            _ => {}
        }
        self.at = at;
        at + length
    }
}

fn pieces(data: &Data) -> usize {
    match &data.extent {
        Extent::Whole(_) => 1,
        Extent::Chunks { blocks, .. } => blocks.len(),
    }
}

fn put_superblock(
    image: &mut [u8],
    options: &Options<'_>,
    start: usize,
    plan: &Plan,
) -> Result<(), TooLarge> {
    let blocks = |bytes: usize| ((bytes as u64 / BLOCK) as u32).to_le_bytes();
    let devices = u16::try_from(options.devices.len()).map_err(|_range| TooLarge)?;
    let (end, files) = (image.len(), plan.files.len() as u64);
    let block = &mut image[SUPERBLOCK..];
    put(block, 0, &MAGIC.to_le_bytes());
    put(block, 12, &[BLOCK_BITS]);
    put(block, 14, &0u16.to_le_bytes());
    put(block, 16, &files.to_le_bytes());
    put(block, 36, &blocks(end));
    put(block, 40, &blocks(start));
    put(block, 48, &options.uuid);
    put(block, 80, &(CHUNKED_FILES | DEVICE_TABLE).to_le_bytes());
    put(block, 86, &devices.to_le_bytes());
    put(block, 88, &((DEVICES / SLOT) as u16).to_le_bytes());
    Ok(())
}

fn put_inode(at: &mut [u8], inode: &Inode, file: &File) -> Result<(), TooLarge> {
    let attributes = &inode.attributes;
    let units = match file.xattrs.len() {
        0 => 0,
        length => u16::try_from((length - 12) / 4 + 1).map_err(|_range| TooLarge)?,
    };
    let block = (file.data as u64 / BLOCK) as u32;
    let (kind, size, place) = match &inode.body {
        Body::Directory(_) => (0o040_000, file.size as u64, block),
        Body::File(data) if data.size > 0 => {
            let place = put_pieces(at, data, file.xattrs.len());
            (0o100_000, data.size, place)
        }
        Body::File(_) => (0o100_000, 0, 0),
        Body::Symlink(target) if file.format & INLINE != 0 => {
            put(at, INODE + file.xattrs.len(), target);
            (0o120_000, target.len() as u64, 0)
        }
        Body::Symlink(target) => (0o120_000, target.len() as u64, block),
        Body::CharDevice(device) => (0o020_000, 0, *device),
        Body::BlockDevice(device) => (0o060_000, 0, *device),
        Body::Fifo => (0o010_000, 0, 0),
        Body::Whiteout => (0o020_000, 0, 0),
    };
    let number = u32::try_from(file.number()).map_err(|_range| TooLarge)?;
    put(at, 0, &(file.format | EXTENDED).to_le_bytes());
    put(at, 2, &units.to_le_bytes());
    put(at, 4, &(kind | attributes.mode).to_le_bytes());
    put(at, 8, &size.to_le_bytes());
    put(at, 16, &place.to_le_bytes());
    put(at, 20, &number.to_le_bytes());
    put(at, 24, &attributes.uid.to_le_bytes());
    put(at, 28, &attributes.gid.to_le_bytes());
    put(at, 32, &attributes.mtime.0.to_le_bytes());
    put(at, 40, &attributes.mtime.1.to_le_bytes());
    put(at, 44, &file.links.to_le_bytes());
    put(at, INODE, &file.xattrs);
    Ok(())
}

/// Writes where the pieces of a file are; returns their size as the inode has it.
fn put_pieces(at: &mut [u8], data: &Data, xattrs: usize) -> u32 {
    let mut place = (INODE + xattrs).next_multiple_of(8);
    let mut piece = |block: u32| {
        // The first device is the image itself.
        let device = if block == HOLE { 0 } else { data.device + 1 };
        put(at, place + 2, &device.to_le_bytes());
        put(at, place + 4, &block.to_le_bytes());
        place += 8;
    };
    match &data.extent {
        Extent::Whole(block) => {
            piece(*block);
            let bits = data.size.div_ceil(BLOCK).next_power_of_two().trailing_zeros();
            CHUNK_INDEXES | bits
        }
        Extent::Chunks { bits, blocks } => {
            blocks.iter().for_each(|block| piece(*block));
            CHUNK_INDEXES | u32::from(*bits)
        }
    }
}

/// Splits names into what fits into a block each, and says how much of it they take.
fn for_blocks<'a, T>(
    entries: &'a [T],
    name: impl Fn(&'a T) -> &'a [u8],
    mut each: impl FnMut(&'a [T], usize),
) {
    let (mut first, mut used) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let length = DIRENT + name(entry).len();
        if used + length > WHOLE_BLOCK {
            each(&entries[first..at], used);
            (first, used) = (at, 0);
        }
        used += length;
    }
    each(&entries[first..], used);
}

fn put_directory(at: &mut [u8], names: &[(&[u8], u64, u8)]) {
    let mut start = 0;
    for_blocks(
        names,
        |(name, ..)| name,
        |block, _used| {
            let mut text = block.len() * DIRENT;
            for (entry, (name, number, kind)) in block.iter().enumerate() {
                let dirent = start + entry * DIRENT;
                put(at, dirent, &number.to_le_bytes());
                put(at, dirent + 8, &(text as u16).to_le_bytes());
                put(at, dirent + 10, &[*kind]);
                put(at, start + text, name);
                text += name.len();
            }
            start += WHOLE_BLOCK;
        },
    );
}

const fn directory_type(body: &Body) -> u8 {
    match body {
        Body::File(_) => 1,
        Body::Directory(_) => 2,
        Body::CharDevice(_) | Body::Whiteout => 3,
        Body::BlockDevice(_) => 4,
        Body::Fifo => 5,
        Body::Symlink(_) => 7,
    }
}

fn put(at: &mut [u8], offset: usize, bytes: &[u8]) {
    at[offset..offset + bytes.len()].copy_from_slice(bytes);
}
