//! The vocabulary every other crate shares: error kinds, ids, digests, image references, OCI
//! documents, and the little languages of Docker's API (sizes, durations, times, filters).
//!
//! Pure values and parsers only: nothing here opens a file, a socket or a clock.

pub mod boolean;
pub mod digest;
pub mod error;
pub mod filters;
pub mod id;
pub mod kernel;
pub mod oci;
pub mod reference;
pub mod size;
pub mod time;

pub use digest::Digest;
pub use error::{ErrorKind, Kinded};
pub use filters::Filters;
pub use id::{ContainerName, Id};
pub use reference::Reference;
