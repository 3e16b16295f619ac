//! A writer that hashes what passes.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

pub(crate) struct Hashing<'output, W: ?Sized> {
    output: &'output mut W,
    hasher: Sha256,
}

impl<'output, W: Write + ?Sized> Hashing<'output, W> {
    pub(crate) fn new(output: &'output mut W) -> Self {
        Self { output, hasher: Sha256::new() }
    }

    /// The hash of all that was written.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }
}

impl<W: Write + ?Sized> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.output.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
