//! The bridge of a network: made or adopted, addressed, and kept from acting on its own.
//!
//! A bridge has a fixed MAC from birth. Otherwise it takes the lowest of its ports', and each time
//! that changes the host and all containers must find each other again.
//!
//! Order when one is made: link, settings, addresses, up. A crash in between leaves a bridge with
//! our alias, which the next start completes.

use std::net::IpAddr;
use std::path::Path;

use rustix::io::Errno;
use sys::netlink::route::{self, Link};
use sys::netlink::{Batch, Socket};

use crate::config::{NetworkConfig, default_pools, pick_subnet};
use crate::error::NetworkError;
use crate::features::Module;
use crate::subnet::Subnet;

/// A bridge that is there and up.
#[derive(Debug, Clone)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mac: [u8; 6],
    /// The bridge's addresses, with their subnets' lengths.
    pub ipv4: Option<Subnet>,
    pub ipv6: Option<Subnet>,
}

impl Bridge {
    pub fn addresses(&self) -> impl Iterator<Item = Subnet> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

/// The alias of links that belong to the daemon with this bridge.
pub fn alias(bridge: &str, owner: &str) -> String {
    format!("boxship:{bridge}:{owner}")
}

/// Returns the owner's name when `alias` is of the daemon with this bridge.
pub fn owner<'a>(bridge: &str, alias: &'a str) -> Option<&'a str> {
    alias.strip_prefix("boxship:")?.strip_prefix(bridge)?.strip_prefix(':')
}

/// The owner's name of the bridge itself.
const SELF: &str = "bridge";

/// What a bridge is to be.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// By which a daemon knows its own; see [`alias`].
    pub alias: String,
    pub mtu: u32,
}

/// Makes or completes the default bridge.
pub fn set_up_default(
    name: &str,
    config: &NetworkConfig,
    socket: &mut Socket,
) -> Result<Bridge, NetworkError> {
    if config.do_without.contains(&Module::Bridge) {
        return Err(NetworkError::no_module(Module::Bridge));
    }
    let wanted = Wanted { name, alias: alias(name, SELF), mtu: config.mtu };
    let link = ensure(&wanted, socket)?;
    let ipv4 = choose_ipv4(&link, config, socket)?;
    let ipv6 = config.fixed_cidr_v6.map(gateway_of);
    address(&wanted, &link, Some(ipv4), ipv6, socket)
}

/// The default bridge's alias.
pub(crate) fn default_alias(name: &str) -> String {
    alias(name, SELF)
}

/// Makes or completes a bridge with these addresses of its own.
pub fn set_up(
    wanted: &Wanted<'_>,
    ipv4: Option<Subnet>,
    ipv6: Option<Subnet>,
    socket: &mut Socket,
) -> Result<Bridge, NetworkError> {
    let link = ensure(wanted, socket)?;
    address(wanted, &link, ipv4, ipv6, socket)
}

/// Makes `bridge` what it was, with the same MAC: neighbours and rules know it by that.
pub(crate) fn restore(
    wanted: &Wanted<'_>,
    bridge: &Bridge,
    socket: &mut Socket,
) -> Result<Bridge, NetworkError> {
    if find(wanted.name, socket)?.is_none() {
        make(wanted, bridge.mac, socket)?;
    }
    let mut batch = Batch::new();
    route::change_link(&mut batch, "give the bridge its address", wanted.name, |link| {
        link.bytes(route::IFLA_ADDRESS, &bridge.mac);
    });
    socket.transact(&mut batch).map_err(NetworkError::kernel(wanted.name))?;
    set_up(wanted, bridge.ipv4, bridge.ipv6, socket)
}

/// Removes a bridge if it has this alias: one that was there before stays.
pub fn remove(wanted: &Wanted<'_>, socket: &mut Socket) -> Result<(), NetworkError> {
    let link = find(wanted.name, socket)?;
    if link.is_none_or(|link| link.alias.as_deref() != Some(&wanted.alias)) {
        return Ok(());
    }
    let mut batch = Batch::new();
    route::delete_link(&mut batch, "delete bridge", wanted.name);
    socket.transact(&mut batch).map_err(NetworkError::kernel(wanted.name))
}

