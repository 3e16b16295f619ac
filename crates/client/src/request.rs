//! Requests as commands write them: method, unversioned path, query, body.

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Uri};
use serde::Serialize;

use crate::body::{self, Body, HttpBody};
use crate::{Error, Result, Version};

#[derive(Debug)]
pub struct Request {
    method: Method,
    path: String,
    content_type: Option<&'static str>,
    bytes: Option<Bytes>,
    stream: Option<Body>,
    headers: Vec<(&'static str, String)>,
    upgrade: bool,
}

impl Request {
    /// `path` starts with a slash and has no version; segments in it must be escaped already
    /// (see [`Request::segment`]).
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: None,
            bytes: None,
            stream: None,
            headers: Vec::new(),
            upgrade: false,
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Escapes one user-given part of a path; slashes and colons of image names stay, but for the one
    /// that inspect puts before the names of containers.
    pub fn segment(text: &str) -> String {
        escape(text.strip_prefix('/').unwrap_or(text), b"-._~/:@!$&'()*+,;=")
    }

    /// Adds `name=value`.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        self.path.push_str(&escape(value, b"-._~"));
        self
    }

    /// Adds `name=value` when there is something to say.
    #[must_use]
    pub fn query_if(self, condition: bool, name: &str, value: &str) -> Self {
        if condition { self.query(name, value) } else { self }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn json<T: Serialize>(mut self, value: &T) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|source| Error::Decode { source })?;
        self.bytes = Some(bytes.into());
        self.content_type = Some("application/json");
        Ok(self)
    }

    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Body) -> Self {
        self.stream = Some(body);
        self.content_type = Some(content_type);
        self
    }

    pub(crate) fn upgrade(mut self) -> Self {
        self.upgrade = true;
        self
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// An empty name would make another path of this one: `/containers//json`, `/volumes/`.
    pub(crate) fn check_names(&self) -> Result<()> {
        let path = self.path.split('?').next().unwrap_or_default();
        if !path.contains("//") && !path.ends_with('/') {
            return Ok(());
        }
        let kind = path.split('/').nth(1).unwrap_or_default().trim_end_matches('s');
        Err(Error::Config { message: format!("invalid {kind} name or ID: value is empty") })
    }

    pub(crate) fn split_body(mut self) -> (Self, Option<Body>) {
        let stream = self.stream.take();
        (self, stream)
    }

    pub(crate) fn to_http(
        &self,
        version: Version,
        host: &str,
        user_agent: &str,
        stream: Option<Body>,
    ) -> Result<hyper::Request<HttpBody>> {
        let target = if self.path == "/_ping" {
            self.path.clone()
        } else {
            format!("/v{version}{}", self.path)
        };
        let uri: Uri = target.parse().map_err(|source: hyper::http::uri::InvalidUri| {
            Error::Request { source: source.into() }
        })?;
        let mut builder = hyper::Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .header(HOST, host)
            .header(USER_AGENT, user_agent);
        if let Some(content_type) = self.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        if self.upgrade {
            builder = builder
                .header(CONNECTION, HeaderValue::from_static("Upgrade"))
                .header(UPGRADE, HeaderValue::from_static("tcp"));
        }
        self.with_headers(builder)
            .body(match (stream, &self.bytes) {
                (Some(stream), _) => stream.into_http(),
                (None, Some(bytes)) => body::full(bytes.clone()),
                (None, None) => body::empty(),
            })
            .map_err(|source| Error::Request { source })
    }

    fn with_headers(&self, builder: Builder) -> Builder {
        self.headers.iter().fold(builder, |builder, (name, value)| {
            builder.header(HeaderName::from_static(name), value)
        })
    }
}

/// Percent-encodes all but letters, digits and `keep`.
fn escape(text: &str, keep: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String does not fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_segments_are_escaped() {
        let request = Request::get(format!("/images/{}/json", Request::segment("a/b:c d?")))
            .query("filters", r#"{"a":{"b c":true}}"#)
            .query_if(false, "x", "y")
            .query("all", "1");
        assert_eq!(Request::segment("/web/db"), "web/db");
        assert_eq!(
            request.path(),
            "/images/a/b:c%20d%3F/json?filters=%7B%22a%22%3A%7B%22b%20c%22%3Atrue%7D%7D&all=1"
        );
    }

    #[test]
    fn empty_names_are_refused() {
        let error =
            |path: &str| Request::get(path).check_names().err().map(|error| error.to_string());
        assert_eq!(
            error("/containers//json?size=1").unwrap(),
            "invalid container name or ID: value is empty"
        );
        assert_eq!(error("/volumes/").unwrap(), "invalid volume name or ID: value is empty");
        assert_eq!(error("/volumes?x=//"), None);
    }

    #[test]
    fn every_path_but_the_ping_is_versioned() {
        let uri = |request: Request| {
            request.to_http(Version::NEWEST, "host", "test", None).unwrap().uri().to_string()
        };
        assert_eq!(uri(Request::get("/info")), "/v1.51/info");
        assert_eq!(uri(Request::new(Method::HEAD, "/_ping")), "/_ping");
    }
}
