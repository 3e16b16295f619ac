//! The log of what was written to a disk, and that disk as a power cut would have left it.
//!
//! The log is dm-log-writes', as qemu's `blklogwrites` makes it. All numbers are little endian:
//!
//! ```text
//! sector 0   magic, version, number of entries (64 bits each), bytes of a sector (32)
//! then       one sector: place on the disk and length, in sectors; flags; what the kernel's
//!            version keeps here is 0 (64 bits each). The data written, unless it is a discard.
//! ```
//!
//! A flush is an entry without data. Everything before it is on the disk for good; of what came
//! after the last one, any part may be: [`Random`] decides, piece by piece of 4 KiB.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Read, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x6a_736677_736872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const PIECE: u64 = 4096;

/// One operation of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Where on the disk, in bytes.
    pub(super) at: u64,
    length: u64,
    flags: u64,
    /// Where its bytes are in the log.
    data: u64,
}

impl Entry {
    pub(super) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

#[derive(Debug)]
pub(super) struct Log {
    file: File,
    pub(super) entries: Vec<Entry>,
}

impl Log {
    /// Reads the log up to its first empty entry: the number in its head may be behind.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0)?;
        if number(&head, 0) != MAGIC {
            return Err(Error::other("not a log of writes"));
        }
        let sector = number(&head, 3) & u64::from(u32::MAX);
        let (mut entries, mut place) = (Vec::new(), sector);
        let mut head = [0; 32];
        while file.read_exact_at(&mut head, place).is_ok() && head != [0; 32] {
            let flags = number(&head, 2);
            let (at, length) = (number(&head, 0) * sector, number(&head, 1) * sector);
            let data = place + sector;
            entries.push(Entry { at, length, flags, data });
            place = data + if flags & DISCARD == 0 { length } else { 0 };
        }
        Ok(Self { file, entries })
    }

    /// The bytes that an entry wrote.
    pub(super) fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(entry.length).map_err(Error::other)?];
        if entry.flags & DISCARD == 0 {
            self.file.read_exact_at(&mut bytes, entry.data)?;
        }
        Ok(bytes)
    }
}

/// The 64-bit number at `index`; the last may be cut short.
fn number(bytes: &[u8], index: usize) -> u64 {
    let rest = bytes[index * 8..].iter().take(8);
    rest.rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What is on the disk for good: its blocks that are not zero.
#[derive(Debug)]
pub(super) struct Disk {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
    /// As many entries of the log are in it.
    applied: usize,
}

impl Disk {
    /// The disk before the log begins.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut disk = Self { size, blocks: BTreeMap::new(), applied: 0 };
        let mut block = vec![0; PIECE as usize];
        for number in 0..size / PIECE {
            file.read_exact(&mut block)?;
            disk.put(number, &block);
        }
        Ok(disk)
    }

    fn put(&mut self, number: u64, bytes: &[u8]) {
        if bytes.iter().all(|byte| *byte == 0) {
            self.blocks.remove(&number);
        } else {
            self.blocks.insert(number, bytes.into());
        }
    }

    fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, offset) = (at / PIECE, (at % PIECE) as usize);
            let length = bytes.len().min(PIECE as usize - offset);
            let (piece, rest) = bytes.split_at(length);
            if length as u64 == PIECE {
                self.put(number, piece);
            } else {
                let block = self.blocks.entry(number);
                let block = block.or_insert_with(|| vec![0; PIECE as usize].into());
                block[offset..offset + length].copy_from_slice(piece);
            }
            (at, bytes) = (at + length as u64, rest);
        }
    }

    /// Goes on to the last flush among the first `cut` entries.
    pub(super) fn advance(&mut self, log: &Log, cut: usize) -> Result<()> {
        let flushed = log.entries[..cut].iter().rposition(Entry::is_flush).unwrap_or_default();
        while self.applied < flushed {
            let entry = log.entries[self.applied];
            self.write(entry.at, &log.data(&entry)?);
            self.applied += 1;
        }
        Ok(())
    }

    /// Writes the disk as it is after the first `cut` entries when `keep` says of every piece of
    /// those that were not flushed whether it arrived.
    pub(super) fn cut(
        &self,
        log: &Log,
        cut: usize,
        path: &Path,
        mut keep: impl FnMut() -> bool,
    ) -> Result<()> {
        let file = File::create_new(path)?;
        file.set_len(self.size)?;
        for (number, block) in &self.blocks {
            file.write_all_at(block, number * PIECE)?;
        }
        for entry in &log.entries[self.applied..cut] {
            let data = log.data(entry)?;
            for (index, piece) in data.chunks(PIECE as usize).enumerate() {
                if keep() || entry.flags & FUA != 0 {
                    file.write_all_at(piece, entry.at + index as u64 * PIECE)?;
                }
            }
        }
        Ok(())
    }
}

