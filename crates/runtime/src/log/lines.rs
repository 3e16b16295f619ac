//! Cuts output into log lines as dockerd does: at newlines, and at 16 KiB where none comes.
//!
//! The parts of a long line share the time stamp of the first. A part that no newline follows
//! stays here until more output or the end comes.

use serde::{Deserialize, Serialize};

/// Docker's buffer for one line.
pub const LINE_MAX: usize = 16 << 10;

/// One line or part of a line, ready for an encoder.
#[derive(Debug)]
pub struct Record<'a> {
    /// 0: to be chosen by the receiver, who returns what it chose.
    pub nanos: i64,
    pub line: &'a [u8],
    pub part: Option<Part<'a>>,
}

/// Says that the record is a part of a longer line.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub id: &'a [u8; 32],
    /// Counts from 1.
    pub ordinal: u32,
    pub last: bool,
}

impl Record<'_> {
    /// A newline follows this record.
    pub fn ends_line(&self) -> bool {
        self.part.is_none_or(|part| part.last)
    }
}

/// One stream's unfinished line.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Splitter {
    carry: Vec<u8>,
    long: Option<LongLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LongLine {
    id: [u8; 32],
    ordinal: u32,
    nanos: i64,
}

impl Splitter {
    /// Hands every finished line and every full part to `emit`.
    pub fn feed(&mut self, chunk: &[u8], emit: &mut impl FnMut(Record<'_>) -> i64) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.carry.is_empty() && self.long.is_none() && line.len() < LINE_MAX {
                emit(Record { nanos: 0, line, part: None });
            } else {
                let tail = self.parts(line, emit);
                self.end_line(tail, emit);
            }
        }
        let tail = self.parts(rest, emit);
        self.carry.extend_from_slice(tail);
    }

    /// Hands out the rest of the output, to which no newline came.
    pub fn finish(&mut self, emit: &mut impl FnMut(Record<'_>) -> i64) {
        if !self.carry.is_empty() {
            self.emit_carry(emit);
        }
        self.long = None;
    }

    /// The length of the part that waits for its end.
    pub fn unlogged(&self) -> usize {
        self.carry.len()
    }

    /// Emits the full parts of carry and `line`; what is returned belongs behind the carry.
    fn parts<'a>(
        &mut self,
        mut line: &'a [u8],
        emit: &mut impl FnMut(Record<'_>) -> i64,
    ) -> &'a [u8] {
        while self.carry.len() + line.len() >= LINE_MAX {
            let (head, tail) = line.split_at(LINE_MAX - self.carry.len());
            self.carry.extend_from_slice(head);
            line = tail;
            self.emit_carry(emit);
        }
        line
    }

    fn emit_carry(&mut self, emit: &mut impl FnMut(Record<'_>) -> i64) {
        let long = self.long.get_or_insert_with(LongLine::new);
        long.ordinal += 1;
        let part = Part { id: &long.id, ordinal: long.ordinal, last: false };
        long.nanos = emit(Record { nanos: long.nanos, line: &self.carry, part: Some(part) });
        self.carry = Vec::new();
    }

    fn end_line(&mut self, tail: &[u8], emit: &mut impl FnMut(Record<'_>) -> i64) {
        self.carry.extend_from_slice(tail);
        let long = self.long.take();
        let part =
            long.as_ref().map(|long| Part { id: &long.id, ordinal: long.ordinal + 1, last: true });
        let nanos = long.as_ref().map_or(0, |long| long.nanos);
        emit(Record { nanos, line: &self.carry, part });
        self.carry = Vec::new();
    }
}

impl LongLine {
    fn new() -> Self {
        Self { id: sys::random::bytes(), ordinal: 0, nanos: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expect: &[(usize, bool)]) {
        let mut splitter = Splitter::default();
        let mut records = Vec::new();
        let mut emit = |record: Record<'_>| {
            records.push((record.line.len(), record.ends_line()));
            1
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut emit);
        }
        splitter.finish(&mut emit);
        assert_eq!(records, expect);
    }

    #[test]
    fn lines_and_parts() {
        let full = vec![b'x'; LINE_MAX];
        check(&[b"a\nbc\n"], &[(1, true), (2, true)]);
        check(&[b"a", b"b", b"\n"], &[(2, true)]);
        check(&[b"\n\n"], &[(0, true), (0, true)]);
        check(&[b"end"], &[(3, false)]);
        check(&[&full[1..], b"\n"], &[(LINE_MAX - 1, true)]);
        check(&[&full, b"\n"], &[(LINE_MAX, false), (0, true)]);
        check(&[b"ab", &full, b"c\nd\n"], &[(LINE_MAX, false), (3, true), (1, true)]);
        check(&[&full, &full], &[(LINE_MAX, false), (LINE_MAX, false)]);
        check(
            &[&[full.as_slice(), b"y\nz\n"].concat()],
            &[(LINE_MAX, false), (1, true), (1, true)],
        );
    }
}
