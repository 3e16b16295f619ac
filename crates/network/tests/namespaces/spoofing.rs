//! N06: a container with NET_RAW or NET_ADMIN speaks with an address that is not its own.

use std::net::IpAddr;

use network::NetworkConfig;
use sys::netlink::{Batch, route};

use crate::world::{Container, Host, Space};

/// Gives the container's interface another address, as root inside may.
fn take_address(space: &Space, ip: IpAddr) {
    let mut socket = space.route();
    let index = socket.link_index("eth0").unwrap();
    let mut batch = Batch::new();
    route::add_address(&mut batch, "spoof", index, ip, 32);
    socket.transact(&mut batch).unwrap();
}

fn take_mac(space: &Space, mac: [u8; 6]) {
    let mut batch = Batch::new();
    route::change_link(&mut batch, "spoof", "eth0", |link| {
        link.bytes(route::IFLA_ADDRESS, &mac);
    });
    space.route().transact(&mut batch).unwrap();
}

fn three(host: &Host, networks: &network::Networks) -> [Container; 3] {
    std::array::from_fn(|_| host.run(networks))
}

/// The thief announces the victim's address and keeps talking from it.
#[test]
fn a_stolen_address_leads_nowhere() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let [victim, thief, client] = three(&host, &networks);
    let server = victim.listen();
    take_address(&thief.space, victim.ip());
    take_mac(&thief.space, thief.endpoint.interface.as_ref().unwrap().mac); // announces
    let target = (victim.ip(), 80).into();
    assert!(client.space.reach(&server, target).is_ok());
    assert!(host.space.reach(&server, target).is_ok());
}

#[test]
fn a_stolen_mac_attracts_nothing() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let [victim, thief, client] = three(&host, &networks);
    let server = victim.listen();
    assert!(client.space.reach(&server, (victim.ip(), 80).into()).is_ok());
    take_mac(&thief.space, victim.endpoint.interface.as_ref().unwrap().mac);
    // Whatever the thief now says would teach the bridge the wrong port.
    let gateway = networks.host_gateways()[0];
    let on_host = host.space.listen(gateway, 81);
    assert!(thief.space.reach(&on_host, (gateway, 81).into()).is_err());
    assert!(client.space.reach(&server, (victim.ip(), 80).into()).is_ok());
}

#[test]
fn the_gateway_cannot_be_played() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let [_, thief, client] = three(&host, &networks);
    let gateway = networks.host_gateways()[0];
    let on_host = host.space.listen(gateway, 81);
    assert!(client.space.reach(&on_host, (gateway, 81).into()).is_ok());
    take_address(&thief.space, gateway);
    take_mac(&thief.space, thief.endpoint.interface.as_ref().unwrap().mac);
    assert!(client.space.reach(&on_host, (gateway, 81).into()).is_ok());
}

/// What the engine gave to nobody is a container's own business, as on Docker.
#[test]
fn addresses_of_nobody_may_be_used() {
    let host = Host::new();
    let networks = host.open(NetworkConfig::default());
    let [one, other, _] = three(&host, &networks);
    let floating: IpAddr = [172, 17, 99, 99].into();
    take_address(&one.space, floating);
    let server = one.space.listen(floating, 80);
    assert!(other.space.reach(&server, (floating, 80).into()).is_ok());
}
