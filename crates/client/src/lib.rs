//! A client of Docker's Engine API: one connection per call over a unix socket, TCP, TLS or ssh.
//!
//! Start at [`Client`]. Where the daemon is (flags, environment, contexts) is decided in
//! [`config`]; nothing else here reads the environment or the home directory. Requests go straight
//! to the newest version this client knows; a daemon that says it is older is asked again in its
//! own version, so that the usual command costs no `/_ping`.

mod body;
pub mod config;
mod connection;
pub mod contexts;
pub mod credentials;
mod error;
mod items;
mod request;
mod response;
mod ssh;
mod tls;

use std::cell::Cell;
use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, USER_AGENT};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use body::Body;
pub use config::{Endpoint, TlsFiles};
pub use connection::Connection;
pub use error::{Error, Result};
pub use hyper::Method;
pub use items::Items;
pub use request::Request;
pub use response::{Hijacked, Response};
pub use ssh::SshTarget;
pub use tls::check_material;

/// An API version, `1.51` being `Version { major: 1, minor: 51 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl Version {
    /// The newest version whose shapes `api-types` spells.
    pub const NEWEST: Self = Self { major: 1, minor: 51 };
    /// What a daemon speaks that does not say: it is older than `Api-Version` in `/_ping`.
    const UNSAID: Self = Self { major: 1, minor: 24 };

    /// Parses `1.43`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Speaks to one daemon. Not `Sync`: a command line has one thread.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    version: Cell<Version>,
    /// False once a daemon has named its version or the user has.
    assumed: Cell<bool>,
    user_agent: String,
    headers: HeaderMap,
}

impl Client {
    /// `pinned` is the user's `DOCKER_API_VERSION`, which is never negotiated away.
    pub fn new(endpoint: Endpoint, pinned: Option<Version>, user_agent: &str) -> Self {
        Self {
            endpoint,
            version: Cell::new(pinned.unwrap_or(Version::NEWEST)),
            assumed: Cell::new(pinned.is_none()),
            user_agent: user_agent.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// Sends `HttpHeaders` of `config.json` with every request. The user agent stays ours.
    pub fn with_headers(mut self, headers: &BTreeMap<String, String>) -> Result<Self> {
        for (name, value) in headers {
            let invalid = || Error::Config {
                message: format!("invalid header {name:?} in HttpHeaders of config.json"),
            };
            let header: HeaderName = name.parse().map_err(|_malformed| invalid())?;
            if header != USER_AGENT {
                self.headers.insert(header, value.parse().map_err(|_malformed| invalid())?);
            }
        }
        Ok(self)
    }

    /// The daemon's address as the user knows it.
    pub fn host(&self) -> &str {
        self.endpoint.address()
    }

    /// The version of the next request.
    pub fn version(&self) -> Version {
        self.version.get()
    }

    /// Asks the daemon for its version unless it is known; costs one round trip at most once.
    pub async fn negotiate(&self) -> Result<Version> {
        if self.assumed.get() {
            let response = self.send_raw(&Request::new(Method::HEAD, "/_ping"), None).await?;
            let told = response.header("api-version").and_then(Version::parse);
            self.adopt(told.unwrap_or(Version::UNSAID));
        }
        Ok(self.version.get())
    }

    fn adopt(&self, daemon: Version) {
        self.version.set(daemon.min(Version::NEWEST));
        self.assumed.set(false);
    }

    /// Sends a request and returns the answer's head; statuses from 400 up are errors.
    pub async fn send(&self, request: Request) -> Result<Response> {
        request.check_names()?;
        let (request, body) = request.split_body();
        if let Some(body) = body {
            // A stream can be sent only once, so the version must be right the first time.
            self.negotiate().await?;
            return self.send_raw(&request, Some(body)).await?.checked(&request).await;
        }
        let first = self.send_raw(&request, None).await?.checked(&request).await;
        match self.older_daemon(&first) {
            Some(version) => {
                self.adopt(version);
                self.send_raw(&request, None).await?.checked(&request).await
            }
            None => first,
        }
    }

    /// The version to try again with, when the daemon refused ours as too new.
    fn older_daemon<T>(&self, answer: &Result<T>) -> Option<Version> {
        let Err(Error::Daemon { status: 400, message, .. }) = answer else { return None };
        let (_, newest) = message.split_once("is too new. Maximum supported API version is ")?;
        if self.assumed.get() { Version::parse(newest) } else { None }
    }

    async fn send_raw(&self, request: &Request, stream: Option<Body>) -> Result<Response> {
        let host = self.endpoint.http_host();
        let mut head = request.to_http(self.version.get(), host, &self.user_agent, stream)?;
        for (name, value) in &self.headers {
            head.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        // Boxed, since TLS and HTTP keep kilobytes across their awaits and every caller would too.
        let exchange =
            async { Connection::open(&self.endpoint).await?.send(head, &self.endpoint).await };
        Box::pin(exchange).await
    }

    /// Opens a connection for bytes that are not ours to read.
    pub async fn dial(&self) -> Result<Connection> {
        Connection::open(&self.endpoint).await
    }

    /// Sends a request whose answer turns the connection into a raw byte stream.
    pub async fn hijack(&self, request: Request) -> Result<Hijacked> {
        self.send(request.upgrade()).await?.upgraded().await
    }

    pub async fn get<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        self.send(request).await?.json().await
    }

    /// Reads a JSON array item by item.
    pub async fn get_items<T: DeserializeOwned>(&self, request: Request) -> Result<Items<T>> {
        Ok(Items::new(self.get_bytes(request).await?))
    }

    pub async fn get_bytes(&self, request: Request) -> Result<Bytes> {
        self.send(request).await?.bytes().await
    }

    /// Posts JSON and reads JSON.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        request: Request,
        body: &B,
    ) -> Result<T> {
        self.send(request.json(body)?).await?.json().await
    }

    /// Sends a request whose answer has no interesting body.
    pub async fn call(&self, request: Request) -> Result<()> {
        self.send(request).await?.bytes().await.map(|_body| ())
    }
}

/// Decodes the base64 of headers, in either alphabet.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    STANDARD.decode(text).or_else(|_other_alphabet| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("1.9") < version("1.24"));
        assert_eq!(version(" 1.51\n"), Version::NEWEST);
        assert_eq!(version("1.43").to_string(), "1.43");
        assert_eq!(Version::parse("51"), None);
    }
}
