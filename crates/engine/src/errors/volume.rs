//! Sentences about volumes.

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("get {name}: no such volume")]
    NotFound { name: String },
    #[error("remove {name}: volume is in use - [{}]", join(users))]
    InUse { name: String, users: Vec<Id> },
    /// Something of the host's is mounted below: deleting would go through to it.
    #[error("remove {name}: {mount} is still mounted")]
    Mounted { name: String, mount: String },
    #[error("volume {name} is being removed")]
    Removing { name: String },
    #[error("create {name}: {reason}")]
    Create { name: String, reason: CreateReason },
    #[error(
        "error while mounting volume '{mountpoint}': failed to mount local volume: mount {device}:\
         {mountpoint}{detail}: {reason}"
    )]
    Mount { mountpoint: String, device: String, detail: String, reason: String },
    /// Docker answers 500 to it at the start.
    #[error("cannot access path {path}: {reason}")]
    Subpath { path: String, reason: String },
    #[error("invalid filter 'all': strconv.ParseBool: parsing {value:?}: invalid syntax")]
    FilterAll { value: String },
    #[error("volume update only valid for cluster volumes, but swarm is unavailable")]
    Update,
}

/// Why a volume cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateReason {
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    Short,
    #[error(
        "{name:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )]
    Characters { name: String },
    /// Docker leaves it to the file system, and answers 500.
    #[error("volume name is longer than {limit} bytes")]
    Long { limit: usize },
    #[error("a directory of that name is there that is no volume")]
    Occupied,
    #[error("error looking up volume plugin {driver}: plugin {driver:?} not found")]
    Driver { driver: String },
    #[error("invalid option: {option:?}")]
    Option { option: String },
    #[error("missing required option: {option:?}")]
    Missing { option: &'static str },
    #[error("quota size requested but no quota support")]
    Quota,
}

fn join(users: &[Id]) -> String {
    let users: Vec<_> = users.iter().map(Id::as_str).collect();
    users.join(", ")
}

impl Kinded for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Create { reason: CreateReason::Driver { .. }, .. } => {
                ErrorKind::NotFound
            }
            Self::InUse { .. } | Self::Removing { .. } => ErrorKind::Conflict,
            Self::Create { .. } | Self::FilterAll { .. } => ErrorKind::InvalidArgument,
            Self::Update => ErrorKind::Unavailable,
            Self::Mount { .. } | Self::Mounted { .. } | Self::Subpath { .. } => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: VolumeError, kind: ErrorKind, sentence: &str) {
        assert_eq!((error.to_string().as_str(), error.kind()), (sentence, kind));
    }

    #[test]
    fn sentences_are_dockers() {
        let name = || "v1".to_owned();
        check(
            VolumeError::NotFound { name: name() },
            ErrorKind::NotFound,
            "get v1: no such volume",
        );
        let ids = [Id::from_random([0xab; 32]), Id::from_random([1; 32])];
        check(
            VolumeError::InUse { name: name(), users: ids.to_vec() },
            ErrorKind::Conflict,
            &format!("remove v1: volume is in use - [{}, {}]", ids[0], ids[1]),
        );
        let create = |reason| VolumeError::Create { name: name(), reason };
        check(
            create(CreateReason::Driver { driver: "nope".to_owned() }),
            ErrorKind::NotFound,
            "create v1: error looking up volume plugin nope: plugin \"nope\" not found",
        );
        check(
            create(CreateReason::Missing { option: "type" }),
            ErrorKind::InvalidArgument,
            "create v1: missing required option: \"type\"",
        );
        check(
            create(CreateReason::Option { option: "foo".to_owned() }),
            ErrorKind::InvalidArgument,
            "create v1: invalid option: \"foo\"",
        );
        check(
            VolumeError::Mount {
                mountpoint: "/v/_data".to_owned(),
                device: "/nope".to_owned(),
                detail: ", flags: 0x1000".to_owned(),
                reason: "no such file or directory".to_owned(),
            },
            ErrorKind::Internal,
            "error while mounting volume '/v/_data': failed to mount local volume: mount \
             /nope:/v/_data, flags: 0x1000: no such file or directory",
        );
    }
}
