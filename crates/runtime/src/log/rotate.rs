//! A log file that is renamed when it is full: `log` becomes `log.1`, `log.1` becomes `log.2`, and
//! so on up to the number of files allowed; `log.1.gz` and so on when they are compressed.
//!
//! With one file allowed, a new one takes its place. A rotation always makes a new inode, so that
//! [`RotatingFile::rewind`] can tell what a crash came after.
//!
//! A crash between two renames leaves a gap in the numbers, which does no harm. Compression runs
//! in a forked child at low priority; while it does, the file may outgrow its limit, because the
//! next rotation waits for it. A child that dies leaves `log.1` uncompressed and perhaps
//! `log.1.gz.tmp`, which the next child overwrites.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::spec::LogFile;

/// A place in a log, to return to after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub file: FileIdentity,
    pub size: u64,
}

/// Inode numbers are used again at once; together with the time of birth they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    pub inode: u64,
    /// Nanoseconds since the epoch; 0 where the filesystem does not know.
    pub born: u64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Self { inode: metadata.ino(), born: born.map_or(0, |born| born.as_nanos() as u64) }
    }
}

/// Finds the length of a file without a torn last record.
type WholeLength = fn(&File, u64) -> io::Result<u64>;

#[derive(Debug)]
pub struct RotatingFile {
    spec: LogFile,
    whole_length: WholeLength,
    file: File,
    identity: FileIdentity,
    size: u64,
    /// `log.1` waits for [`Self::compress_rotated`].
    compress_due: bool,
    /// The child that compresses the last rotated file.
    compressing: Option<OwnedFd>,
    /// The last append failed and was reported.
    failing: bool,
}

impl RotatingFile {
    pub fn open(spec: LogFile, whole_length: WholeLength) -> io::Result<Self> {
        let Opened { file, identity, size } = open(&spec.path, whole_length)?;
        Ok(Self {
            spec,
            whole_length,
            file,
            identity,
            size,
            compress_due: false,
            compressing: None,
            failing: false,
        })
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        let Opened { file, identity, size } = open(&self.spec.path, self.whole_length)?;
        (self.file, self.identity, self.size) = (file, identity, size);
        Ok(())
    }

    /// Whether to rotate before more is written, when `pending` bytes wait to be appended.
    pub fn is_full(&mut self, pending: u64) -> bool {
        let full = self.spec.max_size.is_some_and(|max| self.size + pending >= max);
        full && self.size + pending > 0 && !self.compress_due && !self.is_compressing()
    }

