//! The files of one log, oldest first, and records out of their bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use runtime::log::{Entry, LocalFrame, decode_json_line, decode_local};

use super::format::Verdict;

/// One read. A record is at most 16 KiB of output, escaped at most sixfold.
const BLOCK: usize = 128 << 10;
/// A record that needs more than this is damage.
const RECORD_MAX: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    JsonFile,
    Local,
}

/// Where the log is.
#[derive(Debug)]
pub(super) struct Set {
    pub path: PathBuf,
    pub driver: Driver,
}

/// One open file and what was read of it but not yet decoded.
#[derive(Debug)]
pub(super) struct LogFile {
    driver: Driver,
    source: Source,
    /// Device and inode: a rotated file is known by them.
    identity: (u64, u64),
    buffer: Vec<u8>,
    /// Bytes of `buffer` before this are decoded.
    decoded: usize,
}

#[derive(Debug)]
enum Source {
    Plain { file: File, offset: u64 },
    Compressed(Box<MultiGzDecoder<File>>),
}

impl Set {
    /// Opens what there is. A rotation in between is noticed by finding the newest file changed,
    /// and everything is opened again.
    pub(super) fn open_all(&self) -> io::Result<Vec<LogFile>> {
        for _ in 0..16 {
            let newest = self.open_plain(0)?;
            let mut files = self.rotated()?;
            let still = self.open_plain(0)?;
            let same = |one: &Option<LogFile>| one.as_ref().map(|file| file.identity);
            if same(&newest) == same(&still) {
                files.reverse();
                files.extend(newest);
                return Ok(files);
            }
        }
        Err(io::Error::other("the log is rotated faster than it can be opened"))
    }

    /// Files 1, 2, ... until there is none.
    fn rotated(&self) -> io::Result<Vec<LogFile>> {
        let mut files = Vec::new();
        for number in 1.. {
            match self.open_plain(number)? {
                Some(file) => files.push(file),
                None => match self.open_compressed(number)? {
                    Some(file) => files.push(file),
                    None => break,
                },
            }
        }
        Ok(files)
    }

    /// The files that came after `known`, oldest first, and the newest if it is not `known`.
    pub(super) fn newer_than(
        &self,
        known: Option<&LogFile>,
    ) -> io::Result<(Vec<LogFile>, Option<LogFile>)> {
        let Some(known) = known else { return Ok((Vec::new(), self.open_plain(0)?)) };
        match std::fs::metadata(&self.path) {
            Ok(metadata) if (metadata.dev(), metadata.ino()) == known.identity => {
                return Ok((Vec::new(), None));
            }
            Ok(_) => {}
            // In the middle of a rotation; there will be another change.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), None));
            }
            Err(error) => return Err(error),
        }
        let mut files = self.open_all()?;
        let newest = files.pop();
        if let Some(at) = files.iter().position(|file| file.identity == known.identity) {
            files.drain(..=at);
        } else {
            // It was compressed or removed by now: what it held was read through its descriptor.
            files.clear();
        }
        Ok((files, newest))
    }

    fn name(&self, number: u32, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        if number > 0 {
            name.push(format!(".{number}{extension}"));
        }
        name.into()
    }

    fn open_plain(&self, number: u32) -> io::Result<Option<LogFile>> {
        open_if_there(&self.name(number, ""))?
            .map(|file| self.log_file(file, |file| Source::Plain { file, offset: 0 }))
            .transpose()
    }

    fn open_compressed(&self, number: u32) -> io::Result<Option<LogFile>> {
        let compressed = |file| Source::Compressed(Box::new(MultiGzDecoder::new(file)));
        open_if_there(&self.name(number, ".gz"))?
            .map(|file| self.log_file(file, compressed))
            .transpose()
    }

    fn log_file(&self, file: File, source: impl FnOnce(File) -> Source) -> io::Result<LogFile> {
        let metadata = file.metadata()?;
        Ok(LogFile {
            driver: self.driver,
            identity: (metadata.dev(), metadata.ino()),
            source: source(file),
            buffer: Vec::new(),
            decoded: 0,
        })
    }
}

fn open_if_there(path: &PathBuf) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl LogFile {
    /// Reads one more block; `false` at the present end.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.decoded);
        self.decoded = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + BLOCK, 0);
        let read = match &mut self.source {
            Source::Plain { file, offset } => {
                let read = file.read_at(&mut self.buffer[kept..], *offset)?;
                // Cut to nothing by a rotation with a single file: it begins anew.
                if read == 0 && file.metadata()?.len() < *offset {
                    *offset = 0;
                    self.buffer.clear();
                    return Ok(true);
                }
                *offset += read as u64;
                read
            }
            Source::Compressed(decoder) => decoder.read(&mut self.buffer[kept..])?,
        };
        self.buffer.truncate(kept + read);
        Ok(read > 0)
    }

    /// Passes on all whole records that were read.
    pub(super) fn records(&mut self, mut take: impl FnMut(&Entry<'_>) -> Verdict) -> Verdict {
        loop {
            let rest = &self.buffer[self.decoded..];
            let step = match self.driver {
                Driver::JsonFile => json_record(rest),
                Driver::Local => local_record(rest),
            };
            let (entry, length) = match step {
                Step::Record(entry, length) => (entry, length),
                Step::Damaged(length) => {
                    self.decoded += length;
                    continue;
                }
                Step::Incomplete => return Verdict::More,
            };
            let verdict = take(&entry);
            drop(entry);
            self.decoded += length;
            if verdict == Verdict::Past {
                return verdict;
            }
        }
    }

    /// Reads all of a compressed file at once, so that its end can be found: it is as large as
    /// the rotation lets it be.
    pub(super) fn inflate(&mut self) -> io::Result<()> {
        while self.fill()? {}
        Ok(())
    }

    pub(super) fn driver(&self) -> Driver {
        self.driver
    }

    /// The file itself, when its bytes are the records.
    pub(super) fn plain(&self) -> Option<&File> {
        match &self.source {
            Source::Plain { file, .. } => Some(file),
            Source::Compressed(_) => None,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.plain().is_some()
    }

    /// The bytes that are in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.decoded..]
    }

    /// Goes on reading from here; `start` counts from the first byte that was not decoded.
    pub(super) fn seek(&mut self, start: u64) {
        match &mut self.source {
            Source::Plain { offset, .. } => *offset = start,
            Source::Compressed(_) => self.decoded += start as usize,
        }
    }
}

enum Step<'a> {
    Record(Entry<'a>, usize),
    /// So many bytes are no record.
    Damaged(usize),
    Incomplete,
}

fn json_record(bytes: &[u8]) -> Step<'_> {
    // The standard library's own, vectorised search; reading from memory cannot fail.
    let length = io::BufRead::skip_until(&mut &*bytes, b'\n').unwrap_or_default();
    let line = &bytes[..length];
    if !line.ends_with(b"\n") {
        return if length > RECORD_MAX { Step::Damaged(length) } else { Step::Incomplete };
    }
    match decode_json_line(line) {
        Some(entry) => Step::Record(entry, length),
        None => Step::Damaged(length),
    }
}

fn local_record(bytes: &[u8]) -> Step<'_> {
    match decode_local(bytes) {
        LocalFrame::Entry(entry, length) => Step::Record(entry, length),
        LocalFrame::Incomplete => Step::Incomplete,
        // There is nothing in this format to find the next record by.
        LocalFrame::Damaged => Step::Damaged(bytes.len()),
    }
}
