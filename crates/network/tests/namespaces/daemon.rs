//! Starting, restarting, and what is left behind.

use std::collections::HashSet;

use network::firewall::Firewall;
use network::{EndpointRequest, NetworkConfig, NetworkError, NetworkRequest, Networks};
use spec::{ErrorKind, Kinded as _};
use sys::netlink::nft::{Family, Table, contents};
use sys::netlink::{Batch, Socket, route};

use crate::world::{Host, attach, id, plain};

fn table_contents(host: &Host, family: Family) -> Vec<Vec<u8>> {
    let table = Table { family, name: "boxship_boxship0".to_owned() };
    let mut socket = host.space.run(Socket::netfilter).unwrap();
    contents(&mut socket, &table).unwrap()
}

#[test]
fn a_restart_changes_nothing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let before = networks.list();
    let container = host.run(&networks);
    let rules = table_contents(&host, Family::Inet).len();
    assert!(rules > 5, "{rules}");
    drop(networks);

    let networks = host.open(NetworkConfig::default());
    let errors = networks.reconcile(std::slice::from_ref(&container.endpoint));
    assert!(errors.is_empty(), "{errors:?}");
    let ids = |list: &[network::NetworkInfo]| -> Vec<_> {
        list.iter().map(|network| (network.name.clone(), network.id.clone())).collect()
    };
    assert_eq!(ids(&networks.list()), ids(&before));
    assert_eq!(table_contents(&host, Family::Inet).len(), rules);
    assert!(host.space.links().iter().any(|link| link.name == container.port()));
    let second = host.run(&networks);
    assert_ne!(second.ip(), container.ip());
    assert!(second.space.reach(&container.listen(), (container.ip(), 80).into()).is_ok());
    let seen = networks.inspect("bridge").unwrap().endpoints;
    assert_eq!(seen.len(), 2);
}

#[test]
fn leftovers_are_removed_and_others_links_are_not() {
    let host = Host::new();
    let other = NetworkConfig { bridge: Some("boxother0".into()), ..NetworkConfig::default() };
    let (networks, others) = (host.open(NetworkConfig::default()), host.open(other));
    let (dead, live) = (host.run(&networks), host.run(&networks));
    let foreign = host.run(&others);
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    let errors = networks.reconcile(std::slice::from_ref(&live.endpoint));
    assert!(errors.is_empty(), "{errors:?}");
    let names: HashSet<_> = host.space.links().into_iter().map(|link| link.name).collect();
    assert!(!names.contains(dead.port()));
    assert!(names.contains(live.port()) && names.contains(foreign.port()));
    assert!(names.contains("boxship0") && names.contains("boxother0"));
}

#[test]
fn two_hundred_endpoints_leak_nothing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let links = host.space.links().len();
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    let elements = firewall.element_count().unwrap();
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let endpoints: Vec<_> = (0..50).map(|_| attach(&networks)).collect();
        for endpoint in &endpoints {
            let interface = endpoint.interface.as_ref().unwrap();
            assert!(seen.insert((endpoint.ips(), interface.host_name.clone())));
        }
        assert_eq!(firewall.element_count().unwrap(), elements + 50 * 5);
        for endpoint in &endpoints {
            networks.detach("bridge", &endpoint.container).unwrap();
            networks.detach("bridge", &endpoint.container).unwrap();
        }
    }
    assert_eq!(firewall.element_count().unwrap(), elements);
    assert_eq!(host.space.links().len(), links);
    assert!(networks.inspect("bridge").unwrap().endpoints.is_empty());
}

#[test]
fn a_flushed_table_comes_back_and_an_intact_one_is_left_alone() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let container = host.run(&networks);
    networks.ensure_firewall().unwrap();
    let before = table_contents(&host, Family::Inet);
    networks.ensure_firewall().unwrap();
    assert_eq!(table_contents(&host, Family::Inet), before, "same rules, same handles");
    // Neither do changes of ours, or of anybody's other tables, look like somebody's touch.
    let passing = attach(&networks);
    networks.detach("bridge", &passing.container).unwrap();
    networks.ensure_firewall().unwrap();
    assert_eq!(table_contents(&host, Family::Inet), before, "same rules, same handles");

    let mut stranger = host.space.run(|| Firewall::open("boxship0")).unwrap();
    stranger.remove().unwrap();
    assert!(table_contents(&host, Family::Inet).is_empty());
    networks.ensure_firewall().unwrap();
    assert_eq!(table_contents(&host, Family::Inet).len(), before.len());
    let mut firewall = host.space.run(|| Firewall::open("boxship0")).unwrap();
    assert!(firewall.element_count().unwrap() >= 5, "the container's elements too");
    // A start or an exit that meets a flushed table does not wait for that.
    stranger.remove().unwrap();
    let second = host.run(&networks);
    assert!(firewall.element_count().unwrap() >= 10);
    stranger.remove().unwrap();
    networks.detach("bridge", &container.endpoint.container).unwrap();
    assert!(second.space.reach(&second.listen(), (second.ip(), 80).into()).is_ok());
    assert_eq!(table_contents(&host, Family::Inet).len(), before.len());
}

