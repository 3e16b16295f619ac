//! How to make a layer's tar again, bit for bit, from its unpacked files.
//!
//! `<layer>/recipe` is one zstd stream of records, in the order of the tar:
//!
//! ```text
//! 'L' length bytes                 literal bytes: headers, padding, what is not a file's content
//! 'F' path offset length           a stretch of the file at `path` below `diff/`
//! 'R' path number                  the file last written at `path` now is `replaced/<number>`
//! ```
//!
//! Numbers are LEB128; a path is its length and its bytes. `R` exists because a tar may name a
//! file twice: the loser leaves `diff/` but its content is still part of the tar.
//! The tar is hashed while it is made, so a changed file can never pass for the layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use spec::Digest;
use sys::RootDir;

use crate::hashing::Hashing;
use crate::tar::Sink;

/// Literals are gathered up to this size.
const GATHER: usize = 64 << 10;
/// No path or literal in a recipe is longer; a larger number means a damaged file.
const LONGEST: u64 = 1 << 20;

pub(crate) struct RecipeWriter {
    output: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    literal: Vec<u8>,
    replaced: u64,
}

impl RecipeWriter {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let output = zstd::stream::write::Encoder::new(BufWriter::new(file), 1)?;
        Ok(Self { output, literal: Vec::with_capacity(GATHER), replaced: 0 })
    }

    /// Says that the next `length` bytes of the tar are in the file at `path`.
    pub(crate) fn file(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.flush_literal()?;
        self.output.write_all(b"F")?;
        put_bytes(&mut self.output, path)?;
        put_number(&mut self.output, offset)?;
        put_number(&mut self.output, length)
    }

    /// Says that the file at `path` moves away; returns the number that names it from now on.
    pub(crate) fn replace(&mut self, path: &[u8]) -> io::Result<u64> {
        self.flush_literal()?;
        let number = self.replaced;
        self.replaced += 1;
        self.output.write_all(b"R")?;
        put_bytes(&mut self.output, path)?;
        put_number(&mut self.output, number)?;
        Ok(number)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_literal()?;
        self.output.finish()?.flush()
    }

    fn flush_literal(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        self.output.write_all(b"L")?;
        put_bytes(&mut self.output, &self.literal)?;
        self.literal.clear();
        Ok(())
    }
}

impl Sink for RecipeWriter {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(GATHER) {
            if self.literal.len() + part.len() > GATHER {
                self.flush_literal()?;
            }
            self.literal.extend_from_slice(part);
        }
        Ok(())
    }
}

/// Writes the layer's tar to `output` and returns its digest; the caller compares.
pub(crate) fn rebuild(layer: &RootDir, output: &mut dyn Write) -> io::Result<Digest> {
    let moved = Moved::read(&mut open_recipe(layer)?)?;
    let mut recipe = open_recipe(layer)?;
    let mut output = Hashing::new(output);
    let mut files = Files { layer, moved, seen: HashMap::new(), open: None };
    while let Some(record) = Record::read(&mut recipe)? {
        match record {
            Record::Literal(bytes) => output.write_all(&bytes)?,
            Record::File { path, offset, length } => {
                files.copy(&path, offset, length, &mut output)?;
            }
            Record::Replaced { path, .. } => files.replaced(&path),
        }
    }
    Ok(Digest::from_bytes(output.finish()))
}

/// The length of the tar that [`rebuild`] would write, if all files are there and long enough.
pub(crate) fn measure(layer: &RootDir) -> io::Result<u64> {
    let moved = Moved::read(&mut open_recipe(layer)?)?;
    let mut recipe = open_recipe(layer)?;
    let mut files = Files { layer, moved, seen: HashMap::new(), open: None };
    let mut total = 0;
    while let Some(record) = Record::read(&mut recipe)? {
        match record {
            Record::Literal(bytes) => total += bytes.len() as u64,
            Record::File { path, offset, length } => {
                if files.open(&path)?.metadata()?.len() < offset.saturating_add(length) {
                    return Err(damaged("a file is shorter than it was"));
                }
                total += length;
            }
            Record::Replaced { path, .. } => files.replaced(&path),
        }
    }
    Ok(total)
}

