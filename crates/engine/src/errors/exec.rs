//! Sentences about commands run in running containers.

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("No such exec instance: {id}")]
    NotFound { id: String },
    #[error("No exec command specified")]
    NoCommand,
    #[error("exec command has already run")]
    AlreadyRun,
    #[error("exec command {id} is already running")]
    AlreadyRunning { id: Id },
    #[error("exec process is not started")]
    NotStarted,
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {reason}")]
    Failed { reason: String, not_executable: bool },
}

impl Kinded for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NoCommand => ErrorKind::InvalidArgument,
            Self::AlreadyRun | Self::AlreadyRunning { .. } | Self::NotStarted => {
                ErrorKind::Conflict
            }
            Self::Failed { not_executable: true, .. } => ErrorKind::InvalidArgument,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}
