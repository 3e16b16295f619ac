//! `<layer>/toc`: what is in a layer and where, in one file.
//!
//! ```text
//! magic "boxtoc1\n", length of `tar` (8 bytes)
//! records of the tree, a directory before its content, by name
//! sha256 of all before
//!
//! record     kind name attributes what the kind needs      (of the root the name is empty)
//!   'd'      flags (1 opaque, 2 implied), number of names; their records follow
//!   'f'      size; where there is any content, its first block
//!   's'      size, bits; a number for each piece: 0 for a hole, or its first block and 1
//!   'l'      target
//!   'c' 'b'  device
//!   'p'
//! 'w' name            a whiteout
//! 'h' name number     one more name for the inode of the record with this number
//! attributes mode uid gid seconds nanoseconds, number of xattrs, their names and values
//! ```
//!
//! Numbers are LEB128, seconds zigzag before; names and values are a length and bytes. Who wrote
//! the table had to do with a stranger's archive, so every number is checked here: nothing that
//! [`read`] returns points out of `tar` or breaks the rules of a file system.

use std::collections::BTreeMap;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::model::{Attributes, Body, Data, Directory, Extent, HOLE, Id, Inode, ROOT, Tree};
use super::{BLOCK, BLOCK_BITS, xattr};
use crate::hashing::Hashing;

/// About the size that the table of a layer can have.
pub(crate) const MAX_WEIGHT: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"boxtoc1\n";
const OPAQUE: u64 = 1;
const IMPLIED: u64 = 2;
/// Directories in directories; more than a path has room for.
const DEPTH_MAX: usize = 2100;

type Refusal = &'static str;

pub(super) fn write(tree: &Tree, tar_length: u64, output: &mut impl Write) -> io::Result<()> {
    let mut hashing = Hashing::new(output);
    hashing.write_all(MAGIC)?;
    hashing.write_all(&tar_length.to_le_bytes())?;
    let mut numbers = BTreeMap::new();
    let mut stack: Vec<(&[u8], Id)> = vec![(b"", ROOT)];
    let mut record = Vec::new();
    while let Some((name, id)) = stack.pop() {
        record.clear();
        put_record(&mut record, tree, name, id, &mut numbers);
        hashing.write_all(&record)?;
        if let Some(directory) = tree.directory(id) {
            stack.extend(directory.names.iter().rev().map(|(name, id)| (&**name, *id)));
        }
    }
    let digest = hashing.finish();
    output.write_all(&digest)
}

fn put_record(
    record: &mut Vec<u8>,
    tree: &Tree,
    name: &[u8],
    id: Id,
    numbers: &mut BTreeMap<Id, u64>,
) {
    let inode = &tree.inodes[id];
    if let Some(number) = numbers.get(&id) {
        record.push(b'h');
        put_bytes(record, name);
        return put_number(record, *number);
    }
    let next = numbers.len() as u64;
    numbers.insert(id, next);
    record.push(match &inode.body {
        Body::Directory(_) => b'd',
        Body::File(Data { extent: Extent::Whole(_), .. }) => b'f',
        Body::File(_) => b's',
        Body::Symlink(_) => b'l',
        Body::CharDevice(_) => b'c',
        Body::BlockDevice(_) => b'b',
        Body::Fifo => b'p',
        Body::Whiteout => b'w',
    });
    put_bytes(record, name);
    if matches!(inode.body, Body::Whiteout) {
        return;
    }
    let attributes = &inode.attributes;
    let (seconds, nanos) = attributes.mtime;
    put_number(record, attributes.mode.into());
    put_number(record, attributes.uid.into());
    put_number(record, attributes.gid.into());
    put_number(record, ((seconds << 1) ^ (seconds >> 63)).cast_unsigned());
    put_number(record, nanos.into());
    put_number(record, inode.xattrs.len() as u64);
    for (name, value) in &inode.xattrs {
        put_bytes(record, name);
        put_bytes(record, value);
    }
    put_body(record, &inode.body);
}

fn put_body(record: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Directory(directory) => {
            let opaque = if directory.opaque { OPAQUE } else { 0 };
            put_number(record, opaque | if directory.implied { IMPLIED } else { 0 });
            put_number(record, directory.names.len() as u64);
        }
        Body::File(Data { size, extent, .. }) => {
            put_number(record, *size);
            match extent {
                Extent::Whole(_) if *size == 0 => {}
                Extent::Whole(block) => put_number(record, u64::from(*block)),
                Extent::Chunks { bits, blocks } => {
                    put_number(record, u64::from(*bits));
                    let number =
                        |block: &u32| if *block == HOLE { 0 } else { u64::from(*block) + 1 };
                    blocks.iter().for_each(|block| put_number(record, number(block)));
                }
            }
        }
        Body::Symlink(target) => put_bytes(record, target),
        Body::CharDevice(device) | Body::BlockDevice(device) => {
            put_number(record, u64::from(*device));
        }
        Body::Fifo | Body::Whiteout => {}
    }
}

