//! Real links in namespaces of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use sys::netlink::{Batch, Socket, namespace, route};

use super::*;

fn interface(host_name: &str) -> Interface {
    Interface {
        link: Default::default(),
        host_name: host_name.to_owned(),
        container_name: "eth0".to_owned(),
        bridge: "testbr0".to_owned(),
        alias: "boxship:testbr0:0123".to_owned(),
        mac: [2, 0x42, 10, 0, 0, 2],
        mtu: 1400,
        isolated: true,
        hairpin: false,
        addresses: vec![(Ipv4Addr::new(10, 0, 0, 2).into(), 24)],
        gateway_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        gateway_v6: None,
    }
}

/// A "host" with a bridge that is up and has 10.0.0.1.
fn host() -> OwnedFd {
    let host = namespace::create().unwrap();
    namespace::visit(host.as_fd(), || {
        let mut socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        route::create_link(&mut batch, "", "testbr0", |link| {
            // Else it is the lowest of the ports', and whenever it changes the host forgets all
            // its neighbours.
            link.bytes(route::IFLA_ADDRESS, &[2, 0x42, 0, 0, 0, 1]);
            link.nested(route::IFLA_LINKINFO, |info| info.text(route::IFLA_INFO_KIND, "bridge"));
        });
        socket.transact(&mut batch).unwrap();
        let index = socket.link_index("testbr0").unwrap();
        let mut batch = Batch::new();
        route::add_address(&mut batch, "", index, [10, 0, 0, 1].into(), 24);
        socket.transact(&mut batch).unwrap();
    })
    .unwrap();
    host
}

fn links(namespace: &OwnedFd) -> Vec<route::Link> {
    let socket = namespace::visit(namespace.as_fd(), Socket::route).unwrap();
    route::links(&mut socket.unwrap()).unwrap()
}

fn addresses(namespace: &OwnedFd) -> Vec<(IpAddr, u8)> {
    let socket = namespace::visit(namespace.as_fd(), Socket::route).unwrap();
    let found = route::addresses(&mut socket.unwrap()).unwrap();
    found.into_iter().map(|address| (address.ip, address.prefix)).collect()
}

#[test]
fn a_pair_is_born_configured_and_without_ipv6() {
    let (host, container) = (host(), namespace::create().unwrap());
    let wanted = interface("vethtest1");
    namespace::visit(host.as_fd(), || plug(&wanted, container.as_fd())).unwrap().unwrap();

    let outside = links(&host);
    let bridge = outside.iter().find(|link| link.name == "testbr0").unwrap().index;
    let end = outside.iter().find(|link| link.name == "vethtest1").unwrap();
    assert_eq!((end.master, end.mtu, end.up), (Some(bridge), 1400, true));
    assert_eq!(end.alias.as_deref(), Some("boxship:testbr0:0123"));

    let inside = links(&container);
    let end = inside.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!((end.mac, end.mtu, end.up), (Some(wanted.mac), 1400, true));
    assert!(inside.iter().any(|link| link.name == "lo" && link.up));
    let loopback = [(Ipv4Addr::LOCALHOST.into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)];
    let mut expect = vec![(Ipv4Addr::new(10, 0, 0, 2).into(), 24)];
    expect.extend(loopback);
    let mut found = addresses(&container);
    found.sort();
    expect.sort();
    assert_eq!(found, expect, "no link-local address");

    let socket = namespace::visit(container.as_fd(), Socket::route).unwrap();
    let routes = route::routes(&mut socket.unwrap()).unwrap();
    let default = routes.iter().find(|route| route.prefix == 0).unwrap();
    assert_eq!(default.gateway, Some(Ipv4Addr::new(10, 0, 0, 1).into()));
}

#[test]
fn ipv6_is_what_was_asked_and_usable_at_once() {
    let (host, container) = (host(), namespace::create().unwrap());
    let mut wanted = interface("vethtest1");
    let ip: Ipv6Addr = "fd00:1::2".parse().unwrap();
    wanted.addresses.push((ip.into(), 64));
    wanted.gateway_v6 = Some("fd00:1::1".parse().unwrap());
    namespace::visit(host.as_fd(), || plug(&wanted, container.as_fd())).unwrap().unwrap();
    assert!(addresses(&container).contains(&(ip.into(), 64)));
    namespace::visit(container.as_fd(), || {
        std::net::TcpListener::bind((ip, 0)).expect("the address is not tentative");
        let accept = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        assert_eq!(accept.trim(), "0");
    })
    .unwrap();
}

#[test]
fn a_failure_leaves_no_link_and_harms_no_other() {
    let (host, container) = (host(), namespace::create().unwrap());
    let plug_in = |wanted: &Interface| {
        namespace::visit(host.as_fd(), || plug(wanted, container.as_fd())).unwrap()
    };
    // A gateway outside the subnet: refused at the very last message.
    let mut unreachable = interface("vethtest1");
    unreachable.gateway_v4 = Some(Ipv4Addr::new(192, 168, 77, 1));
    let error = plug_in(&unreachable).unwrap_err();
    assert!(error.to_string().starts_with("add default route on eth0"), "{error}");
    assert!(!links(&host).iter().any(|link| link.name == "vethtest1"));
    assert!(!links(&container).iter().any(|link| link.name == "eth0"));

    plug_in(&interface("vethtest1")).unwrap();
    let mut same_name = interface("vethtest1");
    same_name.container_name = "eth1".to_owned();
    let error = plug_in(&same_name).unwrap_err();
    let exists = libc::EEXIST;
    assert!(matches!(error, Failure::System { errno, .. } if errno == exists), "{error}");
    assert!(links(&host).iter().any(|link| link.name == "vethtest1"), "the first one stays");

    let mut no_bridge = interface("vethtest2");
    no_bridge.bridge = "nothere0".to_owned();
    let error = plug_in(&no_bridge).unwrap_err();
    assert_eq!(error.to_string(), "find the link nothere0: no such device");
}

