//! The sockets behind 127.0.0.11 in a container's network namespace.
//!
//! Containers are told that their nameserver is 127.0.0.11. Its port 53 is left to the container's
//! own programs: the sockets have ports of their own, and rules inside the namespace write 53 into
//! what goes to and comes from them. They only write, stateless: connections of the container are
//! not tracked for it, and no kernel module is needed but nf_tables.
//!
//! ```text
//! table ip boxship_dns
//!   chain queries  output, after conntrack:   to 127.0.0.11 port 53    -> to the socket's port
//!   chain answers  output, before conntrack:  from the socket's port   -> from port 53
//! ```
//!
//! Conntrack, if the container uses it, sees port 53 both ways. The daemon reads the sockets; the
//! supervisor holds them as well, so that queries wait in them while there is no daemon.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sys::netlink::nft::{BaseChain, Expression, Family, Hook, Layer, Meta, Table, Transaction};
use sys::netlink::{NetlinkError, Socket, namespace};

use crate::interfaces::io_failure;
use crate::protocol::Failure;

/// What containers have in `resolv.conf`.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;

const TCP: Transport = Transport { number: 6, checksum_offset: 16 };
const UDP: Transport = Transport { number: 17, checksum_offset: 6 };

struct Transport {
    number: u8,
    checksum_offset: u32,
}

/// A bound datagram socket and a listening one.
#[derive(Debug)]
pub struct Sockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

impl Sockets {
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { udp: self.udp.try_clone()?, tcp: self.tcp.try_clone()? })
    }

    /// In the order in which they are passed on.
    pub fn into_descriptors(self) -> [OwnedFd; 2] {
        [self.udp, self.tcp]
    }

    /// None when there are not two.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        Some(Self { udp, tcp })
    }
}

/// Makes the sockets and the rules that lead to them, in place of earlier ones. The loopback of
/// the namespace must be up.
pub fn open(netns: BorrowedFd<'_>) -> Result<Sockets, Failure> {
    let enter = |error| io_failure("enter the container's network namespace".to_owned(), &error);
    namespace::visit(netns, open_here).map_err(enter)?
}

fn open_here() -> Result<Sockets, Failure> {
    let bind = |error| io_failure(format!("bind {ADDRESS}"), &error);
    let (udp, tcp) = bind_all(0).map_err(bind)?;
    let ports = [
        (UDP, udp.local_addr().map_err(bind)?.port()),
        (TCP, tcp.local_addr().map_err(bind)?.port()),
    ];
    let (udp, tcp) = match lead_to(&ports) {
        Ok(()) => (udp, tcp),
        // Without a packet filter port 53 is not left to the container.
        Err(_no_filter) => bind_all(PORT).map_err(bind)?,
    };
    Ok(Sockets { udp: udp.into(), tcp: tcp.into() })
}

fn bind_all(port: u16) -> std::io::Result<(UdpSocket, TcpListener)> {
    let address = SocketAddrV4::new(ADDRESS, port);
    let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

fn lead_to(ports: &[(Transport, u16); 2]) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    // Not by way of deletion: after one, closing the socket waits for a grace period (13 ms).
    match write_rules(ports, false).commit(&mut socket) {
        Err(error) if error.errno == Errno::EXIST => write_rules(ports, true).commit(&mut socket),
        written => written,
    }
}

fn write_rules(ports: &[(Transport, u16); 2], again: bool) -> Transaction {
    let table = Table { family: Family::Ipv4, name: "boxship_dns".to_owned() };
    let output = |name, priority| BaseChain { name, kind: "filter", hook: Hook::Output, priority };
    let mut transaction = Transaction::new();
    if again {
        transaction.delete_table(&table);
    }
    transaction.new_table(&table);
    transaction.chain(&table, &output("queries", -150));
    transaction.chain(&table, &output("answers", -300));
    for (transport, port) in ports {
        let query = rewrite(transport, Side::Destination, PORT, *port);
        transaction.rule(&table, "queries", &query);
        let answer = rewrite(transport, Side::Source, *port, PORT);
        transaction.rule(&table, "answers", &answer);
    }
    transaction
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Of packets that have our address and a port on one side: writes another port.
fn rewrite(transport: &Transport, side: Side, from: u16, to: u16) -> Vec<Expression> {
    let (address_offset, port_offset) = match side {
        Side::Source => (12, 0),
        Side::Destination => (16, 2),
    };
    let load =
        |layer, offset, length| Expression::LoadPacket { layer, offset, length, register: 1 };
    let equal = |value: &[u8]| Expression::Equal { register: 1, value: value.to_vec() };
    vec![
        load(Layer::Network, address_offset, 4),
        equal(&ADDRESS.octets()),
        Expression::LoadMeta { key: Meta::L4Protocol, register: 1 },
        equal(&[transport.number]),
        load(Layer::Transport, port_offset, 2),
        equal(&from.to_be_bytes()),
        Expression::LoadValue { register: 1, value: to.to_be_bytes().to_vec() },
        Expression::WritePacket {
            layer: Layer::Transport,
            offset: port_offset,
            length: 2,
            register: 1,
            checksum_offset: transport.checksum_offset,
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn both_transports_answer_from_port_53() {
        let netns = namespace::create().unwrap();
        let inside = |work: fn()| namespace::visit(netns.as_fd(), work).unwrap();
        inside(|| crate::interfaces::bring_up_loopback().unwrap());
        drop(open(netns.as_fd()).unwrap());
        let sockets = open(netns.as_fd()).unwrap();
        let udp = UdpSocket::from(sockets.udp.try_clone().unwrap());
        let tcp = TcpListener::from(sockets.tcp.try_clone().unwrap());
        udp.set_nonblocking(false).unwrap();
        tcp.set_nonblocking(false).unwrap();
        assert_ne!(udp.local_addr().unwrap().port(), PORT);
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            let (length, client) = udp.recv_from(&mut buffer).unwrap();
            udp.send_to(&buffer[..length], client).unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            stream.read_exact(&mut buffer[..4]).unwrap();
            stream.write_all(&buffer[..4]).unwrap();
        });
        inside(|| {
            // The port is free for others.
            let _own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.connect((ADDRESS, PORT)).unwrap();
            client.send(b"ping").unwrap();
            let mut buffer = [0; 4];
            client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer, b"ping");
            let mut stream = TcpStream::connect((ADDRESS, PORT)).unwrap();
            stream.write_all(b"pong").unwrap();
            stream.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"pong");
        });
        echo.join().unwrap();
    }
}
