//! Reading tar streams that strangers made.
//!
//! One meaning for every input: what Go's `archive/tar` (and so Docker) reads, with everything
//! it leaves open refused. Understood are V7, ustar, GNU (long names, base-256 numbers, sparse)
//! and pax (names, numbers, times, extended attributes, sparse 0.0, 0.1 and 1.0). Memory is
//! bounded by [`META_LIMIT`], whatever the headers claim.
//!
//! The reader hands every byte that is not taken by [`Reader::consume`] to its [`Sink`], which is
//! how a layer's exact tar can be rebuilt later (see `recipe`).

mod header;
mod pax;
mod sparse;
pub mod write;

use std::io::{self, BufRead};

use header::Header;
pub use sparse::Fragment;

const BLOCK: usize = 512;
/// The most a long name, a pax header or a sparse map may hold. Go has the same limit.
const META_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("read the archive")]
    Read {
        #[from]
        source: io::Error,
    },
    #[error("invalid tar header at byte {at}: {reason}")]
    Malformed { at: u64, reason: &'static str },
    #[error("unexpected end of the archive at byte {at}")]
    Truncated { at: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member of the archive. Names are bytes, as the archive has them, neither cleaned nor safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// How long the file is, holes included.
    pub size: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes, when there are holes; in order, without overlap, within `size`.
    pub sparse: Option<Vec<Fragment>>,
}

/// Takes the bytes between the file contents: headers, padding, contents nobody wanted.
pub trait Sink {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Forgets them.
impl Sink for () {
    fn literal(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Reader<R, S = ()> {
    input: R,
    pub sink: S,
    at: u64,
    /// Data of the current member that is still to come, and the padding after it.
    data: u64,
    padding: u64,
}

/// What the special members before a member said about it.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: pax::Records,
}

impl<R: BufRead, S: Sink> Reader<R, S> {
    pub fn new(input: R, sink: S) -> Self {
        Self { input, sink, at: 0, data: 0, padding: 0 }
    }

    /// The next member, after what is left of the one before. `None` is the end of the archive;
    /// [`Reader::drain`] then reads what may follow it.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        let mut pending = Pending::default();
        loop {
            let at = self.at;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let malformed = |reason| TarError::Malformed { at, reason };
            let header = Header::parse(block).map_err(malformed)?;
            match header.type_flag() {
                b'L' => pending.long_name = Some(self.long_value(&header)?),
                b'K' => pending.long_link = Some(self.long_value(&header)?),
                b'x' => {
                    let text = self.meta(header.size().map_err(malformed)?)?;
                    pending.pax = pax::Records::parse(&text).map_err(malformed)?;
                }
                // Docker ignores global headers.
                b'g' => {
                    let size = header.size().map_err(malformed)?;
                    self.begin_data(size);
                    self.skip_rest()?;
                }
                _ => return self.finish_entry(&header, pending, at).map(Some),
            }
        }
    }

    /// Bytes of the current member's data that are at hand; empty at its end. Whoever wants them
    /// takes them with [`Reader::consume`].
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let at = self.at;
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(TarError::Truncated { at });
        }
        let most = usize::try_from(self.data).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..most])
    }

    /// How much of the current member's data is still to come.
    pub const fn remaining(&self) -> u64 {
        self.data
    }

    /// How many bytes of the archive have been read.
    pub const fn position(&self) -> u64 {
        self.at
    }

    pub fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.at += length as u64;
        self.data -= length as u64;
    }

    /// Reads to the end of the input and says how long it was.
    pub fn drain(&mut self) -> Result<u64, TarError> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(self.at);
            }
            self.sink.literal(bytes)?;
            let length = bytes.len();
            self.input.consume(length);
            self.at += length as u64;
        }
    }

    fn begin_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        self.data += self.padding;
        self.padding = 0;
        while self.data > 0 {
            let length = self.data()?.len();
            // Borrowed again because `sink` and `input` are separate fields but `data` is not.
            let bytes = self.input.fill_buf()?;
            self.sink.literal(&bytes[..length])?;
            self.consume(length);
        }
        Ok(())
    }

    /// The next header; none at the end mark (two zero blocks) or at the end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => {
                Err(TarError::Malformed { at: self.at, reason: "data after a zero block" })
            }
            _ => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(TarError::Truncated { at: self.at });
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.input.consume(length);
            self.at += length as u64;
            filled += length;
        }
        self.sink.literal(&block)?;
        Ok(Some(block))
    }

    /// Reads the data of a special member into memory.
    fn meta(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > META_LIMIT {
            return Err(TarError::Malformed { at: self.at, reason: "special member too long" });
        }
        self.begin_data(size);
        let mut text = Vec::new();
        while self.data > 0 {
            let bytes = self.data()?;
            text.extend_from_slice(bytes);
            let length = bytes.len();
            let taken = text.len() - length;
            self.sink.literal(&text[taken..])?;
            self.consume(length);
        }
        self.skip_rest()?;
        Ok(text)
    }

    fn long_value(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let at = self.at;
        let size = header.size().map_err(|reason| TarError::Malformed { at, reason })?;
        let mut value = self.meta(size)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        value.truncate(end);
        Ok(value)
    }

    fn finish_entry(
        &mut self,
        header: &Header,
        pending: Pending,
        at: u64,
    ) -> Result<Entry, TarError> {
        let malformed = |reason| TarError::Malformed { at, reason };
        let mut entry = header.entry().map_err(malformed)?;
        let mut stored = header.size().map_err(malformed)?;
        if let Some(size) = pending.pax.merge_into(&mut entry).map_err(malformed)? {
            stored = size;
        }
        // As in Go: GNU's long names win over pax.
        entry.path = pending.long_name.unwrap_or(entry.path);
        entry.link = pending.long_link.unwrap_or(entry.link);
        entry.kind = header.kind(&entry.path).map_err(malformed)?;
        if entry.kind != Kind::File {
            // Members that are only headers have no data, whatever their size field says.
            entry.size = 0;
            return Ok(entry);
        }
        entry.size = stored;
        self.begin_data(stored);
        let map = if header.type_flag() == b'S' {
            Some(self.gnu_sparse_map(header)?)
        } else if pending.pax.sparse_in_data() {
            let before = self.data;
            let map = self.pax_sparse_map(pending.pax.sparse_size())?;
            stored -= before - self.data;
            Some(map)
        } else {
            pending.pax.sparse_map().map_err(malformed)?
        };
        if let Some((size, fragments)) = map {
            sparse::check(size, stored, &fragments).map_err(malformed)?;
            entry.size = size;
            entry.sparse = Some(fragments);
        }
        Ok(entry)
    }

    /// The old GNU form: four fragments in the header, more in blocks that follow it.
    fn gnu_sparse_map(&mut self, header: &Header) -> Result<(u64, Vec<Fragment>), TarError> {
        let at = self.at;
        let malformed = |reason| TarError::Malformed { at, reason };
        let (size, mut more) = header.sparse_size().map_err(malformed)?;
        let mut fragments = Vec::new();
        sparse::push_gnu(header.sparse_fields(), &mut fragments).map_err(malformed)?;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated { at: self.at })?;
            sparse::push_gnu(&block[..504], &mut fragments).map_err(malformed)?;
            more = block[504] != 0;
            if fragments.len() as u64 * 24 > META_LIMIT {
                return Err(malformed("sparse map too long"));
            }
        }
        Ok((size, fragments))
    }

    /// The pax 1.0 form: decimal lines at the start of the data, padded to a block.
    fn pax_sparse_map(&mut self, size: u64) -> Result<(u64, Vec<Fragment>), TarError> {
        let mut map = sparse::TextMap::default();
        let start = self.at;
        loop {
            let at = self.at;
            let malformed = |reason| TarError::Malformed { at, reason };
            if self.data < BLOCK as u64 || at - start > META_LIMIT {
                return Err(malformed("sparse map does not end"));
            }
            let block = self.block()?.ok_or(TarError::Truncated { at })?;
            self.data -= BLOCK as u64;
            if map.push(&block).map_err(malformed)? {
                return Ok((size, map.fragments));
            }
        }
    }
}

#[cfg(test)]
mod tests;
