//! What somebody changed or removed under a running daemon comes back by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use network::firewall::Firewall;
use network::{NetworkConfig, NetworkRequest, Networks, PoolRequest, PortRequest, Protocol};
use sys::netlink::{Batch, route};

use crate::world::{Container, Host, attach, plain};

/// A neighbour that was not yet asked for may take a second.
const PATIENCE: Duration = Duration::from_secs(4);

fn change(host: &Host, fill: impl FnOnce(&mut Batch, u32)) {
    let mut socket = host.space.route();
    let index = socket.link_index("boxship0").unwrap();
    let mut batch = Batch::new();
    fill(&mut batch, index);
    socket.transact(&mut batch).unwrap();
}

#[track_caller]
fn assert_whole(host: &Host, networks: &Networks) {
    let errors = host.space.run(|| networks.check());
    assert!(errors.is_empty(), "{errors:?}");
}

#[track_caller]
fn assert_mended(host: &Host, networks: &Networks, container: &Container, what: &str) {
    let errors = host.space.run(|| networks.check());
    assert!(errors.is_empty(), "{what}: {errors:?}");
    let server = container.listen();
    let target = (container.ip(), 80).into();
    host.space.reach_within(PATIENCE, &server, target).unwrap_or_else(|error| {
        panic!("{what}: {error}");
    });
}

#[test]
fn bridges_addresses_and_ports_come_back() {
    let host = Host::new();
    let config = NetworkConfig {
        fixed_cidr_v6: Some("fd00:5::/64".parse().unwrap()),
        ..NetworkConfig::default()
    };
    let networks = host.open(config);
    let container = host.run(&networks);
    let mac = || host.space.links().into_iter().find(|link| link.name == "boxship0").unwrap().mac;
    let before = mac();
    assert_mended(&host, &networks, &container, "nothing");
    change(&host, |batch, _| route::delete_link(batch, "delete", "boxship0"));
    assert_mended(&host, &networks, &container, "a bridge that is gone");
    assert_eq!(mac(), before);
    assert_eq!(host.setting("ipv4/conf/boxship0/route_localnet"), "1");
    change(&host, |batch, index| {
        route::delete_address(batch, "delete", index, [172, 17, 0, 1].into(), 16);
        route::delete_address(batch, "delete", index, "fd00:5::1".parse().unwrap(), 64);
    });
    assert_mended(&host, &networks, &container, "addresses that are gone");
    let addresses = route::addresses(&mut host.space.route()).unwrap();
    assert!(addresses.iter().any(|address| address.ip.to_string() == "fd00:5::1"));
    change(&host, |batch, index| {
        batch.message("down", 16, 0, &route::link_header(index, 0, route::UP), |_| {});
    });
    assert_mended(&host, &networks, &container, "a bridge that is down");
    change(&host, |batch, _| {
        route::change_link(batch, "take out", container.port(), |link| {
            link.u32(route::IFLA_MASTER, 0);
        });
    });
    assert_mended(&host, &networks, &container, "a port that is none");
    let write = |key: &str, value: &str| {
        let path = format!("/proc/sys/net/{key}");
        host.space.run(|| std::fs::write(path, value)).unwrap();
    };
    let changed = [
        ("ipv4/conf/boxship0/route_localnet", "0", "1"),
        ("ipv6/conf/boxship0/accept_ra", "2", "0"),
        ("ipv4/ip_forward", "0", "1"),
    ];
    for (key, value, _) in changed {
        write(key, value);
    }
    assert_mended(&host, &networks, &container, "settings");
    for (key, _, expect) in changed {
        assert_eq!(host.setting(key), expect, "{key}");
    }
}

#[test]
fn a_port_that_comes_back_is_as_isolated_as_before() {
    let host = Host::new();
    let networks = host.open(NetworkConfig { icc: false, ..NetworkConfig::default() });
    let (one, other) = (host.run(&networks), host.run(&networks));
    change(&host, |batch, _| route::delete_link(batch, "delete", "boxship0"));
    assert_mended(&host, &networks, &one, "a bridge that is gone");
    let server = other.listen();
    assert!(one.space.reach(&server, (other.ip(), 80).into()).is_err());
}

