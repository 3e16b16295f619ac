//! What containers can reach, and who can reach them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use network::NetworkConfig;

use crate::world::{Host, Space, assert_silence};

const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2));

#[test]
fn containers_reach_each_other_the_host_and_the_world() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let (one, other) = (host.run(&networks), host.run(&networks));
    assert_eq!(
        (one.ip().to_string(), other.ip().to_string()),
        ("172.17.0.2".to_owned(), "172.17.0.3".to_owned())
    );
    let seen = one.space.reach(&other.listen(), (other.ip(), 80).into()).unwrap();
    assert_eq!(seen, one.ip(), "within the bridge nothing is translated");

    let gateway = networks.host_gateways()[0];
    let on_host = host.space.listen(gateway, 81);
    assert_eq!(one.space.reach(&on_host, (gateway, 81).into()).unwrap(), one.ip());

    let outside = host.neighbour.listen(NEIGHBOUR, 82);
    let seen = one.space.reach(&outside, (NEIGHBOUR, 82).into()).unwrap();
    assert_eq!(seen.to_string(), "10.9.0.1", "masqueraded by the default route");

    let server = one.listen();
    assert_eq!(host.space.reach(&server, (one.ip(), 80).into()).unwrap(), gateway);
}

#[test]
fn without_masquerade_the_container_is_seen_as_itself() {
    let host = Host::new();
    let networks = host.open(NetworkConfig { ip_masq: false, ..NetworkConfig::default() });
    let container = host.run(&networks);
    let outside = host.neighbour.listen(NEIGHBOUR, 82);
    let seen = container.space.reach(&outside, (NEIGHBOUR, 82).into()).unwrap();
    assert_eq!(seen, container.ip());
}

/// N02: the neighbour routes the container's subnet through this host.
#[test]
fn unpublished_ports_are_closed_to_neighbours() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let container = host.run(&networks);
    let server = container.listen();
    let target: SocketAddr = (container.ip(), 80).into();
    assert_silence(&host.neighbour.reach(&server, target));
    networks.remove_firewall().unwrap();
    assert_eq!(host.neighbour.reach(&server, target).unwrap(), NEIGHBOUR, "the rules did it");
}

#[test]
fn containers_of_two_bridges_do_not_meet() {
    let host = Host::new();
    let named = |name: &str| NetworkConfig { bridge: Some(name.into()), ..Default::default() };
    let (first, second) = (host.open(named("boxa0")), host.open(named("boxb0")));
    let (one, other) = (host.run(&first), host.run(&second));
    assert_eq!(other.ip().to_string(), "172.18.0.2", "the second daemon finds its own subnet");
    assert_silence(&one.space.reach(&other.listen(), (other.ip(), 80).into()));
    assert_silence(&other.space.reach(&one.listen(), (one.ip(), 80).into()));
}

#[test]
fn without_icc_containers_see_only_the_host() {
    let host = Host::new();
    let networks = host.open(NetworkConfig { icc: false, ..NetworkConfig::default() });
    let (one, other) = (host.run(&networks), host.run(&networks));
    let server = other.listen();
    let refused = one.space.reach(&server, (other.ip(), 80).into()).unwrap_err();
    // Not even ARP gets through, hence "no route" or no answer, never a connection.
    let kinds = [std::io::ErrorKind::TimedOut, std::io::ErrorKind::HostUnreachable];
    assert!(kinds.contains(&refused.kind()), "{refused}");
    assert!(host.space.reach(&server, (other.ip(), 80).into()).is_ok());
    let gateway = networks.host_gateways()[0];
    let on_host = host.space.listen(gateway, 81);
    assert!(one.space.reach(&on_host, (gateway, 81).into()).is_ok());
}

/// A host that did not route before we came routes for containers only.
#[test]
fn turning_on_forwarding_opens_no_other_path() {
    let host = Host::new();
    // A second uplink, with a host behind it.
    let far = Space::new();
    host.add_uplink(&far);
    assert_eq!(host.setting("ipv4/ip_forward"), "0");
    let far_ip: IpAddr = [10, 8, 0, 2].into();
    let server = far.listen(far_ip, 80);

    let networks = host.open(NetworkConfig::default());
    assert_eq!(host.setting("ipv4/ip_forward"), "1");
    assert_silence(&host.neighbour.reach(&server, (far_ip, 80).into()));
    let container = host.run(&networks);
    assert!(container.space.reach(&server, (far_ip, 80).into()).is_ok());

    drop(networks);
    let networks = host.open(NetworkConfig::default());
    assert_silence(&host.neighbour.reach(&server, (far_ip, 80).into()));
    drop(networks);
    host.open(NetworkConfig { ip_forward_no_drop: true, ..NetworkConfig::default() });
    assert_eq!(host.neighbour.reach(&server, (far_ip, 80).into()).unwrap(), NEIGHBOUR);
}

#[test]
fn forwarding_is_left_alone_when_told_so() {
    let host = Host::new();
    let networks = host.open(NetworkConfig { ip_forward: false, ..NetworkConfig::default() });
    assert_eq!(host.setting("ipv4/ip_forward"), "0");
    let warnings = host.space.run(|| networks.warnings());
    assert_eq!(warnings, ["WARNING: IPv4 forwarding is disabled"]);
}

/// N05: an IPv4-only network has no IPv6 anywhere.
#[test]
fn no_ipv6_without_being_asked() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let container = host.run(&networks);
    for space in [&host.space, &container.space] {
        let links = space.links();
        let lo = links.iter().find(|link| link.name == "lo").unwrap().index;
        let lan = links.iter().find(|link| link.name == "lan0").map(|link| link.index);
        let addresses = sys::netlink::route::addresses(&mut space.route()).unwrap();
        let six: Vec<_> = addresses
            .into_iter()
            .filter(|address| address.ip.is_ipv6())
            .filter(|address| address.index != lo && Some(address.index) != lan)
            // The host's end of a veth is a port; what it has, the bridge never sees.
            .filter(|address| {
                let link = links.iter().find(|link| link.index == address.index).unwrap();
                link.master.is_none()
            })
            .collect();
        assert!(six.is_empty(), "{six:?}");
    }
}

#[test]
fn ipv6_works_when_asked() {
    let host = Host::new();
    let subnet = Some("fd00:5::/64".parse().unwrap());
    let networks = host.open(NetworkConfig { fixed_cidr_v6: subnet, ..NetworkConfig::default() });
    let (one, other) = (host.run(&networks), host.run(&networks));
    let six = other.endpoint.ips()[1];
    assert_eq!(six.to_string(), "fd00:5::3");
    let server = other.space.listen(six, 80);
    // The kernel joins the group that a new address is asked for in (its solicited-node address)
    // by a worker, which on a busy machine may come after the first question; the next one is
    // asked a second later. Waiting for it would hold up the supervisor, so nobody does.
    let patience = Duration::from_secs(5);
    let seen = one.space.reach_within(patience, &server, (six, 80).into()).unwrap();
    assert_eq!(seen.to_string(), "fd00:5::2");
    let gateway: IpAddr = "fd00:5::1".parse().unwrap();
    let on_host = host.space.listen(gateway, 81);
    assert!(one.space.reach_within(patience, &on_host, (gateway, 81).into()).is_ok());
}
