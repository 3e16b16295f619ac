//! From a record to what the client reads: filtered, stamped, framed.

use std::time::{Duration, UNIX_EPOCH};

use api_types::stream::{HEADER_LEN, StreamKind, header};
use runtime::log::{Entry, Stream};

#[derive(Debug, Clone)]
pub(super) struct Formatter {
    /// Raw bytes instead of frames.
    pub tty: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub timestamps: bool,
    pub details: bool,
    /// Nanoseconds since the epoch, both included.
    pub since: i64,
    pub until: i64,
    pub stamp: Stamp,
}

/// Whether there is any use in reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    More,
    /// Records only get newer; this one was past the end.
    Past,
}

impl Formatter {
    pub(super) fn add(&mut self, entry: &Entry<'_>, output: &mut Vec<u8>) -> Verdict {
        if entry.time_nanos > self.until {
            return Verdict::Past;
        }
        let (wanted, kind) = match entry.stream {
            Stream::Stdout => (self.stdout, StreamKind::Stdout),
            Stream::Stderr => (self.stderr, StreamKind::Stderr),
        };
        if !wanted || entry.time_nanos < self.since {
            return Verdict::More;
        }
        let frame = output.len();
        if !self.tty {
            output.extend_from_slice(&[0; HEADER_LEN]);
        }
        let start = output.len();
        if self.timestamps {
            self.stamp.append(entry.time_nanos, output);
            output.push(b' ');
        }
        if self.details {
            append_details(entry, output);
            output.push(b' ');
        }
        output.extend_from_slice(&entry.line);
        if !entry.partial {
            output.push(b'\n');
        }
        if !self.tty {
            let length = u32::try_from(output.len() - start).unwrap_or(u32::MAX);
            output[frame..start].copy_from_slice(&header(kind, length));
        }
        Verdict::More
    }
}

/// `k=v,k2=v2`, escaped as in a URL's query.
fn append_details(entry: &Entry<'_>, output: &mut Vec<u8>) {
    for (at, (key, value)) in entry.details().iter().enumerate() {
        if at > 0 {
            output.push(b',');
        }
        append_escaped(key, output);
        output.push(b'=');
        append_escaped(value, output);
    }
}

fn append_escaped(text: &str, output: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                output.push(byte);
            }
            b' ' => output.push(b'+'),
            _ => output.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

/// Time stamps with nine digits. The part up to the second is kept for the next record.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamp {
    second: i64,
    /// `2026-11-22T01:06:50.`
    text: Vec<u8>,
}

impl Stamp {
    fn append(&mut self, nanos: i64, output: &mut Vec<u8>) {
        let (second, mut fraction) =
            (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        if second != self.second || self.text.is_empty() {
            let time = UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
            let text = spec::time::rfc3339_nano_padded(time);
            self.text = text.as_bytes()[..text.len() - "000000000Z".len()].to_vec();
            self.second = second;
        }
        output.extend_from_slice(&self.text);
        let mut digits = *b"000000000Z";
        for digit in digits[..9].iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        output.extend_from_slice(&digits);
    }
}
