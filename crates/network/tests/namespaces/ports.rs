//! Published ports, from every side.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use network::firewall::Firewall;
use network::{NetworkConfig, NetworkError, Networks, PortRequest, Protocol};

use crate::world::{Container, Host, Space, attach, id, plain};

const HOST: [u8; 4] = [10, 9, 0, 1];
const NEIGHBOUR: [u8; 4] = [10, 9, 0, 2];

fn request(host_ip: Option<&str>, host_port: u16) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_ports: Some(host_port..=host_port),
    }
}

/// A container with published ports. What keeps them is let go: tests need no supervisor.
fn run(host: &Host, networks: &Networks, wanted: &[PortRequest]) -> Container {
    let mut endpoint = attach(networks);
    host.space.run(|| networks.publish(&mut endpoint, wanted)).map(drop).unwrap();
    host.plug(endpoint)
}

fn connect(
    from: &Space,
    server: &TcpListener,
    ip: impl Into<IpAddr>,
    port: u16,
) -> io::Result<IpAddr> {
    from.reach(server, SocketAddr::new(ip.into(), port))
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let (web, other) = (run(&host, &networks, &[request(None, 8080)]), host.run(&networks));
    let server = web.listen();
    let gateway = networks.host_gateways()[0];
    let from_outside = connect(&host.neighbour, &server, HOST, 8080).unwrap();
    assert_eq!(from_outside, IpAddr::from(NEIGHBOUR), "the client's address is kept");
    for address in [[127, 0, 0, 1].into(), [127, 0, 0, 9].into(), HOST.into(), gateway] {
        connect(&host.space, &server, address, 8080).unwrap();
    }
    // Hairpin: from the same bridge, even from the container itself.
    assert_eq!(connect(&other.space, &server, HOST, 8080).unwrap(), gateway);
    connect(&other.space, &server, gateway, 8080).unwrap();
    connect(&web.space, &server, HOST, 8080).unwrap();
    // Its own port stays closed to neighbours.
    assert!(connect(&host.neighbour, &server, web.ip(), 80).is_err());
}

