//! Ports of containers on the host's addresses: which are given out, and how each is kept.
//!
//! A published port is an element of the firewall's maps ([`crate::firewall`]); no process stands
//! between. So that no program of the host takes the same port, a socket is bound to it that
//! nobody ever reads: TCP closed again after listening (what reaches the host nevertheless is
//! refused), UDP with no room. Who holds these sockets holds the ports; [`Reserved::into_carrier`]
//! puts them all into one descriptor, which the supervisor keeps as long as the container runs, so
//! that neither the end of the daemon nor its start frees or takes a port.
//!
//! Two of our own containers are kept apart by the endpoints in memory, not by the sockets: those
//! are gone if the supervisor was killed, until [`reserve_again`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol as SocketProtocol, Shutdown, SocketFlags, SocketType, bind, ipproto,
    listen, shutdown, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;

/// Docker's range where the kernel has none.
const EPHEMERAL: RangeInclusive<u16> = 49153..=65535;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// IANA's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(NetworkError::UnknownProtocol),
        }
    }
}

/// What a container asks for: one port of its own on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub container_port: u16,
    /// None for every address of the host.
    pub host_ip: Option<IpAddr>,
    /// The first free one of these; none for one of the ephemeral range.
    pub host_ports: Option<RangeInclusive<u16>>,
}

/// One port of one host address (perhaps the unspecified one), and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    pub host_port: u16,
    pub container_ip: IpAddr,
    pub container_port: u16,
}

impl fmt::Display for Published {
    /// As in Docker's errors: `0.0.0.0:8080:172.17.0.2:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = SocketAddr::new(self.host_ip, self.host_port);
        let container = SocketAddr::new(self.container_ip, self.container_port);
        write!(f, "{host}:{container}/{}", self.protocol)
    }
}

impl Published {
    /// Whether both cannot be: the same port on one address, or on any and one.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let meets = self.host_ip == other.host_ip
            || self.host_ip.is_ipv4() == other.host_ip.is_ipv4()
                && (self.host_ip.is_unspecified() || other.host_ip.is_unspecified());
        meets && self.protocol == other.protocol && self.host_port == other.host_port
    }
}

/// Ports with the sockets that keep them.
#[derive(Debug, Default)]
pub struct Reserved {
    pub ports: Vec<Published>,
    sockets: Vec<OwnedFd>,
}

impl Reserved {
    /// One descriptor that keeps all ports as long as it is open: the sockets are on their way
    /// through it, unread. None without ports.
    pub fn into_carrier(self) -> io::Result<Option<OwnedFd>> {
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let (sender, carrier) = sys::socket::seqpacket_pair()?;
        let borrowed: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        for part in borrowed.chunks(sys::socket::MAX_DESCRIPTORS) {
            sys::socket::send(&sender, b"ports", part)?;
        }
        Ok(Some(carrier))
    }
}

/// Where the container is, and where its ports go if it does not say.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub ips: Vec<IpAddr>,
    /// `--ip`
    pub default_bind_ip: Option<IpAddr>,
}

/// Gives out ports, next to those `taken`. `next` is where the last search in the ephemeral range
/// ended. All or none.
pub(crate) fn reserve(
    wanted: &[PortRequest],
    place: &Place,
    taken: &[Published],
    next: &mut u16,
) -> Result<Reserved, NetworkError> {
    let mut reserved = Reserved::default();
    // Those with one choice come first, those without a wish last.
    let mut order: Vec<&PortRequest> = wanted.iter().collect();
    order.sort_by_key(|request| match &request.host_ports {
        Some(range) => range.end() - range.start(),
        None => u16::MAX,
    });
    for request in order {
        let addresses = addresses(request, place)?;
        let (candidates, fixed) = candidates(request, *next);
        let found = first_free(request, &addresses, candidates, fixed, taken, &mut reserved)?;
        if request.host_ports.is_none() {
            *next = found.checked_add(1).unwrap_or_default();
        }
    }
    Ok(reserved)
}

