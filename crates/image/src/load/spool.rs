//! The members of an archive on disk, findable by name.
//!
//! One file without a name holds the data of all members one after the other; it vanishes with
//! the process. Names and links mean places inside the archive and nothing else: a link to
//! `/etc/passwd` finds no member of that name.
//!
//! A member that begins like a plain tar is most likely a layer: where the store needs not know
//! what is below a layer, it is unpacked as it arrives, which is all the writing it ever costs. If
//! the archive then says that it is something else, or it cannot be unpacked and nobody asks for
//! it, nothing comes of it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Cursor, Read, Write};
use std::os::unix::fs::FileExt;

use spec::Digest;
use storage::tar::{Kind, Reader, TarError};
use storage::{
    Decoder, LARGEST_BLOB, Ratio, Room, Storage, StorageError, Unplaced, as_storage_error,
};

use crate::error::ImageError;

/// More members than any real archive; each costs memory.
const MOST_MEMBERS: usize = 100_000;
const TAR_BLOCK: usize = 512;
/// Links may point to links, so far.
const MOST_LINKS: usize = 8;
/// Layers unpacked as they arrive; each has a directory and a descriptor meanwhile. Images have
/// 127 at most.
const MOST_UNPACKED: usize = 256;

/// Where a member's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    place: Place,
    pub(super) length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At this offset of the file.
    Spooled(u64),
    /// Number so many of those unpacked as they arrived.
    Unpacked(usize),
}

/// What became of a member that looked like a layer.
enum Arrived {
    Layer {
        tar: File,
        /// Until somebody takes it.
        layer: RefCell<Option<Unplaced>>,
    },
    Refused(RefCell<Option<StorageError>>),
}

enum Found {
    Data(Member),
    /// The name of another member, cleaned.
    Link(String),
}

pub(super) struct Spool {
    file: File,
    arrived: Vec<Arrived>,
    members: HashMap<String, Found>,
}

