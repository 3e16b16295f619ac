//! Links, addresses and routes: what is said to rtnetlink and what it answers.
//!
//! Encoders add one message to a [`Batch`] each and decide nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Attributes, Batch, CREATE, DUMP, EXCLUSIVE, NetlinkError, REPLACE, Socket, attribute,
    read_text, read_u32,
};

pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_LINK: u16 = 5;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_IFALIAS: u16 = 20;
pub const IFLA_NET_NS_FD: u16 = 28;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub const IFLA_BRPORT_MODE: u16 = 4;
pub const IFLA_BRPORT_ISOLATED: u16 = 33;
pub const VETH_INFO_PEER: u16 = 1;
pub const IFLA_MACVLAN_MODE: u16 = 1;
pub const IFLA_IPVLAN_MODE: u16 = 1;
pub const IFLA_IPVLAN_FLAGS: u16 = 2;
pub const IFLA_VLAN_ID: u16 = 1;
pub const UP: u32 = 1;
/// The index of `lo` in every namespace.
pub const LOOPBACK: u32 = 1;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const INET: u8 = 2;
const INET6: u8 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u32 = 255;
const PROTOCOL_BOOT: u8 = 3;
const UNICAST: u8 = 1;

/// An `ifinfomsg`: which flags of which link to change.
pub fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a link, up from birth; `fill` says what it is.
pub fn create_link(
    batch: &mut Batch,
    step: &'static str,
    name: &str,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    new_link(batch, step, name, link_header(0, UP, UP), fill);
}

/// Makes a link that stays down until [`set_up`].
pub fn create_link_down(
    batch: &mut Batch,
    step: &'static str,
    name: &str,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    new_link(batch, step, name, link_header(0, 0, 0), fill);
}

fn new_link(
    batch: &mut Batch,
    step: &'static str,
    name: &str,
    header: [u8; 16],
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    batch.message(step, NEW_LINK, CREATE | EXCLUSIVE, &header, |link| {
        link.text(IFLA_IFNAME, name);
        fill(link);
    });
}

/// Changes a link found by name.
pub fn change_link(
    batch: &mut Batch,
    step: &'static str,
    name: &str,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    batch.message(step, NEW_LINK, 0, &link_header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name);
        fill(link);
    });
}

/// Gives a link that is down another name.
pub fn rename_link(batch: &mut Batch, step: &'static str, index: u32, name: &str) {
    batch.message(step, NEW_LINK, 0, &link_header(index, 0, 0), |link| {
        link.text(IFLA_IFNAME, name);
    });
}

/// Whether the kernel has this kind of link, one that needs a parent: without one none is made.
pub fn knows_kind(socket: &mut Socket, kind: &str) -> Result<bool, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("try", NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0), |link| {
        link.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
    });
    match socket.transact(&mut batch) {
        Err(error) if error.errno == rustix::io::Errno::OPNOTSUPP => Ok(false),
        Err(error) if error.errno == rustix::io::Errno::INVAL => Ok(true),
        other => other.map(|()| true),
    }
}

pub fn set_up(batch: &mut Batch, step: &'static str, index: u32) {
    batch.message(step, NEW_LINK, 0, &link_header(index, UP, UP), |_| {});
}

/// Has the kernel act at once on a carrier that came or went, as it does (since 6.8) before it
/// describes a link. Otherwise a kernel thread does it when it gets the lock.
pub fn settle(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message("ask for link", GET_LINK, 0, &link_header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name);
    });
    socket.request(&mut batch).map(drop)
}

/// Makes a gateway the default one, in place of another.
pub fn replace_default_route(batch: &mut Batch, step: &'static str, index: u32, gateway: IpAddr) {
    let anywhere = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    new_route(batch, step, index, (anywhere, 0), gateway, CREATE | REPLACE);
}

/// Deleting waits for a grace period (measured 8-19 ms).
pub fn delete_link(batch: &mut Batch, step: &'static str, name: &str) {
    batch.message(step, DELETE_LINK, 0, &link_header(0, 0, 0), |link| {
        link.text(IFLA_IFNAME, name);
    });
}

/// Adds an address; IPv6 without duplicate detection, since the caller owns the subnet. One that
/// is there already is left as it is.
pub fn add_address(batch: &mut Batch, step: &'static str, index: u32, ip: IpAddr, prefix: u8) {
    let header = address_header(index, ip, prefix);
    batch.message(step, NEW_ADDRESS, CREATE | REPLACE, &header, |address| {
        let octets = octets(ip);
        address.bytes(IFA_LOCAL, &octets);
        address.bytes(IFA_ADDRESS, &octets);
        if let (IpAddr::V4(ip), 1..=30) = (ip, prefix) {
            let broadcast = ip.to_bits() | (u32::MAX >> prefix);
            address.bytes(IFA_BROADCAST, &broadcast.to_be_bytes());
        }
    });
}

pub fn delete_address(batch: &mut Batch, step: &'static str, index: u32, ip: IpAddr, prefix: u8) {
    let header = address_header(index, ip, prefix);
    batch.message(step, DELETE_ADDRESS, 0, &header, |address| {
        address.bytes(IFA_LOCAL, &octets(ip));
    });
}

fn address_header(index: u32, ip: IpAddr, prefix: u8) -> [u8; 8] {
    let (family, flags) = match ip {
        IpAddr::V4(_) => (INET, 0),
        IpAddr::V6(_) => (INET6, IFA_F_NODAD),
    };
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, flags, 0, a, b, c, d]
}

