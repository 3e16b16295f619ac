//! What went wrong, by kind: the one thing a caller may branch on besides the type itself.

/// The kind of a failure. `server` has the single map from kind to HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotModified,
    InvalidArgument,
    Unauthorized,
    Forbidden,
    NotFound,
    Conflict,
    Internal,
    NotImplemented,
    Unavailable,
}

/// Implemented by every public error.
pub trait Kinded: std::error::Error {
    fn kind(&self) -> ErrorKind;
}
