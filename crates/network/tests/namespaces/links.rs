//! What links open between containers that may not talk otherwise (`--icc=false`).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use network::firewall::Firewall;
use network::{Link, NetworkConfig, Networks, Protocol};

use crate::world::{Container, Host, Space, attach, plain};

const OPEN: u16 = 3306;

fn apart() -> NetworkConfig {
    let fixed_cidr_v6 = Some("fd00:17::/64".parse().unwrap());
    NetworkConfig { icc: false, fixed_cidr_v6, ..NetworkConfig::default() }
}

fn to(target: &Container) -> Vec<Link> {
    let ports = vec![(Protocol::Tcp, OPEN), (Protocol::Udp, OPEN)];
    vec![Link { to: target.endpoint.container.clone(), ports }]
}

/// A container with links, from its start on.
fn run_linked(host: &Host, networks: &Networks, links: Vec<Link>) -> Container {
    let mut endpoint = attach(networks);
    networks.link(&mut endpoint, links).unwrap();
    host.plug(endpoint)
}

/// Leaves the bridge's frames to the table for bridges, as most hosts do. Some have them pass the
/// table for what is routed too; the other tests are such a host's where the kernel can do that.
fn filter_frames_once(host: &Host) {
    for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{setting}");
        match host.space.run(|| std::fs::write(&path, "0")) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{path}: {error}"),
            _written_or_no_such_module => {}
        }
    }
}

/// In each family: `from` reaches this port of `to`, or hears nothing.
#[track_caller]
fn check(from: &Container, to: &Container, port: u16, open: bool) {
    for ip in to.endpoint.ips() {
        let listener = to.space.listen(ip, port);
        // The first question for an IPv6 neighbour may be lost, and the next comes a second later.
        let patience = Duration::from_millis(if open { 5000 } else { 500 });
        match from.space.reach_within(patience, &listener, (ip, port).into()) {
            Ok(_) => assert!(open, "{ip}:{port} is open"),
            Err(error) => {
                assert!(!open, "{ip}:{port}: {error}");
                let silent = [ErrorKind::TimedOut, ErrorKind::HostUnreachable];
                assert!(silent.contains(&error.kind()), "{error}");
            }
        }
    }
}

/// A datagram there and one back.
fn udp(from: &Space, own: IpAddr, to: &Space, target: SocketAddr) -> io::Result<()> {
    let patience = Some(Duration::from_millis(500));
    let server = to.run(|| UdpSocket::bind(target))?;
    let client = from.run(|| UdpSocket::bind((own, 0)))?;
    server.set_read_timeout(patience)?;
    client.set_read_timeout(patience)?;
    client.send_to(b"x", target)?;
    let (_, peer) = server.recv_from(&mut [0])?;
    server.send_to(b"y", peer)?;
    client.recv_from(&mut [0])?;
    Ok(())
}

#[test]
fn a_link_opens_the_exposed_port_and_nothing_else() {
    let host = Host::new();
    filter_frames_once(&host);
    let networks = host.open(apart());
    let (db, stranger) = (host.run(&networks), host.run(&networks));
    let web = run_linked(&host, &networks, to(&db));
    let other = run_linked(&host, &networks, to(&stranger));
    assert_eq!(db.endpoint.ips().len(), 2, "both families");
    check(&web, &db, OPEN, true);
    check(&web, &db, OPEN + 1, false);
    // Not back, not even from the port that is open, nor between two that have links.
    check(&db, &web, OPEN, false);
    check(&db, &web, 80, false);
    check(&stranger, &db, OPEN, false);
    check(&stranger, &web, OPEN, false);
    check(&web, &stranger, OPEN, false);
    check(&other, &web, OPEN, false);
    check(&other, &db, OPEN, false);
    for (own, ip) in web.endpoint.ips().into_iter().zip(db.endpoint.ips()) {
        udp(&web.space, own, &db.space, (ip, OPEN).into()).unwrap();
        udp(&web.space, own, &db.space, (ip, OPEN + 1).into()).unwrap_err();
        udp(&db.space, ip, &web.space, (own, OPEN).into()).unwrap_err();
    }
    // The host is no neighbour.
    let gateway = networks.host_gateways()[0];
    let on_host = host.space.listen(gateway, 81);
    assert!(web.space.reach(&on_host, (gateway, 81).into()).is_ok());
}

