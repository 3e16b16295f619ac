//! Network interfaces of containers: veth pairs born in place, links on a link of the host
//! (macvlan, ipvlan), and what is set inside.
//!
//! The container's end is made in its namespace by the one message that makes the pair: moving a
//! link between namespaces, or deleting one, waits for a grace period (19 ms here) and happens on
//! no hot path. The pair dies with the namespace.
//!
//! The inside is configured by this (single-threaded) process, which visits the namespace just
//! long enough to open a socket there and to write the interface's settings; `/proc/sys/net` shows
//! the namespace of whoever opens it. Medians for one container on the lab machine, debug build:
//! the pair 0.45 ms, all the rest 0.25 ms. Having the child do the rest instead would save the two
//! `setns` (4 us each).

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use sys::netlink::{Attributes, Batch, NetlinkError, Socket, namespace, route};

use crate::protocol::Failure;
use crate::spec::{Interface, LinkKind};

/// Makes the veth pair of `interface` and configures both ends; also brings up `lo` inside.
/// Either all of it is done or no link is left.
pub fn plug(interface: &Interface, container_netns: BorrowedFd<'_>) -> Result<(), Failure> {
    if interface.link != LinkKind::Veth {
        return plug_child(interface, container_netns);
    }
    let name = &interface.host_name;
    let mut host = Socket::route().map_err(|error| failure(name, &error))?;
    let bridge = host.link_index(&interface.bridge);
    let bridge = bridge.map_err(|error| failure(&interface.bridge, &error))?;
    let mut messages = pair(interface, bridge, container_netns);
    let plugged = match host.transact(&mut messages) {
        // A link of that name is somebody else's: not ours to remove.
        Err(error) if error.step == MAKE_PAIR && error.errno == Errno::OPNOTSUPP => {
            let step = format!("{MAKE_PAIR} {name} (the kernel has no module veth)");
            return Err(Failure::System { step, errno: error.errno.raw_os_error() });
        }
        Err(error) if error.step == MAKE_PAIR => return Err(failure(name, &error)),
        Err(error) => Err(failure(name, &error)),
        Ok(()) => configure_both(interface, &mut host, container_netns),
    };
    plugged.inspect_err(|_| {
        // The failure is what the caller must hear of; a link that stays is found by its alias
        // when the daemon reconciles.
        drop(unplug(name));
    })
}

/// Makes a link on a link of the host. It is born under another name: older kernels look for that
/// which it is to have among the host's links.
fn plug_child(interface: &Interface, container_netns: BorrowedFd<'_>) -> Result<(), Failure> {
    const MAKE: &str = "make link on";
    let parent_name = &interface.bridge;
    let mut host = Socket::route().map_err(|error| failure(parent_name, &error))?;
    let parent = host.link_index(parent_name).map_err(|error| failure(parent_name, &error))?;
    let born = format!("bxs{:07x}", u32::from_ne_bytes(sys::random::bytes()) >> 4);
    let mut batch = Batch::new();
    route::create_link_down(&mut batch, MAKE, &born, |link| {
        link.u32(route::IFLA_LINK, parent);
        link.descriptor(route::IFLA_NET_NS_FD, container_netns);
        if has_own_mac(interface) {
            link.bytes(route::IFLA_ADDRESS, &interface.mac);
        }
        link.nested(route::IFLA_LINKINFO, |info| describe_child(info, interface.link));
    });
    host.transact(&mut batch).map_err(|error| match error.errno {
        Errno::OPNOTSUPP => {
            let kind = kind_name(interface.link);
            let step = format!("{MAKE} {parent_name} (the kernel has no module {kind})");
            Failure::System { step, errno: error.errno.raw_os_error() }
        }
        _ => failure(parent_name, &error),
    })?;
    let enter = |error| io_failure("enter the container's network namespace".to_owned(), &error);
    let named = namespace::visit(container_netns, || {
        name_child(&born, &interface.container_name).inspect_err(|_| drop(unplug(&born)))?;
        configure_child(interface).inspect_err(|_| drop(unplug(&interface.container_name)))
    });
    named.map_err(enter)?
}

/// Inside: names what was born as `born`.
fn name_child(born: &str, name: &str) -> Result<(), Failure> {
    let in_container = |error: NetlinkError| failure(name, &error);
    let mut inside = Socket::route().map_err(in_container)?;
    let index = inside.link_index(born).map_err(in_container)?;
    let mut batch = Batch::new();
    route::rename_link(&mut batch, "name link", index, name);
    inside.transact(&mut batch).map_err(in_container)
}

fn configure_child(interface: &Interface) -> Result<(), Failure> {
    let name = &interface.container_name;
    let in_container = |error: NetlinkError| failure(name, &error);
    let mut inside = Socket::route().map_err(in_container)?;
    let index = inside.link_index(name).map_err(in_container)?;
    write_settings(interface)?;
    inside.transact(&mut bring_up(interface, index)).map_err(in_container)?;
    route::settle(&mut inside, name).map_err(in_container)?;
    if has_own_mac(interface) {
        inside.transact(&mut announce(interface)).map_err(in_container)?;
    }
    Ok(())
}

