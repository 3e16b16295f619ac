//! Sentences about volumes.

use spec::{ErrorKind, Id, Kinded};

use super::PluginError;

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
    #[error("error while mounting volume '{mountpoint}': {cause}")]
    PluginMount { mountpoint: String, cause: PluginError },
    #[error("{attempt} {name}: {cause}")]
    Plugin { attempt: &'static str, name: String, cause: PluginError },
    #[error(
        "get {name}: error while checking if volume {name:?} exists in driver {driver:?}: {cause}"
    )]
    Unchecked { name: String, driver: String, cause: Box<PluginError> },
    #[error(
        "error while mounting volume '{mountpoint}': error resolving passed in network volume \
         address: {reason}"
    )]
    Address { mountpoint: String, reason: String },
    /// Docker answers 500 to it at the start.
    #[error("cannot access path {path}: {reason}")]
    Subpath { path: String, reason: String },
    #[error("invalid filter 'all': strconv.ParseBool: parsing {value:?}: invalid syntax")]
    FilterAll { value: String },
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again."
    )]
    NotAManager,
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
    #[error("error looking up volume plugin {driver}: {cause}")]
    Driver { driver: String, cause: PluginError },
    #[error("{0}")]
    Plugin(PluginError),
    #[error("driver '{driver}' already has volume '{name}': volume name must be unique")]
    Unique { name: String, driver: String },
    #[error(
        "found reference to volume '{name}' in driver '{driver}', but got an error while checking \
         the driver: error while checking if volume {name:?} exists in driver {driver:?}: {cause}: \
         volume name must be unique"
    )]
    Unsure { name: String, driver: String, cause: Box<PluginError> },
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
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Create { reason: CreateReason::Driver { cause, .. }, .. } => cause.kind(),
            Self::Create { reason: CreateReason::Plugin(_), .. } => ErrorKind::Internal,
            Self::Create {
                reason: CreateReason::Unique { .. } | CreateReason::Unsure { .. },
                ..
            } => ErrorKind::Conflict,
            Self::InUse { .. } | Self::Removing { .. } => ErrorKind::Conflict,
            Self::Create { .. } | Self::FilterAll { .. } => ErrorKind::InvalidArgument,
            Self::Update | Self::NotAManager => ErrorKind::Unavailable,
            Self::Mount { .. }
            | Self::Address { .. }
            | Self::Mounted { .. }
            | Self::PluginMount { .. }
            | Self::Plugin { .. }
            | Self::Unchecked { .. }
            | Self::Subpath { .. } => ErrorKind::Internal,
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
            create(CreateReason::Driver {
                driver: "nope".to_owned(),
                cause: PluginError::NotFound { name: "nope".to_owned() },
            }),
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
        let refused = || PluginError::Refused { text: "no space".to_owned() };
        check(create(CreateReason::Plugin(refused())), ErrorKind::Internal, "create v1: no space");
        let driver = || "p1".to_owned();
        check(
            create(CreateReason::Unique { name: name(), driver: driver() }),
            ErrorKind::Conflict,
            "create v1: driver 'p1' already has volume 'v1': volume name must be unique",
        );
        check(
            create(CreateReason::Unsure {
                name: name(),
                driver: driver(),
                cause: Box::new(refused()),
            }),
            ErrorKind::Conflict,
            "create v1: found reference to volume 'v1' in driver 'p1', but got an error while \
             checking the driver: error while checking if volume \"v1\" exists in driver \"p1\": no \
             space: volume name must be unique",
        );
        check(
            VolumeError::Unchecked { name: name(), driver: driver(), cause: Box::new(refused()) },
            ErrorKind::Internal,
            "get v1: error while checking if volume \"v1\" exists in driver \"p1\": no space",
        );
        check(
            VolumeError::Plugin { attempt: "remove", name: name(), cause: refused() },
            ErrorKind::Internal,
            "remove v1: no space",
        );
        check(
            VolumeError::PluginMount { mountpoint: "/p".to_owned(), cause: refused() },
            ErrorKind::Internal,
            "error while mounting volume '/p': no space",
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
