//! Blobs by digest: `content/sha256/<hex>`, verbatim. Small documents (configs, manifests).
//!
//! A blob is written under a random name, synced and renamed: a crash leaves a `tmp-` file, which
//! opening removes, never half a blob. Reading checks the digest, so rot is noticed.

use std::fs::File;
use std::io::{Read, Write};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use spec::Digest;
use sys::RootDir;

use crate::chain::sha256;
use crate::error::StorageError;

/// The most a document may hold; Docker's limit for manifests and configs.
pub const LARGEST: u64 = 4 << 20;

#[derive(Debug)]
pub struct Content {
    sha256: RootDir,
}

impl Content {
    pub(crate) fn open(content: RootDir) -> Result<Self, StorageError> {
        match mkdirat(&content, "sha256", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("create")(errno)),
        }
        let content = Self { sha256: content.open_dir("sha256").map_err(failed("open"))? };
        content.sweep()?;
        Ok(content)
    }

    /// Stores a document durably; one that is there already costs nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StorageError> {
        let digest = sha256(bytes);
        if self.get(&digest).is_ok() {
            return Ok(digest);
        }
        let temporary = format!("tmp-{}", crate::storage::random_name()?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = openat(&self.sha256, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(failed("create"))?;
        let mut file = File::from(fd);
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| failed("write")(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        let renamed = written.and_then(|()| {
            renameat(&self.sha256, &temporary, &self.sha256, digest.hex()).map_err(failed("rename"))
        });
        if let Err(error) = renamed {
            if let Err(errno) = unlinkat(&self.sha256, &temporary, AtFlags::empty()) {
                tracing::debug!(temporary, %errno, "left for the next start");
            }
            return Err(error);
        }
        let dir = self.readable()?;
        rustix::fs::fsync(&dir).map_err(failed("sync"))?;
        Ok(digest)
    }

    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, StorageError> {
        let fd = match self.sha256.open_strict(digest.hex(), OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(StorageError::NoBlob { digest: *digest }),
            Err(errno) => return Err(failed("open")(errno)),
        };
        let mut bytes = Vec::new();
        File::from(fd)
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("read")(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if sha256(&bytes) != *digest {
            return Err(StorageError::BlobDamaged { digest: *digest });
        }
        Ok(bytes)
    }

    /// Removes a document; one that is gone already is fine.
    pub fn remove(&self, digest: &Digest) -> Result<(), StorageError> {
        match unlinkat(&self.sha256, digest.hex(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove")(errno)),
        }
    }

    /// The digests of all documents.
    pub fn all(&self) -> Result<Vec<Digest>, StorageError> {
        Ok(self.names()?.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }

    /// Removes what a crash left half written; returns the names. Nobody may put meanwhile.
    pub fn sweep(&self) -> Result<Vec<String>, StorageError> {
        let mut names = self.half_written()?;
        for name in &names {
            unlinkat(&self.sha256, name, AtFlags::empty()).map_err(failed("remove"))?;
        }
        names.sort();
        Ok(names)
    }

    /// What a crash left half written, or what is being put.
    pub fn half_written(&self) -> Result<Vec<String>, StorageError> {
        let mut names = self.names()?;
        names.retain(|name| name.starts_with("tmp-"));
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let dir = self.readable()?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn readable(&self) -> Result<std::os::fd::OwnedFd, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.sha256, ".", flags, Mode::empty()).map_err(failed("open"))
    }
}

fn failed(attempt: &'static str) -> impl FnOnce(Errno) -> StorageError {
    StorageError::file(attempt, "content/sha256")
}