impl Spool {
    /// Reads a whole archive.
    pub(super) fn read(
        stream: &mut (dyn Read + Send),
        storage: &Storage,
    ) -> Result<Self, ImageError> {
        let file = storage.spool()?;
        let early = storage.places_late();
        // These will not be needed again.
        let known: HashSet<Digest> = match early {
            true => storage.all_layers()?.into_iter().map(|layer| layer.diff_id).collect(),
            false => HashSet::new(),
        };
        let mut arrived = Vec::new();
        let room = Room::of(&file).map_err(|errno| ImageError::Spool { source: errno.into() })?;
        let decoder = Decoder::new(stream, Ratio::default())?;
        let mut reader = Reader::new(BufReader::with_capacity(256 << 10, decoder), ());
        let mut output = BufWriter::with_capacity(256 << 10, &file);
        let mut members = HashMap::new();
        let mut offset = 0;
        while let Some(entry) = reader.next_entry().map_err(read_error)? {
            let Some(name) = clean(&entry.path, "") else {
                return Err(archive("a name leads out of it"));
            };
            let found = match entry.kind {
                Kind::File if entry.sparse.is_some() => {
                    return Err(archive("a member is a sparse file"));
                }
                Kind::File => {
                    let data = MemberData::begin(&mut reader)?;
                    let wanted = early
                        && arrived.len() < MOST_UNPACKED
                        && data.looks_like_tar()
                        && !promised(&name).any(|digest| known.contains(&digest));
                    let place = if wanted {
                        arrived.push(unpack(data, storage)?);
                        Place::Unpacked(arrived.len() - 1)
                    } else if offset + entry.size > room.bytes {
                        return Err(room.no_bytes().into());
                    } else {
                        data.copy(&mut output)?;
                        offset += entry.size;
                        Place::Spooled(offset - entry.size)
                    };
                    Found::Data(Member { place, length: entry.size })
                }
                Kind::Symlink | Kind::HardLink => {
                    let base = if entry.kind == Kind::Symlink { parent(&name) } else { "" };
                    match clean(&entry.link, base) {
                        Some(target) => Found::Link(target),
                        None => return Err(archive("a link leads out of it")),
                    }
                }
                // Directories mean nothing here, devices must not.
                _ => continue,
            };
            if members.len() == MOST_MEMBERS {
                return Err(archive("it has too many members"));
            }
            members.insert(name, found);
        }
        output.flush().map_err(|source| ImageError::Spool { source })?;
        drop(output);
        Ok(Self { file, arrived, members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Finds a member by the name that a document of the archive gives it.
    pub(super) fn find(&self, name: &str) -> Option<Member> {
        let mut name = clean(name.as_bytes(), "")?;
        for _ in 0..MOST_LINKS {
            match self.members.get(&name)? {
                Found::Data(member) => return Some(*member),
                Found::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Like [`Spool::find`], with the error for a member that is missing.
    pub(super) fn need(&self, name: &str) -> Result<Member, ImageError> {
        self.find(name).ok_or_else(|| ImageError::Archive {
            reason: format!("open {name}: no such file or directory"),
        })
    }

    /// Reads a member that is a document.
    pub(super) fn document(&self, member: &Member) -> Result<Vec<u8>, ImageError> {
        if member.length > LARGEST_BLOB {
            return Err(archive("a document is too large"));
        }
        let mut bytes = Vec::new();
        self.open(member)?
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Spool { source })?;
        Ok(bytes)
    }

    /// The data of a member, from its start.
    pub(super) fn open(&self, member: &Member) -> Result<impl Read + Send + use<'_>, ImageError> {
        let (file, at) = match member.place {
            Place::Spooled(offset) => (&self.file, offset),
            Place::Unpacked(number) => match &self.arrived[number] {
                Arrived::Layer { tar, .. } => (tar, 0),
                Arrived::Refused(reason) => return Err(refused(reason)),
            },
        };
        Ok(Slice { file, at, end: at + member.length })
    }

    /// The member as the layer that it was unpacked to. There is one of it: who needs another, or
    /// finds that there is none, opens the member.
    pub(super) fn take(&self, member: &Member) -> Option<Unplaced> {
        match member.place {
            Place::Spooled(_) => None,
            Place::Unpacked(number) => match &self.arrived[number] {
                Arrived::Layer { layer, .. } => layer.take(),
                Arrived::Refused(_) => None,
            },
        }
    }
}

/// The error is told once; who asks again hears that there was one.
fn refused(reason: &RefCell<Option<StorageError>>) -> ImageError {
    match reason.take() {
        Some(error) => error.into(),
        None => archive("a layer cannot be unpacked"),
    }
}

/// Unpacks a member. Only what is wrong with the archive itself is an error.
fn unpack<R: BufRead + Send>(
    mut data: MemberData<'_, R>,
    storage: &Storage,
) -> Result<Arrived, ImageError> {
    let unpacked = storage.unpack_unplaced(&mut data);
    if let Some(error) = data.failure {
        return Err(read_error(error));
    }
    Ok(match unpacked.and_then(|layer| Ok((layer.tar()?, layer))) {
        Ok((tar, layer)) => Arrived::Layer { tar, layer: RefCell::new(Some(layer)) },
        Err(error) => Arrived::Refused(RefCell::new(Some(error))),
    })
}

/// The data of a member as it arrives.
struct MemberData<'a, R> {
    /// What was read to see what it is.
    head: Cursor<Vec<u8>>,
    reader: &'a mut Reader<R, ()>,
    /// What is wrong with the archive.
    failure: Option<TarError>,
}

impl<'a, R: BufRead> MemberData<'a, R> {
    /// Of the member that `reader` is at.
    fn begin(reader: &'a mut Reader<R, ()>) -> Result<Self, ImageError> {
        let mut head = Vec::with_capacity(TAR_BLOCK);
        while head.len() < TAR_BLOCK {
            let bytes = reader.data().map_err(read_error)?;
            let bytes = &bytes[..bytes.len().min(TAR_BLOCK - head.len())];
            if bytes.is_empty() {
                break;
            }
            head.extend_from_slice(bytes);
            let length = bytes.len();
            reader.consume(length);
        }
        Ok(Self { head: Cursor::new(head), reader, failure: None })
    }

    /// By the magic of POSIX, which every archiver of the last thirty years writes.
    fn looks_like_tar(&self) -> bool {
        self.head.get_ref().get(257..262) == Some(b"ustar")
    }

    fn copy(self, output: &mut impl Write) -> Result<(), ImageError> {
        let failed = |source| ImageError::Spool { source };
        output.write_all(self.head.get_ref()).map_err(failed)?;
        loop {
            let bytes = self.reader.data().map_err(read_error)?;
            if bytes.is_empty() {
                return Ok(());
            }
            output.write_all(bytes).map_err(failed)?;
            let length = bytes.len();
            self.reader.consume(length);
        }
    }
}

impl<R: BufRead> Read for MemberData<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.head.read(buffer)?;
        if length > 0 {
            return Ok(length);
        }
        match self.reader.data() {
            Ok(bytes) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                self.reader.consume(length);
                Ok(length)
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

struct Slice<'spool> {
    file: &'spool File,
    at: u64,
    end: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let length = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// The digests that a name speaks of: `blobs/sha256/<hex>`, and `<hex>/layer.tar` or `<hex>.tar` of
/// those who name layers by what they are.
fn promised(name: &str) -> impl Iterator<Item = Digest> {
    let parts = name.split('/').map(|part| part.strip_suffix(".tar").unwrap_or(part));
    parts.filter_map(|part| Digest::from_hex(part).ok())
}

fn archive(reason: &str) -> ImageError {
    ImageError::Archive { reason: reason.to_owned() }
}

/// What stopped the decoder is told as such.
fn read_error(error: TarError) -> ImageError {
    if let TarError::Read { source } = &error
        && let Some(bomb) = as_storage_error(source)
    {
        return bomb.into();
    }
    StorageError::from(error).into()
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A name below `base` without `.` and `..`; none when it leads out or is not text. A name that
/// begins with a slash begins at the archive's root.
fn clean(name: &[u8], base: &str) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let base = if name.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        let check = |name: &str, base, expect| {
            assert_eq!(clean(name.as_bytes(), base).as_deref(), expect, "{name}");
        };
        check("./manifest.json", "", Some("manifest.json"));
        check("../id/layer.tar", "other", Some("id/layer.tar"));
        check("../../id", "other", None);
        check("/etc/passwd", "other", Some("etc/passwd"));
        check("a//b/", "", Some("a/b"));
    }
}