    /// Appends whole records. When the disk refuses, none of them is in the file; the error is
    /// returned for the first refusal of a row.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        match self.file.write_all(records) {
            Ok(()) => {
                self.size += records.len() as u64;
                self.failing = false;
                Ok(())
            }
            Err(error) => {
                // Cutting off what was written in part fails only where the write error says it
                // all; readers then skip the torn record.
                self.file.set_len(self.size).unwrap_or_default();
                if std::mem::replace(&mut self.failing, true) { Ok(()) } else { Err(error) }
            }
        }
    }

    pub fn rotate(&mut self) -> io::Result<()> {
        if self.spec.max_files < 2 {
            let new = self.spec.path.with_added_extension("new");
            drop(create(&new)?);
            std::fs::rename(&new, &self.spec.path)?;
            return self.reopen();
        }
        for number in (1..self.spec.max_files).rev() {
            for extension in ["", ".gz"] {
                let from = numbered(&self.spec.path, number - 1, extension);
                rename_if_there(&from, &numbered(&self.spec.path, number, extension))?;
            }
        }
        self.compress_due = self.spec.compress;
        self.reopen()
    }

    /// Compresses what was rotated away, in the background. Until then it can be taken back.
    pub fn compress_rotated(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.compress_due) {
            let path = numbered(&self.spec.path, 1, "");
            let child = sys::descriptors::fork(|| u8::from(compress(&path).is_err()))?;
            self.compressing = Some(child);
        }
        Ok(())
    }

    pub const fn position(&self) -> Position {
        Position { file: self.identity, size: self.size }
    }

    /// Takes back everything written and rotated since `position`. When its file is gone, somebody
    /// else removed it, and there is nothing to take back.
    pub fn rewind(&mut self, position: Position) -> io::Result<()> {
        let path = |number| numbered(&self.spec.path, number, "");
        let is_it = |number: &u32| {
            std::fs::metadata(path(*number))
                .is_ok_and(|metadata| FileIdentity::of(&metadata) == position.file)
        };
        match (0..self.spec.max_files.max(1)).find(is_it) {
            Some(0) => {}
            Some(rotations) => {
                for number in 1..rotations {
                    std::fs::remove_file(path(number))?;
                }
                for number in rotations..self.spec.max_files {
                    for extension in ["", ".gz"] {
                        let from = numbered(&self.spec.path, number, extension);
                        let to = numbered(&self.spec.path, number - rotations, extension);
                        rename_if_there(&from, &to)?;
                    }
                }
                self.reopen()?;
            }
            // The only file was replaced by a new one.
            None if self.spec.max_files < 2 => return self.cut(0),
            None => return Ok(()),
        }
        self.cut(position.size)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        if size < self.size {
            self.file.set_len(size)?;
            self.size = size;
        }
        Ok(())
    }

    fn is_compressing(&mut self) -> bool {
        if self.compressing.as_ref().is_some_and(sys::descriptors::is_readable) {
            self.compressing = None;
        }
        self.compressing.is_some()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

struct Opened {
    file: File,
    identity: FileIdentity,
    size: u64,
}

fn open(path: &Path, whole_length: WholeLength) -> io::Result<Opened> {
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    let size = whole_length(&file, metadata.len())?;
    if size < metadata.len() {
        file.set_len(size)?;
    }
    Ok(Opened { file, identity: FileIdentity::of(&metadata), size })
}

/// `log.3.gz`; number 0 is `log` itself, which is never compressed.
fn numbered(path: &Path, number: u32, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    if number > 0 {
        name.push(format!(".{number}{extension}"));
    } else if !extension.is_empty() {
        name.push(".0.gz");
    }
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs in the child.
fn compress(path: &Path) -> io::Result<()> {
    // Above 19 nothing is lower; the child only exists to stay out of the way.
    rustix::process::nice(19)?;
    let temporary = numbered(path, 0, "").with_added_extension("gz.tmp");
    let mut from = File::open(path)?;
    let to = create(&temporary)?;
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?;
    std::fs::rename(&temporary, path.with_added_extension("gz"))?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let spec = LogFile {
            path: path.clone(),
            max_size: Some(10),
            max_files: 3,
            compress: true,
            attrs: Default::default(),
        };
        let mut file = RotatingFile::open(spec, |_file, size| Ok(size)).unwrap();
        for text in [b"first 10 bytes", b"second 10 byte", b"third 10 bytes"] {
            if file.is_full(0) {
                file.rotate().unwrap();
            }
            file.append(text).unwrap();
            file.compress_rotated().unwrap();
            if let Some(child) = &file.compressing {
                sys::descriptors::wait_readable(child).unwrap();
            }
        }
        let read = |name: &str| {
            let mut text = String::new();
            let file = File::open(dir.path().join(name)).unwrap();
            io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
            text
        };
        assert_eq!(read("log.2.gz"), "first 10 bytes");
        assert_eq!(read("log.1.gz"), "second 10 byte");
        assert!(!dir.path().join("log.1").exists());
    }

    fn check_rewind(max_files: u32, writes: usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let spec = LogFile {
            path: path.clone(),
            max_size: Some(20),
            max_files,
            compress: false,
            attrs: Default::default(),
        };
        let mut file = RotatingFile::open(spec, |_file, size| Ok(size)).unwrap();
        file.append(b"before\n").unwrap();
        let position = file.position();
        for _ in 0..writes {
            if file.is_full(0) {
                file.rotate().unwrap();
            }
            file.append(b"after crash\n").unwrap();
        }
        file.rewind(position).unwrap();
        file.append(b"again\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expect = if max_files == 1 && writes > 2 { "again\n" } else { "before\nagain\n" };
        assert_eq!(text, expect, "{max_files} files, {writes} writes");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_came_after_a_position_is_taken_back() {
        for max_files in [1, 4] {
            for writes in 0..6 {
                check_rewind(max_files, writes);
            }
        }
    }

    #[test]
    fn a_full_disk_leaves_whole_records() {
        // /dev/full refuses every write, as a full disk does.
        let spec = LogFile {
            path: "/dev/full".into(),
            max_size: None,
            max_files: 1,
            compress: false,
            attrs: Default::default(),
        };
        let mut file = RotatingFile::open(spec, |_file, size| Ok(size)).unwrap();
        assert_eq!(file.append(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert!(file.append(b"y").is_ok(), "told once");
    }
}
