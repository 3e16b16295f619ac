//! Docker's json-file format, one record a line:
//!
//! ```text
//! {"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-11-22T01:06:50.1734Z"}
//! ```
//!
//! Text is escaped as Go's `encoding/json` does for HTML, control characters always as `\u00xx`,
//! each byte that is not UTF-8 as `\ufffd`. Time is RFC 3339 with trailing zeros cut.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

use super::lines::Record;
use super::{Entry, Stream};

/// The date and time of day of one second, formatted once for all records of that second.
#[derive(Debug, Default)]
pub struct TimeText {
    second: i64,
    text: Vec<u8>,
}

/// Appends one record to `out`.
pub fn encode(
    stream: Stream,
    record: &Record<'_>,
    attrs: &[u8],
    time: &mut TimeText,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(record.line, out);
    if record.ends_line() {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(match stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\"",
        Stream::Stderr => b"\",\"stream\":\"stderr\"",
    });
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs);
    }
    out.extend_from_slice(b",\"time\":\"");
    time.append(record.nanos, out);
    out.extend_from_slice(b"\"}\n");
}

/// The `attrs` object, encoded once per container; empty when there are none.
pub fn encode_attrs(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in attrs {
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
        escape(name.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        escape(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

/// Bytes that are copied as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

fn escape(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let plain = text.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(text.len());
        out.extend_from_slice(&text[..plain]);
        text = &text[plain..];
        let Some(byte) = text.first() else { return };
        if *byte < 0x80 {
            escape_ascii(*byte, out);
            text = &text[1..];
        } else {
            text = &text[escape_unicode(text, out)..];
        }
    }
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let high = HEX[usize::from(byte >> 4)];
            let low = HEX[usize::from(byte & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

/// Escapes one character of more than one byte; returns how many bytes it took.
fn escape_unicode(text: &[u8], out: &mut Vec<u8>) -> usize {
    let length = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    match text.get(..length).map(std::str::from_utf8) {
        Some(Ok("\u{2028}")) => out.extend_from_slice(b"\\u2028"),
        Some(Ok("\u{2029}")) => out.extend_from_slice(b"\\u2029"),
        Some(Ok(character)) => out.extend_from_slice(character.as_bytes()),
        _ => {
            out.extend_from_slice(b"\\ufffd");
            return 1;
        }
    }
    length
}

impl TimeText {
    fn append(&mut self, nanos: i64, out: &mut Vec<u8>) {
        let second = nanos.div_euclid(1_000_000_000);
        let mut fraction = nanos.rem_euclid(1_000_000_000);
        if self.second != second || self.text.is_empty() {
            self.text = format_second(second).into_bytes();
            self.second = second;
        }
        out.extend_from_slice(&self.text);
        if fraction != 0 {
            let mut digits = *b".000000000";
            for digit in digits[1..].iter_mut().rev() {
                *digit = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
            let end = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
            out.extend_from_slice(&digits[..=end]);
        }
        out.push(b'Z');
    }
}

/// `2026-11-22T01:06:50` of seconds since the epoch.
fn format_second(second: i64) -> String {
    let (days, second) = (second.div_euclid(86400), second.rem_euclid(86400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Gregorian date of a count of days since 1970-01-01, in eras of 400 years from March 1.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Reads one line of a json-file log; `None` when it is damaged or cut short. Lines as dockerd
/// and we write them take the fast path; any other JSON with the same members is accepted too.
pub fn decode_json_line(line: &[u8]) -> Option<Entry<'_>> {
    decode_fast(line).or_else(|| decode_any(line))
}

fn decode_fast(line: &[u8]) -> Option<Entry<'_>> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let end = string_end(rest)?;
    let (text, rest) = (&rest[..end], &rest[end..]);
    let rest = rest.strip_prefix(b"\",\"stream\":\"std")?;
    let (stream, rest) = match rest.get(..4)? {
        b"out\"" => (Stream::Stdout, &rest[4..]),
        b"err\"" => (Stream::Stderr, &rest[4..]),
        _ => return None,
    };
    let (attrs, rest) = match rest.strip_prefix(b",\"attrs\":") {
        Some(rest) => rest.split_at(object_end(rest)?),
        None => (&rest[..0], rest),
    };
    let rest = rest.strip_prefix(b",\"time\":\"")?;
    let end = string_end(rest)?;
    let time_nanos = parse_time(&rest[..end])?;
    if !matches!(&rest[end..], b"\"}\n" | b"\"}") {
        return None;
    }
    let (text, partial) = match text.strip_suffix(b"\\n") {
        Some(line) if !ends_in_odd_backslashes(line) => (line, false),
        _ => (text, true),
    };
    Some(Entry { time_nanos, stream, line: unescape(text)?, partial, attrs: attrs.into() })
}

fn ends_in_odd_backslashes(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Where the quote is that ends the string `text` begins with.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        match text[at] {
            b'"' => return Some(at),
            _ => from = (at + 2).min(text.len()),
        }
    }
}

/// The length of the object of strings that `text` begins with.
fn object_end(text: &[u8]) -> Option<usize> {
    let mut at = text.starts_with(b"{").then_some(1)?;
    loop {
        match text.get(at)? {
            b'}' => return Some(at + 1),
            b'"' => at += 2 + string_end(&text[at + 1..])?,
            b'{' => return None,
            _ => at += 1,
        }
    }
}

fn unescape(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(first) = text.iter().position(|byte| *byte == b'\\') else {
        return Some(Cow::Borrowed(text));
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let [b'\\', code, tail @ ..] = rest {
        rest = tail;
        match code {
            b'"' | b'\\' | b'/' => out.push(*code),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            // A surrogate pair is none of ours; serde takes it.
            b'u' => {
                let hex = std::str::from_utf8(rest.get(..4)?).ok()?;
                let character = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[4..];
            }
            _ => return None,
        }
        let plain = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
    }
    rest.is_empty().then_some(Cow::Owned(out))
}

/// Nanoseconds since the epoch of `2026-11-22T01:06:50.1734Z`; UTC only.
fn parse_time(text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z")?;
    let number = |range: std::ops::Range<usize>| {
        text.get(range)?.iter().try_fold(0i64, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
        })
    };
    let separators = [text.get(4)?, text.get(7)?, text.get(10)?, text.get(13)?, text.get(16)?];
    if separators != [&b'-', &b'-', &b'T', &b':', &b':'] {
        return None;
    }
    let days = days_from_civil(number(0..4)?, number(5..7)?, number(8..10)?);
    let second = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let fraction = match text.len() {
        19 => 0,
        length @ 21..=29 if text[19] == b'.' => number(20..length)? * 10i64.pow(29 - length as u32),
        _ => return None,
    };
    (days * 86400 + second).checked_mul(1_000_000_000)?.checked_add(fraction)
}

fn decode_any(line: &[u8]) -> Option<Entry<'_>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(default)]
        log: String,
        stream: Cow<'a, str>,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
        time: Cow<'a, str>,
    }
    let parsed: Line<'_> = serde_json::from_slice(line).ok()?;
    let time = ::spec::time::parse_rfc3339(&parsed.time).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let mut text = parsed.log.into_bytes();
    let partial = text.last() != Some(&b'\n');
    if !partial {
        text.pop();
    }
    Some(Entry {
        time_nanos: i64::try_from(since.as_nanos()).ok()?,
        stream: if parsed.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        line: Cow::Owned(text),
        partial,
        attrs: Cow::Owned(encode_attrs(&parsed.attrs)),
    })
}

/// The length of `file` without a record that a crash cut short.
pub(super) fn whole_length(file: &File, size: u64) -> io::Result<u64> {
    const STEP: u64 = 32 << 10;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut tail = vec![0; (end - start) as usize];
        file.read_exact_at(&mut tail, start)?;
        if let Some(newline) = tail.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_encode(line: &[u8], nanos: i64, expect: &str) {
        let mut out = Vec::new();
        let record = Record { nanos, line, part: None };
        encode(Stream::Stdout, &record, b"", &mut TimeText::default(), &mut out);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("{expect}\n"));
        let entry = decode_json_line(&out).unwrap();
        assert_eq!((entry.time_nanos, entry.partial), (nanos, false));
        if std::str::from_utf8(line).is_ok() {
            assert_eq!(entry.line, line);
        }
    }

    #[test]
    fn records_look_like_dockerds() {
        let nanos = 1_795_309_610_173_444_083;
        check_encode(
            b"a\tb\x01<>&\"\\ \x7f\xc3",
            nanos,
            "{\"log\":\"a\\u0009b\\u0001\\u003c\\u003e\\u0026\\\"\\\\ \x7f\\ufffd\\n\",\
             \"stream\":\"stdout\",\"time\":\"2026-11-22T01:06:50.173444083Z\"}",
        );
        check_encode(
            b"\xe2\x82a\xff \xe2\x80\xa8 ok \xf0\x9f\x98\x80\r",
            nanos + 17,
            "{\"log\":\"\\ufffd\\ufffda\\ufffd \\u2028 ok \u{1f600}\\r\\n\",\
             \"stream\":\"stdout\",\"time\":\"2026-11-22T01:06:50.1734441Z\"}",
        );
        check_encode(
            b"",
            951_782_400_000_000_000,
            "{\"log\":\"\\n\",\"stream\":\"stdout\",\"time\":\"2000-02-29T00:00:00Z\"}",
        );
    }

    #[test]
    fn backslashes_before_the_end_are_not_newlines() {
        for line in [b"\\".as_slice(), b"\\n", b"x\\\\n", b"\\\\"] {
            let mut out = Vec::new();
            let part = super::super::lines::Part { id: &[0; 32], ordinal: 1, last: false };
            let record = Record { nanos: 1, line, part: Some(part) };
            encode(Stream::Stderr, &record, b"", &mut TimeText::default(), &mut out);
            let entry = decode_fast(&out).unwrap();
            assert_eq!((entry.line.as_ref(), entry.partial), (line, true));
        }
    }

    #[test]
    fn attrs_and_foreign_json() {
        let attrs = BTreeMap::from([("k".to_owned(), "v\"}".to_owned()), ("a".into(), "".into())]);
        let mut out = Vec::new();
        let record = Record { nanos: 7, line: b"x", part: None };
        let raw = encode_attrs(&attrs);
        encode(Stream::Stdout, &record, &raw, &mut TimeText::default(), &mut out);
        let entry = decode_fast(&out).unwrap();
        assert_eq!(entry.details(), attrs);
        let foreign =
            br#"{ "time":"2026-11-22T01:06:50+00:00", "stream":"stderr", "log":"\ud83d\ude00\n"}"#;
        let entry = decode_json_line(foreign).unwrap();
        assert_eq!(entry.line, "\u{1f600}".as_bytes());
        assert_eq!(entry.stream, Stream::Stderr);
    }

    #[test]
    fn damaged_lines_are_refused() {
        let whole = b"{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T01:06:50Z\"}\n";
        assert!(decode_json_line(whole).is_some());
        for end in 0..whole.len() - 2 {
            assert!(decode_json_line(&whole[..end]).is_none(), "{end}");
        }
    }
}
