//! Pax extended headers: `<length> <key>=<value>\n`, again and again.

use super::sparse::Fragment;
use super::{Entry, META_LIMIT};

/// Attributes that Linux tars carry under this prefix.
const XATTR: &[u8] = b"SCHILY.xattr.";

type Refusal = &'static str;

/// The records in order. Later ones win, except those that make up a sparse map.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut text: &[u8]) -> Result<Self, Refusal> {
        let mut records = Vec::new();
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ').ok_or("bad pax record")?;
            let length = decimal(&text[..space]).ok_or("bad pax record")?;
            let length = usize::try_from(length).map_err(|_range| "bad pax record")?;
            if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
                return Err("bad pax record");
            }
            let record = &text[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("bad pax record")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let names = [&b"path"[..], b"linkpath", b"uname", b"gname", b"GNU.sparse.name"];
            if key.is_empty() || key.contains(&0) || names.contains(&key) && value.contains(&0) {
                return Err("zero byte in a pax record");
            }
            records.push((key.to_vec(), value.to_vec()));
            text = &text[length..];
        }
        Ok(Self(records))
    }

    /// The last value of `key`; an empty one takes the record back.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let last = self.0.iter().rev().find(|(name, _)| name == key);
        last.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// Overrides what the header said. Returns the size of the data, when it is overridden.
    pub(super) fn merge_into(&self, entry: &mut Entry) -> Result<Option<u64>, Refusal> {
        if let Some(path) = self.get(b"GNU.sparse.name").or_else(|| self.get(b"path")) {
            entry.path = path.to_vec();
        }
        if let Some(link) = self.get(b"linkpath") {
            entry.link = link.to_vec();
        }
        let owner = |text| -> Result<u32, Refusal> {
            let id = decimal(text).and_then(|id| u32::try_from(id).ok());
            id.ok_or("owner out of range")
        };
        if let Some(uid) = self.get(b"uid") {
            entry.uid = owner(uid)?;
        }
        if let Some(gid) = self.get(b"gid") {
            entry.gid = owner(gid)?;
        }
        if let Some(mtime) = self.get(b"mtime") {
            entry.mtime = time(mtime).ok_or("bad time")?;
        }
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(XATTR) {
                entry.xattrs.retain(|(seen, _)| seen != name);
                entry.xattrs.push((name.to_vec(), value.clone()));
            }
        }
        let size = self.get(b"size").map(|text| decimal(text).ok_or("bad size"));
        size.transpose()
    }

    /// Whether the map is at the start of the data (version 1.0).
    pub(super) fn sparse_in_data(&self) -> bool {
        self.get(b"GNU.sparse.major") == Some(b"1") && self.get(b"GNU.sparse.minor") == Some(b"0")
    }

    pub(super) fn sparse_size(&self) -> u64 {
        self.get(b"GNU.sparse.realsize")
            .or_else(|| self.get(b"GNU.sparse.size"))
            .and_then(decimal)
            .unwrap_or(0)
    }

    /// Versions 0.1 (`GNU.sparse.map`) and 0.0 (an offset and a length record per fragment).
    pub(super) fn sparse_map(&self) -> Result<Option<(u64, Vec<Fragment>)>, Refusal> {
        let mut numbers = Vec::new();
        if let Some(map) = self.get(b"GNU.sparse.map") {
            for text in map.split(|byte| *byte == b',') {
                numbers.push(decimal(text).ok_or("bad sparse map")?);
            }
        } else if self.get(b"GNU.sparse.numblocks").is_some() {
            for (key, value) in &self.0 {
                let offset = numbers.len() % 2 == 0;
                match key.as_slice() {
                    b"GNU.sparse.offset" if offset => {}
                    b"GNU.sparse.numbytes" if !offset => {}
                    b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return Err("bad sparse map"),
                    _ => continue,
                }
                numbers.push(decimal(value).ok_or("bad sparse map")?);
            }
        } else {
            return Ok(None);
        }
        if numbers.len() % 2 != 0 {
            return Err("bad sparse map");
        }
        let fragment = |pair: &[u64]| Fragment { offset: pair[0], length: pair[1] };
        Ok(Some((self.sparse_size(), numbers.chunks_exact(2).map(fragment).collect())))
    }
}

/// A plain decimal number within what a file offset can be.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() as u64 > META_LIMIT || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(value).ok().map(|_fits| value)
}

/// `[-]seconds[.fraction]`; what is finer than a nanosecond is cut off.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = seconds.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if seconds.starts_with('-') && nanos > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_nanoseconds() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.12345678999"), Some((1, 123_456_789)));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in ["5 a=b\n", "99 a=b\n", "6 a=b ", "x a=b\n", "6 aab\n", "-6 a=b\n", "3 \n"] {
            assert!(Records::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Records::parse(b"6 a=b\n8 path=x\n").is_err());
        assert!(Records::parse(b"6 a=b\n10 path=x\n").is_ok());
        assert!(Records::parse(b"12 path=x\0y\n").is_err());
    }
}
