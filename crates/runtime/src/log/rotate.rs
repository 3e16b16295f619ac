//! A log file that is renamed when it is full: `log` becomes `log.1`, `log.1` becomes `log.2`, and
//! so on up to the number of files allowed; `log.1.gz` and so on when they are compressed.
//!
//! A crash between two renames leaves a gap in the numbers, which the next rotation closes.
//! Compression runs in a forked child at low priority; while it does, the file may outgrow its
//! limit, because the next rotation waits for it. A child that dies leaves `log.1` uncompressed
//! and perhaps `log.1.gz.tmp`, which the next child overwrites.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::spec::LogFile;

/// Finds the length of a file without a torn last record.
type WholeLength = fn(&File, u64) -> io::Result<u64>;

#[derive(Debug)]
pub struct RotatingFile {
    spec: LogFile,
    whole_length: WholeLength,
    file: File,
    size: u64,
    /// The child that compresses the last rotated file.
    compressing: Option<OwnedFd>,
    /// The last append failed and was reported.
    failing: bool,
}

impl RotatingFile {
    pub fn open(spec: LogFile, whole_length: WholeLength) -> io::Result<Self> {
        let (file, size) = open(&spec.path, whole_length)?;
        Ok(Self { spec, whole_length, file, size, compressing: None, failing: false })
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open(&self.spec.path, self.whole_length)?;
        Ok(())
    }

    /// Whether to rotate before more is written, when `pending` bytes wait to be appended.
    pub fn is_full(&mut self, pending: u64) -> bool {
        let full = self.spec.max_size.is_some_and(|max| self.size + pending >= max);
        full && self.size + pending > 0 && !self.is_compressing()
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
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        for number in (1..self.spec.max_files).rev() {
            for extension in ["", ".gz"] {
                let from = numbered(&self.spec.path, number - 1, extension);
                rename_if_there(&from, &numbered(&self.spec.path, number, extension))?;
            }
        }
        (self.file, self.size) = open(&self.spec.path, self.whole_length)?;
        if self.spec.compress {
            let path = numbered(&self.spec.path, 1, "");
            let child = sys::descriptors::fork(|| u8::from(compress(&path).is_err()))?;
            self.compressing = Some(child);
        }
        Ok(())
    }

    fn is_compressing(&mut self) -> bool {
        if self.compressing.as_ref().is_some_and(sys::descriptors::has_exited) {
            self.compressing = None;
        }
        self.compressing.is_some()
    }
}

fn open(path: &Path, whole_length: WholeLength) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    let whole = whole_length(&file, size)?;
    if whole < size {
        file.set_len(whole)?;
    }
    Ok((file, whole))
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
    let to =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
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
