//! The resolver of containers in users' networks: what answers at 127.0.0.11 inside.
//!
//! The sockets are in the container's network namespace (`runtime::resolver`), held by the
//! supervisor as well: a query that comes while no daemon lives waits in them, and the next daemon
//! answers it before the client asks again. What is said is decided by `network::dns`; here is who
//! asks whom.
//!
//! A query that is nobody's in the container's networks goes to the container's own `--dns`
//! servers from its own namespace, so that whatever holds for its packets holds for these, or to
//! the host's servers from the host. A container with no way to the world, in internal networks
//! only, hears that the server failed, as with Docker.

mod forward;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use network::dns::{self, Outcome, Transport};
use runtime::resolver::Sockets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::containers::{Container, Shared};

/// Queries that wait for other servers, of one container; more are told that the server failed.
const FORWARDS_MAX: usize = 256;
const CONNECTIONS_MAX: usize = 64;
/// Queries are smaller.
const QUERY_MAX: usize = 4096;
/// A client that keeps a connection says something so often.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of a socket that should have none.
const RECOVERY: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    udp: Arc<UdpSocket>,
    tcp: Arc<TcpListener>,
    tasks: [AbortHandle; 2],
}

impl Resolver {
    /// Copies of its sockets.
    pub(crate) fn sockets(&self) -> io::Result<Sockets> {
        let udp = self.udp.as_fd().try_clone_to_owned()?;
        Ok(Sockets { udp, tcp: self.tcp.as_fd().try_clone_to_owned()? })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Begins to answer for a container.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    sockets: Sockets,
) -> io::Result<Resolver> {
    let namespace = sys::netlink::namespace::of_socket(sockets.udp.as_fd())?;
    let (udp, tcp) = (std::net::UdpSocket::from(sockets.udp), sockets.tcp);
    let udp = Arc::new(UdpSocket::from_std(udp)?);
    let tcp = Arc::new(TcpListener::from_std(std::net::TcpListener::from(tcp))?);
    let inner = Arc::new(Inner {
        shared: Arc::clone(shared),
        container: Arc::clone(container),
        namespace,
        turn: AtomicUsize::new(0),
        forwards: Semaphore::new(FORWARDS_MAX),
    });
    let datagrams = tokio::spawn(Arc::clone(&inner).serve_datagrams(Arc::clone(&udp)));
    let connections = tokio::spawn(inner.serve_connections(Arc::clone(&tcp)));
    let tasks = [datagrams.abort_handle(), connections.abort_handle()];
    Ok(Resolver { udp, tcp, tasks })
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    container: Arc<Container>,
    /// The container's network.
    namespace: OwnedFd,
    turn: AtomicUsize,
    forwards: Semaphore,
}

impl Inner {
    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        // What is under way ends with this: it holds the namespace.
        let mut forwards = JoinSet::new();
        loop {
            while forwards.try_join_next().is_some() {}
            let received = match socket.readable().await {
                Ok(()) => receive(&socket),
                Err(error) => Err(error),
            };
            let (query, client) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    self.complain(&error).await;
                    continue;
                }
            };
            match self.answer(&query, Transport::Udp) {
                Outcome::Answer(reply) => send(&socket, &reply, client),
                Outcome::Ignore => {}
                Outcome::Forward => {
                    let (this, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    forwards.spawn(async move {
                        let reply = this.forward(&query, Transport::Udp).await;
                        send(&socket, &reply, client);
                    });
                }
            }
        }
    }

    async fn serve_connections(self: Arc<Self>, listener: Arc<TcpListener>) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            match listener.accept().await {
                Ok((stream, _client)) => {
                    let this = Arc::clone(&self);
                    // However it ends, the client sees the end.
                    connections.spawn(async move { drop(this.serve_connection(stream).await) });
                }
                Err(error) => self.complain(&error).await,
            }
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let query = tokio::time::timeout(IDLE, read_message(&mut stream)).await??;
            let reply = match self.answer(&query, Transport::Tcp) {
                Outcome::Answer(reply) => reply,
                Outcome::Ignore => return Ok(()),
                Outcome::Forward => self.forward(&query, Transport::Tcp).await,
            };
            write_message(&mut stream, &reply).await?;
        }
    }

    fn answer(&self, query: &[u8], transport: Transport) -> Outcome {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        dns::answer(query, transport, turn, self)
    }

    async fn complain(&self, error: &io::Error) {
        tracing::debug!(container = %self.container.id, %error, "read queries for names");
        tokio::time::sleep(RECOVERY).await;
    }
}

impl dns::Names for Inner {
    /// `name`, or `name.network`, in the networks of the container; links of its own first.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let snapshot = self.container.snapshot();
        let networks = &self.shared.networks;
        let endpoints = &snapshot.progress.endpoints;
        let linked = |endpoint: &network::Endpoint| {
            let settings = snapshot.definition.endpoints.get(&endpoint.network_name)?;
            let target = settings.links.iter().flatten().find_map(|link| {
                let (target, alias) = link.split_once(':').unwrap_or((link, link));
                alias.eq_ignore_ascii_case(name).then_some(target)
            })?;
            let target = self.shared.registry.find(target).ok()?;
            let name = target.id.short().to_owned();
            Some(networks.addresses(&endpoint.network_id, &name))
        };
        let direct = |endpoint: &network::Endpoint| networks.addresses(&endpoint.network_id, name);
        let qualified = |endpoint: &network::Endpoint| {
            let network = endpoint.network_name.to_ascii_lowercase();
            let name = name.strip_suffix(&network)?.strip_suffix('.')?;
            Some(networks.addresses(&endpoint.network_id, name))
        };
        let found = endpoints.iter().filter_map(linked);
        let found = found.chain(endpoints.iter().map(direct));
        let mut found = found.chain(endpoints.iter().filter_map(qualified));
        found.find(|addresses| !addresses.is_empty())
    }

    fn name(&self, ip: IpAddr) -> Option<String> {
        let snapshot = self.container.snapshot();
        snapshot.progress.endpoints.iter().find_map(|endpoint| {
            let name = self.shared.networks.name_at(&endpoint.network_id, ip)?;
            Some(format!("{name}.{}", endpoint.network_name))
        })
    }
}

/// No buffer waits for the next query: most containers ask nothing for hours.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; QUERY_MAX];
    let (length, client) = socket.try_recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), client))
}

/// A client that has gone, or whose socket is full, asks again if it still wants to know.
fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    drop(socket.try_send_to(reply, client));
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
