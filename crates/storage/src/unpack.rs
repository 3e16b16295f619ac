//! From a stream to an unpacked layer: inflate, hash and write at the same time.
//!
//! ```text
//! stream -> [feeder: inflate, limits] -+-> [hasher: sha256 of the plain tar]
//!                                      +-> [caller's thread: parse, write below ingest/<n>]
//! ```
//!
//! What is written is a directory with all files, or the tar as it is with a table of contents.
//!
//! The queues hold a few chunks, so memory does not depend on the layer. A crash, an error or a
//! refused limit leaves an ingest directory, which belongs to nobody and is removed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spec::Digest;
use sys::RootDir;

use crate::decode::{Decoder, Ratio, as_storage_error};
use crate::erofs::{Builder, Padding};
use crate::error::StorageError;
use crate::recipe::RecipeWriter;
use crate::room::Room;
use crate::tar::{Entry, Reader, TarError};
use crate::tree::Tree;

const CHUNK: usize = 256 << 10;
const QUEUE: usize = 4;
/// A tar is sent to the disk in stretches of this size.
const WRITE_AHEAD: u64 = 8 << 20;

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

/// What becomes of a layer on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// `diff/`, `replaced/`, `recipe` and `opaque`.
    #[default]
    Directory,
    /// `tar` and `toc`.
    Index,
}

/// What to unpack, and how.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// An empty directory.
    pub layer: &'a Path,
    pub form: Form,
    /// The `diff/` directories of the layers below, top first; an index needs none.
    pub lowers: &'a [PathBuf],
    pub limits: Limits,
}

/// Unpacks a stream into a directory. Where the work is done, in this process or in a confined
/// one, is the implementor's affair.
pub trait Unpacker: Send + Sync + std::fmt::Debug {
    fn unpack(
        &self,
        job: &Job<'_>,
        stream: &mut (dyn Read + Send),
    ) -> Result<Unpacked, StorageError>;
}

/// Unpacks in the calling thread and two helpers.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Unpacker for InProcess {
    fn unpack(
        &self,
        job: &Job<'_>,
        stream: &mut (dyn Read + Send),
    ) -> Result<Unpacked, StorageError> {
        Directories::open(job.layer, job.lowers)?.fill(job.form, stream, job.limits)
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
        form: Form,
        stream: &mut (dyn Read + Send),
        limits: Limits,
    ) -> Result<Unpacked, StorageError> {
        let Self { layer, lowers } = self;
        let room = room(&layer, form)?;
        let limits = room.bound(limits);
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
            let written = match form {
                Form::Directory => write(layer, &lowers, ChunkReader::new(chunks), limits),
                Form::Index => write_index(&layer, chunks, limits),
            };
            let fed = feeder.join().map_err(|_panic| StorageError::Panicked)?;
            let diff_id = hasher.join().map_err(|_panic| StorageError::Panicked)?;
            // What stopped the stream explains what the writer saw of it.
            let written = fed.and(written).map_err(|error| room.explain(error))?;
            Ok(Unpacked { diff_id, ..written })
        })
    }
}

