//! Docker's `local` log format: records of
//!
//! ```text
//! u32 BE length | protobuf LogEntry | u32 BE length again
//! LogEntry { 1 source: string, 2 time_nano: int64, 3 line: bytes, 4 partial: bool,
//!            5 partial_log_metadata { 1 last: bool, 2 id: string, 3 ordinal: int32 } }
//! ```
//!
//! The second length lets a reader walk backwards from the end.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::lines::{Part, Record};
use super::{Entry, Stream};

/// Longer records than this are damage.
const RECORD_MAX: usize = 1 << 20;

/// Appends one record to `out`.
pub fn encode(stream: Stream, record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0x0a, 6]);
    out.extend_from_slice(stream.name().as_bytes());
    out.push(0x10);
    put_varint(record.nanos as u64, out);
    // proto3 leaves out what is empty.
    if !record.line.is_empty() {
        out.push(0x1a);
        put_varint(record.line.len() as u64, out);
        out.extend_from_slice(record.line);
    }
    if let Some(part) = record.part {
        out.extend_from_slice(&[0x20, 1]);
        encode_part(part, out);
    }
    let length = ((out.len() - start - 4) as u32).to_be_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn encode_part(part: Part<'_>, out: &mut Vec<u8>) {
    let mut fields = Vec::with_capacity(80);
    if part.last {
        fields.extend_from_slice(&[0x08, 1]);
    }
    fields.extend_from_slice(&[0x12, 64]);
    fields.extend_from_slice(::spec::Digest::from_bytes(*part.id).hex().as_bytes());
    fields.push(0x18);
    put_varint(u64::from(part.ordinal), &mut fields);
    out.push(0x2a);
    put_varint(fields.len() as u64, out);
    out.extend_from_slice(&fields);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the bytes at some place of a file are.
#[derive(Debug, PartialEq, Eq)]
pub enum LocalFrame<'a> {
    /// A record and its length with both length fields.
    Entry(Entry<'a>, usize),
    /// Not all there yet.
    Incomplete,
    Damaged,
}

/// Reads the record that `bytes` begins with.
pub fn decode_local(bytes: &[u8]) -> LocalFrame<'_> {
    let Some(body) = frame_body(bytes) else { return LocalFrame::Incomplete };
    match body.and_then(decode_entry) {
        Some(entry) => LocalFrame::Entry(entry, body.map_or(0, <[u8]>::len) + 8),
        None => LocalFrame::Damaged,
    }
}

/// `None` when more bytes are needed, `Some(None)` when this is no frame.
fn frame_body(bytes: &[u8]) -> Option<Option<&[u8]>> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*head) as usize;
    if length > RECORD_MAX {
        return Some(None);
    }
    let tail = rest.get(length..length + 4)?;
    Some((tail == head).then(|| &rest[..length]))
}

fn decode_entry(mut body: &[u8]) -> Option<Entry<'_>> {
    let mut entry = Entry {
        time_nanos: 0,
        stream: Stream::Stdout,
        line: Cow::Borrowed(b""),
        partial: false,
        attrs: Cow::Borrowed(b""),
    };
    let mut last = false;
    while !body.is_empty() {
        match take_field(&mut body)? {
            (1, Field::Bytes(b"stderr")) => entry.stream = Stream::Stderr,
            (2, Field::Varint(nanos)) => entry.time_nanos = nanos as i64,
            (3, Field::Bytes(line)) => entry.line = Cow::Borrowed(line),
            (4, Field::Varint(partial)) => entry.partial = partial != 0,
            (5, Field::Bytes(part)) => last = is_last(part)?,
            _ => {}
        }
    }
    entry.partial &= !last;
    Some(entry)
}

fn is_last(mut part: &[u8]) -> Option<bool> {
    let mut last = false;
    while !part.is_empty() {
        if let (1, Field::Varint(value)) = take_field(&mut part)? {
            last = value != 0;
        }
    }
    Some(last)
}

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn take_field<'a>(body: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = take_varint(body)?;
    let field = match key & 7 {
        0 => Field::Varint(take_varint(body)?),
        2 => {
            let length = usize::try_from(take_varint(body)?).ok()?;
            let (bytes, rest) = body.split_at_checked(length)?;
            *body = rest;
            Field::Bytes(bytes)
        }
        _ => return None,
    };
    Some((key >> 3, field))
}

fn take_varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = body.split_first()?;
        *body = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The length of `file` without a record that a crash cut short. Normally one look at the end;
/// only a damaged file is walked from its start.
pub(super) fn whole_length(file: &File, size: u64) -> io::Result<u64> {
    if size == 0 || ends_whole(file, size)? {
        return Ok(size);
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let mut at = 0;
    while let Some(Some(body)) = frame_body(&bytes[at..]) {
        at += body.len() + 8;
    }
    Ok(at as u64)
}

fn ends_whole(file: &File, size: u64) -> io::Result<bool> {
    let mut tail = [0; 4];
    let mut head = [0; 4];
    let Some(tail_at) = size.checked_sub(4) else { return Ok(false) };
    file.read_exact_at(&mut tail, tail_at)?;
    let Some(head_at) = tail_at.checked_sub(u64::from(u32::from_be_bytes(tail)) + 4) else {
        return Ok(false);
    };
    file.read_exact_at(&mut head, head_at)?;
    Ok(head == tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_look_like_dockerds() {
        let mut out = Vec::new();
        let record = Record { nanos: 0x7a_8e_d2_1c_8c_45_2d_6d, line: b"hi", part: None };
        encode(Stream::Stdout, &record, &mut out);
        assert_eq!(out[..4], [0, 0, 0, 0x16]);
        assert_eq!(out[4..14], *b"\x0a\x06stdout\x10\xed");
        assert_eq!(out[22..], *b"\x1a\x02hi\0\0\0\x16");
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(decode_local(b"\0\0\0"), LocalFrame::Incomplete);
        assert_eq!(decode_local(b"\xff\xff\xff\xff"), LocalFrame::Damaged);
        assert_eq!(decode_local(b"\0\0\0\x01a\0\0\0\x02"), LocalFrame::Damaged);
        assert_eq!(decode_local(b"\0\0\0\x02\x1a\x7f\0\0\0\x02"), LocalFrame::Damaged);
    }
}
