//! Networks of users: who meets whom, what is left when they go, what a restart finds.

use std::net::IpAddr;

use network::{
    Endpoint, EndpointRequest, NetworkConfig, NetworkError, NetworkRequest, Networks, PoolRequest,
};

use crate::world::{Container, Host, id, plain};

fn request(name: &str, subnet: &str) -> NetworkRequest {
    let pool = PoolRequest { subnet: subnet.to_owned(), ..PoolRequest::default() };
    NetworkRequest { name: name.to_owned(), pools: vec![pool], ..NetworkRequest::default() }
}

fn attach(networks: &Networks, network: &str, ipv4: Option<[u8; 4]>) -> Endpoint {
    let container = id();
    let request = EndpointRequest { ipv4: ipv4.map(Into::into), ..plain(&container) };
    networks.attach(network, &request).unwrap()
}

fn run(host: &Host, networks: &Networks, network: &str) -> Container {
    host.plug(attach(networks, network, None))
}

#[test]
fn containers_meet_in_their_own_network_only() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    host.space.run(|| networks.create(&request("one", "10.77.0.0/24"))).unwrap();
    host.space.run(|| networks.create(&request("two", "10.78.0.0/24"))).unwrap();
    let (web, near) = (run(&host, &networks, "one"), run(&host, &networks, "one"));
    let far = run(&host, &networks, "two");
    let default = host.run(&networks);
    let server = web.listen();
    assert_eq!(web.ip().to_string(), "10.77.0.2");
    assert_eq!(near.space.reach(&server, (web.ip(), 80).into()).unwrap(), near.ip());
    for other in [&far, &default] {
        assert!(other.space.reach(&server, (web.ip(), 80).into()).is_err());
    }
    let outside = host.neighbour.listen([10, 9, 0, 2].into(), 82);
    let world = (IpAddr::from([10, 9, 0, 2]), 82).into();
    assert_eq!(web.space.reach(&outside, world).unwrap().to_string(), "10.9.0.1");
}

#[test]
fn an_internal_network_leads_nowhere() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let inner = NetworkRequest { internal: true, ..request("inner", "10.77.0.0/24") };
    host.space.run(|| networks.create(&inner)).unwrap();
    let (one, other) = (run(&host, &networks, "inner"), run(&host, &networks, "inner"));
    one.space.reach(&other.listen(), (other.ip(), 80).into()).unwrap();
    assert_eq!(one.endpoint.gateway_v4, None);
    // Even one that finds the way by itself.
    let mut socket = one.space.route();
    let index = socket.link_index("eth0").unwrap();
    let mut batch = sys::netlink::Batch::new();
    let gateway = [10, 77, 0, 1].into();
    sys::netlink::route::add_default_route(&mut batch, "route", index, gateway);
    socket.transact(&mut batch).unwrap();
    let outside = host.neighbour.listen([10, 9, 0, 2].into(), 82);
    let world = (IpAddr::from([10, 9, 0, 2]), 82).into();
    assert!(one.space.reach(&outside, world).is_err());
}

#[test]
fn networks_outlive_the_daemon_and_leave_nothing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let links = host.space.links().len();
    let id = host.space.run(|| networks.create(&request("one", "10.77.0.0/24"))).unwrap();
    let web = host.plug(attach(&networks, "one", Some([10, 77, 0, 9])));
    let shown = networks.inspect("one").unwrap();
    drop(networks);
    let networks = host.open(NetworkConfig::default());
    assert!(networks.reconcile(std::slice::from_ref(&web.endpoint)).is_empty());
    assert_eq!(networks.inspect(id.short()).unwrap(), shown);
    let near = run(&host, &networks, "one");
    near.space.reach(&web.listen(), (web.ip(), 80).into()).unwrap();
    let container = crate::world::id();
    let taken = EndpointRequest { ipv4: Some([10, 77, 0, 9].into()), ..plain(&container) };
    let error = networks.attach("one", &taken).unwrap_err();
    assert!(matches!(error, NetworkError::AddressInUse { .. }), "{error}");
    let error = host.space.run(|| networks.remove("one")).unwrap_err();
    assert!(matches!(error, NetworkError::ActiveEndpoints { .. }), "{error}");
    for container in [&web, &near] {
        networks.detach("one", &container.endpoint.container).unwrap();
    }
    drop((web, near));
    host.space.run(|| networks.remove("one")).unwrap();
    assert!(networks.inspect("one").is_err());
    assert!(!host.space.links().iter().any(|link| link.name.starts_with("br-")));
    assert!(host.space.links().len() <= links + 2, "the veths go with their namespaces");
    drop(networks);
    // A bridge whose network was not written down is removed.
    let networks = host.open(NetworkConfig::default());
    let orphan = format!("network:{}", crate::world::id());
    let alias = network::bridge::alias("boxship0", &orphan);
    let wanted = network::bridge::Wanted { name: "br-orphan", alias, mtu: 1500 };
    let address = "10.88.0.1/24".parse().unwrap();
    let made = host
        .space
        .run(|| network::bridge::set_up(&wanted, Some(address), None, &mut host.space.route()));
    made.unwrap();
    assert!(host.space.run(|| networks.reconcile(&[])).is_empty());
    assert!(!host.space.links().iter().any(|link| link.name == "br-orphan"));
}