/// The port that is open is no port to call from.
#[test]
fn nobody_calls_back_from_an_open_port() {
    let host = Host::new();
    filter_frames_once(&host);
    let networks = host.open(apart());
    let db = host.run(&networks);
    let web = run_linked(&host, &networks, to(&db));
    let listener = web.space.listen(web.ip(), 80);
    let call = db.space.run(|| {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
        let caller = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_timeout(
            &caller,
            sockopt::Timeout::Send,
            Some(Duration::from_millis(500)),
        )?;
        bind(&caller, &SocketAddr::new(db.ip(), OPEN))?;
        connect(&caller, &SocketAddr::new(web.ip(), 80))
    });
    assert_eq!(call, Err(rustix::io::Errno::INPROGRESS), "no answer in time");
    drop(listener);
    check(&web, &db, OPEN, true);
}

#[test]
fn what_a_link_opened_goes_with_either() {
    let host = Host::new();
    let networks = host.open(apart());
    let elements = || {
        let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
        firewall.element_count().unwrap()
    };
    let none = elements();
    let db = host.run(&networks);
    let alone = elements();
    let web = run_linked(&host, &networks, to(&db));
    let both = elements();
    // A door, and two ports of two families beside its own eight.
    assert_eq!(both - alone, alone - none + 1 + 4);
    let id = |container: &Container| container.endpoint.container.clone();
    // The target comes and goes: what is open follows.
    networks.detach("bridge", &id(&db)).unwrap();
    assert_eq!(elements(), none + (alone - none) + 1);
    let container = id(&db);
    let again = host.plug(networks.attach("bridge", &plain(&container)).unwrap());
    assert_eq!(elements(), both);
    assert_ne!(again.ip(), db.ip(), "the address that was given back is not the next");
    check(&web, &again, OPEN, true);
    // `docker rm --link`, and back.
    networks.relink(&id(&web), Vec::new()).unwrap();
    check(&web, &again, OPEN, false);
    networks.relink(&id(&web), to(&again)).unwrap();
    check(&web, &again, OPEN, true);
    networks.detach("bridge", &id(&web)).unwrap();
    assert_eq!(elements(), alone);
}

#[test]
fn links_survive_the_daemon_and_a_flush() {
    let host = Host::new();
    let networks = host.open(apart());
    let (db, stranger) = (host.run(&networks), host.run(&networks));
    let web = run_linked(&host, &networks, to(&db));
    let mut somebody = host.space.run(|| Firewall::open("boxship0")).unwrap();
    somebody.remove().unwrap();
    networks.ensure_firewall().unwrap();
    check(&web, &db, OPEN, true);
    check(&web, &stranger, OPEN, false);
    somebody.remove().unwrap();
    // Whatever meets the flushed tables first makes them anew.
    networks.relink(&web.endpoint.container, to(&db)).unwrap();
    networks.ensure_firewall().unwrap();
    check(&web, &db, OPEN, true);
    drop(networks);

    let networks = host.open(apart());
    // Before it is known who is there, no door is open.
    check(&web, &db, OPEN, false);
    check(&web, &stranger, OPEN, false);
    let live = [&db, &stranger, &web].map(|container| container.endpoint.clone());
    assert!(networks.reconcile(&live).is_empty());
    check(&web, &stranger, OPEN, false);
    networks.relink(&web.endpoint.container, to(&db)).unwrap();
    check(&web, &db, OPEN, true);
    check(&web, &stranger, OPEN, false);
}

/// Where all may talk, the way is the kernel's, without a look at any rule.
#[test]
fn where_all_may_talk_links_cost_nothing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    let none = firewall.element_count().unwrap();
    let db = host.run(&networks);
    let one = firewall.element_count().unwrap() - none;
    let web = run_linked(&host, &networks, to(&db));
    assert_eq!(firewall.element_count().unwrap(), none + 2 * one);
    check(&web, &db, OPEN + 1, true);
}
