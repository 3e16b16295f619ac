//! Sentences about volume plugins and what they answer.

use spec::{ErrorKind, Kinded};

/// Why a plugin did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    #[error("plugin {name:?} not found")]
    NotFound { name: String },
    #[error(
        "legacy plugin: Plugin does not implement the requested driver: plugin={name:?}, \
         requested implementation=\"VolumeDriver\""
    )]
    NotVolumes { name: String },
    #[error("plugin {name:?}: {address:?} is no address of a plugin")]
    Address { name: String, address: String },
    #[error("plugin {name:?}: TLS is not supported yet")]
    Tls { name: String },
    /// Nobody answers, or not in time.
    #[error("Post \"http://plugin.moby.localhost/{method}\": {cause}")]
    Unreachable { method: String, cause: String },
    #[error("{method}: {text}")]
    Status { method: String, text: String },
    #[error("{method}: the answer makes no sense: {reason}")]
    Malformed { method: String, reason: String },
    /// In the plugin's own words.
    #[error("{text}")]
    Refused { text: String },
}

impl PluginError {
    /// The plugin was there and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::NotFound { .. })
    }
}

impl Kinded for PluginError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_dockers() {
        let check = |error: PluginError, sentence: &str| assert_eq!(error.to_string(), sentence);
        let name = || "p1".to_owned();
        check(PluginError::NotFound { name: name() }, "plugin \"p1\" not found");
        check(
            PluginError::NotVolumes { name: name() },
            "legacy plugin: Plugin does not implement the requested driver: plugin=\"p1\", \
             requested implementation=\"VolumeDriver\"",
        );
        let method = || "VolumeDriver.List".to_owned();
        let cause = "dial unix /run/docker/plugins/p1.sock: connect: connection refused".to_owned();
        check(
            PluginError::Unreachable { method: method(), cause },
            "Post \"http://plugin.moby.localhost/VolumeDriver.List\": dial unix \
             /run/docker/plugins/p1.sock: connect: connection refused",
        );
        let text = "boom".to_owned();
        check(PluginError::Status { method: method(), text }, "VolumeDriver.List: boom");
    }
}