fn ensure(wanted: &Wanted<'_>, socket: &mut Socket) -> Result<Link, NetworkError> {
    if let Some(link) = find(wanted.name, socket)? {
        return Ok(link);
    }
    make(wanted, random_mac(), socket)?;
    find(wanted.name, socket)?.ok_or(NetworkError::NoBridge)
}

fn address(
    wanted: &Wanted<'_>,
    link: &Link,
    ipv4: Option<Subnet>,
    ipv6: Option<Subnet>,
    socket: &mut Socket,
) -> Result<Bridge, NetworkError> {
    let name = wanted.name;
    restrain(name, ipv6.is_some())?;
    let mut batch = Batch::new();
    for stale in stale_addresses(wanted, link, ipv4, socket)? {
        let (ip, prefix) = (stale.ip(), stale.prefix());
        route::delete_address(&mut batch, "remove address", link.index, ip, prefix);
    }
    for address in ipv4.into_iter().chain(ipv6) {
        let (ip, prefix) = (address.ip(), address.prefix());
        route::add_address(&mut batch, "add address", link.index, ip, prefix);
    }
    route::set_up(&mut batch, "bring up", link.index);
    socket.transact(&mut batch).map_err(NetworkError::kernel(name))?;
    let mac = link.mac.unwrap_or_default();
    Ok(Bridge { name: name.to_owned(), index: link.index, mac, ipv4, ipv6 })
}

fn find(name: &str, socket: &mut Socket) -> Result<Option<Link>, NetworkError> {
    let links = route::links(socket).map_err(NetworkError::kernel(name))?;
    Ok(links.into_iter().find(|link| link.name == name))
}

fn make(wanted: &Wanted<'_>, mac: [u8; 6], socket: &mut Socket) -> Result<(), NetworkError> {
    let mut batch = Batch::new();
    let name = wanted.name;
    route::create_link_down(&mut batch, "make bridge", name, |link| {
        link.bytes(route::IFLA_ADDRESS, &mac);
        link.u32(route::IFLA_MTU, wanted.mtu);
        link.nested(route::IFLA_LINKINFO, |info| info.text(route::IFLA_INFO_KIND, "bridge"));
    });
    route::change_link(&mut batch, "mark bridge", name, |link| {
        link.bytes(route::IFLA_IFALIAS, wanted.alias.as_bytes());
    });
    match socket.transact(&mut batch) {
        Err(error) if error.errno == Errno::EXIST => Ok(()),
        Err(error) if error.errno == Errno::OPNOTSUPP => {
            Err(NetworkError::no_module(Module::Bridge))
        }
        other => other.map_err(NetworkError::kernel(name)),
    }
}

/// A random address that no manufacturer owns, for one host.
pub fn random_mac() -> [u8; 6] {
    let mut mac = sys::random::bytes::<6>();
    mac[0] = (mac[0] & 0xfc) | 0x02;
    mac
}

/// `--bip`, else what the bridge has already, else the first pool that overlaps nothing.
fn choose_ipv4(
    link: &Link,
    config: &NetworkConfig,
    socket: &mut Socket,
) -> Result<Subnet, NetworkError> {
    if let Some(bip) = config.bip {
        return Ok(bip);
    }
    let addresses = route::addresses(socket).map_err(NetworkError::kernel(&link.name))?;
    let own = addresses.iter().find(|address| address.index == link.index && address.ip.is_ipv4());
    if let Some(subnet) = own.and_then(|own| Subnet::new(own.ip, own.prefix)) {
        return Ok(subnet);
    }
    let used = used_subnets(&config.host_nameservers, socket)?;
    pick(config, &used).map(gateway_of).ok_or(NetworkError::PoolsExhausted)
}

/// The next free subnet of the daemon's pools.
pub fn pick(config: &NetworkConfig, used: &[Subnet]) -> Option<Subnet> {
    if config.default_address_pools.is_empty() {
        return pick_subnet(&default_pools(), used);
    }
    pick_subnet(&config.default_address_pools, used)
}

