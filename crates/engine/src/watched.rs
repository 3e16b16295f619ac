//! Descriptors that tokio waits on for us. The one place that makes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A value that owns one descriptor for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watched<T>(pub T);

impl<T: AsFd> AsRawFd for Watched<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T: AsFd> AsFd for Watched<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Registers a descriptor; `T` must not replace it while it is watched. Our types do not.
#[expect(deprecated, reason = "its successor is unsafe, for types that replace their descriptor")]
pub(crate) fn watch<T: AsFd>(value: T, interest: Interest) -> io::Result<AsyncFd<Watched<T>>> {
    AsyncFd::with_interest(Watched(value), interest)
}

/// A process descriptor, readable when the process is gone.
pub(crate) type Process = AsyncFd<Watched<OwnedFd>>;
