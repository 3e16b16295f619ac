//! `--tail N`: finds where the last N records begin, from the end backwards.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::files::{Driver, LogFile};

const BLOCK: u64 = 64 << 10;

/// Drops the files, and skips the bytes, before the last `lines` records.
pub(super) fn skip_to_last(files: &mut Vec<LogFile>, lines: usize) -> io::Result<()> {
    let mut missing = lines;
    let mut first = files.len();
    while first > 0 && (missing > 0 || first == files.len()) {
        first -= 1;
        let file = &mut files[first];
        if !file.is_plain() {
            file.inflate()?;
        }
        let (start, found) = match (file.plain(), file.driver()) {
            (Some(plain), Driver::JsonFile) => last_lines(&Bytes::File(plain), missing)?,
            (Some(plain), Driver::Local) => last_frames(&Bytes::File(plain), missing)?,
            (None, Driver::JsonFile) => last_lines(&Bytes::Memory(file.bytes()), missing)?,
            (None, Driver::Local) => last_frames(&Bytes::Memory(file.bytes()), missing)?,
        };
        file.seek(start);
        missing -= found;
    }
    files.drain(..first);
    Ok(())
}

/// Something to read backwards.
enum Bytes<'a> {
    File(&'a File),
    Memory(&'a [u8]),
}

impl Bytes<'_> {
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, at),
            Self::Memory(bytes) => {
                let at = at as usize;
                let part = bytes.get(at..at + buffer.len());
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Where the last `wanted` lines begin, and how many there are. What has no newline at the end is
/// a record in the making and counts as none.
fn last_lines(bytes: &Bytes<'_>, wanted: usize) -> io::Result<(u64, usize)> {
    let length = bytes.len()?;
    let (mut end, mut seen) = (length, 0);
    let mut buffer = vec![0; BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let block = &mut buffer[..(end - start) as usize];
        bytes.read(start, block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            if seen == wanted {
                return Ok((start + at as u64 + 1, wanted));
            }
            seen += 1;
        }
        end = start;
    }
    Ok((0, seen))
}

/// The same for records that end in their length.
fn last_frames(bytes: &Bytes<'_>, wanted: usize) -> io::Result<(u64, usize)> {
    let (mut end, mut seen) = (bytes.len()?, 0);
    while seen < wanted && end >= 8 {
        let mut length = [0; 4];
        bytes.read(end - 4, &mut length)?;
        let whole = u64::from(u32::from_be_bytes(length)) + 8;
        let Some(start) = end.checked_sub(whole) else { break };
        end = start;
        seen += 1;
    }
    Ok((end, seen))
}
