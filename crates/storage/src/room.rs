//! Room on the disk, measured before something large comes in.

use std::os::fd::AsFd;

use rustix::fs::fstatvfs;

use crate::error::StorageError;
use crate::unpack::Limits;

/// Left free, so that a hostile layer cannot take what removal and records need; of a small disk
/// no more than its sixteenth.
const RESERVE: u64 = 64 << 20;

/// What a disk has left for layers and archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub entries: u64,
}

impl Room {
    /// Of the file system that has this file.
    pub fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        let disk = fstatvfs(file)?;
        let reserve = RESERVE.min(disk.f_blocks / 16 * disk.f_frsize);
        Ok(Self {
            bytes: (disk.f_bavail * disk.f_frsize).saturating_sub(reserve),
            // File systems without a table of inodes say 0.
            entries: if disk.f_files > 0 { disk.f_favail } else { u64::MAX },
        })
    }

    pub(crate) fn bound(self, limits: Limits) -> Limits {
        Limits {
            bytes: limits.bytes.min(self.bytes),
            entries: limits.entries.min(self.entries),
            ratio: limits.ratio,
        }
    }

    /// Says of a limit that was the disk's, not the layer's, that it was.
    pub(crate) fn explain(self, error: StorageError) -> StorageError {
        match error {
            StorageError::TooLarge { limit } if limit == self.bytes => self.no_bytes(),
            StorageError::TooMany { limit } if limit == self.entries => {
                StorageError::NoRoom { left: limit, what: "files" }
            }
            error => error,
        }
    }

    pub const fn no_bytes(self) -> StorageError {
        StorageError::NoRoom { left: self.bytes, what: "bytes" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_is_named() {
        let room = Room { bytes: 10, entries: 3 };
        let check = |error: StorageError, text: &str| {
            assert_eq!(room.explain(error).to_string(), text);
        };
        let limits = room.bound(Limits::default());
        assert_eq!((limits.bytes, limits.entries), (10, 3));
        let full = "no space left on device: there is room for 10 bytes more";
        check(StorageError::TooLarge { limit: 10 }, full);
        let full = "no space left on device: there is room for 3 files more";
        check(StorageError::TooMany { limit: 3 }, full);
        check(StorageError::TooLarge { limit: 7 }, "layer is larger than 7 bytes");
    }
}
