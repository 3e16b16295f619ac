//! Writing tar members: ustar headers, pax where a name or number does not fit.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind};

/// Writes members one after the other. The caller writes the data itself and then calls
/// [`Writer::pad`].
#[derive(Debug)]
pub struct Writer<W> {
    pub output: W,
}

impl<W: Write> Writer<W> {
    pub const fn new(output: W) -> Self {
        Self { output }
    }

    /// A regular file of mode 0644 with everything it holds.
    pub fn file(&mut self, path: &str, mtime: i64, data: &[u8]) -> io::Result<()> {
        self.header(&plain(path, Kind::File, 0o644, mtime, data.len() as u64))?;
        self.output.write_all(data)?;
        self.pad(data.len() as u64)
    }

    pub fn directory(&mut self, path: &str, mtime: i64) -> io::Result<()> {
        self.header(&plain(path, Kind::Directory, 0o755, mtime, 0))
    }

    /// The headers of `entry`; for a file its `size` bytes of data must follow.
    pub fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut records = Vec::new();
        let mut block = [0; BLOCK];
        if !put_path(&mut block, &entry.path) {
            push_record(&mut records, b"path", &entry.path);
        }
        if !put_text(&mut block[157..257], &entry.link) {
            push_record(&mut records, b"linkpath", &entry.link);
        }
        let numbers = [
            (&b"uid"[..], 108..116, u64::from(entry.uid)),
            (b"gid", 116..124, u64::from(entry.gid)),
            (b"size", 124..136, entry.size),
        ];
        for (key, field, value) in numbers {
            if !put_octal(&mut block[field], value) {
                push_record(&mut records, key, value.to_string().as_bytes());
            }
        }
        let (seconds, nanos) = entry.mtime;
        let whole = u64::try_from(seconds).ok().filter(|_seconds| nanos == 0);
        if !whole.is_some_and(|seconds| put_octal(&mut block[136..148], seconds)) {
            put_octal(&mut block[136..148], u64::try_from(seconds).unwrap_or(0));
            push_record(&mut records, b"mtime", pax_time(seconds, nanos).as_bytes());
        }
        for (name, value) in &entry.xattrs {
            push_record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        put_octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
        put_octal(&mut block[329..337], u64::from(entry.device.0));
        put_octal(&mut block[337..345], u64::from(entry.device.1));
        block[156] = type_flag(entry.kind);
        if !records.is_empty() {
            self.pax(&records)?;
        }
        self.output.write_all(&seal(block))
    }

    /// Fills the last block of a member of `length` bytes.
    pub fn pad(&mut self, length: u64) -> io::Result<()> {
        let padding = (length.wrapping_neg() % BLOCK as u64) as usize;
        self.output.write_all(&[0; BLOCK][..padding])
    }

    /// The end mark.
    pub fn finish(&mut self) -> io::Result<()> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()
    }

    fn pax(&mut self, records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        put_text(&mut block[..100], b"PaxHeaders/0");
        put_octal(&mut block[100..108], 0o644);
        put_octal(&mut block[108..116], 0);
        put_octal(&mut block[116..124], 0);
        put_octal(&mut block[124..136], records.len() as u64);
        put_octal(&mut block[136..148], 0);
        block[156] = b'x';
        self.output.write_all(&seal(block))?;
        self.output.write_all(records)?;
        self.pad(records.len() as u64)
    }
}

/// A member of root's with nothing unusual about it.
pub fn plain(path: &str, kind: Kind, mode: u32, mtime: i64, size: u64) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        link: Vec::new(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: (mtime, 0),
        device: (0, 0),
        size,
        xattrs: Vec::new(),
        sparse: None,
    }
}

const fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn seal(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

fn put_text(field: &mut [u8], text: &[u8]) -> bool {
    if text.len() > field.len() {
        return false;
    }
    field[..text.len()].copy_from_slice(text);
    true
}

/// Puts the name whole, or split at a slash into prefix and name.
fn put_path(block: &mut [u8; BLOCK], path: &[u8]) -> bool {
    if put_text(&mut block[..100], path) {
        return true;
    }
    let slash = (1..path.len().saturating_sub(1))
        .rev()
        .find(|at| path[*at] == b'/' && *at <= 155 && path.len() - at - 1 <= 100);
    let Some(slash) = slash else {
        put_text(&mut block[..100], &path[..100]);
        return false;
    };
    put_text(&mut block[..100], &path[slash + 1..])
        && put_text(&mut block[345..500], &path[..slash])
}

/// Octal digits and a zero byte, when they fit.
fn put_octal(field: &mut [u8], value: u64) -> bool {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    if digits.len() > width {
        field[..width].fill(b'0');
        return false;
    }
    field[..width].copy_from_slice(digits.as_bytes());
    true
}

fn pax_time(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let text = if seconds < 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)
    } else {
        format!("{seconds}.{nanos:09}")
    };
    text.trim_end_matches('0').to_owned()
}

/// Appends a record; its length counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
