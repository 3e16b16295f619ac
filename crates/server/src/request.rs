//! A request as its handler sees it: routed, its path and query decoded, its body not yet read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::ApiError;
use crate::json;
use crate::query::Query;
use crate::router::Api;
use crate::upload::Upload;
use crate::version::ApiVersion;

/// The largest JSON body read. The largest honest one, a service with many secrets, is far below.
const JSON_MAX: usize = 4 << 20;
/// A body that small, and this long on its way, is not coming.
const JSON_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Request {
    pub api: Arc<Api>,
    pub version: ApiVersion,
    pub query: Query,
    pub headers: HeaderMap,
    pub is_head: bool,
    pub(crate) captures: Vec<String>,
    pub(crate) body: Option<Incoming>,
}

impl Request {
    pub fn engine(&self) -> &engine::Engine {
        &self.api.engine
    }

    /// What the first `{...}` of the route's path stands for.
    pub fn name(&self) -> &str {
        self.captures.first().map_or("", String::as_str)
    }

    /// The body as JSON; the type's default when there is none.
    pub async fn json_or_default<T: DeserializeOwned + Default>(&mut self) -> Result<T, ApiError> {
        match self.optional_json().await? {
            Some(value) => Ok(json::decode(value)?),
            None => Ok(T::default()),
        }
    }

    /// The body as JSON, which must be there.
    pub async fn json(&mut self) -> Result<Value, ApiError> {
        self.check_content_type()?;
        Ok(json::parse(&self.body().await?)?)
    }

    /// The body as JSON, if there is one.
    pub async fn optional_json(&mut self) -> Result<Option<Value>, ApiError> {
        self.check_content_type()?;
        let body = self.body().await?;
        if body.is_empty() { Ok(None) } else { Ok(Some(json::parse(&body)?)) }
    }

    /// The body as a stream for a blocking reader.
    pub fn upload(&mut self) -> Upload {
        Upload::new(self.body.take())
    }

    /// Reads the whole body; once, for what filters and what handlers see must be one thing.
    pub async fn body(&mut self) -> Result<Bytes, ApiError> {
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        match tokio::time::timeout(JSON_TIMEOUT, collect(body)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request body did not arrive in time",
            )),
        }
    }

    /// A browser may send forms and plain text across origins without asking; JSON it may not.
    fn check_content_type(&self) -> Result<(), ApiError> {
        let empty = self.body.as_ref().is_none_or(|body| body.size_hint().exact() == Some(0));
        let Some(header) = self.headers.get(CONTENT_TYPE) else {
            return if empty { Ok(()) } else { Err(malformed_content_type("")) };
        };
        let text = String::from_utf8_lossy(header.as_bytes());
        let media_type = text.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        if media_type.is_empty() {
            return Err(malformed_content_type(&text));
        }
        Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        )))
    }
}

fn malformed_content_type(text: &str) -> ApiError {
    ApiError::bad_request(format!("malformed Content-Type header ({text}): mime: no media type"))
}

async fn collect(mut body: Incoming) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {JSON_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > JSON_MAX as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("the request body could not be read: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > JSON_MAX {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("version", &self.version)
            .field("captures", &self.captures)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}