#[test]
fn leftovers_go_at_the_second_look() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let container = host.run(&networks);
    networks.detach("bridge", &container.endpoint.container).unwrap();
    let is_there = || host.space.links().into_iter().any(|link| link.name == container.port());
    assert_whole(&host, &networks);
    assert!(is_there(), "it may be on its way");
    assert_whole(&host, &networks);
    assert!(!is_there());
    assert_whole(&host, &networks);
}

#[test]
fn emptied_sets_are_filled_again() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let mut endpoint = attach(&networks);
    let wanted = [PortRequest {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: None,
        host_ports: Some(8080..=8080),
    }];
    host.space.run(|| networks.publish(&mut endpoint, &wanted)).map(drop).unwrap();
    let web = host.plug(endpoint);
    let server = web.listen();
    // As `nft flush map` does: elements are no part of the description that is compared.
    let mut stranger = host.space.run(|| Firewall::open("boxship0")).unwrap();
    stranger.retract(&web.endpoint.published).unwrap();
    networks.ensure_firewall().unwrap();
    assert!(host.space.reach(&server, ([127, 0, 0, 1], 8080).into()).is_err());
    assert_whole(&host, &networks);
    host.space.reach(&server, ([127, 0, 0, 1], 8080).into()).unwrap();
    assert_whole(&host, &networks);
}

/// N03: another tool flushes as often as it can, while containers come and go.
#[test]
fn a_loop_of_flushes_is_survived() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let over = AtomicBool::new(false);
    let web = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stranger = host.space.run(|| Firewall::open("boxship0")).unwrap();
            while !over.load(Ordering::Relaxed) {
                stranger.remove().unwrap();
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                networks.ensure_firewall().unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        let mut rounds = 0;
        let web = loop {
            let mut endpoint = attach(&networks);
            let wanted = [PortRequest {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_ip: None,
                host_ports: Some(8080..=8080),
            }];
            let published = host.space.run(|| networks.publish(&mut endpoint, &wanted)).map(drop);
            if Instant::now() > until && published.is_ok() {
                break endpoint;
            }
            networks.detach("bridge", &endpoint.container).unwrap();
            rounds += 1;
        };
        over.store(true, Ordering::Relaxed);
        assert!(rounds > 2, "{rounds}");
        web
    });
    let web = host.plug(web);
    networks.ensure_firewall().unwrap();
    host.space.reach(&web.listen(), ([127, 0, 0, 1], 8080).into()).unwrap();
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    assert_eq!(firewall.published_count().unwrap(), 1);
    assert_whole(&host, &networks);
}

#[test]
fn networks_of_one_family_live_and_come_back() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let pool = PoolRequest { subnet: "fd00:6::/64".to_owned(), ..PoolRequest::default() };
    let six = NetworkRequest {
        name: "six".to_owned(),
        enable_ipv4: false,
        enable_ipv6: true,
        pools: vec![pool],
        ..NetworkRequest::default()
    };
    host.space.run(|| networks.create(&six)).unwrap();
    let info = networks.inspect("six").unwrap();
    assert!(!info.enable_ipv4 && info.enable_ipv6);
    assert_eq!(info.pools.len(), 1);
    let run = || {
        let container = crate::world::id();
        let request = plain(&container);
        host.plug(networks.attach("six", &request).unwrap())
    };
    let (one, other) = (run(), run());
    assert_eq!(other.ip().to_string(), "fd00:6::3");
    assert_eq!(other.endpoint.gateway_v6.unwrap().to_string(), "fd00:6::1");
    let target = (other.ip(), 80).into();
    one.space.reach_within(PATIENCE, &other.listen(), target).unwrap();
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    let live = [one.endpoint.clone(), other.endpoint.clone()];
    assert!(networks.reconcile(&live).is_empty());
    assert_eq!(networks.inspect("six").unwrap().pools, info.pools);
    assert_whole(&host, &networks);
    one.space.reach_within(PATIENCE, &other.listen(), target).unwrap();
}