/// Numbers that a seed decides (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A log of writes of whole sectors: place, what is written all over, flags, sectors.
    fn log(directory: &Path, entries: &[(u64, u8, u64, u64)]) -> Log {
        let path = directory.join("log");
        let mut file = File::create(&path).unwrap();
        let mut head = [MAGIC, 1, entries.len() as u64, 512].map(u64::to_le_bytes).concat();
        head.resize(512, 0);
        file.write_all(&head).unwrap();
        for (sector, byte, flags, sectors) in entries {
            let mut head = [*sector, *sectors, *flags, 0].map(u64::to_le_bytes).concat();
            head.resize(512, 0);
            file.write_all(&head).unwrap();
            let data = if *flags & DISCARD == 0 { *sectors } else { 0 };
            file.write_all(&vec![*byte; data as usize * 512]).unwrap();
        }
        // What qemu has made room for and not used.
        file.set_len(1 << 20).unwrap();
        Log::open(&path).unwrap()
    }

    /// The first byte of each sector of 16 KiB after a cut, when every piece arrives or none.
    fn cut(entries: &[(u64, u8, u64, u64)], cut: usize, keep: bool) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let (base, image) = (directory.path().join("base"), directory.path().join("image"));
        std::fs::write(&base, [9; 16384]).unwrap();
        let log = log(directory.path(), entries);
        let mut disk = Disk::read(&base).unwrap();
        disk.advance(&log, cut).unwrap();
        disk.cut(&log, cut, &image, || keep).unwrap();
        std::fs::read(image).unwrap().into_iter().step_by(512).collect()
    }

    const ENTRIES: [(u64, u8, u64, u64); 6] = [
        (0, 1, 0, 9),
        (31, 2, 0, 1),
        (0, 0, FLUSH, 0),
        (8, 3, 0, 2),
        (16, 4, FUA, 1),
        (0, 0, DISCARD, 8),
    ];

    fn sectors(runs: &[(u8, usize)]) -> Vec<u8> {
        runs.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_what_came_later_may_be() {
        assert_eq!(cut(&ENTRIES, 2, false), [9; 32]);
        assert_eq!(cut(&ENTRIES, 2, true), sectors(&[(1, 9), (9, 22), (2, 1)]));
        let flushed = sectors(&[(1, 9), (9, 22), (2, 1)]);
        assert_eq!(cut(&ENTRIES, 3, false), flushed);
        assert_eq!(cut(&ENTRIES, 4, false), flushed);
        assert_eq!(cut(&ENTRIES, 4, true), sectors(&[(1, 8), (3, 2), (9, 21), (2, 1)]));
        // Forced to the disk when it was written; the discard is a write of zeros.
        let forced = sectors(&[(1, 9), (9, 7), (4, 1), (9, 14), (2, 1)]);
        assert_eq!(cut(&ENTRIES, 6, false), forced);
        assert_eq!(
            cut(&ENTRIES, 6, true),
            sectors(&[(0, 8), (3, 2), (9, 6), (4, 1), (9, 14), (2, 1)])
        );
    }

    #[test]
    fn a_seed_decides() {
        let numbers = |seed| {
            let mut random = Random(seed);
            [random.below(1000), random.below(1000), random.below(1000)]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }
}
