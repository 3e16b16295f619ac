//! Container logs: what the supervisor writes and what `docker logs` reads back.
//!
//! Two formats, byte for byte Docker's: [`json`] (json-file, one JSON object a line) and [`local`]
//! (length-prefixed protobuf). The supervisor feeds chunks of output to a [`LogWriter`], which
//! cuts them into lines ([`lines`]), encodes them and appends each chunk with one `write` to a
//! [`rotate::RotatingFile`]. Readers use the decoders [`decode_json_line`] and [`decode_local`]
//! on bytes that they read themselves.
//!
//! A failing disk never stops a container: records that cannot be written are dropped whole, and
//! the error is handed to the caller once.

pub mod json;
pub mod lines;
pub mod local;
pub mod rotate;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::spec::LogSpec;
pub use json::decode_json_line;
use lines::{Record, Splitter};
pub use local::{LocalFrame, decode_local};
use rotate::RotatingFile;
pub use rotate::{FileIdentity, Position};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One log record as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Since the epoch.
    pub time_nanos: i64,
    pub stream: Stream,
    /// Without the newline that ended it.
    pub line: Cow<'a, [u8]>,
    /// No newline ended it: the line goes on in the next record of the stream (Docker cuts lines
    /// at 16 KiB), or the output stopped here.
    pub partial: bool,
    /// The raw JSON object of `attrs`; empty when there is none. See [`Entry::details`].
    pub attrs: Cow<'a, [u8]>,
}

impl Entry<'_> {
    /// The chosen labels and environment of `--log-opt labels=` and `env=`.
    pub fn details(&self) -> BTreeMap<String, String> {
        serde_json::from_slice(&self.attrs).unwrap_or_default()
    }
}

/// Writes one container's output in the format its [`LogSpec`] asks for.
#[derive(Debug)]
pub struct LogWriter {
    format: Format,
    file: RotatingFile,
    stdout: Splitter,
    stderr: Splitter,
    /// Time stamps only grow, so that `--since` the last one seen loses and repeats nothing.
    last_nanos: i64,
}

#[derive(Debug)]
enum Format {
    Json { attrs: Vec<u8>, time: json::TimeText },
    Local,
}

/// The unfinished lines, carried over a re-exec of the supervisor.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Unfinished {
    pub stdout: Splitter,
    pub stderr: Splitter,
}

impl LogWriter {
    /// Opens the file for appending; `None` when nothing is to be logged.
    pub fn open(spec: &LogSpec) -> io::Result<Option<Self>> {
        let (format, file) = match spec {
            LogSpec::None => return Ok(None),
            LogSpec::JsonFile(file) => {
                let attrs = json::encode_attrs(&file.attrs);
                (Format::Json { attrs, time: json::TimeText::default() }, file)
            }
            LogSpec::Local(file) => (Format::Local, file),
        };
        let whole = match format {
            Format::Json { .. } => json::whole_length,
            Format::Local => local::whole_length,
        };
        Ok(Some(Self {
            format,
            file: RotatingFile::open(file.clone(), whole)?,
            stdout: Splitter::default(),
            stderr: Splitter::default(),
            last_nanos: 0,
        }))
    }

    /// Logs a chunk of output. `scratch` is the caller's buffer, shared by all writers.
    pub fn write(
        &mut self,
        stream: Stream,
        chunk: &[u8],
        now_nanos: i64,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.feed(stream, Some(chunk), now_nanos, scratch)
    }

    /// Logs what has no newline yet; call at the end of the output.
    pub fn finish(&mut self, now_nanos: i64, scratch: &mut Vec<u8>) -> io::Result<()> {
        let stdout = self.feed(Stream::Stdout, None, now_nanos, scratch);
        self.feed(Stream::Stderr, None, now_nanos, scratch)?;
        stdout
    }

