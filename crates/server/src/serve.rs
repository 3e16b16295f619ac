//! Accepts clients on all listeners until told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{App, Client, Transport, serve};
use crate::listen::{Listener, Socket};

/// A client must have finished its TLS handshake this long after it connected.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of accept that is about us (out of descriptors), not about one client.
const PAUSE: Duration = Duration::from_millis(100);

/// What listeners have in common.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<dyn App>,
    /// One permit a connection, so that clients cannot use up the descriptors that containers
    /// need.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Accepts on one listener until `stop`, then lets open requests end. Dropping the future ends
/// the connections at once. Must be called in the runtime.
pub(crate) async fn accept(listener: Listener, service: Service) -> io::Result<()> {
    let acceptor = Acceptor::new(&listener)?;
    let mut connections = JoinSet::new();
    let mut stop = service.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let transport = match accepted {
            Ok(transport) => transport,
            Err(error) if concerns_one_client(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, listener = listener.name, "cannot accept clients");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&service.connections).try_acquire_owned() else {
            tracing::warn!(listener = listener.name, "too many clients: one was sent away");
            continue;
        };
        connections.spawn(connection(transport, &listener, &service, permit));
    }
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task failed");
    }
}

fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn connection(
    transport: Transport,
    listener: &Listener,
    service: &Service,
    permit: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + 'static {
    let client = Client::new(Arc::clone(&listener.info));
    let tls = listener.tls.clone();
    let app = Arc::clone(&service.app);
    let stop = service.stop.clone();
    async move {
        let _permit = permit;
        let transport = match (transport, tls) {
            (Transport::Tcp(stream), Some(tls)) => {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream))
                    .await
                {
                    Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
                    Ok(Err(error)) => return tracing::info!(%error, "TLS handshake failed"),
                    Err(_elapsed) => return tracing::info!("TLS handshake timed out"),
                }
            }
            (transport, _) => transport,
        };
        serve(transport, client, app, stop).await;
    }
}

enum Acceptor {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Acceptor {
    fn new(listener: &Listener) -> io::Result<Self> {
        match &listener.socket {
            Socket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket.try_clone()?)?))
            }
            Socket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.try_clone()?)?))
            }
        }
    }

    async fn accept(&self) -> io::Result<Transport> {
        match self {
            Self::Unix(listener) => Ok(Transport::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and someone waits for each.
                stream.set_nodelay(true)?;
                Ok(Transport::Tcp(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests;
