//! One client's connection, from the first byte to the last.
//!
//! hyper speaks HTTP. When a route takes the connection over (attach, exec, websockets), its
//! service ends hyper's part with an error, which writes nothing; the socket comes back with
//! whatever hyper had read ahead, and the takeover writes its own head. That is how both forms of
//! Docker's hijack work: `101 UPGRADED`, and the `200` without framing that clients without an
//! `Upgrade` header expect, which hyper could not send.
//!
//! Start at [`serve`].

mod stream;

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::answer::{Answer, Body, Takeover};

pub(crate) use stream::{ClientStream, Transport};

/// A head must be complete this long after its connection began, or after the answer before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Heads beyond this are answered 431. Credentials of many registries travel in one header.
const MAX_HEAD: usize = 256 << 10;

/// What serves the requests. The returned future may be dropped when the client leaves.
pub(crate) trait App: Send + Sync + 'static {
    fn call(&self, request: Request<Incoming>, client: &Client) -> BoxFuture<'static, Answer>;
}

/// What a handler may know of and do to its connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// How it came in.
    pub listener: Arc<ListenerInfo>,
    holding: Arc<AtomicBool>,
}

/// What all connections of one listener share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerInfo {
    /// A browser can be made to talk to this socket: `Host` and `Origin` are checked.
    pub reachable_by_browsers: bool,
    /// Names by which clients may call the listener, besides addresses and `localhost`.
    pub names: Vec<String>,
}

impl Client {
    pub(crate) fn new(listener: Arc<ListenerInfo>) -> Self {
        Self { listener, holding: Arc::default() }
    }

    /// From now on a client that stops sending is not taken for one that left: it may have said
    /// all it has to say, stdin of a hijacked stream included, and wait for the answer.
    fn hold(&self) {
        self.holding.store(true, Ordering::Relaxed);
    }

    fn release(&self) {
        self.holding.store(false, Ordering::Relaxed);
    }
}

/// Serves requests until the client leaves, a route takes the connection over and is done with
/// it, or `stop` turns true while no request is open.
pub(crate) async fn serve(
    transport: Transport,
    client: Client,
    app: Arc<dyn App>,
    mut stop: watch::Receiver<bool>,
) {
    let over_tcp = !matches!(transport, Transport::Unix(_));
    let stream = stream::Held::new(transport, Arc::clone(&client.holding));
    let slot: Arc<Slot> = Arc::default();
    let service = ConnectionService { app, client, slot: Arc::clone(&slot), over_tcp };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let ended = {
        let mut stopping = pin!(async move {
            // An error means that the sender is gone, which is the end of the daemon as well.
            drop(stop.wait_for(|stop| *stop).await);
        });
        let mut told = false;
        std::future::poll_fn(|context| {
            if !told && stopping.as_mut().poll(context).is_ready() {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Pin::new(&mut connection).poll(context)
        })
        .await
    };
    let parts = connection.into_parts();
    let takeover = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let stream = ClientStream::new(parts.io.into_inner().transport, parts.read_buf);
    match (takeover, ended) {
        (Some(takeover), _) => run(takeover, stream).await,
        (None, ended) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            stream.close().await;
        }
    }
}

async fn run(takeover: Takeover, mut stream: ClientStream) {
    match stream.write_all(&takeover.head).await {
        Ok(()) => {
            stream.head_taken().await;
            (takeover.run)(stream).await;
        }
        Err(error) => tracing::debug!(%error, "client left before its connection was taken over"),
    }
}

type Slot = Mutex<Option<Takeover>>;

struct ConnectionService {
    app: Arc<dyn App>,
    client: Client,
    slot: Arc<Slot>,
    over_tcp: bool,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<HeldBody>;
    type Error = TakenOver;
    type Future = BoxFuture<'static, Result<Response<HeldBody>, TakenOver>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.client.hold();
        let answer = self.app.call(request, &self.client);
        let client = self.client.clone();
        let slot = Arc::clone(&self.slot);
        let over_tcp = self.over_tcp;
        Box::pin(async move {
            match answer.await {
                Answer::Http(response) => {
                    // TCP does not tell a client that left from one that stopped sending, and
                    // nobody should follow events for a client that left.
                    if over_tcp && matches!(response.body(), Body::Stream(_)) {
                        client.release();
                    }
                    Ok(response.map(|body| HeldBody { body, client }))
                }
                Answer::Takeover(takeover) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
                    Err(TakenOver)
                }
            }
        })
    }
}

/// A body that holds the connection until it is sent.
struct HeldBody {
    body: Body,
    client: Client,
}

impl hyper::body::Body for HeldBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.client.release();
    }
}

/// Ends hyper's part of a connection.
#[derive(Debug)]
struct TakenOver;

impl fmt::Display for TakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was taken over")
    }
}

impl std::error::Error for TakenOver {}

#[cfg(test)]
mod tests;
