//! Sentences about files in containers (`docker cp`).

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Docker's, to the letter.
    #[error("bad parameter: pathcannot be empty")]
    NoPath,
    #[error("Could not find the file {path} in container {reference}")]
    NotFound { path: String, reference: String },
    #[error("lstat {path}: {reason}")]
    Look { path: String, reason: String },
    #[error("extraction point is not a directory")]
    NotADirectory,
    #[error("container rootfs is marked read-only")]
    ReadonlyRoot,
    #[error("mounted volume is marked read-only")]
    ReadonlyMount,
    #[error("container {id} starts and ends all the time")]
    Restless { id: Id },
}

impl Kinded for ArchiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NoPath | Self::NotADirectory | Self::ReadonlyRoot | Self::ReadonlyMount => {
                ErrorKind::InvalidArgument
            }
            // Docker answers 500 to a path that goes on below a file.
            Self::Look { .. } => ErrorKind::Internal,
            Self::Restless { .. } => ErrorKind::Conflict,
        }
    }
}
