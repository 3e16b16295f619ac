//! One connection to the daemon, used for one request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;

use crate::body::HttpBody;
use crate::ssh::SshStream;
use crate::{Endpoint, Error, Response, Result, tls};

/// What an `ssh` takes at most from closing its pipes to its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The answer of most commands in one read, a long one in pieces that are used again.
const READ_BUFFER: usize = 64 << 10;

#[derive(Debug)]
pub enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Ssh(SshStream),
}

impl Connection {
    /// Connects, and shakes hands where TLS is asked for.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        let failed = |source| Error::connect(endpoint.address(), source);
        match endpoint {
            Endpoint::Unix { path, .. } => {
                Ok(Self::Unix(UnixStream::connect(path).await.map_err(failed)?))
            }
            Endpoint::Tcp { authority, tls: None, .. } => {
                Ok(Self::Tcp(open_tcp(authority).await.map_err(failed)?))
            }
            Endpoint::Tcp { authority, tls: Some(files), .. } => {
                let tcp = open_tcp(authority).await.map_err(failed)?;
                Ok(Self::Tls(Box::new(tls::handshake(tcp, authority, files).await?)))
            }
            Endpoint::Ssh(target) => Ok(Self::Ssh(SshStream::open(target).map_err(failed)?)),
        }
    }

    /// Sends the request; the connection lives on as a task until the answer's body ends.
    pub(crate) async fn send(
        mut self,
        request: hyper::Request<HttpBody>,
        endpoint: &Endpoint,
    ) -> Result<Response> {
        let complaint = match &mut self {
            Self::Ssh(stream) => stream.complaint(),
            _ => None,
        };
        match self.exchange(request, endpoint).await {
            Err(error) => Err(explained(error, endpoint, complaint).await),
            answer => answer,
        }
    }

    async fn exchange(
        self,
        request: hyper::Request<HttpBody>,
        endpoint: &Endpoint,
    ) -> Result<Response> {
        let failed = |source| Error::Transport { host: endpoint.address().to_owned(), source };
        // Without this the buffer doubles with each read, and each time it is new memory.
        let mut http = http1::Builder::new();
        http.read_buf_exact_size(Some(READ_BUFFER));
        let (mut sender, driver) = http.handshake(TokioIo::new(self)).await.map_err(failed)?;
        // Errors of the driver reach the caller through the answer or its body as well.
        tokio::spawn(async move {
            let _reported_by_the_body = driver.with_upgrades().await;
        });
        Ok(Response { inner: sender.send_request(request).await.map_err(failed)? })
    }
}

/// An `ssh` that ended knows better than a closed pipe what happened.
async fn explained(
    error: Error,
    endpoint: &Endpoint,
    complaint: Option<oneshot::Receiver<Option<String>>>,
) -> Error {
    let Some(complaint) = complaint else { return error };
    match tokio::time::timeout(LAST_WORDS, complaint).await {
        Ok(Ok(Some(complaint))) => Error::Ssh { host: endpoint.address().to_owned(), complaint },
        _ => error,
    }
}

async fn open_tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Calls the same method of whichever stream this is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Unix($stream) => $call,
            Self::Tcp($stream) => $call,
            Self::Tls($stream) => $call,
            Self::Ssh($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
