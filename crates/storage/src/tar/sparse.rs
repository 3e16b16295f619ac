//! Maps of sparse files: which parts of the file are in the archive.

use super::header::number;
use super::pax::decimal;

/// A stretch of data in a file with holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    pub offset: u64,
    pub length: u64,
}

type Refusal = &'static str;

/// Refuses maps that are out of order, overlap, leave the file or do not match the data.
pub(super) fn check(size: u64, stored: u64, fragments: &[Fragment]) -> Result<(), Refusal> {
    let mut end = 0u64;
    let mut total = 0u64;
    for fragment in fragments {
        if fragment.offset < end {
            return Err("sparse map out of order");
        }
        end = fragment.offset.checked_add(fragment.length).ok_or("sparse map out of range")?;
        total += fragment.length;
    }
    if end > size {
        return Err("sparse map beyond the end of the file");
    }
    if total != stored {
        return Err("sparse map does not match the data");
    }
    Ok(())
}

/// Reads old GNU fragments: pairs of 12-byte numbers, ended by an empty one.
pub(super) fn push_gnu(fields: &[u8], fragments: &mut Vec<Fragment>) -> Result<(), Refusal> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let read = |field| u64::try_from(number(field)?).map_err(|_negative| "negative sparse map");
        fragments.push(Fragment { offset: read(&pair[..12])?, length: read(&pair[12..])? });
    }
    Ok(())
}

/// The pax 1.0 map, read block by block: a count, then offsets and lengths, one a line.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    pub(super) fragments: Vec<Fragment>,
    line: Vec<u8>,
    wanted: Option<u64>,
    offset: Option<u64>,
}

impl TextMap {
    /// Takes a block; true when the map is complete (the rest of the block is padding).
    pub(super) fn push(&mut self, block: &[u8]) -> Result<bool, Refusal> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err("bad sparse map");
                }
                continue;
            }
            let value = decimal(&self.line).ok_or("bad sparse map")?;
            self.line.clear();
            match (self.wanted, self.offset.take()) {
                (None, _) => self.wanted = Some(value),
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => self.fragments.push(Fragment { offset, length: value }),
            }
            if self.offset.is_none() && self.wanted == Some(self.fragments.len() as u64) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
