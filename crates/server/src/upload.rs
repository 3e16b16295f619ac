//! Large bodies between the network and blocking code, without holding them: an image archive is
//! read by `image` in a blocking thread as it arrives, and written as it leaves.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// A client may think that long between two pieces of an upload; a thread waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much of an upload that nobody wants any more is still read, so that the client gets to
/// read the answer before its connection is reset.
const DRAIN_MAX: usize = 8 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A request body as [`Read`], for a blocking thread. Reading a piece waits for the network, not
/// reading holds the client back.
#[derive(Debug)]
pub struct Upload {
    body: Option<Incoming>,
    current: Bytes,
    runtime: Handle,
    /// Told how it ended: the body, when it was not read to its end.
    rest: Option<oneshot::Sender<Incoming>>,
}

/// What is left of an upload when its reader is dropped.
#[derive(Debug)]
pub struct Rest(oneshot::Receiver<Incoming>);

impl Upload {
    /// Must be called in the runtime.
    pub(crate) fn new(body: Option<Incoming>) -> Self {
        Self { body, current: Bytes::new(), runtime: Handle::current(), rest: None }
    }

    /// The handle by which to drain what the reader leaves.
    pub fn rest(&mut self) -> Rest {
        let (sender, receiver) = oneshot::channel();
        self.rest = Some(sender);
        Rest(receiver)
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(body) = &mut self.body else { return Ok(0) };
            let next = async { tokio::time::timeout(PATIENCE, body.frame()).await };
            match self.runtime.block_on(next) {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.current = data;
                    }
                }
                Ok(Some(Err(error))) => {
                    self.body = None;
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
                Ok(None) => self.body = None,
                Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(rest), Some(body)) = (self.rest.take(), self.body.take()) {
            // An error means that nobody wants to drain it.
            drop(rest.send(body));
        }
    }
}

impl Rest {
    /// Waits for the reader to be dropped, then reads a little of what it left.
    pub async fn drain(self) {
        let Ok(mut body) = self.0.await else { return };
        let drained = async {
            let mut left = DRAIN_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let Some(less) = left.checked_sub(length) else { return };
                left = less;
            }
        };
        drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
    }
}

/// A response body as [`Write`], for a blocking thread; writing waits for the client.
#[derive(Debug)]
pub(crate) struct Download(mpsc::Sender<io::Result<Bytes>>);

/// Makes the two ends of a response body that blocking code writes.
pub(crate) fn download() -> (Download, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(4);
    (Download(sender), from_channel(receiver))
}

impl Download {
    /// A second handle, to report a failure with: the client then sees a broken transfer.
    pub(crate) fn failure(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.0.clone()
    }
}

impl Write for Download {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(chunk)).map_err(|_left| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving end of a channel as a stream.
pub(crate) fn from_channel<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl Stream<Item = T> + Send + 'static {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
}