/// The host's addresses to publish on, each with that of the container of its family.
fn addresses(request: &PortRequest, place: &Place) -> Result<Vec<(IpAddr, IpAddr)>, NetworkError> {
    let own = |ipv4: bool| place.ips.iter().copied().find(|ip| ip.is_ipv4() == ipv4);
    let asked = request.host_ip.or(place.default_bind_ip);
    if asked == Some(Ipv6Addr::LOCALHOST.into()) {
        let feature = "publishing a port on ::1 (there is no userland proxy)".to_owned();
        return Err(NetworkError::Unsupported { feature });
    }
    if let Some(host) = asked.filter(|ip| request.host_ip.is_some() || !ip.is_unspecified()) {
        let container = own(host.is_ipv4());
        let container = container.ok_or(NetworkError::NoAddressToPublish { host })?;
        return Ok(vec![(host, container)]);
    }
    let everywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    Ok(everywhere.into_iter().filter_map(|any: IpAddr| Some((any, own(any.is_ipv4())?))).collect())
}

/// The ports to try in order, and whether there is only one choice.
fn candidates(request: &PortRequest, next: u16) -> (Box<dyn Iterator<Item = u16>>, bool) {
    match &request.host_ports {
        Some(range) => (Box::new(range.clone()), range.start() == range.end()),
        None => {
            let range = ephemeral_range();
            let from = if range.contains(&next) { next } else { *range.start() };
            (Box::new((from..=*range.end()).chain(*range.start()..from)), false)
        }
    }
}

fn ephemeral_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low > 0 && low < high => low..=high,
        _ => EPHEMERAL,
    }
}

fn first_free(
    request: &PortRequest,
    addresses: &[(IpAddr, IpAddr)],
    candidates: impl Iterator<Item = u16>,
    fixed: bool,
    taken: &[Published],
    reserved: &mut Reserved,
) -> Result<u16, NetworkError> {
    for host_port in candidates {
        let ports = addresses.iter().map(|(host_ip, container_ip)| Published {
            protocol: request.protocol,
            host_ip: *host_ip,
            host_port,
            container_ip: *container_ip,
            container_port: request.container_port,
        });
        let ports: Vec<_> = ports.collect();
        match hold_all(&ports, taken, &reserved.ports) {
            Ok(sockets) => {
                reserved.ports.extend(ports);
                reserved.sockets.extend(sockets);
                return Ok(host_port);
            }
            // Another port may be free; no other port makes an address ours.
            Err(NetworkError::PortAllocated { .. }) if !fixed => {}
            Err(NetworkError::PortBind { errno: Errno::ADDRINUSE, .. }) if !fixed => {}
            Err(error) => return Err(error),
        }
    }
    Err(NetworkError::PortsExhausted)
}

/// One port on all addresses that it is to be had on.
fn hold_all(
    ports: &[Published],
    taken: &[Published],
    own: &[Published],
) -> Result<Vec<OwnedFd>, NetworkError> {
    let mut sockets = Vec::with_capacity(ports.len());
    for port in ports {
        if taken.iter().chain(own).any(|other| port.collides(other)) {
            let (ip, port) = (port.host_ip, port.host_port);
            return Err(NetworkError::PortAllocated { ip, port, owner: None });
        }
        let held = hold(port);
        let bind_error = |errno| NetworkError::PortBind { port: port.clone(), errno };
        sockets.extend(held.map_err(bind_error)?);
    }
    Ok(sockets)
}

/// Binds again what is published, for a supervisor that lost its descriptors. What still is held,
/// or was taken by others meanwhile, is left out.
pub fn reserve_again(ports: &[Published]) -> Reserved {
    let mut reserved = Reserved::default();
    for port in ports {
        match hold(port) {
            Ok(socket) => {
                reserved.ports.push(port.clone());
                reserved.sockets.extend(socket);
            }
            Err(errno) => tracing::debug!(%port, %errno, "reserve a port again"),
        }
    }
    reserved
}

