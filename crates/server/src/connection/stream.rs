//! The socket under a connection: Unix, TCP or TLS; and the same after HTTP has let go of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// How long a client may go on sending after we have said all, before we hang up on it.
const LINGER: Duration = Duration::from_secs(1);

/// Milliseconds a client gets to read the head of an answer before the stream begins.
const HEAD_PATIENCE: u32 = 50;
/// How often to look before the first of those milliseconds.
const HEAD_YIELDS: u32 = 50;

#[derive(Debug)]
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn hangup(&self) -> Hangup {
        let fd = match self {
            Self::Unix(stream) => stream.as_fd().try_clone_to_owned(),
            Self::Tcp(stream) => stream.as_fd().try_clone_to_owned(),
            Self::Tls(stream) => stream.get_ref().0.as_fd().try_clone_to_owned(),
        };
        Hangup(fd)
    }
}

/// Resolves when both directions are closed. Not when the client only stops sending: `echo x |
/// docker attach` shuts down its half and still wants to read.
#[derive(Debug)]
pub struct Hangup(io::Result<OwnedFd>);

impl Hangup {
    pub async fn wait(self) {
        if let Err(error) = self.watch().await {
            // Without the watch a departed client is found out by the next write to it.
            tracing::debug!(%error, "cannot watch a client for hangup");
            std::future::pending::<()>().await;
        }
    }

    /// A registration with epoll of its own, so that clearing its readiness disturbs no writer.
    /// Any stream socket will do as a `TcpStream` for that.
    async fn watch(self) -> io::Result<()> {
        let socket = TcpStream::from_std(std::net::TcpStream::from(self.0?))?;
        loop {
            // The write side: the read side is ready for good once the client stops sending.
            if socket.ready(Interest::WRITABLE).await?.is_write_closed() {
                return Ok(());
            }
            let not_yet = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            // Asks to be woken by the next change.
            drop(socket.try_io(Interest::WRITABLE, not_yet));
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// The socket as hyper sees it: while `holding`, a client that only stopped sending does not
/// show. One that is gone does.
pub(super) struct Held {
    pub(super) transport: Transport,
    holding: Arc<AtomicBool>,
    /// Set once the end of the data was kept back.
    departure: Option<BoxFuture<'static, ()>>,
}

impl Held {
    pub(super) fn new(transport: Transport, holding: Arc<AtomicBool>) -> Self {
        Self { transport, holding, departure: None }
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        let ended = buffer.filled().len() == before && buffer.capacity() > before;
        if !ended || !self.holding.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        // The end can be read again when nothing holds it back any more; hyper then asks, for it
        // has an answer to finish or a request to wait for.
        let this = &mut *self;
        let departure =
            this.departure.get_or_insert_with(|| Box::pin(this.transport.hangup().wait()));
        ready!(departure.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}

/// A connection that left HTTP. What hyper had read beyond the request comes first.
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    read_ahead: Bytes,
}

impl ClientStream {
    pub(super) fn new(transport: Transport, read_ahead: Bytes) -> Self {
        Self { transport, read_ahead }
    }

    /// A watch for the client's complete departure.
    pub fn hangup(&self) -> Hangup {
        self.transport.hangup()
    }

    /// Waits, within reason, until the client has taken the head of the answer. docker-py reads
    /// it through a buffer that it then throws away, with all of the stream that came along.
    /// dockerd takes so long to start a process that it never happens there.
    pub async fn head_taken(&self) {
        for round in 0..HEAD_PATIENCE + HEAD_YIELDS {
            let untaken = match &self.transport {
                Transport::Unix(stream) => sys::socket::untaken(stream),
                Transport::Tcp(stream) => sys::socket::untaken(stream),
                Transport::Tls(stream) => sys::socket::untaken(stream.get_ref().0),
            };
            if untaken.is_ok_and(|bytes| bytes == 0) {
                break;
            }
            // Most clients wait for it and have it in microseconds.
            if round < HEAD_YIELDS {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if !matches!(self.transport, Transport::Unix(_)) {
            // On TCP only the peer's kernel is known to have it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes our direction and reads the other to its end: closing a socket that has unread data
    /// resets the connection, and the client would lose the last of what we sent.
    pub async fn close(mut self) {
        if let Err(error) = self.shutdown().await {
            tracing::debug!(%error, "client left before the connection was closed");
            return;
        }
        let drained = async {
            let mut buffer = vec![0; 4096];
            while matches!(self.read(&mut buffer).await, Ok(1..)) {}
        };
        // Whoever goes on sending after that has had its chance to read.
        drop(tokio::time::timeout(LINGER, drained).await);
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(&mut self.transport).poll_read(context, buffer);
        }
        let length = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead[..length]);
        self.read_ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
