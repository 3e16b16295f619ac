//! Networks on a link of the host. The parent is the host's `lan0`, behind which the neighbour is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use network::{
    Endpoint, EndpointRequest, NetworkConfig, NetworkError, NetworkRequest, Networks, PoolRequest,
    PortRequest, Protocol,
};
use spec::{ErrorKind, Kinded as _};

use crate::world::{Container, Host, id, plain};

const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2));
const PATIENCE: Duration = Duration::from_secs(4);

fn request(name: &str, options: &[(&str, &str)], subnets: &[&str]) -> NetworkRequest {
    let pools = subnets
        .iter()
        .map(|subnet| PoolRequest { subnet: (*subnet).to_owned(), ..PoolRequest::default() });
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NetworkRequest {
        name: name.to_owned(),
        driver: "macvlan".to_owned(),
        pools: pools.collect(),
        options: options.collect::<BTreeMap<_, _>>(),
        ..NetworkRequest::default()
    }
}

fn create(host: &Host, networks: &Networks, request: &NetworkRequest) -> Result<(), NetworkError> {
    host.space.run(|| networks.create(request)).map(drop)
}

fn attach(networks: &Networks, name: &str, ip: Option<[u8; 4]>) -> Result<Endpoint, NetworkError> {
    let container = id();
    let request = EndpointRequest { ipv4: ip.map(Into::into), ..plain(&container) };
    networks.attach(name, &request)
}

fn run(host: &Host, networks: &Networks, name: &str) -> Container {
    let endpoint = host.space.run(|| attach(networks, name, None)).unwrap();
    host.plug(endpoint)
}

/// The neighbour's own subnet, in which .64 and up is ours.
fn on_lan(name: &str, mode: &str) -> NetworkRequest {
    let mut request = request(name, &[("parent", "lan0"), ("macvlan_mode", mode)], &[]);
    request.pools = vec![PoolRequest {
        subnet: "10.9.0.0/24".to_owned(),
        ip_range: "10.9.0.64/26".to_owned(),
        gateway: "10.9.0.2".to_owned(),
        auxiliary: BTreeMap::from([("used".to_owned(), "10.9.0.65".to_owned())]),
    }];
    request
}

#[test]
fn containers_are_neighbours_on_the_parents_network() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    create(&host, &networks, &on_lan("lan", "")).unwrap();
    let (one, other) = (run(&host, &networks, "lan"), run(&host, &networks, "lan"));
    assert_eq!(
        (one.ip().to_string(), other.ip().to_string()),
        ("10.9.0.64".to_owned(), "10.9.0.66".to_owned())
    );
    assert_eq!(one.endpoint.gateway_v4, Some(NEIGHBOUR));
    assert_eq!(one.endpoint.driver(), "macvlan");
    let server = one.listen();
    // Nothing is translated: it is one network.
    for (space, ip) in [(&host.neighbour, NEIGHBOUR), (&other.space, other.ip())] {
        let seen = space.reach_within(PATIENCE, &server, (one.ip(), 80).into()).unwrap();
        assert_eq!(seen, ip);
    }
    assert!(host.space.reach(&server, (one.ip(), 80).into()).is_err(), "not the host itself");
    let links = one.space.links();
    let link = links.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!(
        (link.kind.as_str(), link.mac),
        ("macvlan", one.endpoint.interface.as_ref().map(|interface| interface.mac))
    );
    // Ports need no publishing here, and Docker ignores the wish.
    let mut endpoint = one.endpoint.clone();
    let wanted = PortRequest {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: None,
        host_ports: Some(8080..=8080),
    };
    assert!(host.space.run(|| networks.publish(&mut endpoint, &[wanted])).unwrap().is_none());
    // A restart of the daemon knows who is there; removal leaves the parent alone.
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    let live = [one.endpoint.clone(), other.endpoint.clone()];
    assert!(host.space.run(|| networks.reconcile(&live)).is_empty());
    assert!(host.space.run(|| networks.check()).is_empty());
    let taken = host.space.run(|| attach(&networks, "lan", Some([10, 9, 0, 66]))).unwrap_err();
    assert!(matches!(taken, NetworkError::AddressInUse { .. }), "{taken}");
    assert!(host.space.run(|| networks.remove("lan")).is_err(), "somebody is inside");
    for endpoint in &live {
        networks.detach("lan", &endpoint.container).unwrap();
    }
    host.space.run(|| networks.remove("lan")).unwrap();
    assert!(host.space.links().iter().any(|link| link.name == "lan0"));
}

#[test]
fn modes_are_the_kernels() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    create(&host, &networks, &on_lan("private", "private")).unwrap();
    let (one, other) = (run(&host, &networks, "private"), run(&host, &networks, "private"));
    let server = one.listen();
    assert!(other.space.reach(&server, (one.ip(), 80).into()).is_err());
    host.neighbour.reach_within(PATIENCE, &server, (one.ip(), 80).into()).unwrap();
    let second = request("all", &[("parent", "lan0"), ("macvlan_mode", "passthru")], &[]);
    let error = create(&host, &networks, &second).unwrap_err();
    assert!(error.to_string().starts_with("cannot use mode passthru, macvlan network "), "{error}");
    assert!(networks.inspect("all").is_err());
    for container in [one, other] {
        networks.detach("private", &container.endpoint.container).unwrap();
    }
    host.space.run(|| networks.remove("private")).unwrap();
    create(&host, &networks, &second).unwrap();
    let error = create(&host, &networks, &on_lan("more", "bridge")).unwrap_err();
    assert!(error.to_string().ends_with("is already using parent interface lan0 in mode passthru"));
    create(
        &host,
        &networks,
        &request("vepa", &[("parent", "boxship0"), ("macvlan_mode", "vepa")], &[]),
    )
    .unwrap();
}