fn has_own_mac(interface: &Interface) -> bool {
    match interface.link {
        LinkKind::Veth => true,
        LinkKind::Macvlan { mode } => mode != LinkKind::MACVLAN_PASSTHRU,
        LinkKind::Ipvlan { .. } => false,
    }
}

const fn kind_name(link: LinkKind) -> &'static str {
    match link {
        LinkKind::Veth => "veth",
        LinkKind::Macvlan { .. } => "macvlan",
        LinkKind::Ipvlan { .. } => "ipvlan",
    }
}

fn describe_child(info: &mut Attributes<'_>, link: LinkKind) {
    info.text(route::IFLA_INFO_KIND, kind_name(link));
    info.nested(route::IFLA_INFO_DATA, |data| match link {
        LinkKind::Veth => {}
        LinkKind::Macvlan { mode } => data.u32(route::IFLA_MACVLAN_MODE, mode),
        LinkKind::Ipvlan { flags } => {
            const L2: u16 = 0;
            data.bytes(route::IFLA_IPVLAN_MODE, &L2.to_ne_bytes());
            data.bytes(route::IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
        }
    });
}

/// Takes an interface of a running container away.
pub fn take_away(interface: &Interface, container_netns: BorrowedFd<'_>) -> Result<(), Failure> {
    if interface.link == LinkKind::Veth {
        return unplug(&interface.host_name);
    }
    let enter = |error| io_failure("enter the container's network namespace".to_owned(), &error);
    namespace::visit(container_netns, || unplug(&interface.container_name)).map_err(enter)?
}

/// Deletes a host end and with it the pair; no error when there is none. Waits for a grace
/// period: not for the hot path.
pub fn unplug(host_name: &str) -> Result<(), Failure> {
    let mut batch = Batch::new();
    route::delete_link(&mut batch, "delete link", host_name);
    match Socket::route().and_then(|mut socket| socket.transact(&mut batch)) {
        Err(error) if error.errno != Errno::NODEV => Err(failure(host_name, &error)),
        _ => Ok(()),
    }
}

/// Brings up `lo` of the namespace that the calling thread is in.
pub fn bring_up_loopback() -> Result<(), Failure> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, "bring up link", route::LOOPBACK);
    Socket::route()
        .and_then(|mut socket| socket.transact(&mut batch))
        .map_err(|error| failure("lo", &error))
}

/// Sends what goes elsewhere through the gateways of `interface`, which is plugged in.
pub fn route_through(
    interface: &Interface,
    container_netns: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let name = &interface.container_name;
    let enter = |error| io_failure("enter the container's network namespace".to_owned(), &error);
    let visited = namespace::visit(container_netns, Socket::route).map_err(enter)?;
    let in_container = |error: NetlinkError| failure(name, &error);
    let mut inside = visited.map_err(in_container)?;
    let index = inside.link_index(name).map_err(in_container)?;
    let mut batch = Batch::new();
    let gateways = [interface.gateway_v4.map(IpAddr::V4), interface.gateway_v6.map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        route::replace_default_route(&mut batch, "change default route to", index, gateway);
    }
    inside.transact(&mut batch).map_err(in_container)
}

const MAKE_PAIR: &str = "make veth pair";

/// The messages for the host's namespace. The container's end stays down, so that IPv6 chooses no
/// address before it is told whether it may.
fn pair(interface: &Interface, bridge: u32, container_netns: BorrowedFd<'_>) -> Batch {
    let mut batch = Batch::new();
    route::create_link(&mut batch, MAKE_PAIR, &interface.host_name, |link| {
        link.u32(route::IFLA_MTU, interface.mtu);
        link.u32(route::IFLA_MASTER, bridge);
        link.nested(route::IFLA_LINKINFO, |info| {
            info.text(route::IFLA_INFO_KIND, "veth");
            info.nested(route::IFLA_INFO_DATA, |veth| {
                let header = route::link_header(0, 0, 0);
                veth.nested_after(route::VETH_INFO_PEER, &header, |peer| {
                    peer.text(route::IFLA_IFNAME, &interface.container_name);
                    peer.bytes(route::IFLA_ADDRESS, &interface.mac);
                    peer.u32(route::IFLA_MTU, interface.mtu);
                    peer.descriptor(route::IFLA_NET_NS_FD, container_netns);
                });
            });
        });
    });
    // Neither can be given at birth.
    route::change_link(&mut batch, "mark veth", &interface.host_name, |link| {
        if !interface.alias.is_empty() {
            link.bytes(route::IFLA_IFALIAS, interface.alias.as_bytes());
        }
        if interface.isolated || interface.hairpin {
            describe_port(link, interface);
        }
    });
    batch
}

