//! Sentences about the platform of an image; all others are in the `image` crate.

use spec::{ErrorKind, Kinded};

#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error(
        "image with reference {reference} was found but its platform ({found}) does not match \
         the specified platform ({wanted})"
    )]
    Mismatch { reference: String, found: String, wanted: String },
    #[error("\"{text}\": cannot parse platform specifier: invalid argument")]
    Syntax { text: String },
}

impl Kinded for PlatformError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Mismatch { .. } => ErrorKind::NotFound,
            Self::Syntax { .. } => ErrorKind::InvalidArgument,
        }
    }
}
