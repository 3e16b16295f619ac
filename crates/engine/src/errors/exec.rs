//! Sentences about commands run in running containers.

use runtime::protocol::Failure;
use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("No such exec instance: {id}")]
    NotFound { id: String },
    #[error("No exec command specified")]
    NoCommand,
    #[error("exec command {id} has already run")]
    AlreadyRun { id: Id },
    #[error("exec command {id} is already running")]
    AlreadyRunning { id: Id },
    #[error("exec process is not started")]
    NotStarted,
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {reason}")]
    Failed { reason: Failure, exit_code: u8 },
    #[error("{reason}")]
    User { reason: Failure },
}

impl ExecError {
    /// Puts Docker's words around the supervisor's.
    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let reason = failure.clone();
        match failure {
            Failure::Exec { errno: libc::ENOENT, .. } => Self::Failed { reason, exit_code: 127 },
            Failure::Exec { .. } | Failure::Cwd { .. } => Self::Failed { reason, exit_code: 126 },
            Failure::User { .. } => Self::User { reason },
            _ => Self::Failed { reason, exit_code: 128 },
        }
    }
}

impl Kinded for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NoCommand | Self::Failed { exit_code: 126 | 127, .. } => {
                ErrorKind::InvalidArgument
            }
            Self::AlreadyRun { .. } | Self::AlreadyRunning { .. } | Self::NotStarted => {
                ErrorKind::Conflict
            }
            Self::Failed { .. } | Self::User { .. } => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: ExecError, kind: ErrorKind, sentence: &str) {
        assert_eq!((error.to_string().as_str(), error.kind()), (sentence, kind));
    }

    #[test]
    fn sentences_and_kinds_are_dockers() {
        let id = Id::from_random([0xab; 32]);
        let hex = "ab".repeat(32);
        check(
            ExecError::NotFound { id: "nope".to_owned() },
            ErrorKind::NotFound,
            "No such exec instance: nope",
        );
        check(ExecError::NoCommand, ErrorKind::InvalidArgument, "No exec command specified");
        check(
            ExecError::AlreadyRun { id },
            ErrorKind::Conflict,
            &format!("exec command {hex} has already run"),
        );
        let missing =
            Failure::Exec { program: "nope".to_owned(), errno: libc::ENOENT, in_path: true };
        check(
            ExecError::from_failure(&missing),
            ErrorKind::InvalidArgument,
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \
             \"nope\": executable file not found in $PATH",
        );
    }
}
