//! The zip files that `docker context import` takes beside tar: a reader of the central directory,
//! for archives that are in memory whole. No zip64, no encryption.
//!
//! ```text
//! [local header, name, extra, data]...  [central header, name, extra, comment]...  end record
//! ```

use std::io::Read;

const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// What docker says of every malformed zip file.
const INVALID: &str = "zip: not a valid zip file";

/// Returns name and content of every file; no more than `limit` bytes in all.
pub(super) fn files(bytes: &[u8], limit: u64) -> Result<Vec<(String, Vec<u8>)>, String> {
    let end = bytes
        .windows(END.len())
        .rposition(|window| window == END)
        .filter(|at| at + END_LENGTH <= bytes.len())
        .ok_or(INVALID)?;
    let count = number16(bytes, end + 10)?;
    let mut at = number32(bytes, end + 16)?;
    let mut left = limit;
    let mut files = Vec::new();
    for _ in 0..count {
        let entry = Entry::read(bytes, at)?;
        at = entry.next;
        if !entry.name.ends_with('/') {
            let content = entry.content(bytes, left)?;
            left -= content.len() as u64;
            files.push((entry.name, content));
        }
    }
    Ok(files)
}

/// One file as the central directory describes it.
struct Entry {
    name: String,
    encrypted: bool,
    method: u16,
    packed: usize,
    local: usize,
    /// Where the next description begins.
    next: usize,
}

impl Entry {
    fn read(bytes: &[u8], at: usize) -> Result<Self, String> {
        if !piece(bytes, at, CENTRAL.len())?.eq(CENTRAL) {
            return Err(INVALID.to_owned());
        }
        let (name, extra, comment) = (
            usize::from(number16(bytes, at + 28)?),
            usize::from(number16(bytes, at + 30)?),
            usize::from(number16(bytes, at + 32)?),
        );
        Ok(Self {
            name: String::from_utf8_lossy(piece(bytes, at + 46, name)?).into_owned(),
            encrypted: number16(bytes, at + 8)? & 1 != 0,
            method: number16(bytes, at + 10)?,
            packed: number32(bytes, at + 20)?,
            local: number32(bytes, at + 42)?,
            next: at + 46 + name + extra + comment,
        })
    }

    fn content(&self, bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        if !piece(bytes, self.local, LOCAL.len())?.eq(LOCAL) {
            return Err(INVALID.to_owned());
        }
        let name = usize::from(number16(bytes, self.local + 26)?);
        let extra = usize::from(number16(bytes, self.local + 28)?);
        let packed = piece(bytes, self.local + 30 + name + extra, self.packed)?;
        let reader: Box<dyn Read> = match self.method {
            _ if self.encrypted => return Err("zip: encrypted files are not supported".to_owned()),
            STORED => Box::new(packed),
            DEFLATED => Box::new(flate2::read::DeflateDecoder::new(packed)),
            _ => return Err("zip: unsupported compression algorithm".to_owned()),
        };
        let mut content = Vec::new();
        reader.take(limit + 1).read_to_end(&mut content).map_err(|_broken| INVALID)?;
        if content.len() as u64 > limit {
            return Err("read exceeds the defined limit".to_owned());
        }
        Ok(content)
    }
}

fn piece(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], String> {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(|| INVALID.to_owned())
}

fn number16(bytes: &[u8], at: usize) -> Result<u16, String> {
    let bytes = piece(bytes, at, 2)?;
    Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn number32(bytes: &[u8], at: usize) -> Result<usize, String> {
    let bytes = piece(bytes, at, 4)?;
    usize::try_from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .map_err(|_too_large| INVALID.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `python3 -c "import zipfile; ..."`: `meta.json` deflated, `tls/` and `tls/docker/ca.pem`
    /// stored.
    const SAMPLE: &[u8] = include_bytes!("sample.zip");

    #[test]
    fn files_come_out() {
        let found = files(SAMPLE, 1 << 20).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["meta.json", "tls/docker/ca.pem"]);
        assert!(found[0].1.starts_with(br#"{"Name":"zipped""#));
        assert_eq!(found[1].1, b"CA");
    }

    #[test]
    fn sizes_have_an_end() {
        assert_eq!(files(SAMPLE, 10).unwrap_err(), "read exceeds the defined limit");
    }

    #[test]
    fn damaged_files_are_refused() {
        assert_eq!(files(b"PK\x03\x04", 10).unwrap_err(), INVALID);
        for end in 0..SAMPLE.len() {
            assert!(files(&SAMPLE[..end], 1 << 20).is_err(), "{end}");
        }
        // Any byte may be wrong: an error or another content, never a panic.
        for at in 0..SAMPLE.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = SAMPLE.to_vec();
                bytes[at] = value;
                drop(files(&bytes, 1 << 20));
            }
        }
    }
}