#[test]
fn several_subnets_are_filled_one_after_the_other() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let two = request("two", &[("parent", "lan0")], &["10.66.0.0/30", "10.67.0.0/24"]);
    create(&host, &networks, &two).unwrap();
    let attach = |ip| host.space.run(|| attach(&networks, "two", ip));
    let shown = |endpoint: &Endpoint| {
        format!("{} {}", endpoint.ipv4.unwrap(), endpoint.gateway_v4.unwrap())
    };
    assert_eq!(shown(&attach(None).unwrap()), "10.66.0.2/30 10.66.0.1");
    assert_eq!(shown(&attach(None).unwrap()), "10.67.0.2/24 10.67.0.1");
    assert_eq!(shown(&attach(Some([10, 67, 0, 9])).unwrap()), "10.67.0.9/24 10.67.0.1");
    let error = attach(Some([10, 68, 0, 9])).unwrap_err();
    assert!(matches!(error, NetworkError::AddressOutside { .. }), "{error}");
    let shown: Vec<_> = networks
        .inspect("two")
        .unwrap()
        .pools
        .into_iter()
        .map(|pool| pool.subnet.to_string())
        .collect();
    assert_eq!(shown, ["10.66.0.0/30", "10.67.0.0/24"]);
}

/// On a kernel with `dummy`, or by its name where there is none.
#[test]
fn without_a_parent_containers_are_among_themselves() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let alone = request("alone", &[], &["10.66.0.0/24"]);
    match create(&host, &networks, &alone) {
        Err(error @ NetworkError::MissingModule { .. }) => {
            assert_eq!(
                error.to_string(),
                "a macvlan network without a parent needs the kernel module dummy, which this \
                 kernel does not have"
            );
            assert!(networks.inspect("alone").is_err());
            return;
        }
        created => created.unwrap(),
    }
    let (one, other) = (run(&host, &networks, "alone"), run(&host, &networks, "alone"));
    assert_eq!(one.endpoint.gateway_v4, None);
    other.space.reach_within(PATIENCE, &one.listen(), (one.ip(), 80).into()).unwrap();
    let made = |host: &Host| host.space.links().iter().any(|link| link.name.starts_with("dm-"));
    assert!(made(&host));
    for container in [&one, &other] {
        networks.detach("alone", &container.endpoint.container).unwrap();
    }
    host.space.run(|| networks.remove("alone")).unwrap();
    assert!(!made(&host));
}

/// Likewise with `8021q`.
#[test]
fn a_vlan_is_made_and_goes_with_its_last_network() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let vlan = |name: &str, subnet| request(name, &[("parent", "lan0.10")], &[subnet]);
    match create(&host, &networks, &vlan("one", "10.66.0.0/24")) {
        Err(error @ NetworkError::MissingModule { .. }) => {
            assert!(error.to_string().contains("kernel module 8021q"), "{error}");
            return;
        }
        created => created.unwrap(),
    }
    let made = |host: &Host| host.space.links().iter().any(|link| link.name == "lan0.10");
    create(&host, &networks, &vlan("two", "10.67.0.0/24")).unwrap();
    host.space.run(|| networks.remove("one")).unwrap();
    assert!(made(&host), "the other network needs it");
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    assert!(host.space.run(|| networks.reconcile(&[])).is_empty());
    assert!(made(&host));
    host.space.run(|| networks.remove("two")).unwrap();
    assert!(!made(&host));
}

#[test]
fn ipvlan_works_or_says_what_is_missing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let ipvlan = NetworkRequest {
        driver: "ipvlan".to_owned(),
        options: BTreeMap::from([("parent".to_owned(), "lan0".to_owned())]),
        ..on_lan("ip", "")
    };
    match create(&host, &networks, &ipvlan) {
        Err(error @ NetworkError::MissingModule { .. }) => {
            assert_eq!(error.kind(), ErrorKind::NotImplemented);
            assert!(error.to_string().contains("kernel module ipvlan"), "{error}");
            return;
        }
        created => created.unwrap(),
    }
    let (one, other) = (run(&host, &networks, "ip"), run(&host, &networks, "ip"));
    let server = one.listen();
    for space in [&host.neighbour, &other.space] {
        space.reach_within(PATIENCE, &server, (one.ip(), 80).into()).unwrap();
    }
}

#[test]
fn refusals_are_dockers() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let check = |options: &[(&str, &str)], expect: &str| {
        let error = create(&host, &networks, &request("x", options, &[])).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (expect, ErrorKind::Internal));
    };
    check(
        &[("parent", "nope0")],
        "invalid subinterface vlan name nope0, example formatting is eth0.10",
    );
    check(&[("parent", "nope0.10")], "-o parent interface was not found on the host: nope0");
    check(&[("parent", "lo")], "loopback interface is not a valid macvlan parent link");
    check(&[("parent", "lan0.5000")], "vlan id must be between 1-4094, received: 5000");
}
