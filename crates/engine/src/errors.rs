//! Every way a request can fail, one enum per resource in the files below.
//!
//! What a client reads is Docker's wording, to the letter: tools parse these sentences. Each file
//! has a test per sentence, taken from the answers of Engine 28.5.

mod archive;
mod connect;
mod container;
mod exec;
mod platform;
mod plugin;
mod start;
mod validation;
mod volume;

use spec::{ErrorKind, Kinded};

pub use archive::ArchiveError;
pub use connect::ConnectError;
pub use container::{ContainerError, NoSuchContainer, SignalError};
pub use exec::ExecError;
pub use platform::PlatformError;
pub use plugin::PluginError;
pub use start::StartError;
pub use validation::{MountReason, ValidationError};
pub use volume::{CreateReason, VolumeError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Image(#[from] image::ImageError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Validation(#[from] ValidationError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Filter(#[from] spec::filters::FilterError),
    /// The feature exists in Docker and is not built yet; never a silent success.
    #[error("{feature} is not supported yet")]
    Unsupported { feature: String },
    #[error(transparent)]
    Supervisor(#[from] crate::supervisor::SupervisorError),
    #[error(transparent)]
    Store(#[from] metadata::StoreError),
    /// A system call on our own files failed.
    #[error("{attempt}")]
    Io {
        attempt: String,
        #[source]
        source: std::io::Error,
    },
    /// Ours: Docker has no such request.
    #[error("a check of the store is under way already")]
    CheckRuns,
    /// A blocking job was dropped because the daemon stops.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl Error {
    pub(crate) fn unsupported(feature: impl Into<String>) -> Self {
        Self::Unsupported { feature: feature.into() }
    }

    /// For `map_err`: names what was attempted on an error of the operating system.
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}

impl Kinded for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Container(error) => error.kind(),
            Self::Connect(error) => error.kind(),
            Self::Exec(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Platform(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Validation(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::Filter(error) => error.kind(),
            Self::Unsupported { .. } => ErrorKind::NotImplemented,
            Self::Supervisor(error) => error.kind(),
            Self::Store(_) | Self::Io { .. } => ErrorKind::Internal,
            Self::CheckRuns => ErrorKind::Conflict,
            Self::ShuttingDown => ErrorKind::Unavailable,
        }
    }
}
