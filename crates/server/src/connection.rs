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
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
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

    /// From now on the end of the client's data is kept from hyper, which would take it for the
    /// end of the client: the route wants to take the connection over, and a client may have sent
    /// all its stdin and shut down that direction before the answer.
    pub(crate) fn hold(&self) {
        self.holding.store(true, Ordering::Relaxed);
    }

    /// Ends [`Client::hold`].
    pub(crate) fn release(&self) {
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
    let slot: Arc<Slot> = Arc::default();
    let service = ConnectionService { app, client: client.clone(), slot: Arc::clone(&slot) };
    let stream = stream::Held { transport, holding: Arc::clone(&client.holding) };
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
            connection.poll_without_shutdown(context)
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
        Ok(()) => (takeover.run)(stream).await,
        Err(error) => tracing::debug!(%error, "client left before its connection was taken over"),
    }
}

type Slot = Mutex<Option<Takeover>>;

struct ConnectionService {
    app: Arc<dyn App>,
    client: Client,
    slot: Arc<Slot>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Body>;
    type Error = TakenOver;
    type Future = BoxFuture<'static, Result<Response<Body>, TakenOver>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = self.app.call(request, &self.client);
        let client = self.client.clone();
        let slot = Arc::clone(&self.slot);
        Box::pin(async move {
            let answer = answer.await;
            client.release();
            match answer {
                Answer::Http(response) => Ok(response),
                Answer::Takeover(takeover) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
                    Err(TakenOver)
                }
            }
        })
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
