//! Sentences about one container and the state it is in.

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error(transparent)]
    NotFound(#[from] NoSuchContainer),
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
    /// Not one of Docker's: its layers are not looked after.
    #[error(
        "image {image} cannot be used: its layer {layer} is lost or was set aside as damaged; load \
         or pull the image again"
    )]
    LayerLost { image: String, layer: String },
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
    #[error("container {id} is paused, unpause the container before attach")]
    AttachPaused { id: Id },
    #[error("container {id} is restarting, wait until the container is running")]
    AttachRestarting { id: Id },
    #[error("Container {id} is paused, unpause the container before exec")]
    ExecPaused { id: Id },
    #[error("Cannot update container {id}: {reason}")]
    Update { id: Id, reason: crate::containers::UpdateConflict },
    #[error(
        "Cannot update container {id}: Restart policy cannot be updated because AutoRemove is enabled for the container"
    )]
    UpdateAutoRemove { id: Id },
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
    #[error(
        "cannot remove container \"{reference}\": container is paused and must be unpaused first"
    )]
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
    #[error(
        "invalid filter '{filter}={value}': invalid value for {what} ({value}): must be one of \
         {words}"
    )]
    FilterWord { filter: String, value: String, what: &'static str, words: String },
    #[error("invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")]
    FilterExited { value: String },
    #[error("ps: {output}")]
    Ps { output: String },
    #[error("ps args \"{args}\" must include a PID column")]
    PsWithoutPid { args: String },
}

impl Kinded for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::InvalidName { .. }
            | Self::AmbiguousPrefix { .. }
            | Self::EmptyName
            | Self::SameName
            | Self::WaitCondition { .. }
            | Self::NoStream
            | Self::DetachKeys { .. }
            | Self::PortFilter { .. }
            | Self::FilterWord { .. }
            | Self::FilterExited { .. }
            | Self::PsWithoutPid { .. } => ErrorKind::InvalidArgument,
            Self::NameInUse { .. }
            | Self::NotRunning { .. }
            | Self::Paused { .. }
            | Self::AlreadyPaused { .. }
            | Self::Restarting { .. }
            | Self::MarkedForRemoval
            | Self::RemovalInProgress { .. }
            | Self::StartPaused
            | Self::AttachPaused { .. }
            | Self::AttachRestarting { .. }
            | Self::ExecPaused { .. }
            | Self::Update { .. }
            | Self::UpdateAutoRemove { .. }
            | Self::RemoveLive { .. }
            | Self::RemovePaused { .. } => ErrorKind::Conflict,
            Self::Rename(cause) => cause.kind(),
            Self::Restart { reason, .. } => reason.kind(),
            Self::Kill { reason, .. } => reason.kind(),
            Self::Stop { .. } => ErrorKind::InvalidArgument,
            Self::NotModified { .. } => ErrorKind::NotModified,
            Self::LogsUnreadable => ErrorKind::NotImplemented,
            // Docker answers 500 to these.
            Self::NotPaused { .. }
            | Self::LayerLost { .. }
            | Self::DefaultLinkName
            | Self::Unkillable { .. }
            | Self::Ps { .. } => ErrorKind::Internal,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("No such container: {reference}")]
pub struct NoSuchContainer {
    pub reference: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: ContainerError, kind: ErrorKind, sentence: &str) {
        assert_eq!((error.to_string().as_str(), error.kind()), (sentence, kind));
    }

    fn id() -> Id {
        Id::from_random([0xab; 32])
    }

    fn name() -> String {
        "eng1".to_owned()
    }

    #[test]
    fn sentences_and_kinds_are_dockers() {
        use ContainerError as E;
        use ErrorKind::{Conflict, Internal, InvalidArgument, NotFound};
        let hex = "ab".repeat(32);
        let missing = NoSuchContainer { reference: "nope".to_owned() };
        check(E::NotFound(missing), NotFound, "No such container: nope");
        check(
            E::NameInUse { name: name(), holder: id() },
            Conflict,
            &format!(
                "Conflict. The container name \"/eng1\" is already in use by container \
                 \"{hex}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            ),
        );
        check(
            E::Rename(Box::new(E::InvalidName { name: "/a b".to_owned() })),
            InvalidArgument,
            "Error when allocating new name: Invalid container name (/a b), only \
             [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        );
        check(E::EmptyName, InvalidArgument, "Neither old nor new names may be empty");
        check(
            E::SameName,
            InvalidArgument,
            "Renaming a container with the same name as its current name",
        );
        check(E::NotRunning { id: id() }, Conflict, &format!("container {hex} is not running"));
        check(
            E::AlreadyPaused { id: id() },
            Conflict,
            &format!("Container {hex} is already paused"),
        );
        check(E::NotPaused { id: id() }, Internal, &format!("Container {hex} is not paused"));
        check(E::StartPaused, Conflict, "cannot start a paused container, try unpause instead");
        check(
            E::Kill { reference: name(), reason: SignalError::NotRunning { id: id() } },
            Conflict,
            &format!("cannot kill container: eng1: container {hex} is not running"),
        );
        check(
            E::Kill { reference: name(), reason: SignalError::Unsupported { number: 99 } },
            InvalidArgument,
            "cannot kill container: eng1: the linux daemon does not support signal 99",
        );
        check(
            E::Stop {
                reference: name(),
                reason: SignalError::Invalid { signal: "foo".to_owned() },
            },
            InvalidArgument,
            "cannot stop container: eng1: invalid signal: foo",
        );
        check(
            E::RemoveLive {
                reference: name(),
                state: "running",
                hint: "stop the container before removing or force remove",
            },
            Conflict,
            "cannot remove container \"eng1\": container is running: stop the container before \
             removing or force remove",
        );
        check(
            E::RemovePaused { reference: name() },
            Conflict,
            "cannot remove container \"eng1\": container is paused and must be unpaused first",
        );
        check(
            E::WaitCondition { condition: "foo".to_owned() },
            InvalidArgument,
            "invalid condition: \"foo\"",
        );
        check(E::NoStream, InvalidArgument, "Bad parameters: you must choose at least one stream");
    }
}
