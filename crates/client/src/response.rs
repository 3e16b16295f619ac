//! Answers: a head, then a body that is read whole, in chunks, or not as HTTP at all.

use std::io;

use api_types::ErrorResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::{Error, Request, Result};

/// A daemon may say what it likes; memory beyond this is taken as the body comes.
const MOST_AHEAD: usize = 1 << 20;

#[derive(Debug)]
pub struct Response {
    pub(crate) inner: hyper::Response<Incoming>,
}

/// A connection that no longer speaks HTTP.
#[derive(Debug)]
pub struct Hijacked {
    pub io: TokioIo<Upgraded>,
    /// Tells raw (terminal) output from multiplexed output; empty from daemons before 1.42.
    pub content_type: String,
}

/// Reads JSON into its type. Daemons write `null` where a type of ours has no room for it (Go's nil
/// slices); only when that happens is the document read a second time, without its nulls.
fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).or_else(|_null_somewhere| {
        let mut document: serde_json::Value =
            serde_json::from_slice(json).map_err(|source| Error::Decode { source })?;
        drop_nulls(&mut document);
        serde_json::from_value(document).map_err(|source| Error::Decode { source })
    })
}

pub(crate) fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_name, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Turns statuses from 400 up into the daemon's error.
    pub(crate) async fn checked(self, request: &Request) -> Result<Self> {
        let status = self.status();
        if status < 400 {
            return Ok(self);
        }
        let json = self.header("content-type").is_some_and(|kind| kind.contains("json"));
        let body = self.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        let message = match serde_json::from_slice::<ErrorResponse>(&body) {
            Ok(answer) if json => answer.message,
            _ if text.trim().is_empty() => format!(
                "request returned status {status} for API route {}, check if the server supports \
                 the requested API version",
                request.path()
            ),
            _ => text.into_owned(),
        };
        Err(Error::Daemon { status, message: message.trim().to_owned() })
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.inner.frame().await {
            let frame = frame
                .map_err(|source| Error::Body { source: io::Error::other(source.to_string()) })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body. Each piece is copied and dropped as it comes, so that its memory takes the
    /// next one.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let length = self.header("content-length").and_then(|text| text.parse().ok());
        let mut body = Vec::with_capacity(length.unwrap_or(0).min(MOST_AHEAD));
        while let Some(piece) = self.chunk().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.into())
    }

    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        decode(&self.bytes().await?)
    }

    pub(crate) async fn upgraded(self) -> Result<Hijacked> {
        let status = self.status();
        if status != 101 {
            return Err(Error::NotUpgraded { status });
        }
        let content_type = self.header("content-type").unwrap_or_default().to_owned();
        let upgraded = hyper::upgrade::on(self.inner)
            .await
            .map_err(|source| Error::Transport { host: "upgrade".to_owned(), source })?;
        Ok(Hijacked { io: TokioIo::new(upgraded), content_type })
    }
}
