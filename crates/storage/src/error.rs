//! What can go wrong in the store of layers.

use std::path::PathBuf;

use metadata::StoreError;
use rustix::io::Errno;
use spec::{Digest, ErrorKind, Kinded};

use crate::tar::TarError;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{attempt} {}", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        errno: Errno,
    },
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("layer entry {path:?}: {reason}")]
    Refused { path: String, reason: &'static str },
    #[error("{attempt} {path:?} of a layer")]
    Entry {
        attempt: &'static str,
        path: String,
        #[source]
        errno: Errno,
    },
    #[error("{attempt} {path:?}")]
    Extract {
        attempt: &'static str,
        path: String,
        #[source]
        errno: Errno,
    },
    #[error("invalid entry name {name:?}")]
    EntryName { name: String },
    #[error("invalid hardlink target {name:?}")]
    LinkName { name: String },
    #[error("{name}: path escapes from parent")]
    Escapes { name: String },
    #[error("cannot overwrite {old} {name:?} with {new} {target:?}")]
    Overwrite { old: &'static str, name: String, new: &'static str, target: String },
    #[error("layer is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// `what` is bytes or files.
    #[error("no space left on device: there is room for {left} {what} more")]
    NoRoom { left: u64, what: &'static str },
    #[error("layer has more than {limit} entries")]
    TooMany { limit: u64 },
    #[error("the names and attributes in a layer take more than {limit} bytes")]
    TooHeavy { limit: u64 },
    #[error("this kernel cannot mount layers as EROFS: {reason}")]
    NoErofs { reason: String },
    #[error("layer expands more than {ratio} times: refused as a decompression bomb")]
    Bomb { ratio: u64 },
    #[error("expected layer {expected}, got {actual}")]
    WrongLayer { expected: Digest, actual: Digest },
    #[error("layer {chain} does not exist")]
    NoLayer { chain: Digest },
    #[error("data of layer {chain} is damaged: {reason}")]
    DataLoss { chain: Digest, reason: String },
    #[error(
        "layer {chain} is lost or was set aside as damaged: load or pull an image that has it again"
    )]
    Lost { chain: Digest },
    #[error("blob {digest} does not exist")]
    NoBlob { digest: Digest },
    #[error("blob {digest} is damaged")]
    BlobDamaged { digest: Digest },
    #[error("container {id} has no storage")]
    NoContainer { id: String },
    #[error("write the archive")]
    Output {
        #[source]
        source: std::io::Error,
    },
    #[error("a worker thread of the unpacker panicked")]
    Panicked,
    #[error("{reason}")]
    RefusedByUnpacker { reason: String },
    #[error("unpacker: {reason}")]
    Unpacker { reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StorageError {
    pub(crate) fn file(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(Errno) -> Self {
        let path = path.into();
        move |errno| Self::File { attempt, path, errno }
    }
}

impl Kinded for StorageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tar(_)
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::TooHeavy { .. }
            | Self::Bomb { .. }
            | Self::RefusedByUnpacker { .. }
            | Self::EntryName { .. }
            | Self::LinkName { .. }
            | Self::Escapes { .. }
            | Self::Overwrite { .. }
            | Self::WrongLayer { .. } => ErrorKind::InvalidArgument,
            Self::NoLayer { .. } | Self::NoBlob { .. } | Self::NoContainer { .. } => {
                ErrorKind::NotFound
            }
            Self::Store(error) => error.kind(),
            Self::File { .. }
            | Self::Entry { .. }
            | Self::Extract { .. }
            | Self::DataLoss { .. }
            | Self::Lost { .. }
            | Self::BlobDamaged { .. }
            | Self::NoErofs { .. }
            | Self::NoRoom { .. }
            | Self::Output { .. }
            | Self::Unpacker { .. }
            | Self::Panicked => ErrorKind::Internal,
        }
    }
}