#[test]
fn without_iptables_there_is_no_rule() {
    let host = Host::new();
    drop(host.open(NetworkConfig::default()));
    let off = NetworkConfig { iptables: false, ip6tables: false, ..NetworkConfig::default() };
    let networks = host.open(off);
    let container = host.run(&networks);
    assert!(table_contents(&host, Family::Inet).is_empty());
    assert!(table_contents(&host, Family::Bridge).is_empty());
    networks.ensure_firewall().unwrap();
    networks.detach("bridge", &container.endpoint.container).unwrap();
}

#[test]
fn the_subnet_keeps_clear_of_what_is_there() {
    let host = Host::new();
    crate::world::configure(&host.space, "lan0", [172, 17, 5, 1], None);
    let dns = NetworkConfig {
        host_nameservers: vec!["172.18.0.53".parse().unwrap()],
        ..NetworkConfig::default()
    };
    let networks = host.open(dns);
    assert_eq!(attach(&networks).ips()[0].to_string(), "172.19.0.2");
    drop(networks);
    // The bridge's own address counts from then on, unless another is asked for.
    let networks = host.open(NetworkConfig::default());
    assert_eq!(attach(&networks).gateway_v4.unwrap().to_string(), "172.19.0.1");
    drop(networks);
    let bip = Some("10.77.0.5/24".parse().unwrap());
    let range = Some("10.77.0.128/25".parse().unwrap());
    let config = NetworkConfig { bip, fixed_cidr: range, ..NetworkConfig::default() };
    let networks = host.open(config);
    let endpoint = attach(&networks);
    assert_eq!(endpoint.ips()[0].to_string(), "10.77.0.128");
    assert_eq!(endpoint.gateway_v4.unwrap().to_string(), "10.77.0.5");
    let index = host.space.route().link_index("boxship0").unwrap();
    let addresses = route::addresses(&mut host.space.route()).unwrap();
    assert_eq!(addresses.iter().filter(|address| address.index == index).count(), 1);
}

fn refused(networks: &Networks, network: &str, request: &EndpointRequest<'_>) -> NetworkError {
    networks.attach(network, request).unwrap_err()
}

#[test]
fn refusals_speak_dockers_language() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let container = id();
    let plain = plain(&container);
    let error = refused(&networks, "nothere", &plain);
    assert_eq!(
        (error.to_string().as_str(), error.kind()),
        ("network nothere not found", ErrorKind::NotFound)
    );
    let fixed = EndpointRequest { ipv4: Some([172, 17, 0, 9].into()), ..plain.clone() };
    assert_eq!(
        refused(&networks, "bridge", &fixed).to_string(),
        "invalid endpoint settings:\n\
         user specified IP address is supported on user defined networks only"
    );
    let named = |name: &str| NetworkRequest { name: name.to_owned(), ..NetworkRequest::default() };
    let error = networks.create(&named("bridge")).unwrap_err();
    assert_eq!(error.to_string(), "operation is not permitted on predefined bridge network ");
    networks.attach("none", &plain).unwrap();
    assert!(networks.attach("none", &plain).is_err());
    assert_eq!(attach(&networks).ips()[0].to_string(), "172.17.0.2", "refusals took nothing");
}

#[test]
fn a_dropping_forward_chain_of_another_tool_is_named() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let warn = || host.space.run(|| networks.warnings());
    assert!(warn().is_empty(), "{:?}", warn());
    // `iptables -P FORWARD DROP`, as the nft-based iptables writes it.
    let mut socket = host.space.run(Socket::netfilter).unwrap();
    let mut batch = Batch::new();
    let subsystem = [0, 0, 0, 10];
    let ipv4 = [2, 0, 0, 0];
    batch.message("begin", 0x10, 0, &subsystem, |_| {});
    batch.message("table", 0x0a00, sys::netlink::CREATE, &ipv4, |table| table.text(1, "filter"));
    batch.message("chain", 0x0a03, sys::netlink::CREATE, &ipv4, |chain| {
        chain.text(1, "filter");
        chain.text(3, "FORWARD");
        chain.nested(4, |hook| {
            hook.u32_be(1, 2);
            hook.u32_be(2, 0);
        });
        chain.u32_be(5, 0);
        chain.text(7, "filter");
    });
    batch.end("end", 0x11, &subsystem);
    socket.transact(&mut batch).unwrap();
    let warnings = warn();
    assert!(warnings[0].contains("chain FORWARD of firewall table filter"), "{warnings:?}");
}

#[test]
fn no_bridge_when_told_so() {
    let host = Host::new();
    let networks = host.open(NetworkConfig { bridge: None, ..NetworkConfig::default() });
    let container = id();
    let request = plain(&container);
    assert!(matches!(networks.attach("bridge", &request), Err(NetworkError::NoBridge)));
    assert!(networks.attach("host", &request).is_ok());
    assert!(networks.reconcile(&[]).is_empty());
    assert!(!host.space.links().iter().any(|link| link.kind == "bridge"));
}
