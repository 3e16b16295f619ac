//! Sentences about one container and the state it is in.

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("No such container: {reference}")]
    NotFound { reference: String },
    #[error("Multiple IDs found with provided prefix: {prefix}")]
    AmbiguousPrefix { prefix: String },
    #[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName { name: String },
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse { name: String, holder: Id },
    #[error("Neither old nor new names may be empty")]
    EmptyName,
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    #[error("Error when allocating new name: {0}")]
    Rename(Box<Self>),
    #[error("container {id} is not running")]
    NotRunning { id: Id },
    #[error("container {id} is paused")]
    Paused { id: Id },
    #[error("Container {id} is already paused")]
    AlreadyPaused { id: Id },
    #[error("Container {id} is not paused")]
    NotPaused { id: Id },
    #[error("Container {id} is restarting, wait until the container is running")]
    Restarting { id: Id },
    #[error("container is marked for removal and cannot be started")]
    MarkedForRemoval,
    #[error("removal of container {reference} is already in progress")]
    RemovalInProgress { reference: String },
    #[error("cannot start a paused container, try unpause instead")]
    StartPaused,
    #[error("You cannot attach to a stopped container, start it first")]
    AttachStopped,
    #[error("You cannot attach to a paused container, unpause it first")]
    AttachPaused,
    #[error("You cannot attach to a restarting container, wait until it is running")]
    AttachRestarting,
    /// 304: starting what runs, stopping what does not.
    #[error("container {id} is already in that state")]
    NotModified { id: Id },
    #[error("cannot kill container: {reference}: {reason}")]
    Kill { reference: String, reason: SignalError },
    #[error("cannot stop container: {reference}: {reason}")]
    Stop { reference: String, reason: SignalError },
    #[error("Cannot restart container {reference}: {reason}")]
    Restart { reference: String, reason: Box<crate::Error> },
    #[error("cannot remove container \"{reference}\": container is {state}: {hint}")]
    RemoveLive { reference: String, state: &'static str, hint: &'static str },
    #[error("cannot remove container \"{reference}\": container is paused and must be unpaused first")]
    RemovePaused { reference: String },
    #[error("Conflict, cannot remove the default link name of the container")]
    DefaultLinkName,
    #[error("invalid condition: \"{condition}\"")]
    WaitCondition { condition: String },
    #[error("Bad parameters: you must choose at least one stream")]
    NoStream,
    #[error("configured logging driver does not support reading")]
    LogsUnreadable,
    #[error("Invalid detach keys ({keys}) provided")]
    DetachKeys { keys: String },
    #[error("Container {id} did not exit after being sent SIGKILL")]
    Unkillable { id: Id },
    #[error("error while looking up for {filter} {value}: invalid port specification: \"{value}\"")]
    PortFilter { filter: &'static str, value: String },
    #[error("ps: {output}")]
    Ps { output: String },
    #[error("ps args \"{args}\" must include a PID column")]
    PsWithoutPid { args: String },
}

impl Kinded for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::InvalidName { .. }
            | Self::AmbiguousPrefix { .. }
            | Self::EmptyName
            | Self::SameName
            | Self::WaitCondition { .. }
            | Self::NoStream
            | Self::DetachKeys { .. }
            | Self::PortFilter { .. }
            | Self::PsWithoutPid { .. } => ErrorKind::InvalidArgument,
            Self::NameInUse { .. }
            | Self::NotRunning { .. }
            | Self::Paused { .. }
            | Self::AlreadyPaused { .. }
            | Self::Restarting { .. }
            | Self::MarkedForRemoval
            | Self::RemovalInProgress { .. }
            | Self::StartPaused
            | Self::AttachStopped
            | Self::AttachPaused
            | Self::AttachRestarting
            | Self::RemoveLive { .. }
            | Self::RemovePaused { .. } => ErrorKind::Conflict,
            Self::Rename(cause) => cause.kind(),
            Self::Restart { reason, .. } => reason.kind(),
            Self::Kill { reason, .. } => reason.kind(),
            Self::Stop { .. } => ErrorKind::InvalidArgument,
            Self::NotModified { .. } => ErrorKind::NotModified,
            // Docker answers 500 to these.
            Self::NotPaused { .. }
            | Self::DefaultLinkName
            | Self::LogsUnreadable
            | Self::Unkillable { .. }
            | Self::Ps { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a signal was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    #[error("invalid signal: {signal}")]
    Invalid { signal: String },
    #[error("the linux daemon does not support signal {number}")]
    Unsupported { number: i32 },
    #[error("container {id} is not running")]
    NotRunning { id: Id },
}

impl Kinded for SignalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRunning { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } | Self::Unsupported { .. } => ErrorKind::InvalidArgument,
        }
    }
}
