//! What should be there against what is: bridges, their addresses and ports, settings, rules.
//!
//! [`Networks::check`] is called every half minute. It asks for all links and addresses once,
//! decides ([`plan`], pure), and then acts; when all is well that is two questions and a few reads
//! of `/proc/sys`. What is missing is made again as it was, with the same addresses, so that
//! containers find it where they left it. Links of ours that belong to nobody are removed when
//! they are seen a second time: at the first a container may just be coming or going.

use std::collections::HashSet;

use runtime::interfaces;
use runtime::spec::Interface;
use spec::Id;
use sys::netlink::route::{self, Address, Link};
use sys::netlink::{Batch, Socket};

use crate::bridge::{self, Bridge};
use crate::bridge_network::BridgeNetwork;
use crate::endpoint::members;
use crate::error::NetworkError;
use crate::features::{Missing, Module};
use crate::networks::Networks;
use crate::state::State;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Repair {
    /// The network's bridge is gone.
    Make(Id),
    /// Its address, or that it is up.
    Readdress(Id),
    /// A container's end is no port of its bridge any more, or is down.
    Plug { port: String },
}

impl Networks {
    /// Mends what somebody changed or removed. Returns what could not be done; all that can be
    /// done is.
    pub fn check(&self) -> Vec<NetworkError> {
        let mut errors = Vec::new();
        let state = &mut *self.lock();
        errors.extend(self.open_missing(state).err());
        let (links, addresses) = match survey(&mut state.route) {
            Ok(found) => found,
            Err(error) => {
                errors.push(error);
                return errors;
            }
        };
        let repairs = plan(&state.desired(), &links, &addresses);
        for repair in repairs {
            tracing::warn!(?repair, "the network is not as it was left");
            errors.extend(self.mend(state, &repair).err());
        }
        errors.extend(self.check_settings(state).err());
        errors.extend(state.check_firewall(&self.instance).err());
        let orphans: HashSet<_> =
            state.orphans(&self.instance, &links).into_iter().map(|link| link.name).collect();
        let gone = state.suspects.intersection(&orphans).cloned().collect::<Vec<_>>();
        errors.extend(state.remove_links(&gone, &self.instance).err());
        state.suspects = orphans;
        errors
    }

    /// Networks that could not be set up at the start may be possible by now.
    fn open_missing(&self, state: &mut State) -> Result<(), NetworkError> {
        let mut opened = Vec::new();
        for record in &state.records {
            let default = record.name == "bridge" && state.missing.has(Module::Bridge);
            if record.driver != "bridge"
                || state.bridges.contains_key(&record.id)
                || !(default || record.user.is_some())
            {
                continue;
            }
            let route = &mut state.route;
            let network = match (&self.config.bridge, default) {
                (Some(name), true) => BridgeNetwork::open_default(name, &self.config, route),
                _ => BridgeNetwork::open_user(record, &self.instance, &self.config, route),
            };
            match network {
                Ok(network) => opened.push((record.id.clone(), network)),
                Err(error) => tracing::debug!(network = record.name, %error, "set up a network"),
            }
        }
        if opened.is_empty() {
            return Ok(());
        }
        for (id, mut network) in opened {
            let inside = state.endpoints.values().filter(|endpoint| endpoint.network_id == id);
            for ip in inside.flat_map(|endpoint| endpoint.ips()) {
                network.pools.reserve(ip);
            }
            state.wall.set(network.rules());
            state.bridges.insert(id, network);
        }
        state.missing = Missing::default();
        state.let_route(&self.config)
    }

    fn mend(&self, state: &mut State, repair: &Repair) -> Result<(), NetworkError> {
        match repair {
            Repair::Make(id) | Repair::Readdress(id) => {
                let record = state.records.iter().find(|record| record.id == *id);
                let network = state.bridges.get_mut(id);
                let (Some(record), Some(network)) = (record, network) else { return Ok(()) };
                network.restore(record, &self.instance, &mut state.route)?;
                if state.wall.plan.ipv4 && state.wall.check_ports().is_ok() {
                    network.open_loopback()?;
                }
                if matches!(repair, Repair::Readdress(_)) {
                    return Ok(());
                }
                // All of its ports are out of it too.
                let lost = state.interfaces(id);
                lost.iter().try_for_each(|interface| plug(interface, &mut state.route))
            }
            Repair::Plug { port } => {
                let all = state.endpoints.values().filter_map(|end| end.interface.as_ref());
                let interface = all.into_iter().find(|interface| interface.host_name == *port);
                match interface {
                    Some(interface) => plug(interface, &mut state.route),
                    None => Ok(()),
                }
            }
        }
    }

    /// What we turned on or off in `/proc/sys/net`, and only that.
    fn check_settings(&self, state: &mut State) -> Result<(), NetworkError> {
        for network in state.bridges.values() {
            bridge::restrain(&network.bridge.name, network.bridge.ipv6.is_some())?;
            let localnet = format!("ipv4/conf/{}/route_localnet", network.bridge.name);
            let opens = state.wall.plan.ipv4 && state.wall.check_ports().is_ok();
            if opens && bridge::read_setting(&localnet) == Some(0) {
                network.open_loopback()?;
            }
        }
        let ipv6 = state.bridges.values().any(|network| network.gateway_v6.is_some());
        let is_off = |key| bridge::read_setting(key) == Some(0);
        let off = is_off("ipv4/ip_forward") || ipv6 && is_off("ipv6/conf/all/forwarding");
        if off && self.config.ip_forward && !state.bridges.is_empty() {
            return state.let_route(&self.config);
        }
        Ok(())
    }
}

