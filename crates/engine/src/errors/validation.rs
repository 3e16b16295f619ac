//! Sentences about requests that can never work, found before anything is made.

use spec::{ErrorKind, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    #[error("{text}")]
    Text { text: String },
}

impl Kinded for ValidationError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}
