//! What can go wrong with images, in Docker's words where clients read them.

use metadata::StoreError;
use spec::filters::FilterError;
use spec::reference::ReferenceError;
use spec::{Digest, ErrorKind, Kinded};
use storage::StorageError;

use crate::changes::ChangeError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("No such image: {reference}")]
    NoSuchImage { reference: String },
    #[error("reference does not exist")]
    NoSuchReference,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("invalid tag format")]
    TagFormat,
    #[error("cannot import digest reference")]
    DigestTarget,
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    AmbiguousTarget,
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - \
         container {container} is using its referenced image {image}"
    )]
    ReferenceInUse { reference: String, container: String, image: String },
    #[error("conflict: unable to delete {image} ({}) - {reason}", force(*hard))]
    Conflict { image: String, hard: bool, reason: String },
    #[error("invalid archive: {reason}")]
    Archive { reason: String },
    #[error("invalid image JSON, no RootFS key")]
    NoRootFs,
    #[error("invalid image JSON: {reason}")]
    Json { reason: String },
    #[error("cannot load {os} image on linux")]
    OtherOs { os: String },
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {got}")]
    LayerCount { expected: usize, got: usize },
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{actual}\"")]
    WrongDiffId { index: usize, expected: Digest, actual: Digest },
    #[error("digest of {name} is {actual}, not {expected}")]
    WrongDigest { name: String, expected: Digest, actual: Digest },
    #[error("too many non-empty layers in History section")]
    History,
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("invalid filter '{name}=[{value}]'")]
    FilterValue { name: &'static str, value: String },
    /// Ours, as the filter is.
    #[error("the filter 'keep-last' needs 'dangling=false': images without a name have no order")]
    KeepLast,
    #[error("syntax error in pattern")]
    Pattern,
    #[error("failed to parse value as time or duration: \"{text}\"")]
    Until { text: String },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("write the archive")]
    Output {
        #[source]
        source: std::io::Error,
    },
    #[error("read the archive")]
    Spool {
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

const fn force(hard: bool) -> &'static str {
    if hard { "cannot be forced" } else { "must be forced" }
}

impl Kinded for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchImage { .. } | Self::NoSuchReference => ErrorKind::NotFound,
            Self::ReferenceInUse { .. } | Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Reference(error) => error.kind(),
            Self::Filter(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::History | Self::Output { .. } | Self::Spool { .. } => ErrorKind::Internal,
            Self::TagFormat
            | Self::DigestTarget
            | Self::AmbiguousTarget
            | Self::Archive { .. }
            | Self::NoRootFs
            | Self::Json { .. }
            | Self::OtherOs { .. }
            | Self::LayerCount { .. }
            | Self::WrongDiffId { .. }
            | Self::WrongDigest { .. }
            | Self::FilterValue { .. }
            | Self::KeepLast
            | Self::Pattern
            | Self::Until { .. }
            | Self::Change(_) => ErrorKind::InvalidArgument,
        }
    }
}
