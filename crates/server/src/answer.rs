//! What a handler gives back: a response with a body that is empty, whole or streamed, an error,
//! or the connection itself taken over ([`Takeover`]).
//!
//! The one map from the kind of an error to a status is here ([`status_of`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use spec::{ErrorKind, Kinded};

use crate::connection::ClientStream;
use crate::version::ApiVersion;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What a route does with a request.
pub enum Answer {
    Http(Response<Body>),
    Takeover(Takeover),
}

/// The connection leaves HTTP: `head` is written as it is, then `run` owns the socket.
pub struct Takeover {
    pub head: Vec<u8>,
    pub run: Box<dyn FnOnce(ClientStream) -> BoxFuture<'static, ()> + Send>,
}

pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A response body.
pub enum Body {
    Empty,
    Whole(Bytes),
    Stream(Chunks),
}

/// An answer that is not a success, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl<E: Kinded> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self { status: status_of(error.kind()), message: text_with_causes(&error) }
    }
}

/// The only place that turns kinds into statuses.
pub(crate) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Our errors keep their causes apart; a client reads one line, as Go would have written it. A
/// transparent error shows its cause's text as its own, so that is not repeated.
pub(crate) fn text_with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    without_numbers(text)
}

/// `No space left on device (os error 28)` is `no space left on device` in Go.
fn without_numbers(mut text: String) -> String {
    while let Some((start, end)) = number_of_error(&text) {
        text.replace_range(start..end, "");
        let sentence = text[..start].rfind(": ").map_or(0, |colon| colon + 2);
        if let Some(first) = text.get_mut(sentence..sentence + 1) {
            first.make_ascii_lowercase();
        }
    }
    text
}

fn number_of_error(text: &str) -> Option<(usize, usize)> {
    let start = text.find(" (os error ")?;
    let length = text[start..].find(')')?;
    Some((start, start + length + 1))
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// `thing` is a singular: "pulling an image".
    pub fn not_supported(thing: &str) -> Self {
        let message = format!("{thing} is not supported by boxship yet");
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// JSON since 1.24; older clients show the body as it comes.
    pub fn into_response(self, version: ApiVersion) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return status(self.status);
        }
        if version.has(24) {
            let body = api_types::ErrorResponse { message: self.message };
            return json_with(self.status, &body);
        }
        let mut response = Response::new(Body::Whole(format!("{}\n", self.message).into()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response
            .headers_mut()
            .insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
        response
    }
}

/// An answer without a body: 204, 200, 304.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Response<Body> {
    json_with(StatusCode::OK, value)
}

pub(crate) fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    let mut response = json_text(to_text(value));
    *response.status_mut() = status;
    response
}

/// A value that is JSON already.
pub(crate) fn json_text(mut text: Vec<u8>) -> Response<Body> {
    text.push(b'\n');
    let mut response = Response::new(Body::Whole(text.into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A value and the line end that Go's encoder writes after it.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut text = to_text(value);
    text.push(b'\n');
    text.into()
}

fn to_text<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("API types have string keys only")
}

/// A response whose head is sent at once and whose body comes as it comes.
pub(crate) fn stream(
    content_type: HeaderValue,
    chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::pin(chunks)));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self::Http(response)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(chunks) => chunks
                .as_mut()
                .poll_next(context)
                .map(|next| next.map(|next| next.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(response) => response.fmt(f),
            Self::Takeover(takeover) => takeover.fmt(f),
        }
    }
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Takeover({})", String::from_utf8_lossy(&self.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read state")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_are_named_once() {
        let error = Outer(io::Error::other("disk is full"));
        assert_eq!(text_with_causes(&error), "read state: disk is full");
        let error = Outer(io::Error::from_raw_os_error(28));
        assert_eq!(text_with_causes(&error), "read state: no space left on device");
        let filter = spec::filters::FilterError::Malformed;
        assert_eq!(text_with_causes(&filter), "invalid filter");
    }
}
