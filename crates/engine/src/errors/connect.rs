//! Sentences about joining and leaving networks.

use spec::{ErrorKind, Id, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("invalid name or ID supplied: \"\"")]
    NoContainer,
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyIn { container: String, network: String },
    #[error("container {container} is not connected to network {network}")]
    NotIn { container: Id, network: String },
    #[error(
        "cannot connect container to host network - container must be created in host network mode"
    )]
    HostNetwork,
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    NoneNetwork,
    #[error(
        "container sharing network namespace with another container or host cannot be connected to \
         any other network"
    )]
    SharedNamespace,
    #[error("container cannot be disconnected from host network or connected to host network")]
    LeaveHost,
    #[error(
        "error while removing network: network {network} has active endpoints ({})",
        endpoint_list(endpoints)
    )]
    ActiveEndpoints { network: String, endpoints: Vec<(String, Id)> },
}

fn endpoint_list(endpoints: &[(String, Id)]) -> String {
    let one = |(name, id): &(String, Id)| format!("name:{name:?} id:{:?}", id.short());
    endpoints.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Kinded for ConnectError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyIn { .. } | Self::ActiveEndpoints { .. } => ErrorKind::Forbidden,
            Self::NotIn { .. } => ErrorKind::Internal,
            Self::NoContainer
            | Self::HostNetwork
            | Self::NoneNetwork
            | Self::SharedNamespace
            | Self::LeaveHost => ErrorKind::InvalidArgument,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_dockers() {
        let id = Id::from_random([0xab; 32]);
        let check = |error: ConnectError, kind, text: &str| {
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        };
        check(
            ConnectError::ActiveEndpoints {
                network: "n".to_owned(),
                endpoints: vec![("a".to_owned(), id.clone()), ("b".to_owned(), id)],
            },
            ErrorKind::Forbidden,
            "error while removing network: network n has active endpoints (name:\"a\" \
             id:\"abababababab\", name:\"b\" id:\"abababababab\")",
        );
        check(
            ConnectError::AlreadyIn { container: "a".to_owned(), network: "n".to_owned() },
            ErrorKind::Forbidden,
            "endpoint with name a already exists in network n",
        );
        check(
            ConnectError::NoContainer,
            ErrorKind::InvalidArgument,
            "invalid name or ID supplied: \"\"",
        );
    }
}
