//! Where the daemon listens: the `-H` flag and the `hosts` of `daemon.json`.

use std::fmt;
use std::path::PathBuf;

/// The socket that clients try first.
pub(crate) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
    },
    /// Sockets that systemd opened for us.
    Inherited,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid bind address ({text}): {reason}")]
pub(crate) struct AddressError {
    text: String,
    reason: String,
}

impl Address {
    /// Reads `unix:///path`, `tcp://host:port`, `fd://`, or a bare `host:port`.
    pub(crate) fn parse(text: &str, tls: bool) -> Result<Self, AddressError> {
        let error = |reason: String| AddressError { text: text.to_owned(), reason };
        let trimmed = text.trim();
        let (protocol, rest) = trimmed.split_once("://").unwrap_or(("tcp", trimmed));
        match protocol {
            "unix" if rest.is_empty() => Ok(Self::Unix(DEFAULT_SOCKET.into())),
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(error(format!("the path {rest:?} is not absolute"))),
            "fd" => Ok(Self::Inherited),
            "tcp" => {
                let default_port = if tls { TLS_PORT } else { PORT };
                let (host, port) = parse_tcp(rest, default_port).map_err(error)?;
                Ok(Self::Tcp { host, port })
            }
            other => Err(error(format!("unsupported proto '{other}'"))),
        }
    }
}

fn parse_tcp(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('/') {
        return Err("should not contain a path element".to_owned());
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':').unwrap_or(port)),
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = match port {
        "" => default_port,
        port => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("invalid port: {port}")),
            Ok(port) => port,
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Inherited => f.write_str("fd://"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse() {
        let check = |text, expect: &str| {
            let seen = Address::parse(text, false);
            let seen = seen.map_or_else(|error| error.to_string(), |address| address.to_string());
            assert_eq!(seen, expect, "{text}");
        };
        check("unix://", "unix:///var/run/docker.sock");
        check("unix:///a b", "unix:///a b");
        check("unix://a", "invalid bind address (unix://a): the path \"a\" is not absolute");
        check("tcp://", "tcp://localhost:2375");
        check("tcp://0.0.0.0", "tcp://0.0.0.0:2375");
        check("tcp://[::1]:99/", "tcp://[::1]:99");
        check(":2376", "tcp://localhost:2376");
        check("fd://", "fd://");
        check("foo://x", "invalid bind address (foo://x): unsupported proto 'foo'");
        check("tcp://a:0", "invalid bind address (tcp://a:0): invalid port: 0");
        check(
            "tcp://a:1/x",
            "invalid bind address (tcp://a:1/x): should not contain a path element",
        );
        assert_eq!(Address::parse("tcp://a", true).unwrap().to_string(), "tcp://a:2376");
    }
}
