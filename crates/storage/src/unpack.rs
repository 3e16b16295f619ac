//! From a stream to an unpacked layer: inflate, hash and write at the same time.
//!
//! ```text
//! stream -> [feeder: inflate, limits] -+-> [hasher: sha256 of the plain tar]
//!                                      +-> [caller's thread: parse, write below ingest/<n>]
//! ```
//!
//! The queues hold a few chunks, so memory does not depend on the layer. A crash, an error or a
//! refused limit leaves an ingest directory, which belongs to nobody and is removed.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{Mode, OFlags, fstatvfs, openat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spec::Digest;
use sys::RootDir;

use crate::decode::{Decoder, Ratio, as_storage_error};
use crate::error::StorageError;
use crate::recipe::RecipeWriter;
use crate::tar::{Reader, TarError};
use crate::tree::Tree;

const CHUNK: usize = 256 << 10;
const QUEUE: usize = 4;
/// Left free on the disk, so that a hostile layer cannot take what removal and records need.
const RESERVE: u64 = 64 << 20;

/// How much a layer may be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// Of the tar, and of the files in it with their holes.
    pub bytes: u64,
    pub entries: u64,
    pub ratio: Ratio,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 100 << 30, entries: 10_000_000, ratio: Ratio::default() }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    pub diff_id: Digest,
    /// Length of the plain tar.
    pub tar_size: u64,
    /// Bytes in files, as Docker counts them.
    pub size: u64,
    /// The layer hides everything below it.
    pub opaque: bool,
}

/// Unpacks a stream into a directory. Where the work is done, in this process or in a confined
/// one, is the implementor's affair.
pub trait Unpacker: Send + Sync + std::fmt::Debug {
    /// Fills the empty directory `layer` with `diff/`, `replaced/`, `recipe` and `opaque`.
    /// `lowers` are the `diff/` directories of the layers below, top first.
    fn unpack(
        &self,
        layer: &Path,
        lowers: &[PathBuf],
        stream: &mut (dyn Read + Send),
        limits: Limits,
    ) -> Result<Unpacked, StorageError>;
}

/// Unpacks in the calling thread and two helpers.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Unpacker for InProcess {
    fn unpack(
        &self,
        layer: &Path,
        lowers: &[PathBuf],
        stream: &mut (dyn Read + Send),
        limits: Limits,
    ) -> Result<Unpacked, StorageError> {
        Directories::open(layer, lowers)?.fill(stream, limits)
    }
}

/// What an unpacker works on, opened by trusted paths.
#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) layer: RootDir,
    pub(crate) lowers: Vec<RootDir>,
}

impl Directories {
    pub(crate) fn open(layer: &Path, lowers: &[PathBuf]) -> Result<Self, StorageError> {
        let open = |path: &Path| RootDir::open(path).map_err(StorageError::file("open", path));
        let lowers = lowers.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
        Ok(Self { layer: open(layer)?, lowers })
    }

    pub(crate) fn fill(
        self,
        stream: &mut (dyn Read + Send),
        limits: Limits,
    ) -> Result<Unpacked, StorageError> {
        let Self { layer, lowers } = self;
        let limits = within_disk(&layer, limits)?;
        std::thread::scope(|scope| {
            let (to_writer, chunks) = sync_channel(QUEUE);
            let (to_hasher, hashed) = sync_channel(QUEUE);
            let feeder = scope.spawn(move || {
                let outcome = feed(stream, limits, &to_writer, &to_hasher);
                if outcome.is_err() {
                    // Marks the end as unnatural. A writer that is gone needs no mark.
                    drop(to_writer.send(None));
                }
                outcome
            });
            let hasher = scope.spawn(move || hash(&hashed));
            let written = write(layer, &lowers, ChunkReader::new(chunks), limits);
            let fed = feeder.join().map_err(|_panic| StorageError::Panicked)?;
            let diff_id = hasher.join().map_err(|_panic| StorageError::Panicked)?;
            // What stopped the stream explains what the writer saw of it.
            let written = fed.and(written)?;
            Ok(Unpacked { diff_id, ..written })
        })
    }
}

fn within_disk(layer: &RootDir, limits: Limits) -> Result<Limits, StorageError> {
    let dir =
        openat(layer, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(StorageError::file("open", "ingest"))?;
    let free = fstatvfs(&dir).map_err(StorageError::file("measure the disk of", "ingest"))?;
    let bytes = (free.f_bavail * free.f_frsize).saturating_sub(RESERVE);
    // File systems without a table of inodes say 0.
    let entries = if free.f_files == 0 { u64::MAX } else { free.f_favail };
    Ok(Limits {
        bytes: limits.bytes.min(bytes),
        entries: limits.entries.min(entries),
        ratio: limits.ratio,
    })
}

type Chunk = Arc<Vec<u8>>;

fn feed(
    stream: &mut (dyn Read + Send),
    limits: Limits,
    to_writer: &SyncSender<Option<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
) -> Result<(), StorageError> {
    let mut decoder = Decoder::new(stream, limits.ratio)?;
    let mut total = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        read.map_err(|error| match as_storage_error(&error) {
            Some(bomb) => bomb,
            None => TarError::Read { source: error }.into(),
        })?;
        if chunk.is_empty() {
            return Ok(());
        }
        total += chunk.len() as u64;
        if total > limits.bytes {
            return Err(StorageError::TooLarge { limit: limits.bytes });
        }
        let chunk = Arc::new(chunk);
        let gone =
            to_hasher.send(Arc::clone(&chunk)).is_err() || to_writer.send(Some(chunk)).is_err();
        if gone {
            // The writer failed and says why.
            return Ok(());
        }
    }
}

fn hash(chunks: &Receiver<Chunk>) -> Digest {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(chunk.as_slice());
    }
    Digest::from_bytes(hasher.finalize().into())
}

fn write(
    layer: RootDir,
    lowers: &[RootDir],
    chunks: ChunkReader,
    limits: Limits,
) -> Result<Unpacked, StorageError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let recipe = openat(&layer, "recipe", flags, Mode::from_raw_mode(0o600))
        .map_err(StorageError::file("create", "recipe"))?;
    let recipe = RecipeWriter::new(File::from(recipe)).map_err(TarError::from)?;
    let mut tree = Tree::new(layer, lowers)?;
    let mut reader = Reader::new(chunks, recipe);
    let (mut entries, mut bytes) = (0, 0u64);
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        bytes = bytes.saturating_add(entry.size);
        if entries > limits.entries {
            return Err(StorageError::TooMany { limit: limits.entries });
        }
        if bytes > limits.bytes {
            return Err(StorageError::TooLarge { limit: limits.bytes });
        }
        tree.put(&entry, &mut reader)?;
    }
    let tar_size = reader.drain()?;
    reader.sink.finish().map_err(TarError::from)?;
    let (size, opaque) = (tree.size, tree.opaque);
    tree.finish()?;
    Ok(Unpacked { diff_id: Digest::from_bytes([0; 32]), tar_size, size, opaque })
}

/// The writer's end of the queue. `None` in the queue means that the stream broke.
struct ChunkReader {
    chunks: Receiver<Option<Chunk>>,
    chunk: Chunk,
    at: usize,
}

impl ChunkReader {
    fn new(chunks: Receiver<Option<Chunk>>) -> Self {
        Self { chunks, chunk: Chunk::default(), at: 0 }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            match self.chunks.recv() {
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    self.at = 0;
                }
                Ok(None) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_ended) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}
