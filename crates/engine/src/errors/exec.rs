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
    #[error("Invalid escape keys ({keys}) provided")]
    EscapeKeys { keys: String },
    #[error("OCI runtime exec failed: exec failed: Cwd must be an absolute path")]
    RelativeCwd,
    #[error(
        "OCI runtime exec failed: exec failed: unable to start container process: \
         invalid environment variable: name cannot be empty"
    )]
    UnnamedVariable,
}

impl ExecError {
    /// Puts Docker's words around the supervisor's.
    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let reason = failure.clone();
        match failure {
            Failure::Exec { errno: libc::ENOENT, .. }
            | Failure::Cwd { errno: libc::ENOENT | libc::ENOTDIR, .. } => {
                Self::Failed { reason, exit_code: 127 }
            }
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
            Self::NoCommand | Self::Failed { exit_code: 126 | 127, .. } | Self::User { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::AlreadyRun { .. } | Self::AlreadyRunning { .. } | Self::NotStarted => {
                ErrorKind::Conflict
            }
            Self::Failed { .. }
            | Self::EscapeKeys { .. }
            | Self::RelativeCwd
            | Self::UnnamedVariable => ErrorKind::Internal,
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
        check(
            ExecError::EscapeKeys { keys: "bogus".to_owned() },
            ErrorKind::Internal,
            "Invalid escape keys (bogus) provided",
        );
        check(
            ExecError::RelativeCwd,
            ErrorKind::Internal,
            "OCI runtime exec failed: exec failed: Cwd must be an absolute path",
        );
        check(
            ExecError::UnnamedVariable,
            ErrorKind::Internal,
            "OCI runtime exec failed: exec failed: unable to start container process: invalid \
             environment variable: name cannot be empty",
        );
        let text = "unable to find user x: no matching entries in passwd file".to_owned();
        let user = ExecError::from_failure(&Failure::User { text: text.clone() });
        check(user, ErrorKind::InvalidArgument, &text);
    }

    #[test]
    fn a_working_directory_that_is_none_is_as_a_missing_command() {
        let exit_code =
            |errno| match ExecError::from_failure(&Failure::Cwd { path: "/x".to_owned(), errno }) {
                ExecError::Failed { exit_code, .. } => exit_code,
                other => panic!("{other:?}"),
            };
        assert_eq!([libc::ENOENT, libc::ENOTDIR, libc::EACCES].map(exit_code), [127, 127, 126]);
    }
}
