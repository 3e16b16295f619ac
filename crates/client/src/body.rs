//! Request bodies: nothing, bytes that can be sent again, or a stream that cannot.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;

pub(crate) type HttpBody = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is produced while it is sent.
pub struct Body(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl Body {
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }

    pub(crate) fn into_http(self) -> HttpBody {
        StreamBody::new(Frames(self.0)).boxed_unsync()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body(stream)")
    }
}

struct Frames(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl Stream for Frames {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx).map(|item| item.map(|chunk| chunk.map(Frame::data)))
    }
}

pub(crate) fn empty() -> HttpBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: Bytes) -> HttpBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
