//! Asking other servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use network::dns::{self, Transport};
use network::files::ExternalServer;
use sys::netlink::namespace;
use tokio::net::{TcpSocket, UdpSocket};

use super::{Inner, read_message, write_message};
use crate::containers;

/// As many as the C library asks.
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;
/// Clients wait five seconds before they ask again: time for a second server.
const PATIENCE: Duration = Duration::from_secs(2);
const LAST_PATIENCE: Duration = Duration::from_secs(4);

impl Inner {
    /// What the first server says that knows; or that none does.
    pub(super) async fn forward(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        let failed = || dns::failure(query);
        let Ok(_permit) = self.forwards.try_acquire() else { return failed() };
        let mut servers = self.servers();
        servers.truncate(SERVERS_MAX);
        let mut unsure = None;
        while !servers.is_empty() {
            let server = servers.remove(0);
            let patience = if servers.is_empty() { LAST_PATIENCE } else { PATIENCE };
            let asked = tokio::time::timeout(patience, self.ask(server, query, transport)).await;
            match asked {
                Ok(Ok(reply)) if !dns::is_unsure(&reply) => return reply,
                Ok(Ok(reply)) => unsure = Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "ask a name server"),
                Err(_elapsed) => tracing::debug!(%server, "a name server does not answer"),
            }
        }
        unsure.unwrap_or_else(failed)
    }

    /// None when the container has no way to the world.
    fn servers(&self) -> Vec<ExternalServer> {
        let snapshot = self.container.snapshot();
        if !snapshot.progress.endpoints.iter().any(containers::is_gateway) {
            return Vec::new();
        }
        let mut servers = containers::external_servers(&self.shared, &snapshot.definition);
        // That would be asking ourselves.
        servers.retain(|server| server.address != IpAddr::V4(runtime::resolver::ADDRESS));
        servers
    }

    async fn ask(
        &self,
        server: ExternalServer,
        query: &[u8],
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let address = SocketAddr::new(server.address, PORT);
        match transport {
            Transport::Udp => {
                let socket = self.on_side_of(server, || bind(address))??;
                let socket = UdpSocket::from_std(socket)?;
                socket.connect(address).await?;
                socket.send(query).await?;
                let mut reply = vec![0; usize::from(u16::MAX)];
                loop {
                    let length = socket.recv(&mut reply).await?;
                    if dns::answers(query, &reply[..length]) {
                        reply.truncate(length);
                        return Ok(reply);
                    }
                }
            }
            Transport::Tcp => {
                let socket = self.on_side_of(server, || match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                })??;
                let mut stream = socket.connect(address).await?;
                write_message(&mut stream, query).await?;
                let reply = read_message(&mut stream).await?;
                let answers = dns::answers(query, &reply);
                if answers { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
            }
        }
    }

    /// Makes a socket in the host's network or in the container's.
    fn on_side_of<T>(&self, server: ExternalServer, make: impl FnOnce() -> T) -> io::Result<T> {
        match server.from_host {
            true => Ok(make()),
            false => namespace::visit(self.namespace.as_fd(), make),
        }
    }
}

fn bind(server: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any = match server.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