/// Binds a socket to the port; none where the kernel does not know the protocol, so that nobody
/// else can take it either.
fn hold(port: &Published) -> Result<Option<OwnedFd>, Errno> {
    let family = if port.host_ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol): (_, SocketProtocol) = match port.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)) {
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => return Ok(None),
        other => other?,
    };
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let address = SocketAddr::new(port.host_ip, port.host_port);
    if port.protocol != Protocol::Tcp {
        // What is not translated, as while the rules were flushed, must not pile up.
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
        bind(&socket, &address)?;
        return Ok(Some(socket));
    }
    // With this a connection that closed a moment ago is no obstacle; whether somebody listens
    // is then found out by listening.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 1)?;
    // The port stays bound, and nothing is accepted any more.
    shutdown(&socket, Shutdown::Both)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { ips: vec![[172, 17, 0, 2].into()], default_bind_ip: None }
    }

    fn request(host: &str, ports: Option<RangeInclusive<u16>>) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host.parse().ok(),
            host_ports: ports,
        }
    }

    fn shown(ports: &[Published]) -> Vec<String> {
        ports.iter().map(Published::to_string).collect()
    }

    /// A port that nobody has on this machine at this moment.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_port_is_kept_from_everybody() {
        let port = free_port();
        let wanted = [request("127.0.0.1", Some(port..=port))];
        let first = reserve(&wanted, &place(), &[], &mut 0).unwrap();
        assert_eq!(shown(&first.ports), [format!("127.0.0.1:{port}:172.17.0.2:80/tcp")]);
        // Ours, known by memory.
        let error = reserve(&wanted, &place(), &first.ports, &mut 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
        // Somebody's, known by the kernel; std's listener says SO_REUSEADDR.
        let error = reserve(&wanted, &place(), &[], &mut 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to bind host port for 127.0.0.1:{port}:172.17.0.2:80/tcp: address already \
                 in use"
            )
        );
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        let refused = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(reserve_again(&first.ports).ports.is_empty());
        let carrier = first.into_carrier().unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        drop(carrier);
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn ranges_give_the_first_that_is_free() {
        let port = free_port().min(u16::MAX - 2);
        let range = Some(port..=port + 1);
        let taken = reserve(&[request("127.0.0.2", range.clone())], &place(), &[], &mut 0).unwrap();
        assert_eq!(taken.ports[0].host_port, port);
        let wanted = [request("127.0.0.2", range)];
        let second = reserve(&wanted, &place(), &taken.ports, &mut 0).unwrap();
        assert_eq!(second.ports[0].host_port, port + 1);
        let all = [taken.ports.clone(), second.ports.clone()].concat();
        let error = reserve(&wanted, &place(), &all, &mut 0).unwrap_err();
        assert_eq!(error.to_string(), "all ports are allocated");
    }

    #[test]
    fn without_a_wish_ports_come_in_turn() {
        let mut next = 0;
        let wanted = [request("127.0.0.3", None), request("127.0.0.3", None)];
        let reserved = reserve(&wanted, &place(), &[], &mut next).unwrap();
        let [one, two] = [reserved.ports[0].host_port, reserved.ports[1].host_port];
        assert!(ephemeral_range().contains(&one) && one < two && next == two + 1);
    }

    #[test]
    fn families_go_to_their_own() {
        let both = Place { ips: vec![[10, 0, 0, 2].into(), "fd00::2".parse().unwrap()], ..place() };
        let check = |host: &str, place: &Place, expect: &[&str]| {
            let found = addresses(&request(host, None), place).unwrap();
            let found: Vec<_> = found.iter().map(|(host, own)| format!("{host} {own}")).collect();
            assert_eq!(found, expect, "{host}");
        };
        check("", &both, &["0.0.0.0 10.0.0.2", ":: fd00::2"]);
        check("", &place(), &["0.0.0.0 172.17.0.2"]);
        check("0.0.0.0", &both, &["0.0.0.0 10.0.0.2"]);
        check("fd00::9", &both, &["fd00::9 fd00::2"]);
        assert!(addresses(&request("::1", None), &both).is_err());
        let bound = Place { default_bind_ip: Some([127, 0, 0, 1].into()), ..both };
        check("", &bound, &["127.0.0.1 10.0.0.2"]);
        check("0.0.0.0", &bound, &["0.0.0.0 10.0.0.2"]);
        assert!(addresses(&request("fd00::9", None), &place()).is_err());
    }

    #[test]
    fn collisions() {
        let port = |ip: &str, protocol| Published {
            protocol,
            host_ip: ip.parse().unwrap(),
            host_port: 53,
            container_ip: [10, 0, 0, 2].into(),
            container_port: 53,
        };
        let check = |one: &str, other: &str, expect| {
            let (one, other) = (port(one, Protocol::Tcp), port(other, Protocol::Tcp));
            assert_eq!((one.collides(&other), other.collides(&one)), (expect, expect));
        };
        check("0.0.0.0", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("0.0.0.0", "::", false);
        check("::", "::1", true);
        assert!(!port("::", Protocol::Tcp).collides(&port("::", Protocol::Udp)));
    }
}