#[test]
fn a_port_of_one_address_is_on_that_only() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let local = run(&host, &networks, &[request(Some("127.0.0.1"), 8080)]);
    let lan = run(&host, &networks, &[request(Some("10.9.0.1"), 8080)]);
    let other = host.run(&networks);
    let (on_local, on_lan) = (local.listen(), lan.listen());
    connect(&host.space, &on_local, [127, 0, 0, 1], 8080).unwrap();
    connect(&host.space, &on_lan, HOST, 8080).unwrap();
    connect(&host.neighbour, &on_lan, HOST, 8080).unwrap();
    networks.detach("bridge", &lan.endpoint.container).unwrap();
    for space in [&host.neighbour, &other.space] {
        let refused = connect(space, &on_local, HOST, 8080).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
    let refused = connect(&host.space, &on_local, [127, 0, 0, 2], 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// With `route_localnet` a neighbour that sends to 127.0.0.1 could be let in, or translated.
#[test]
fn loopback_ports_are_closed_to_whoever_sends_to_loopback() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let local = run(&host, &networks, &[request(Some("127.0.0.1"), 8080)]);
    let other = host.run(&networks);
    let in_container = local.listen();
    let on_host = host.space.listen([127, 0, 0, 1].into(), 81);
    for (space, via, link) in
        [(&host.neighbour, HOST, "lan0"), (&other.space, [172, 17, 0, 1], "eth0")]
    {
        send_loopback_out(space, via, link);
        for (server, port) in [(&in_container, 8080), (&on_host, 81)] {
            let result = connect(space, server, [127, 0, 0, 1], port);
            assert!(result.is_err(), "{link} {port} {result:?}");
        }
    }
    connect(&host.space, &in_container, [127, 0, 0, 1], 8080).unwrap();
}

/// Makes 127.0.0.1 an address of elsewhere.
fn send_loopback_out(space: &Space, via: [u8; 4], link: &str) {
    use std::process::Command;
    let ip = |args: &[&str]| {
        assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    };
    let via = IpAddr::from(via).to_string();
    space.run(|| {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").unwrap();
        ip(&["route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"]);
        ip(&["route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local"]);
        ip(&["route", "add", "127.0.0.1/32", "via", &via, "dev", link]);
    });
}

#[test]
fn ports_are_published_in_ipv6_too() {
    let host = Host::new();
    let config = NetworkConfig {
        fixed_cidr_v6: Some("fd00:17::/64".parse().unwrap()),
        ..NetworkConfig::default()
    };
    let networks = host.open(config);
    let (web, other) = (run(&host, &networks, &[request(None, 8080)]), host.run(&networks));
    let ports: Vec<_> = web.endpoint.published.iter().map(ToString::to_string).collect();
    let expect = ["0.0.0.0:8080:172.17.0.2:80/tcp", "[::]:8080:[fd00:17::2]:80/tcp"];
    assert_eq!(ports, expect);
    let server = web.space.listen("fd00:17::2".parse().unwrap(), 80);
    let gateway: IpAddr = "fd00:17::1".parse().unwrap();
    // With br_netfilter the first packet to a neighbour not yet known is lost, and sent again.
    for space in [&host.space, &other.space] {
        space.reach_within(Duration::from_secs(4), &server, (gateway, 8080).into()).unwrap();
    }
    // Nothing can be sent on from ::1; a client hears so at once and takes 127.0.0.1.
    let refused = connect(&host.space, &server, std::net::Ipv6Addr::LOCALHOST, 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let server = web.listen();
    connect(&host.neighbour, &server, HOST, 8080).unwrap();
}

#[test]
fn a_flush_closes_nothing_for_long() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let web = run(&host, &networks, &[request(None, 8080)]);
    let server = web.listen();
    let mut stranger = host.space.run(|| Firewall::open("boxship0")).unwrap();
    stranger.remove().unwrap();
    networks.ensure_firewall().unwrap();
    connect(&host.neighbour, &server, HOST, 8080).unwrap();
    // A publication that meets the flushed table restores it.
    stranger.remove().unwrap();
    let second = run(&host, &networks, &[request(None, 8081)]);
    connect(&host.neighbour, &second.listen(), HOST, 8081).unwrap();
    connect(&host.neighbour, &server, HOST, 8080).unwrap();
    // So does a restart of the daemon.
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    let live = [web.endpoint.clone(), second.endpoint.clone()];
    assert!(networks.reconcile(&live).is_empty());
    connect(&host.neighbour, &server, HOST, 8080).unwrap();
}

/// A client that keeps its port reaches the new container, not the memory of the old one.
#[test]
fn udp_clients_follow_the_port() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let client = host.neighbour.run(|| UdpSocket::bind("10.9.0.2:4000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let wanted = PortRequest { protocol: Protocol::Udp, ..request(None, 8080) };
    for answer in [b"a", b"b"] {
        // Sent too early: the kernel remembers it as one to the host.
        client.send_to(b"x", (IpAddr::from(HOST), 8080)).unwrap();
        let container = run(&host, &networks, std::slice::from_ref(&wanted));
        let server = container.space.run(|| UdpSocket::bind("0.0.0.0:80")).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        client.send_to(b"x", (IpAddr::from(HOST), 8080)).unwrap();
        let mut buffer = [0; 8];
        let (_, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(peer.to_string(), "10.9.0.2:4000");
        server.send_to(answer, peer).unwrap();
        // The refusal of the early one may come first.
        let received = client.recv(&mut buffer).or_else(|_refused| client.recv(&mut buffer));
        assert_eq!(&buffer[..received.unwrap()], answer);
        networks.detach("bridge", &container.endpoint.container).unwrap();
    }
}

#[test]
fn ports_and_their_elements_never_leak() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    for round in 0..200_u16 {
        let container = id();
        let endpoint = plain(&container);
        let mut endpoint = networks.attach("bridge", &endpoint).unwrap();
        let random = PortRequest { host_ports: None, ..request(None, 0) };
        let wanted = [request(None, 8080), request(Some("127.0.0.1"), 9000 + round), random];
        let kept = host.space.run(|| networks.publish(&mut endpoint, &wanted)).unwrap();
        assert!(kept.is_some());
        assert_eq!(firewall.published_count().unwrap(), 3);
        let refused = host.space.run(|| networks.publish(&mut endpoint.clone(), &wanted));
        assert!(matches!(refused, Err(NetworkError::PortAllocated { .. })), "{refused:?}");
        assert_eq!(firewall.published_count().unwrap(), 3);
        networks.detach("bridge", &container).unwrap();
    }
    assert_eq!(firewall.published_count().unwrap(), 0);
}

/// N12: of many who want a port at once, one gets it, and the others leave nothing.
#[test]
fn one_port_has_one_winner() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let endpoints: Vec<_> = (0..100).map(|_| attach(&networks)).collect();
    let wanted = [request(None, 8080), request(Some("127.0.0.1"), 9090)];
    let results: Vec<_> = std::thread::scope(|scope| {
        let contend = |mut endpoint: network::Endpoint| {
            let (host, networks, wanted) = (&host, &networks, &wanted);
            scope.spawn(move || host.space.run(|| networks.publish(&mut endpoint, wanted)))
        };
        let threads: Vec<_> = endpoints.iter().cloned().map(contend).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    assert_eq!(firewall.published_count().unwrap(), 2);
    for endpoint in &endpoints {
        networks.detach("bridge", &endpoint.container).unwrap();
    }
    drop(results);
    assert_eq!(firewall.published_count().unwrap(), 0);
    assert!(host.space.run(|| TcpListener::bind("0.0.0.0:8080")).is_ok());
}

#[test]
fn without_the_packet_filter_publishing_is_refused() {
    let host = Host::new();
    let config = NetworkConfig { iptables: false, ip6tables: false, ..NetworkConfig::default() };
    let networks = host.open(config);
    let mut endpoint = attach(&networks);
    let wanted = [request(None, 8080)];
    let refused = host.space.run(|| networks.publish(&mut endpoint, &wanted)).unwrap_err();
    assert!(refused.to_string().contains("--iptables=false"), "{refused}");
}
