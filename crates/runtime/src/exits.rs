//! The record of every exit, which outlives daemon and supervisor.
//!
//! An append-only file of records of 96 bytes, little endian; the first is the header:
//!
//! ```text
//!  0  u32 magic "BXex"     "BXeh" in the header
//!  4  u8 flags: 1 exec, 2 out of memory, 4 code known
//!  5  u8 code, u16 zero
//!  8  u64 generation       header: the offset that the first record after it has
//! 16  i64 nanoseconds since the epoch
//! 24  [u8; 32] id
//! 56  [u8; 32] container of an exec
//! 88  u64 FNV-1a of the bytes before
//! ```
//!
//! Offsets count from the first record ever written and only grow: compaction drops records and
//! moves the header's offset up. The file is replaced by rename, so a crash leaves the old file
//! or the new one, and both give every record the same offset. A record torn by a crash fails its
//! checksum and is cut off; its exit was told to nobody.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use spec::{Digest, Id};

use crate::protocol::Exit;

const RECORD: usize = 96;
const MAGIC_EXIT: [u8; 4] = *b"BXex";
const MAGIC_HEADER: [u8; 4] = *b"BXeh";
const EXEC: u8 = 1;
const OOM: u8 = 2;
const CODE: u8 = 4;

/// Returns the recorded exits from `from_offset` on; none when there is no file yet.
pub fn read_exits(path: &Path, from_offset: u64) -> io::Result<Vec<Exit>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes).exits_from(from_offset)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a file holds.
#[derive(Debug, Default)]
struct Contents {
    base: u64,
    exits: Vec<Exit>,
    /// Length of the whole records, with the header; 0 when there is no header.
    whole: u64,
}

impl Contents {
    fn exits_from(self, offset: u64) -> Vec<Exit> {
        self.exits.into_iter().filter(|exit| exit.log_offset > offset).collect()
    }
}

fn parse(bytes: &[u8]) -> Contents {
    let mut records = bytes.chunks_exact(RECORD).map_while(checked);
    let Some(base) = records.next().and_then(decode_header) else { return Contents::default() };
    let mut contents = Contents { base, exits: Vec::new(), whole: RECORD as u64 };
    for record in records {
        let end = contents.whole + RECORD as u64;
        let Some(exit) = decode(record, base + end) else { break };
        contents.exits.push(exit);
        contents.whole = end;
    }
    contents
}

fn checked(record: &[u8]) -> Option<&[u8]> {
    let (body, sum) = record.split_last_chunk()?;
    (fnv1a(body) == u64::from_le_bytes(*sum)).then_some(body)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn decode_header(body: &[u8]) -> Option<u64> {
    let base = u64::from_le_bytes(*body.get(8..16)?.first_chunk()?);
    body.starts_with(&MAGIC_HEADER).then_some(base)
}

fn decode(body: &[u8], log_offset: u64) -> Option<Exit> {
    let flags = *body.get(4)?;
    let id = |at: usize| Some(id_of(*body.get(at..)?.first_chunk()?));
    body.starts_with(&MAGIC_EXIT).then_some(())?;
    Some(Exit {
        id: id(24)?,
        container: if flags & EXEC != 0 { Some(id(56)?) } else { None },
        generation: u64::from_le_bytes(*body.get(8..)?.first_chunk()?),
        code: (flags & CODE != 0).then_some(body[5]),
        oom_killed: flags & OOM != 0,
        at_nanos: i64::from_le_bytes(*body.get(16..)?.first_chunk()?),
        log_offset,
    })
}

fn id_of(bytes: [u8; 32]) -> Id {
    // `from_random` is the plain conversion of 32 bytes.
    Id::from_random(bytes)
}

fn bytes_of(id: &Id) -> [u8; 32] {
    Digest::from_hex(id.as_str()).map_or([0; 32], |digest| *digest.as_bytes())
}

fn encode(exit: &Exit) -> [u8; RECORD] {
    let flag = |flag: u8, on: bool| if on { flag } else { 0 };
    let flags = flag(EXEC, exit.container.is_some())
        | flag(OOM, exit.oom_killed)
        | flag(CODE, exit.code.is_some());
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&MAGIC_EXIT);
    record[4] = flags;
    record[5] = exit.code.unwrap_or(0);
    record[8..16].copy_from_slice(&exit.generation.to_le_bytes());
    record[16..24].copy_from_slice(&exit.at_nanos.to_le_bytes());
    record[24..56].copy_from_slice(&bytes_of(&exit.id));
    if let Some(container) = &exit.container {
        record[56..88].copy_from_slice(&bytes_of(container));
    }
    seal(record)
}