/// Adds a default route through `gateway` on link `index`.
pub fn add_default_route(batch: &mut Batch, step: &'static str, index: u32, gateway: IpAddr) {
    let everything = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    add_route(batch, step, index, (everything, 0), gateway);
}

/// Adds a route to a subnet through `gateway` on link `index`.
pub fn add_route(
    batch: &mut Batch,
    step: &'static str,
    index: u32,
    destination: (IpAddr, u8),
    gateway: IpAddr,
) {
    new_route(batch, step, index, destination, gateway, CREATE | EXCLUSIVE);
}

fn new_route(
    batch: &mut Batch,
    step: &'static str,
    index: u32,
    (destination, prefix): (IpAddr, u8),
    gateway: IpAddr,
    flags: u16,
) {
    let family = if gateway.is_ipv4() { INET } else { INET6 };
    let header = [family, prefix, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, 0, UNICAST, 0, 0, 0, 0];
    batch.message(step, NEW_ROUTE, flags, &header, |route| {
        if prefix > 0 {
            route.bytes(RTA_DST, &octets(destination));
        }
        route.bytes(RTA_GATEWAY, &octets(gateway));
        route.u32(RTA_OIF, index);
    });
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, ...; empty for physical links and `lo`.
    pub kind: String,
    pub master: Option<u32>,
    pub alias: Option<String>,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
}

/// Returns every link of the socket's namespace.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("list links", GET_LINK, DUMP, &link_header(0, 0, 0), |_| {});
    Ok(socket.request(&mut batch)?.iter().filter_map(|message| parse_link(&message.body)).collect())
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(16..)?;
    let get = |kind| attribute(attributes, kind);
    Some(Link {
        index: read_u32(body, 4)?,
        name: read_text(get(IFLA_IFNAME)?),
        kind: get(IFLA_LINKINFO)
            .and_then(|info| attribute(info, IFLA_INFO_KIND))
            .map(read_text)
            .unwrap_or_default(),
        master: get(IFLA_MASTER).and_then(|value| read_u32(value, 0)),
        alias: get(IFLA_IFALIAS).map(read_text),
        mac: get(IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
        mtu: get(IFLA_MTU).and_then(|value| read_u32(value, 0)).unwrap_or_default(),
        up: read_u32(body, 8)? & UP != 0,
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
}

/// Returns every address of the socket's namespace.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("list addresses", GET_ADDRESS, DUMP, &[0; 8], |_| {});
    let parse = |body: &[u8]| {
        let attributes = body.get(8..)?;
        let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS));
        Some(Address { index: read_u32(body, 4)?, ip: parse_ip(value?)?, prefix: *body.get(1)? })
    };
    Ok(socket.request(&mut batch)?.iter().filter_map(|message| parse(&message.body)).collect())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The unspecified address with prefix 0 for a default route.
    pub destination: IpAddr,
    pub prefix: u8,
    pub link: Option<u32>,
    pub gateway: Option<IpAddr>,
}

/// Returns the routes of all tables but `local`.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("list routes", GET_ROUTE, DUMP, &[0; 12], |_| {});
    let found = socket.request(&mut batch)?;
    Ok(found.iter().filter_map(|message| parse_route(&message.body)).collect())
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let attributes = body.get(12..)?;
    let get = |kind| attribute(attributes, kind);
    let table =
        get(RTA_TABLE).and_then(|value| read_u32(value, 0)).unwrap_or_else(|| body[4].into());
    let unspecified = match body[0] {
        INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    (table != TABLE_LOCAL).then(|| Route {
        destination: get(RTA_DST).and_then(parse_ip).unwrap_or(unspecified),
        prefix: body[1],
        link: get(RTA_OIF).and_then(|value| read_u32(value, 0)),
        gateway: get(RTA_GATEWAY).and_then(parse_ip),
    })
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fill: impl FnOnce(&mut Batch), expect: &[u8]) {
        let mut batch = Batch::new();
        fill(&mut batch);
        assert_eq!(batch.bytes(), expect);
    }

    #[test]
    fn messages_are_what_the_kernel_reads() {
        check(
            |batch| set_up(batch, "", 7),
            &[
                32, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // RTM_NEWLINK, request
                0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, // link 7, up
            ],
        );
        check(
            |batch| add_address(batch, "", 2, [172, 17, 0, 2].into(), 16),
            &[
                48, 0, 0, 0, 20, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0,
                0, // RTM_NEWADDR, create|replace
                2, 16, 0, 0, 2, 0, 0, 0, // inet, /16, link 2
                8, 0, 2, 0, 172, 17, 0, 2, // IFA_LOCAL
                8, 0, 1, 0, 172, 17, 0, 2, // IFA_ADDRESS
                8, 0, 4, 0, 172, 17, 255, 255, // IFA_BROADCAST
            ],
        );
        check(
            |batch| add_default_route(batch, "", 2, [172, 17, 0, 1].into()),
            &[
                44, 0, 0, 0, 24, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, // RTM_NEWROUTE, create|excl
                2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, // inet, main, boot, universe, unicast
                8, 0, 5, 0, 172, 17, 0, 1, // RTA_GATEWAY
                8, 0, 4, 0, 2, 0, 0, 0, // RTA_OIF
            ],
        );
        check(
            |batch| delete_link(batch, "", "veth1"),
            &[
                44, 0, 0, 0, 17, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // RTM_DELLINK
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // any
                10, 0, 3, 0, b'v', b'e', b't', b'h', b'1', 0, 0, 0, // IFLA_IFNAME
            ],
        );
    }
}