/// Writes the tar of a layer that has it as a file.
pub(crate) fn copy(layer: &RootDir, length: u64, output: &mut dyn Write) -> io::Result<Digest> {
    let tar = layer.open_strict("tar", OFlags::RDONLY, Mode::empty())?;
    let mut tar = BufReader::with_capacity(4 * GATHER, File::from(tar)).take(length);
    let digest = digest_while_copying(&mut tar, output)?;
    if tar.limit() > 0 {
        return Err(damaged("the tar is shorter than it was"));
    }
    Ok(digest)
}

/// The digest of all that is still to be read.
pub(crate) fn digest_of(input: &mut impl Read) -> io::Result<Digest> {
    digest_while_copying(input, &mut io::sink())
}

fn digest_while_copying(input: &mut impl Read, output: &mut dyn Write) -> io::Result<Digest> {
    let mut output = Hashing::new(output);
    io::copy(input, &mut output)?;
    Ok(Digest::from_bytes(output.finish()))
}

enum Record {
    Literal(Vec<u8>),
    File { path: Vec<u8>, offset: u64, length: u64 },
    Replaced { path: Vec<u8>, number: u64 },
}

impl Record {
    fn read(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut tag = [0];
        if input.read(&mut tag)? == 0 {
            return Ok(None);
        }
        Ok(Some(match &tag {
            b"L" => Self::Literal(get_bytes(input)?),
            b"F" => Self::File {
                path: get_bytes(input)?,
                offset: get_number(input)?,
                length: get_number(input)?,
            },
            b"R" => Self::Replaced { path: get_bytes(input)?, number: get_number(input)? },
            _ => return Err(damaged("unknown record")),
        }))
    }
}

/// For each path that was replaced: the numbers, in order.
struct Moved(HashMap<Vec<u8>, Vec<u64>>);

impl Moved {
    fn read(recipe: &mut impl Read) -> io::Result<Self> {
        let mut moved: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
        while let Some(record) = Record::read(recipe)? {
            if let Record::Replaced { path, number } = record {
                moved.entry(path).or_default().push(number);
            }
        }
        Ok(Self(moved))
    }
}

/// Finds and reads the files that the recipe names.
struct Files<'layer> {
    layer: &'layer RootDir,
    moved: Moved,
    /// How often each moved path has been replaced so far.
    seen: HashMap<Vec<u8>, usize>,
    open: Option<(Vec<u8>, File)>,
}

impl Files<'_> {
    fn replaced(&mut self, path: &[u8]) {
        *self.seen.entry(path.to_vec()).or_default() += 1;
        self.open = None;
    }

    fn copy(
        &mut self,
        path: &[u8],
        mut offset: u64,
        mut length: u64,
        output: &mut impl Write,
    ) -> io::Result<()> {
        let file = self.open(path)?;
        let mut buffer = vec![0; GATHER.min(usize::try_from(length).unwrap_or(GATHER))];
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read_at(&mut buffer[..most], offset)?;
            if read == 0 {
                return Err(damaged("a file is shorter than it was"));
            }
            output.write_all(&buffer[..read])?;
            offset += read as u64;
            length -= read as u64;
        }
        Ok(())
    }

    fn open(&mut self, path: &[u8]) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(name, _)| name != path) {
            let times = self.seen.get(path).copied().unwrap_or(0);
            let moved_to = self.moved.0.get(path).and_then(|numbers| numbers.get(times));
            let place = match moved_to {
                Some(number) => Path::new("replaced").join(number.to_string()),
                None => Path::new("diff").join(std::ffi::OsStr::from_bytes(path)),
            };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = self.layer.open_strict(place, flags, Mode::empty())?;
            self.open = Some((path.to_vec(), File::from(fd)));
        }
        Ok(&self.open.as_ref().expect("set above").1)
    }
}

fn open_recipe(layer: &RootDir) -> io::Result<impl Read + use<>> {
    let fd = layer.open_strict("recipe", OFlags::RDONLY, Mode::empty())?;
    Ok(BufReader::with_capacity(GATHER, zstd::stream::read::Decoder::new(File::from(fd))?))
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn put_number(output: &mut impl Write, mut value: u64) -> io::Result<()> {
    while value >= 0x80 {
        output.write_all(&[(value & 0x7f) as u8 | 0x80])?;
        value >>= 7;
    }
    output.write_all(&[value as u8])
}

fn get_number(input: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    Err(damaged("number does not end"))
}

fn put_bytes(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    put_number(output, bytes.len() as u64)?;
    output.write_all(bytes)
}

fn get_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = get_number(input)?;
    if length > LONGEST {
        return Err(damaged("record too long"));
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