fn encode_header(base: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&MAGIC_HEADER);
    record[8..16].copy_from_slice(&base.to_le_bytes());
    seal(record)
}

fn seal(mut record: [u8; RECORD]) -> [u8; RECORD] {
    let sum = fnv1a(&record[..RECORD - 8]);
    record[RECORD - 8..].copy_from_slice(&sum.to_le_bytes());
    record
}

/// The supervisor's end: appends.
#[derive(Debug)]
pub(crate) struct ExitLog {
    path: PathBuf,
    file: File,
    base: u64,
    /// Bytes in the file, with the header.
    size: u64,
}

impl ExitLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let contents = parse(&bytes);
        if contents.whole == 0 {
            return Self::create(path, 0);
        }
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(contents.whole)?;
        Ok(Self { path: path.to_owned(), file, base: contents.base, size: contents.whole })
    }

    fn create(path: &Path, base: u64) -> io::Result<Self> {
        let temporary = path.with_added_extension("new");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&encode_header(base))?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)?;
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        File::open(directory)?.sync_all()?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, base, size: RECORD as u64 })
    }

    /// The offset after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Appends the exits, sets their offsets, and makes them durable when `durable`. A record
    /// that cannot be written whole is cut off again, so that the next one can be.
    pub(crate) fn append(&mut self, exits: &mut [Exit], durable: bool) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(exits.len() * RECORD);
        for exit in exits {
            bytes.extend_from_slice(&encode(exit));
            exit.log_offset = self.end() + bytes.len() as u64;
        }
        let written = self.file.write_all(&bytes);
        if written.is_err() {
            self.file.set_len(self.size)?;
            return written;
        }
        self.size += bytes.len() as u64;
        if durable { self.file.sync_data() } else { Ok(()) }
    }

    pub(crate) fn read_from(&self, offset: u64) -> io::Result<Vec<Exit>> {
        read_exits(&self.path, offset)
    }

    /// Drops what the daemon has seen, once that is everything. `seen` beyond the end means that
    /// the file was lost: offsets then go on behind it, or new exits would look old.
    pub(crate) fn compact(&mut self, seen: u64) -> io::Result<()> {
        let worth_it = self.size > RECORD as u64;
        if seen > self.end() || (seen == self.end() && worth_it) {
            *self = Self::create(&self.path, seen.saturating_sub(RECORD as u64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(number: u8) -> Exit {
        Exit {
            id: Id::from_random([number; 32]),
            container: number.is_multiple_of(2).then(|| Id::from_random([9; 32])),
            generation: u64::from(number),
            code: (number != 3).then_some(number),
            oom_killed: number == 1,
            at_nanos: i64::from(number) << 40,
            log_offset: 0,
        }
    }

    fn numbers(exits: &[Exit]) -> Vec<u64> {
        exits.iter().map(|exit| exit.generation).collect()
    }

    #[test]
    fn exits_read_back_after_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits.log");
        let mut log = ExitLog::open(&path).unwrap();
        let mut exits = [exit(1), exit(2), exit(3)];
        log.append(&mut exits, true).unwrap();
        let read = read_exits(&path, 0).unwrap();
        assert_eq!(format!("{read:?}"), format!("{exits:?}"));
        assert_eq!(numbers(&read_exits(&path, exits[0].log_offset).unwrap()), [2, 3]);

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut log = ExitLog::open(&path).unwrap();
        log.append(&mut [exit(4)], false).unwrap();
        assert_eq!(numbers(&read_exits(&path, 0).unwrap()), [1, 2, 4]);
    }

    #[test]
    fn offsets_survive_compaction_and_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits.log");
        let mut log = ExitLog::open(&path).unwrap();
        let mut exits = [exit(1), exit(2)];
        log.append(&mut exits, true).unwrap();
        log.compact(exits[0].log_offset).unwrap();
        assert_eq!(numbers(&read_exits(&path, 0).unwrap()), [1, 2], "not all seen");

        let seen = log.end();
        log.compact(seen).unwrap();
        assert!(read_exits(&path, 0).unwrap().is_empty());
        assert_eq!(log.end(), seen);
        log.append(&mut [exit(3)], true).unwrap();
        assert_eq!(numbers(&read_exits(&path, seen).unwrap()), [3]);

        std::fs::remove_file(&path).unwrap();
        let mut log = ExitLog::open(&path).unwrap();
        log.compact(10_000).unwrap();
        log.append(&mut [exit(4)], true).unwrap();
        assert_eq!(numbers(&read_exits(&path, 10_000).unwrap()), [4]);
    }
}
