//! Sentences about images.

use spec::{ErrorKind, Kinded};

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("No such image: {reference}")]
    NotFound { reference: String },
    #[error(transparent)]
    Reference(#[from] spec::reference::ReferenceError),
    #[error(
        "image with reference {reference} was found but its platform ({found}) does not match \
         the specified platform ({wanted})"
    )]
    Platform { reference: String, found: String, wanted: String },
    #[error("\"{text}\": cannot parse platform specifier: invalid argument")]
    PlatformSyntax { text: String },
    #[error("invalid tag format")]
    TagFormat,
}

impl Kinded for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Platform { .. } => ErrorKind::NotFound,
            Self::Reference(_) | Self::PlatformSyntax { .. } | Self::TagFormat => {
                ErrorKind::InvalidArgument
            }
        }
    }
}