impl State {
    fn desired(&self) -> Vec<Desired<'_>> {
        let of = |id: &Id, network| Desired {
            id: id.clone(),
            bridge: network,
            ports: self
                .endpoints
                .values()
                .filter(|endpoint| endpoint.network_id == *id)
                .filter_map(|endpoint| Some(endpoint.interface.as_ref()?.host_name.as_str()))
                .collect(),
        };
        self.bridges.iter().map(|(id, network)| of(id, &network.bridge)).collect()
    }

    /// The interfaces in a network that are there.
    fn interfaces(&self, network: &Id) -> Vec<Interface> {
        let inside = self.endpoints.values().filter(|endpoint| endpoint.network_id == *network);
        let interfaces = inside.filter_map(|endpoint| endpoint.interface.clone());
        interfaces.filter(|interface| self.route.link_index(&interface.host_name).is_ok()).collect()
    }

    /// The tables may be whole and their sets empty.
    fn check_firewall(&mut self, instance: &str) -> Result<(), NetworkError> {
        let members = members(&self.endpoints);
        self.wall.look_again(|| members.clone())?;
        let plan = &self.wall.plan;
        let Some(firewall) = &mut self.wall.firewall else { return Ok(()) };
        if firewall.is_complete(plan, &members).map_err(NetworkError::kernel(instance))? {
            return Ok(());
        }
        tracing::warn!("elements of the firewall's sets are missing");
        self.wall.replace(&members)
    }
}

fn survey(route: &mut Socket) -> Result<(Vec<Link>, Vec<Address>), NetworkError> {
    let links = route::links(route).map_err(NetworkError::kernel("links"))?;
    let addresses = route::addresses(route).map_err(NetworkError::kernel("addresses"))?;
    Ok((links, addresses))
}

fn plug(interface: &Interface, route: &mut Socket) -> Result<(), NetworkError> {
    let mut batch = Batch::new();
    let joined = interfaces::join_bridge(&mut batch, interface, route);
    joined.and_then(|()| route.transact(&mut batch)).map_err(NetworkError::kernel("port"))
}

/// A bridge as it should be, with the host ends of its containers.
struct Desired<'a> {
    id: Id,
    bridge: &'a Bridge,
    ports: Vec<&'a str>,
}

fn plan(desired: &[Desired<'_>], links: &[Link], addresses: &[Address]) -> Vec<Repair> {
    let mut repairs = Vec::new();
    let find = |name: &str| links.iter().find(|link| link.name == name);
    for wanted in desired {
        let Some(bridge) = find(&wanted.bridge.name) else {
            repairs.push(Repair::Make(wanted.id.clone()));
            continue;
        };
        let has = |own: &crate::subnet::Subnet| {
            addresses.iter().any(|address| {
                (address.index, address.ip, address.prefix)
                    == (bridge.index, own.ip(), own.prefix())
            })
        };
        let addressed = wanted.bridge.addresses().all(|own| has(&own));
        if !bridge.up || !addressed || bridge.mac != Some(wanted.bridge.mac) {
            repairs.push(Repair::Readdress(wanted.id.clone()));
        }
        for port in &wanted.ports {
            // One that is not there has not come yet, or went with its container.
            let Some(link) = find(port) else { continue };
            if link.master != Some(bridge.index) || !link.up {
                repairs.push(Repair::Plug { port: (*port).to_owned() });
            }
        }
    }
    repairs
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(index: u32, name: &str, master: Option<u32>) -> Link {
        Link { index, name: name.to_owned(), master, mac: Some(MAC), up: true, ..Link::default() }
    }

    #[test]
    fn what_is_missing_is_mended_and_nothing_else() {
        let bridge = Bridge {
            name: "br0".to_owned(),
            index: 4,
            mac: MAC,
            ipv4: Some("10.0.0.1/24".parse().unwrap()),
            ipv6: None,
        };
        let id = Id::from_random([1; 32]);
        let desired = [Desired { id: id.clone(), bridge: &bridge, ports: vec!["veth1", "veth2"] }];
        let address = [Address { index: 4, ip: [10, 0, 0, 1].into(), prefix: 24 }];
        let whole = [link(4, "br0", None), link(5, "veth1", Some(4))];
        let check = |links: &[Link], addresses: &[Address], expect: &[Repair]| {
            assert_eq!(plan(&desired, links, addresses), expect);
        };
        check(&whole, &address, &[]);
        check(&whole, &[], &[Repair::Readdress(id.clone())]);
        check(&whole[1..], &address, &[Repair::Make(id.clone())]);
        let down = [Link { up: false, ..whole[0].clone() }, whole[1].clone()];
        check(&down, &address, &[Repair::Readdress(id.clone())]);
        let loose = [whole[0].clone(), link(5, "veth1", None), link(9, "other", None)];
        check(&loose, &address, &[Repair::Plug { port: "veth1".to_owned() }]);
    }
}