fn room(layer: &RootDir, form: Form) -> Result<Room, StorageError> {
    let dir =
        openat(layer, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(StorageError::file("open", "ingest"))?;
    let room = Room::of(dir).map_err(StorageError::file("measure the disk of", "ingest"))?;
    Ok(match form {
        Form::Directory => room,
        Form::Index => Room { entries: u64::MAX, ..room },
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
    chunks: ChunkReader<'_>,
    limits: Limits,
) -> Result<Unpacked, StorageError> {
    let recipe = RecipeWriter::new(create(&layer, "recipe")?).map_err(TarError::from)?;
    let mut tree = Tree::new(layer, lowers)?;
    let mut reader = Reader::new(chunks, recipe);
    let mut count = Count { entries: 0, bytes: 0, limits };
    while let Some(entry) = reader.next_entry()? {
        count.add(&entry)?;
        tree.put(&entry, &mut reader)?;
    }
    let tar_size = reader.drain()?;
    reader.sink.finish().map_err(TarError::from)?;
    let (size, opaque) = (tree.size, tree.opaque);
    tree.finish()?;
    Ok(Unpacked { diff_id: Digest::from_bytes([0; 32]), tar_size, size, opaque })
}

/// Keeps the tar as it is and says in `toc` what is in it.
fn write_index(
    layer: &RootDir,
    chunks: Receiver<Option<Chunk>>,
    limits: Limits,
) -> Result<Unpacked, StorageError> {
    let tar = create(layer, "tar")?;
    let table = create(layer, "toc")?;
    let failure = Cell::new(None);
    let copy = TarCopy { file: &tar, length: 0, failure: &failure };
    let chunks = ChunkReader { copy: Some(copy), ..ChunkReader::new(chunks) };
    let outcome = index(chunks, limits, &tar, table);
    match failure.take() {
        Some(error) => Err(StorageError::file("write", "tar")(crate::tree::errno(error))),
        None => outcome,
    }
}

fn index(
    chunks: ChunkReader<'_>,
    limits: Limits,
    tar: &File,
    table: File,
) -> Result<Unpacked, StorageError> {
    let mut builder = Builder::new();
    let mut reader = Reader::new(chunks, Padding::default());
    let mut count = Count { entries: 0, bytes: 0, limits };
    while let Some(entry) = reader.next_entry()? {
        count.add(&entry)?;
        builder.put(&entry, &mut reader)?;
    }
    let tar_size = reader.drain()?;
    let (size, opaque) = (builder.size, builder.opaque);
    builder.finish(&mut reader.sink, tar, tar_size, table)?;
    Ok(Unpacked { diff_id: Digest::from_bytes([0; 32]), tar_size, size, opaque })
}

fn create(layer: &RootDir, name: &'static str) -> Result<File, StorageError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    openat(layer, name, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(StorageError::file("create", name))
}

/// Holds what is in a layer against what may be.
struct Count {
    entries: u64,
    bytes: u64,
    limits: Limits,
}

impl Count {
    fn add(&mut self, entry: &Entry) -> Result<(), StorageError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.entries > self.limits.entries {
            return Err(StorageError::TooMany { limit: self.limits.entries });
        }
        if self.bytes > self.limits.bytes {
            return Err(StorageError::TooLarge { limit: self.limits.bytes });
        }
        Ok(())
    }
}

/// The layer's tar on the disk, as it comes by.
struct TarCopy<'a> {
    file: &'a File,
    length: u64,
    /// What went wrong with it: the reader of the tar cannot tell that from a broken stream.
    failure: &'a Cell<Option<io::Error>>,
}

impl TarCopy<'_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(chunk) {
            self.failure.set(Some(error));
            return Err(io::ErrorKind::WriteZero.into());
        }
        let before = self.length;
        self.length += chunk.len() as u64;
        // So that the sync at the end has little left to wait for.
        if before / WRITE_AHEAD != self.length / WRITE_AHEAD
            && let Err(errno) = sys::erofs::start_writing(self.file, 0, self.length)
        {
            tracing::debug!(%errno, "begin to write a layer to the disk");
        }
        Ok(())
    }
}

/// The writer's end of the queue. `None` in the queue means that the stream broke.
struct ChunkReader<'a> {
    chunks: Receiver<Option<Chunk>>,
    chunk: Chunk,
    at: usize,
    copy: Option<TarCopy<'a>>,
}

impl ChunkReader<'_> {
    fn new(chunks: Receiver<Option<Chunk>>) -> Self {
        Self { chunks, chunk: Chunk::default(), at: 0, copy: None }
    }
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ChunkReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            match self.chunks.recv() {
                Ok(Some(chunk)) => {
                    if let Some(copy) = &mut self.copy {
                        copy.write(&chunk)?;
                    }
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
