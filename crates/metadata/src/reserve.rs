//! Space set aside so that a full disk can still be cleaned up.
//!
//! Removing a record writes (copy-on-write pages), so without spare room a full disk could not
//! even forget things. `metadata.redb.reserve` is [`SIZE`] bytes of it: deleted when a commit
//! that makes the records no larger finds the disk full, made again once there is room.

use std::fmt::Debug;
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::{BackendError, StorageBackend};

const SIZE: usize = 4 << 20;
/// How often making it again is tried on a disk that may still be full.
const RETRY: Duration = Duration::from_secs(10);

/// The spare file. A crash while it is made leaves a short one, which is made again.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    tried: Mutex<Option<Instant>>,
    allowed: AtomicBool,
}

impl Reserve {
    pub(crate) fn beside(store: &Path) -> Self {
        let path = PathBuf::from(format!("{}.reserve", store.display()));
        Self { path, tried: Mutex::new(None), allowed: AtomicBool::new(false) }
    }

    /// Makes the file unless it is there, or was tried a moment ago.
    pub(crate) fn refill(&self) {
        if self.is_full() {
            return;
        }
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        *tried = Some(Instant::now());
        if self.fill().is_err() {
            // No room, then; half a reserve must not take the last of it.
            self.spend();
        }
    }

    fn is_full(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| metadata.len() == SIZE as u64)
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = std::fs::File::create(&self.path)?;
        file.write_all(&vec![0; SIZE])?;
        file.sync_data()
    }

    /// Says whether what is written next may use the reserve.
    pub(crate) fn allow(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    /// Gives the space back; false when there was none.
    fn spend(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

/// A file of redb's that falls back on a reserve.
#[derive(Debug)]
pub(crate) struct Reserving<B> {
    pub(crate) file: B,
    pub(crate) reserve: std::sync::Arc<Reserve>,
}

impl<B: StorageBackend> Reserving<B> {
    fn with_room(&self, attempt: impl Fn(&B) -> io::Result<()>) -> io::Result<()> {
        match attempt(&self.file) {
            Err(error)
                if is_full(&error)
                    && self.reserve.allowed.load(Ordering::Relaxed)
                    && self.reserve.spend() =>
            {
                attempt(&self.file)
            }
            other => other,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

type Edge = Bound<u64>;

impl<B: StorageBackend> StorageBackend for Reserving<B> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_room(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not tried again: after a failed sync nobody knows what is on the disk.
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_room(|file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A disk that is full while the reserve is there.
    #[derive(Debug)]
    struct Full(PathBuf);

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn read(&self, _offset: u64, _out: &mut [u8]) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
            if self.0.exists() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_full_disk_costs_the_reserve_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Arc::new(Reserve::beside(&dir.path().join("m")));
        reserve.refill();
        assert!(reserve.is_full());
        let path = dir.path().join("m.reserve");
        let backend = Reserving { file: Full(path.clone()), reserve: Arc::clone(&reserve) };
        assert!(backend.write(0, b"x").is_err());
        assert!(path.exists());
        reserve.allow(true);
        backend.write(0, b"x").unwrap();
        assert!(!path.exists());
        // Not at once again: the disk is probably still full.
        reserve.refill();
        assert!(!path.exists());
        *reserve.tried.lock().unwrap() = None;
        reserve.refill();
        assert!(reserve.is_full());
    }
}