#[test]
fn unplugging_twice_is_no_error() {
    let (host, container) = (host(), namespace::create().unwrap());
    namespace::visit(host.as_fd(), || {
        plug(&interface("vethtest1"), container.as_fd()).unwrap();
        unplug("vethtest1").unwrap();
        unplug("vethtest1").unwrap();
    })
    .unwrap();
    assert!(!links(&host).iter().any(|link| link.name == "vethtest1"));
}

#[test]
fn the_loopback_comes_up_alone() {
    let container = namespace::create().unwrap();
    namespace::visit(container.as_fd(), bring_up_loopback).unwrap().unwrap();
    assert!(links(&container).iter().any(|link| link.name == "lo" && link.up));
}

/// A container that starts talking at once must not lose its first packet: the resend of an ARP
/// request comes a whole second later.
#[test]
fn the_first_packet_arrives() {
    let host = host();
    let listen = || std::net::TcpListener::bind("10.0.0.1:0").unwrap();
    let listener = namespace::visit(host.as_fd(), listen).unwrap();
    let server = listener.local_addr().unwrap();
    for number in 0..8 {
        let container = namespace::create().unwrap();
        let mut wanted = interface(&format!("vethfirst{number}"));
        wanted.addresses[0].0 = Ipv4Addr::new(10, 0, 0, 2 + number).into();
        namespace::visit(host.as_fd(), || plug(&wanted, container.as_fd())).unwrap().unwrap();
        let start = std::time::Instant::now();
        namespace::visit(container.as_fd(), || std::net::TcpStream::connect(server))
            .unwrap()
            .unwrap();
        let waited = start.elapsed();
        println!("connected after {waited:?}");
        assert!(waited < std::time::Duration::from_millis(900), "{waited:?}");
    }
}

/// The host remembers the address's last holder; the new one must be reachable all the same.
#[test]
fn a_new_holder_of_an_address_announces_itself() {
    let host = host();
    let (bystander, mut third) = (namespace::create().unwrap(), interface("vethbystander"));
    third.addresses[0].0 = Ipv4Addr::new(10, 0, 0, 99).into();
    // It keeps the bridge's carrier up: without one the host forgets all its neighbours too.
    namespace::visit(host.as_fd(), || plug(&third, bystander.as_fd())).unwrap().unwrap();
    for number in 0..3 {
        let container = namespace::create().unwrap();
        let mut wanted = interface(&format!("vethheir{number}"));
        wanted.mac[5] = number;
        namespace::visit(host.as_fd(), || plug(&wanted, container.as_fd())).unwrap().unwrap();
        let listen = || std::net::TcpListener::bind("10.0.0.2:80").unwrap();
        let _listener = namespace::visit(container.as_fd(), listen).unwrap();
        let start = std::time::Instant::now();
        let server = ([10, 0, 0, 2], 80);
        namespace::visit(host.as_fd(), || {
            let patience = std::time::Duration::from_secs(5);
            std::net::TcpStream::connect_timeout(&server.into(), patience).unwrap();
            unplug(&wanted.host_name).unwrap();
        })
        .unwrap();
        assert!(start.elapsed() < std::time::Duration::from_millis(900), "{:?}", start.elapsed());
    }
}

/// Prints what one container costs; the figures in the head of `interfaces.rs` are from here.
#[test]
fn cost_of_a_plug() {
    let host = host();
    // Kept to the end: dying namespaces hold the lock that everything here needs.
    let containers: Vec<_> = (0..40).map(|_| namespace::create().unwrap()).collect();
    let mut times: Vec<_> = containers
        .iter()
        .zip(0..)
        .map(|(container, number)| {
            let mut wanted = interface(&format!("vethcost{number}"));
            wanted.addresses[0].0 = Ipv4Addr::new(10, 0, 0, 2 + number).into();
            namespace::visit(host.as_fd(), || {
                let bridge = Socket::route().unwrap().link_index("testbr0").unwrap();
                let start = std::time::Instant::now();
                let mut socket = Socket::route().unwrap();
                socket.transact(&mut pair(&wanted, bridge, container.as_fd())).unwrap();
                let made = start.elapsed();
                configure_both(&wanted, &mut socket, container.as_fd()).unwrap();
                (made, start.elapsed() - made)
            })
            .unwrap()
        })
        .collect();
    times.sort();
    println!("pair {:?}, inside {:?} (medians)", times[20].0, times[20].1);
    let in_all = times[20].0 + times[20].1;
    assert!(in_all < std::time::Duration::from_millis(100), "{in_all:?}");
}