    /// Opens the path again, after somebody else renamed the file.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file.reopen()
    }

    /// Where the next record goes.
    pub const fn position(&self) -> Position {
        self.file.position()
    }

    /// Takes back everything logged since `position`, in a process that has logged nothing yet.
    pub fn rewind(&mut self, position: Position) -> io::Result<()> {
        self.file.rewind(position)
    }

    /// Compresses files that were rotated away; after this they cannot be taken back.
    pub fn compress_rotated(&mut self) -> io::Result<()> {
        self.file.compress_rotated()
    }

    /// How many bytes of a stream are not logged, because their line has not ended.
    pub fn unlogged(&self, stream: Stream) -> usize {
        match stream {
            Stream::Stdout => self.stdout.unlogged(),
            Stream::Stderr => self.stderr.unlogged(),
        }
    }

    pub fn unfinished(&self) -> Unfinished {
        Unfinished { stdout: self.stdout.clone(), stderr: self.stderr.clone() }
    }

    pub fn restore(&mut self, unfinished: Unfinished) {
        self.stdout = unfinished.stdout;
        self.stderr = unfinished.stderr;
    }

    /// `None` is the end of the output.
    fn feed(
        &mut self,
        stream: Stream,
        chunk: Option<&[u8]>,
        now_nanos: i64,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Self { format, file, stdout, stderr, last_nanos } = self;
        let splitter = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        scratch.clear();
        let mut result = Ok(());
        let mut next_nanos = now_nanos.max(*last_nanos + 1);
        let mut encode = |mut record: Record<'_>| {
            if record.nanos == 0 {
                record.nanos = next_nanos;
            }
            *last_nanos = record.nanos.max(*last_nanos);
            next_nanos = *last_nanos + 1;
            // Docker looks at the size before each record, not after.
            if file.is_full(scratch.len() as u64) {
                let written = file.append(scratch).and_then(|()| file.rotate());
                scratch.clear();
                result = std::mem::replace(&mut result, Ok(())).and(written);
            }
            match format {
                Format::Json { attrs, time } => json::encode(stream, &record, attrs, time, scratch),
                Format::Local => local::encode(stream, &record, scratch),
            }
            record.nanos
        };
        match chunk {
            Some(chunk) => splitter.feed(chunk, &mut encode),
            None => splitter.finish(&mut encode),
        }
        if scratch.is_empty() { result } else { file.append(scratch).and(result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LogFile;

    fn spec(path: &std::path::Path, max_size: Option<u64>, compress: bool) -> LogFile {
        LogFile { path: path.into(), max_size, max_files: 3, compress, attrs: BTreeMap::new() }
    }

    fn decode_all(format: &LogSpec, bytes: &[u8]) -> Vec<(i64, Stream, Vec<u8>, bool)> {
        let mut entries = Vec::new();
        let mut push = |entry: Entry<'_>| {
            entries.push((entry.time_nanos, entry.stream, entry.line.into_owned(), entry.partial));
        };
        match format {
            LogSpec::Local(_) => {
                let mut rest = bytes;
                while let LocalFrame::Entry(entry, length) = decode_local(rest) {
                    push(entry);
                    rest = &rest[length..];
                }
                assert!(rest.is_empty());
            }
            _ => bytes.split_inclusive(|byte| *byte == b'\n').for_each(|line| {
                push(decode_json_line(line).unwrap());
            }),
        }
        entries
    }

    fn check_round_trip(make: fn(LogFile) -> LogSpec) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let format = make(spec(&path, None, false));
        let mut writer = LogWriter::open(&format).unwrap().unwrap();
        let mut scratch = Vec::new();
        let long = vec![b'x'; 16384 + 5];
        writer.write(Stream::Stdout, b"one\ntw", 5_000_000_000, &mut scratch).unwrap();
        writer.write(Stream::Stderr, b"err\n", 5_000_000_000, &mut scratch).unwrap();
        writer.write(Stream::Stdout, b"o\n\n", 5_000_000_000, &mut scratch).unwrap();
        writer.write(Stream::Stdout, &long, 6_000_000_000, &mut scratch).unwrap();
        writer.write(Stream::Stdout, b"\ntail", 7_000_000_000, &mut scratch).unwrap();
        writer.finish(8_000_000_000, &mut scratch).unwrap();
        let entries = decode_all(&format, &std::fs::read(&path).unwrap());
        let expect: [(i64, Stream, &[u8], bool); 7] = [
            (5_000_000_000, Stream::Stdout, b"one", false),
            (5_000_000_001, Stream::Stderr, b"err", false),
            (5_000_000_002, Stream::Stdout, b"two", false),
            (5_000_000_003, Stream::Stdout, b"", false),
            (6_000_000_000, Stream::Stdout, &long[..16384], true),
            (6_000_000_000, Stream::Stdout, b"xxxxx", false),
            (8_000_000_000, Stream::Stdout, b"tail", true),
        ];
        let expect = expect.map(|(nanos, stream, line, part)| (nanos, stream, line.to_vec(), part));
        assert_eq!(entries, expect);
    }

    #[test]
    fn json_reads_back() {
        check_round_trip(LogSpec::JsonFile);
    }

    #[test]
    fn local_reads_back() {
        check_round_trip(LogSpec::Local);
    }

    #[test]
    fn a_torn_record_is_cut_off_before_appending() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for make in [LogSpec::JsonFile as fn(LogFile) -> LogSpec, LogSpec::Local] {
            let format = make(spec(&path, None, false));
            let mut scratch = Vec::new();
            let mut writer = LogWriter::open(&format).unwrap().unwrap();
            writer.write(Stream::Stdout, b"one\ntwo\n", 1_000_000_000, &mut scratch).unwrap();
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
            let mut writer = LogWriter::open(&format).unwrap().unwrap();
            writer.write(Stream::Stdout, b"three\n", 2_000_000_000, &mut scratch).unwrap();
            let entries = decode_all(&format, &std::fs::read(&path).unwrap());
            let lines: Vec<_> = entries.iter().map(|entry| entry.2.as_slice()).collect();
            assert_eq!(lines, [b"one".as_slice(), b"three"]);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn rotation_keeps_every_record_of_the_last_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        let format = LogSpec::JsonFile(spec(&path, Some(1000), false));
        let mut writer = LogWriter::open(&format).unwrap().unwrap();
        let mut scratch = Vec::new();
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        writer.write(Stream::Stdout, text.as_bytes(), 1_000_000_000, &mut scratch).unwrap();
        let mut lines = Vec::new();
        for name in ["c-json.log.2", "c-json.log.1", "c-json.log"] {
            let bytes = std::fs::read(dir.path().join(name)).unwrap();
            assert!(bytes.len() < 1100, "{name}: {}", bytes.len());
            lines.extend(decode_all(&format, &bytes).into_iter().map(|entry| entry.2));
        }
        assert!(!dir.path().join("c-json.log.3").exists());
        let first = 100 - lines.len();
        for (number, line) in (first..).zip(&lines) {
            assert_eq!(String::from_utf8_lossy(line), format!("line {number}"));
        }
    }
}
