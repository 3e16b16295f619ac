//! What can go wrong with a call, in the words docker prints.

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An answer with a status from 400 up; `message` is Docker's own sentence.
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Connect {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("permission denied while trying to connect to the Docker daemon socket at {host}")]
    Permission {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("error during connect: {host}: {source}")]
    Transport {
        host: String,
        #[source]
        source: hyper::Error,
    },
    #[error("error during connect: {host}: {complaint}")]
    Ssh { host: String, complaint: String },
    #[error("error reading the daemon's answer: {source}")]
    Body {
        #[source]
        source: io::Error,
    },
    #[error("unexpected answer from the daemon: {source}")]
    Decode {
        #[source]
        source: serde_json::Error,
    },
    #[error("the daemon did not open a raw stream (status {status})")]
    NotUpgraded { status: u16 },
    #[error("invalid request: {source}")]
    Request {
        #[source]
        source: hyper::http::Error,
    },
    #[error("{message}")]
    Config { message: String },
    #[error("{what}: {source}")]
    Tls {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The status, when the daemon answered at all.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Daemon { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// True for the daemon's 404.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The daemon's sentence without the words in front of it.
    pub fn daemon_message(&self) -> Option<&str> {
        match self {
            Self::Daemon { message, .. } => Some(message),
            _ => None,
        }
    }

    pub(crate) fn connect(host: &str, source: io::Error) -> Self {
        let host = host.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Permission { host, source }
        } else {
            Self::Connect { host, source }
        }
    }
}
