//! Connections that the kernel remembers: those of UDP outlive the container they led to.
//!
//! A client that goes on sending from the same port keeps its entry alive, and with it the old
//! container's address; a port that is published anew would never hear of that client.
//!
//! ```text
//! nfnetlink subsystem 1, get (dump) and delete: nfgenmsg | CTA_TUPLE_ORIG 1 | ...
//! tuple: CTA_TUPLE_IP 1 {...}, CTA_TUPLE_PROTO 2 { number 1, source port 2, destination port 3 }
//! ```

use sys::netlink::nft::Family;
use sys::netlink::{Batch, DUMP, NetlinkError, Socket, attribute};

use crate::ports::{Protocol, Published};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Forgets what UDP clients of these ports were connected to before. Costs one dump of the
/// kernel's table, and nothing without UDP.
pub(crate) fn forget_udp(ports: &[Published]) -> Result<(), NetlinkError> {
    let udp: Vec<_> = ports.iter().filter(|port| port.protocol == Protocol::Udp).collect();
    for ipv4 in [true, false] {
        let numbers: Vec<u16> = udp
            .iter()
            .filter(|port| port.host_ip.is_ipv4() == ipv4)
            .map(|port| port.host_port)
            .collect();
        if !numbers.is_empty() {
            forget(if ipv4 { Family::Ipv4 } else { Family::Ipv6 }, &numbers)?;
        }
    }
    Ok(())
}

fn forget(family: Family, ports: &[u16]) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    let header = [family as u8, 0, 0, 0];
    let mut dump = Batch::new();
    dump.message("list connections", GET, DUMP, &header, |_| {});
    for entry in socket.request(&mut dump)? {
        let attributes = entry.body.get(4..).unwrap_or_default();
        let original = attribute(attributes, ORIGINAL).unwrap_or_default();
        if !is_udp_to(original, ports) {
            continue;
        }
        let mut delete = Batch::new();
        delete.message("forget a connection", DELETE, 0, &header, |message| {
            message.nested(ORIGINAL, |tuple| {
                for (kind, value) in sys::netlink::attributes(original) {
                    tuple.bytes(kind | sys::netlink::NESTED, value);
                }
            });
        });
        // It may have ended by itself.
        match socket.transact(&mut delete) {
            Err(error) if error.errno != rustix::io::Errno::NOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_udp_to(tuple: &[u8], ports: &[u16]) -> bool {
    let protocol = attribute(tuple, TUPLE_PROTOCOL).unwrap_or_default();
    let number = attribute(protocol, PROTOCOL_NUMBER).and_then(|value| value.first());
    let port = attribute(protocol, DESTINATION_PORT).and_then(|value| value.first_chunk());
    number == Some(&Protocol::Udp.number())
        && port.is_some_and(|port| ports.contains(&u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_are_told_apart() {
        let tuple = |protocol: u8, port: u16| {
            let mut batch = Batch::new();
            batch.message("", 0, 0, &[], |message| {
                message.nested(1, |ip| ip.bytes(2, &[1, 2, 3, 4]));
                message.nested(TUPLE_PROTOCOL, |part| {
                    part.u8(PROTOCOL_NUMBER, protocol);
                    part.bytes(DESTINATION_PORT, &port.to_be_bytes());
                });
            });
            batch.bytes()[16..].to_vec()
        };
        assert!(is_udp_to(&tuple(17, 53), &[80, 53]));
        assert!(!is_udp_to(&tuple(17, 54), &[80, 53]));
        assert!(!is_udp_to(&tuple(6, 53), &[80, 53]));
        assert!(!is_udp_to(&[], &[53]));
    }
}
