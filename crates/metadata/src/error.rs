//! What can go wrong in the store.

use std::path::PathBuf;
use std::sync::Arc;

use spec::{ErrorKind, Kinded};

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("open metadata store {}", path.display())]
    Open { path: PathBuf, source: Arc<redb::Error> },
    #[error("metadata store {} is in use by another daemon", path.display())]
    Locked { path: PathBuf },
    #[error("metadata store {} has schema {found}, newer than {known}", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{attempt} {}", path.display())]
    File { attempt: &'static str, path: PathBuf, source: Arc<std::io::Error> },
    #[error("{attempt} metadata")]
    Access { attempt: &'static str, source: Arc<redb::Error> },
    #[error("record {key:?} of table {table} is damaged: {reason}")]
    Damaged { table: String, key: String, reason: String },
    #[error("record {key:?} of table {table} cannot be written as JSON")]
    Encode { table: &'static str, key: String, source: Arc<serde_json::Error> },
    #[error("a metadata transaction panicked")]
    Panicked,
    #[error("the metadata store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn access<E: Into<redb::Error>>(attempt: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Access { attempt, source: Arc::new(error.into()) }
    }
}

impl Kinded for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed | Self::Locked { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }
}
