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
    #[error("\"{text}\": unknown operating system or architecture: invalid argument")]
    Unknown { text: String },
    #[error("operating system is not supported")]
    System,
    #[error("no suitable export target found for platform {wanted}")]
    Export { wanted: String },
    #[error("invalid platform: {text}")]
    Json { text: String },
}

impl Kinded for PlatformError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Mismatch { .. } => ErrorKind::NotFound,
            Self::Syntax { .. } | Self::Unknown { .. } | Self::System | Self::Json { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::Export { .. } => ErrorKind::Internal,
        }
    }
}