/// What this host has addresses in or routes to, and its nameservers.
pub fn used_subnets(
    nameservers: &[IpAddr],
    socket: &mut Socket,
) -> Result<Vec<Subnet>, NetworkError> {
    let addresses = route::addresses(socket).map_err(NetworkError::kernel("subnets"))?;
    let routes = route::routes(socket).map_err(NetworkError::kernel("subnets"))?;
    let connected = addresses.iter().map(|address| (address.ip, address.prefix));
    let routed = routes.iter().map(|route| (route.destination, route.prefix));
    let servers = nameservers.iter().map(|ip| (*ip, 32));
    let used = connected
        .chain(routed)
        // A default route leads everywhere and takes nothing.
        .filter(|(_, prefix)| *prefix > 0)
        .chain(servers)
        .filter_map(|(ip, prefix)| Subnet::new(ip, prefix));
    Ok(used.collect())
}

/// The bridge's address in a subnet that was given without one: the first host's.
fn gateway_of(subnet: Subnet) -> Subnet {
    Subnet::new(subnet.at(1), subnet.prefix()).expect("same prefix, same family")
}

/// Other IPv4 addresses of a bridge that is ours, as after a change of `--bip`.
fn stale_addresses(
    wanted: &Wanted<'_>,
    link: &Link,
    keep: Option<Subnet>,
    socket: &mut Socket,
) -> Result<Vec<Subnet>, NetworkError> {
    let name = wanted.name;
    if link.alias.as_deref() != Some(&wanted.alias) {
        return Ok(Vec::new());
    }
    let addresses = route::addresses(socket).map_err(NetworkError::kernel(name))?;
    Ok(addresses
        .into_iter()
        .filter(|address| address.index == link.index && address.ip.is_ipv4())
        .filter_map(|address| Subnet::new(address.ip, address.prefix))
        .filter(|address| Some(*address) != keep)
        .collect())
}

/// The bridge takes no address from routers it hears; without IPv6 it has no link-local one either.
pub(crate) fn restrain(name: &str, ipv6: bool) -> Result<(), NetworkError> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    let settings: &[(&str, &str)] = if ipv6 {
        &[("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0")]
    } else {
        &[("disable_ipv6", "1"), ("accept_ra", "0")]
    };
    // Writing `disable_ipv6` again does not do nothing: it walks over all routes.
    settings
        .iter()
        .map(|(key, value)| (format!("ipv6/conf/{name}/{key}"), value))
        .filter(|(key, value)| read_setting(key) != value.parse().ok())
        .try_for_each(|(key, value)| write_setting(&key, value))
}

/// Writes `/proc/sys/net/<key>`, which is that of the calling thread's namespace.
pub(crate) fn write_setting(key: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/net/{key}");
    std::fs::write(&path, value).map_err(|source| NetworkError::Setting { path, source })
}

/// Reads a number from `/proc/sys/net/<key>`; none when there is no such setting.
pub(crate) fn read_setting(key: &str) -> Option<i64> {
    std::fs::read_to_string(format!("/proc/sys/net/{key}")).ok()?.trim().parse().ok()
}

/// Returns the links that lead out of this host: physical ones, and those with a gateway.
pub fn uplinks(socket: &mut Socket) -> Result<Vec<String>, NetworkError> {
    let links = route::links(socket).map_err(NetworkError::kernel("uplinks"))?;
    let routes = route::routes(socket).map_err(NetworkError::kernel("uplinks"))?;
    let has_gateway =
        |index| routes.iter().any(|route| route.link == Some(index) && route.gateway.is_some());
    Ok(links
        .into_iter()
        .filter(|link| link.index != route::LOOPBACK)
        .filter(|link| link.kind.is_empty() || has_gateway(link.index))
        .map(|link| link.name)
        .collect())
}

/// The gateways that containers are told: the configured ones, else the bridge.
pub fn gateways(bridge: &Bridge, config: &NetworkConfig) -> (Option<IpAddr>, Option<IpAddr>) {
    let ipv4 = bridge.ipv4.map(|own| config.default_gateway.map_or_else(|| own.ip(), IpAddr::V4));
    let ipv6 =
        bridge.ipv6.map(|own| config.default_gateway_v6.map_or_else(|| own.ip(), IpAddr::V6));
    (ipv4, ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_tell_daemons_apart() {
        assert_eq!(owner("boxship0", &alias("boxship0", "0a")), Some("0a"));
        assert_eq!(owner("boxship0", &alias("boxship00", "0a")), None);
        assert_eq!(owner("boxship0", "somebody's"), None);
    }

    #[test]
    fn random_macs_are_unicast_and_local() {
        for _ in 0..32 {
            assert_eq!(random_mac()[0] & 3, 2);
        }
    }
}