/// Reads a table whose `tar` is `tar_length` bytes long.
pub(super) fn read(bytes: &[u8], tar_length: u64) -> Result<Tree, Refusal> {
    let (bytes, digest) = bytes.split_last_chunk::<32>().ok_or("table of contents is cut short")?;
    if Sha256::digest(bytes).as_slice() != digest {
        return Err("table of contents has changed");
    }
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err("no table of contents");
    }
    let length = u64::from_le_bytes(*input.take(8)?.first_chunk().ok_or(SHORT)?);
    if length != tar_length {
        return Err("tar is not as long as it was");
    }
    let tree = Reading { input, tar_length, inodes: Vec::new(), numbers: Vec::new() }.tree()?;
    Ok(tree)
}

const SHORT: Refusal = "table of contents is cut short";
const DAMAGED: Refusal = "table of contents makes no sense";

struct Reading<'bytes> {
    input: Input<'bytes>,
    tar_length: u64,
    inodes: Vec<Inode>,
    /// Inodes in the order of their records.
    numbers: Vec<Id>,
}

/// A record that was read.
struct Record {
    name: Box<[u8]>,
    id: Id,
    /// How many names there are in a directory.
    names: Option<u64>,
}

/// A directory whose content is being read.
struct Open {
    id: Id,
    left: u64,
    last: Option<Box<[u8]>>,
}

impl<'bytes> Reading<'bytes> {
    fn tree(mut self) -> Result<Tree, Refusal> {
        let Record { name, id: root, names } = self.record()?;
        if !name.is_empty() {
            return Err(DAMAGED);
        }
        let mut stack = vec![Open { id: root, left: names.ok_or(DAMAGED)?, last: None }];
        while let Some(top) = stack.last_mut() {
            if top.left == 0 {
                stack.pop();
                continue;
            }
            top.left -= 1;
            let Record { name, id, names } = self.record()?;
            check_name(&name)?;
            if top.last.as_ref().is_some_and(|last| *last >= name) {
                return Err(DAMAGED);
            }
            top.last = Some(name.clone());
            let Body::Directory(parent) = &mut self.inodes[top.id].body else {
                return Err(DAMAGED);
            };
            parent.names.insert(name, id);
            if let Some(left) = names {
                if stack.len() == DEPTH_MAX {
                    return Err(DAMAGED);
                }
                stack.push(Open { id, left, last: None });
            }
        }
        if !self.input.0.is_empty() {
            return Err(DAMAGED);
        }
        Ok(Tree { inodes: self.inodes })
    }

    fn record(&mut self) -> Result<Record, Refusal> {
        let kind = self.input.take(1)?[0];
        let name: Box<[u8]> = self.input.bytes()?.into();
        if kind == b'h' {
            let number = usize::try_from(self.input.number()?).map_err(|_range| DAMAGED)?;
            let id = *self.numbers.get(number).ok_or(DAMAGED)?;
            let inode = &mut self.inodes[id];
            if matches!(inode.body, Body::Directory(_) | Body::Whiteout) {
                return Err(DAMAGED);
            }
            inode.links += 1;
            return Ok(Record { name, id, names: None });
        }
        if kind == b'w' {
            let inode = Inode {
                attributes: Attributes::default(),
                xattrs: BTreeMap::new(),
                links: 1,
                body: Body::Whiteout,
            };
            return Ok(Record { name, id: self.add(inode), names: None });
        }
        let attributes = self.attributes()?;
        let xattrs = self.xattrs()?;
        let (body, names) = self.body(kind)?;
        let mut inode = Inode { attributes, xattrs: BTreeMap::new(), links: 1, body };
        for (name, value) in xattrs {
            xattr::set(&mut inode, name, value).map_err(|_errno| DAMAGED)?;
        }
        // An access list says the mode again.
        if inode.attributes != attributes {
            return Err(DAMAGED);
        }
        Ok(Record { name, id: self.add(inode), names })
    }

    fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        let id = self.inodes.len() - 1;
        self.numbers.push(id);
        id
    }

    fn attributes(&mut self) -> Result<Attributes, Refusal> {
        let mode = self.input.below(0o10000)?;
        let owner = u64::from(u32::MAX);
        let (uid, gid) = (self.input.below(owner)?, self.input.below(owner)?);
        let seconds = self.input.number()?;
        let seconds = (seconds >> 1).cast_signed() ^ -((seconds & 1).cast_signed());
        let nanos = self.input.below(1_000_000_000)?;
        Ok(Attributes {
            mode: mode as u16,
            uid: uid as u32,
            gid: gid as u32,
            mtime: (seconds, nanos as u32),
        })
    }

    #[expect(clippy::type_complexity, reason = "names and values, borrowed from the table")]
    fn xattrs(&mut self) -> Result<Vec<(&'bytes [u8], &'bytes [u8])>, Refusal> {
        let mut xattrs = Vec::new();
        for _ in 0..self.input.number()? {
            xattrs.push((self.input.bytes()?, self.input.bytes()?));
        }
        Ok(xattrs)
    }

    fn body(&mut self, kind: u8) -> Result<(Body, Option<u64>), Refusal> {
        let body = match kind {
            b'd' => {
                let flags = self.input.below(4)?;
                let directory = Directory {
                    names: BTreeMap::new(),
                    opaque: flags & OPAQUE != 0,
                    implied: flags & IMPLIED != 0,
                };
                return Ok((Body::Directory(directory), Some(self.input.number()?)));
            }
            b'f' => {
                let size = self.input.number()?;
                let block = if size == 0 { 0 } else { self.block(size)? };
                Body::File(Data { size, device: 0, extent: Extent::Whole(block) })
            }
            b's' => {
                let size = self.input.number()?;
                Body::File(Data { size, device: 0, extent: self.chunks(size)? })
            }
            b'l' => {
                let target = self.input.bytes()?;
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err(DAMAGED);
                }
                Body::Symlink(target.into())
            }
            // A character device of this number is a whiteout.
            b'c' => match self.input.below(1 << 32)? as u32 {
                0 => return Err(DAMAGED),
                device => Body::CharDevice(device),
            },
            b'b' => Body::BlockDevice(self.input.below(1 << 32)? as u32),
            b'p' => Body::Fifo,
            _ => return Err(DAMAGED),
        };
        Ok((body, None))
    }

    /// A block from which on `length` bytes are there.
    fn block(&mut self, length: u64) -> Result<u32, Refusal> {
        let block = self.input.below(u64::from(HOLE))?;
        self.check_block(block, length)
    }

    fn check_block(&self, block: u64, length: u64) -> Result<u32, Refusal> {
        let end = (block * BLOCK).checked_add(length).ok_or(DAMAGED)?;
        if end > self.tar_length {
            Err(DAMAGED)
        } else {
            u32::try_from(block).map_err(|_range| DAMAGED)
        }
    }

    fn chunks(&mut self, size: u64) -> Result<Extent, Refusal> {
        let bits = self.input.below(32)? as u8;
        let piece = 1u64 << (bits + BLOCK_BITS);
        if i64::try_from(size).is_err() {
            return Err(DAMAGED);
        }
        let mut blocks = Vec::new();
        for _ in 0..size.div_ceil(piece) {
            blocks.push(match self.input.below(u64::from(HOLE) + 1)?.checked_sub(1) {
                None => HOLE,
                Some(block) => self.check_block(block, piece)?,
            });
        }
        Ok(Extent::Chunks { bits, blocks: blocks.into() })
    }
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    let bad = matches!(name, b"" | b"." | b"..")
        || name.len() > 255
        || name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if bad { Err(DAMAGED) } else { Ok(()) }
}

struct Input<'bytes>(&'bytes [u8]);

impl<'bytes> Input<'bytes> {
    fn take(&mut self, length: usize) -> Result<&'bytes [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DAMAGED)
    }

    fn below(&mut self, limit: u64) -> Result<u64, Refusal> {
        self.number().and_then(|value| if value < limit { Ok(value) } else { Err(DAMAGED) })
    }

    fn bytes(&mut self) -> Result<&'bytes [u8], Refusal> {
        let length = usize::try_from(self.number()?).map_err(|_range| DAMAGED)?;
        self.take(length)
    }
}

fn put_number(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn put_bytes(output: &mut Vec<u8>, bytes: &[u8]) {
    put_number(output, bytes.len() as u64);
    output.extend_from_slice(bytes);
}
