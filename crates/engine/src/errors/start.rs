//! Sentences about starts that failed. The docker CLI derives its exit code from them: 127 when
//! the text says that there is no such program, 126 when it may not be executed, else 125.

use runtime::protocol::Failure;
use spec::{ErrorKind, Id, Kinded};

const CREATE: &str = "failed to create task for container: failed to create shim task: \
                      OCI runtime create failed: runc create failed";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The program could not be executed.
    #[error("{CREATE}: unable to start container process: error during container init: {reason}")]
    Program { reason: Failure, exit_code: u8 },
    #[error("{reason}")]
    User { reason: Failure },
    #[error("{CREATE}: unable to start container process: error during container init: {reason}")]
    Runtime { reason: Failure },
    #[error("joining network namespace of container: {reason}")]
    JoinNetwork { reason: String },
    #[error("cannot join namespace of a non running container: {reference}")]
    JoinStopped { reference: String },
    #[error("Cannot link to a non running container: {target} AS {path}")]
    LinkStopped { target: String, path: String },
    #[error("container {id} not attached to default bridge network")]
    LinkElsewhere { id: Id },
    #[error("failed to set up container networking: network {name} not found")]
    NetworkNotFound { name: String },
    #[error("failed to set up container networking: {reason}")]
    Network { reason: String, kind: ErrorKind },
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on \
         endpoint {name} ({id}): {reason}"
    )]
    Connectivity { name: String, id: Id, reason: String, kind: ErrorKind },
    #[error("error gathering device information while adding custom device \"{path}\": {reason}")]
    Device { path: String, reason: String },
    #[error("stat {path}: {reason}")]
    BlockDevice { path: String, reason: String },
    #[error("could not select device driver \"{driver}\" with capabilities: {capabilities}")]
    DeviceDriver { driver: String, capabilities: String },
    #[error("path {path} is mounted on {mount} but it is not a {wanted} mount")]
    Propagation { path: String, mount: String, wanted: &'static str },
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {path}")]
    BindSource { path: String },
    #[error("error while creating mount source path '{path}': mkdir {path}: {reason}")]
    MakeSource { path: String, reason: String },
}

impl StartError {
    /// The exit code shown for a container that never ran.
    pub fn exit_code(&self) -> i64 {
        match self {
            Self::Program { exit_code, .. } => i64::from(*exit_code),
            _ => 128,
        }
    }

    /// Puts Docker's words around the supervisor's.
    pub(crate) fn from_failure(failure: Failure) -> Self {
        match &failure {
            Failure::Exec { errno, .. } => {
                let exit_code = if *errno == libc::ENOENT { 127 } else { 126 };
                Self::Program { reason: failure, exit_code }
            }
            Failure::Cwd { .. } => Self::Program { reason: failure, exit_code: 126 },
            Failure::User { .. } => Self::User { reason: failure },
            _ => Self::Runtime { reason: failure },
        }
    }
}

impl Kinded for StartError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Program { .. }
            | Self::BindSource { .. }
            | Self::Runtime { reason: Failure::Invalid { .. } } => ErrorKind::InvalidArgument,
            Self::NetworkNotFound { .. } => ErrorKind::NotFound,
            Self::JoinStopped { .. } => ErrorKind::Conflict,
            Self::Network { kind, .. } | Self::Connectivity { kind, .. } => *kind,
            _ => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failure: Failure, exit_code: i64, kind: ErrorKind, sentence: &str) {
        let error = StartError::from_failure(failure);
        assert_eq!(error.to_string(), sentence);
        assert_eq!((error.exit_code(), error.kind()), (exit_code, kind));
    }

    #[test]
    fn sentences_and_codes_are_dockers() {
        let exec = |program: &str, errno, in_path| Failure::Exec {
            program: program.to_owned(),
            errno,
            in_path,
        };
        let words = "failed to create task for container: failed to create shim task: OCI runtime \
                     create failed: runc create failed: unable to start container process: error \
                     during container init: ";
        check(
            exec("nope", libc::ENOENT, true),
            127,
            ErrorKind::InvalidArgument,
            &format!("{words}exec: \"nope\": executable file not found in $PATH"),
        );
        check(
            exec("/nope", libc::ENOENT, false),
            127,
            ErrorKind::InvalidArgument,
            &format!("{words}exec: \"/nope\": stat /nope: no such file or directory"),
        );
        check(
            exec("/etc/passwd", libc::EACCES, false),
            126,
            ErrorKind::InvalidArgument,
            &format!("{words}exec: \"/etc/passwd\": permission denied"),
        );
        check(
            Failure::User {
                text: "unable to find user nope: no matching entries in passwd file".to_owned(),
            },
            128,
            ErrorKind::Internal,
            "unable to find user nope: no matching entries in passwd file",
        );
        let missing = StartError::NetworkNotFound { name: "nope".to_owned() };
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(
            missing.to_string(),
            "failed to set up container networking: network nope not found"
        );
    }
}
