//! Kernels that lack something: the daemon starts, says what is missing, and does what it can.
//!
//! Here parts are only left unused; `cargo xtask vm-test --package network --without nft_fib_inet`
//! runs these on a kernel that really has none.

use std::net::IpAddr;
use std::time::Duration;

use network::features::Module;
use network::{Endpoint, NetworkConfig, NetworkError, Networks, PortRequest, Protocol};
use spec::{ErrorKind, Kinded as _};
use sys::netlink::Socket;
use sys::netlink::nft::{Family, Table, contents};

use crate::world::{Host, attach, id, plain};

/// An emulated machine is slow, and its first packet to a new neighbour may be lost.
const PATIENCE: Duration = Duration::from_secs(5);
const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2));

fn without(modules: &[Module]) -> NetworkConfig {
    NetworkConfig { do_without: modules.to_vec(), ..NetworkConfig::default() }
}

fn publish(host: &Host, networks: &Networks, endpoint: &mut Endpoint) -> Result<(), NetworkError> {
    let wanted = [PortRequest {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: None,
        host_ports: Some(8080..=8080),
    }];
    host.space.run(|| networks.publish(endpoint, &wanted)).map(drop)
}

/// Whatever this kernel has: nothing fails that need not.
#[test]
fn a_daemon_starts_on_any_kernel() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let warnings = host.space.run(|| networks.warnings());
    let (one, other) = (host.run(&networks), host.run(&networks));
    let server = other.listen();
    for space in [&one.space, &host.space] {
        space.reach_within(PATIENCE, &server, (other.ip(), 80).into()).unwrap();
    }
    let mut endpoint = attach(&networks);
    match publish(&host, &networks, &mut endpoint) {
        Ok(()) => {
            let no_port = warnings.iter().any(|warning| warning.contains("no port"));
            assert!(!no_port, "{warnings:?}");
        }
        Err(NetworkError::MissingModule { module, .. }) => {
            assert!(warnings.contains(&module.warning()), "{warnings:?}");
        }
        Err(error) => panic!("{error}"),
    }
    networks.ensure_firewall().unwrap();
    networks.detach("bridge", &one.endpoint.container).unwrap();
    assert!(host.space.run(|| networks.check()).is_empty());
}

#[test]
fn without_a_part_ports_are_refused_by_its_name() {
    for module in
        [Module::NftFib, Module::NftNat, Module::NftMasq, Module::NftChainNat, Module::NftCt]
    {
        let host = Host::new();
        let networks = host.open(without(&[module]));
        let warnings = host.space.run(|| networks.warnings());
        if warnings.contains(&Module::NfTables.warning()) {
            return;
        }
        assert!(warnings.contains(&module.warning()), "{warnings:?}");
        let mut endpoint = attach(&networks);
        let error = publish(&host, &networks, &mut endpoint).unwrap_err();
        let NetworkError::MissingModule { module: first, .. } = &error else { panic!("{error}") };
        let name = first.name();
        assert_eq!(
            (error.to_string(), error.kind()),
            (
                format!(
                    "publishing ports needs the kernel module {name}, which this kernel does not \
                     have"
                ),
                ErrorKind::NotImplemented
            )
        );
        assert_eq!(host.setting("ipv4/conf/boxship0/route_localnet"), "0");
        // The rest works, and what protects without it still does.
        let (one, other) = (host.run(&networks), host.run(&networks));
        let server = other.listen();
        one.space.reach_within(PATIENCE, &server, (other.ip(), 80).into()).unwrap();
        assert!(host.neighbour.reach(&server, (other.ip(), 80).into()).is_err(), "{name}");
        let outside = host.neighbour.listen(NEIGHBOUR, 82);
        let seen = one.space.reach_within(PATIENCE, &outside, (NEIGHBOUR, 82).into());
        let bare = [Module::NftMasq, Module::NftChainNat].map(Module::warning);
        let masked = !bare.iter().any(|warning| warnings.contains(warning));
        let expect = if masked { "10.9.0.1".to_owned() } else { one.ip().to_string() };
        assert_eq!(seen.unwrap().to_string(), expect, "{name}");
        networks.ensure_firewall().unwrap();
    }
}

#[test]
fn without_rules_between_ports_all_else_holds() {
    let host = Host::new();
    let networks = host.open(without(&[Module::NftMetaBridge]));
    let mut endpoint = attach(&networks);
    if let Err(error) = publish(&host, &networks, &mut endpoint) {
        assert!(matches!(error, NetworkError::MissingModule { .. }), "{error}");
        return;
    }
    let web = host.plug(endpoint);
    let server = web.listen();
    host.space.reach_within(PATIENCE, &server, ([127, 0, 0, 1], 8080).into()).unwrap();
    assert!(host.neighbour.reach(&server, (web.ip(), 80).into()).is_err());
    networks.detach("bridge", &web.endpoint.container).unwrap();
}

#[test]
fn without_a_packet_filter_containers_still_run() {
    let host = Host::new();
    let networks = host.open(without(&[Module::NfTables]));
    let warnings = host.space.run(|| networks.warnings());
    assert!(warnings.contains(&Module::NfTables.warning()), "{warnings:?}");
    // Nothing would keep this host from routing for everybody.
    assert_eq!(host.setting("ipv4/ip_forward"), "0");
    let (one, other) = (host.run(&networks), host.run(&networks));
    one.space.reach_within(PATIENCE, &other.listen(), (other.ip(), 80).into()).unwrap();
    let mut endpoint = attach(&networks);
    let error = publish(&host, &networks, &mut endpoint).unwrap_err();
    assert!(error.to_string().contains("nf_tables"), "{error}");
    networks.ensure_firewall().unwrap();
    networks.detach("bridge", &one.endpoint.container).unwrap();
    networks.remove_firewall().unwrap();
    let table = Table { family: Family::Inet, name: "boxship_boxship0".to_owned() };
    // A kernel that really has none does not know the question.
    let Ok(mut socket) = host.space.run(Socket::netfilter) else { return };
    assert!(contents(&mut socket, &table).is_ok_and(|rules| rules.is_empty()));
}

#[test]
fn without_bridges_other_networks_remain() {
    let host = Host::new();
    let networks = host.open(without(&[Module::Bridge]));
    assert!(host.space.run(|| networks.warnings()).contains(&Module::Bridge.warning()));
    let container = id();
    let request = plain(&container);
    let error = networks.attach("bridge", &request).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a bridge network needs the kernel module bridge, which this kernel does not have"
    );
    networks.attach("host", &request).unwrap();
    networks.attach("none", &request).unwrap();
}
