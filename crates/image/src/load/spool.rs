//! The members of an archive on disk, findable by name.
//!
//! One file without a name holds the data of all members one after the other; it vanishes with
//! the process. Names and links mean places inside the archive and nothing else: a link to
//! `/etc/passwd` finds no member of that name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use storage::tar::{Kind, Reader, TarError};
use storage::{Decoder, LARGEST_BLOB, Ratio, Room, StorageError, as_storage_error};

use crate::error::ImageError;

/// More members than any real archive; each costs memory.
const MOST_MEMBERS: usize = 100_000;
/// Links may point to links, so far.
const MOST_LINKS: usize = 8;

/// Where a member's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    offset: u64,
    pub(super) length: u64,
}

enum Found {
    Data(Member),
    /// The name of another member, cleaned.
    Link(String),
}

pub(super) struct Spool {
    file: File,
    members: HashMap<String, Found>,
}

impl Spool {
    /// Reads a whole archive.
    pub(super) fn read(stream: &mut (dyn Read + Send), file: File) -> Result<Self, ImageError> {
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
                    if offset + entry.size > room.bytes {
                        return Err(room.no_bytes().into());
                    }
                    copy(&mut reader, &mut output)?;
                    let member = Member { offset, length: entry.size };
                    offset += entry.size;
                    Found::Data(member)
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
        Ok(Self { file, members })
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
        self.open(member).read_to_end(&mut bytes).map_err(|source| ImageError::Spool { source })?;
        Ok(bytes)
    }

    /// The data of a member, from its start.
    pub(super) fn open(&self, member: &Member) -> impl Read + Send + use<'_> {
        Slice { file: &self.file, at: member.offset, end: member.offset + member.length }
    }
}

fn copy<R: io::BufRead>(
    reader: &mut Reader<R, ()>,
    output: &mut impl Write,
) -> Result<(), ImageError> {
    loop {
        let bytes = reader.data().map_err(read_error)?;
        if bytes.is_empty() {
            return Ok(());
        }
        output.write_all(bytes).map_err(|source| ImageError::Spool { source })?;
        let length = bytes.len();
        reader.consume(length);
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