fn describe_port(link: &mut Attributes<'_>, interface: &Interface) {
    link.nested(route::IFLA_LINKINFO, |info| {
        info.text(route::IFLA_INFO_SLAVE_KIND, "bridge");
        info.nested(route::IFLA_INFO_SLAVE_DATA, |port| {
            port.u8(route::IFLA_BRPORT_ISOLATED, interface.isolated.into());
            port.u8(route::IFLA_BRPORT_MODE, interface.hairpin.into());
        });
    });
}

/// Makes the host end of a pair that is there a port of its bridge again, and brings it up.
pub fn join_bridge(
    batch: &mut Batch,
    interface: &Interface,
    host: &Socket,
) -> Result<(), NetlinkError> {
    let bridge = host.link_index(&interface.bridge)?;
    let port = host.link_index(&interface.host_name)?;
    route::change_link(batch, "make a port of the bridge", &interface.host_name, |link| {
        link.u32(route::IFLA_MASTER, bridge);
    });
    route::change_link(batch, "mark veth", &interface.host_name, |link| {
        describe_port(link, interface);
    });
    route::set_up(batch, "bring up link", port);
    Ok(())
}

/// The order matters: what leaves the container before the bridge has noticed that the port has a
/// carrier is lost, and the resend of a lost ARP request comes a whole second later.
fn configure_both(
    interface: &Interface,
    host: &mut Socket,
    container_netns: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let name = &interface.container_name;
    let visited = namespace::visit(container_netns, || {
        write_settings(interface)?;
        Socket::route().map_err(|error| failure(name, &error))
    });
    let enter = |error| io_failure("enter the container's network namespace".to_owned(), &error);
    let mut inside = visited.map_err(enter)??;
    let in_container = |error: NetlinkError| failure(name, &error);
    let index = inside.link_index(name).map_err(in_container)?;
    inside.transact(&mut bring_up(interface, index)).map_err(in_container)?;
    // IPv6 inside begins when the link is seen to work.
    route::settle(&mut inside, name).map_err(in_container)?;
    // The bridge has its own carrier, which comes with its first port.
    for link in [&interface.host_name, &interface.bridge] {
        route::settle(host, link).map_err(|error| failure(link, &error))?;
    }
    inside.transact(&mut announce(interface)).map_err(in_container)
}

/// The messages for the container's namespace.
fn bring_up(interface: &Interface, index: u32) -> Batch {
    let mut batch = Batch::new();
    route::set_up(&mut batch, "bring up loopback", route::LOOPBACK);
    for (ip, prefix) in &interface.addresses {
        route::add_address(&mut batch, "add address to", index, *ip, *prefix);
    }
    route::set_up(&mut batch, "bring up link", index);
    let gateways = [interface.gateway_v4.map(IpAddr::V4), interface.gateway_v6.map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        route::add_default_route(&mut batch, "add default route on", index, gateway);
    }
    batch
}

/// Tells the neighbours that the addresses are here now; who had them before may still be in their
/// caches. The kernel does so, if [`settings`] asked for it, when a link is given its address.
fn announce(interface: &Interface) -> Batch {
    let mut batch = Batch::new();
    route::change_link(&mut batch, "announce", &interface.container_name, |link| {
        link.bytes(route::IFLA_ADDRESS, &interface.mac);
    });
    batch
}

/// Settings of the interface in `/proc/sys/net`, written before it comes up.
///
/// Without an IPv6 address it gets no link-local one either and hears no router; with one, it has
/// what it was given and nothing that a neighbour announces.
fn settings(interface: &Interface) -> Vec<(&'static str, &'static str, &'static str)> {
    let has = |test: fn(&IpAddr) -> bool| interface.addresses.iter().any(|(ip, _)| test(ip));
    let mut settings = Vec::with_capacity(6);
    if has(IpAddr::is_ipv4) {
        settings.push(("ipv4", "arp_notify", "1"));
    }
    if has(IpAddr::is_ipv6) {
        settings.push(("ipv6", "disable_ipv6", "0"));
        settings.push(("ipv6", "accept_ra", "0"));
        settings.push(("ipv6", "autoconf", "0"));
        settings.push(("ipv6", "accept_dad", "0"));
        settings.push(("ipv6", "ndisc_notify", "1"));
    } else if Path::new("/proc/sys/net/ipv6").exists() {
        settings.push(("ipv6", "disable_ipv6", "1"));
    }
    settings
}

fn write_settings(interface: &Interface) -> Result<(), Failure> {
    settings(interface).into_iter().try_for_each(|(family, key, value)| {
        let path = format!("/proc/sys/net/{family}/conf/{}/{key}", interface.container_name);
        std::fs::write(&path, value).map_err(|error| io_failure(format!("write {path}"), &error))
    })
}

fn failure(object: &str, error: &NetlinkError) -> Failure {
    let detail = error.detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    Failure::System {
        step: format!("{} {object}{detail}", error.step),
        errno: error.errno.raw_os_error(),
    }
}

pub(crate) fn io_failure(step: String, error: &io::Error) -> Failure {
    Failure::System { step, errno: error.raw_os_error().unwrap_or_default() }
}

#[cfg(test)]
mod tests;
