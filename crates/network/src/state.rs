//! What the lock of [`Networks`] is around: who is where, and the kernel's side of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use spec::Id;
use sys::netlink::route::{self, Link};
use sys::netlink::{Batch, Socket};

use crate::bridge;
use crate::bridge_network::{self, BridgeNetwork};
use crate::config::NetworkConfig;
use crate::endpoint::{Endpoint, members};
use crate::error::NetworkError;
use crate::features::Missing;
use crate::links::{LinkRules, Links};
use crate::macvlan::ParentNetwork;
use crate::pools::Pools;
use crate::records::NetworkRecord;
use crate::subnet::Subnet;
use crate::wall::Wall;

#[derive(Debug)]
pub(crate) struct State {
    pub route: Socket,
    pub wall: Wall,
    /// By name.
    pub records: Vec<NetworkRecord>,
    /// By the network's id.
    pub bridges: HashMap<Id, BridgeNetwork>,
    /// Those on a link of the host, likewise.
    pub parents: HashMap<Id, ParentNetwork>,
    pub endpoints: HashMap<(Id, Id), Endpoint>,
    pub links: Links,
    /// Where the next search in the ephemeral range begins.
    pub next_port: u16,
    /// What bridges need and the kernel does not have.
    pub missing: Missing,
    /// Links that belonged to nobody at the last check.
    pub suspects: HashSet<String>,
}

impl State {
    pub(crate) fn record(&self, network: &str) -> Result<&NetworkRecord, NetworkError> {
        let exact =
            |record: &&NetworkRecord| record.name == network || record.id.as_str() == network;
        // The API knows the network that containers get by default under this name as well.
        let network = if network == "default" { "bridge" } else { network };
        if let Some(record) = self.records.iter().find(exact) {
            return Ok(record);
        }
        let mut begins = self
            .records
            .iter()
            .filter(|record| !network.is_empty() && record.id.as_str().starts_with(network));
        match (begins.next(), begins.next()) {
            (Some(record), None) => Ok(record),
            _ => Err(NetworkError::NotFound { name: network.to_owned() }),
        }
    }

    /// Those of all networks.
    pub(crate) fn subnets(&self) -> Vec<Subnet> {
        let asked = self.records.iter().filter_map(|record| record.user.as_ref());
        let asked = asked.flat_map(|user| user.pools.iter().map(|pool| pool.subnet));
        let open = self.bridges.values().flat_map(|network| network.bridge.addresses());
        asked.chain(open.map(|own| own.network())).collect()
    }

    /// Writes the rules of all bridges and has the host route for them.
    pub(crate) fn let_route(&mut self, config: &NetworkConfig) -> Result<(), NetworkError> {
        let ipv6 = self.bridges.values().any(|network| network.gateway_v6.is_some());
        let (route, endpoints) = (&mut self.route, &self.endpoints);
        self.wall.let_route(config, ipv6, || bridge::uplinks(route), || members(endpoints))?;
        if self.wall.plan.ipv4 && self.wall.check_ports().is_ok() {
            self.bridges.values().try_for_each(BridgeNetwork::open_loopback)?;
        }
        Ok(())
    }

    /// The host ends of containers in the default network, if they are kept apart.
    pub(crate) fn apart_ports(&mut self, instance: &str) -> Result<BTreeSet<String>, NetworkError> {
        if !self.bridges.values().any(|network| network.bridge.name == instance && !network.icc) {
            return Ok(BTreeSet::new());
        }
        let links = route::links(&mut self.route).map_err(NetworkError::kernel(instance))?;
        let bridge = links.iter().find(|link| link.name == instance).map(|link| link.index);
        let ours = |link: &Link| link.master.is_some() && link.master == bridge;
        Ok(links.iter().filter(|link| ours(link)).map(|link| link.name.clone()).collect())
    }

    pub(crate) fn open_links(&mut self) -> Result<(), NetworkError> {
        if self.links.is_empty() && self.wall.plan.links == LinkRules::default() {
            return Ok(());
        }
        let rules = self.link_rules();
        self.wall.set_links(rules, || members(&self.endpoints))
    }

    /// What the firewall is to say of links, by who is in the default network now.
    pub(crate) fn link_rules(&self) -> LinkRules {
        let record = self.record("bridge").ok();
        let apart = record
            .filter(|record| self.bridges.get(&record.id).is_some_and(|network| !network.icc));
        let Some(record) = apart else { return LinkRules::default() };
        let inside = self.endpoints.values().filter(|endpoint| endpoint.network_id == record.id);
        let interfaces = inside.clone().filter_map(|endpoint| endpoint.interface.as_ref());
        let doors = interfaces.filter(|interface| !interface.isolated);
        let addresses: HashMap<_, _> =
            inside.map(|endpoint| (&endpoint.container, endpoint.ips())).collect();
        LinkRules {
            doors: doors.map(|interface| interface.host_name.clone()).collect(),
            open: self.links.open(|id| addresses.get(id).map_or(&[], Vec::as_slice)),
        }
    }

    /// Takes an address; false when somebody has it. One that is not the network's may be had.
    pub(crate) fn reserve(&mut self, network: &Id, ip: IpAddr) -> bool {
        self.pools(network).is_none_or(|pools| !pools.contains(ip) || pools.reserve(ip))
    }

    /// None when there is no such network, or it has no addresses.
    pub(crate) fn pools(&mut self, network: &Id) -> Option<&mut Pools> {
        match self.bridges.get_mut(network) {
            Some(network) => Some(&mut network.pools),
            None => self.parents.get_mut(network).map(|network| &mut network.pools),
        }
    }

    /// Opens what can be of the networks on links of the host; the rest is tried again when
    /// somebody wants in.
    pub(crate) fn open_parents(&mut self, instance: &str) {
        let records = self.records.clone();
        let on_links = ["macvlan", "ipvlan"];
        for record in records.iter().filter(|record| on_links.contains(&&*record.driver)) {
            if let Err(error) = self.open_parent(record, instance) {
                tracing::error!(network = record.name, %error, "set up a network");
            }
        }
    }

    pub(crate) fn open_parent(
        &mut self,
        record: &NetworkRecord,
        instance: &str,
    ) -> Result<(), NetworkError> {
        let others: Vec<_> =
            self.parents.iter().map(|(id, network)| (id.to_string(), network)).collect();
        let mut network = ParentNetwork::open(record, instance, &others, &mut self.route)?;
        let inside = self.endpoints.values().filter(|endpoint| endpoint.network_id == record.id);
        for ip in inside.flat_map(Endpoint::ips) {
            network.pools.reserve(ip);
        }
        self.parents.insert(record.id.clone(), network);
        Ok(())
    }

    pub(crate) fn close_parent(
        &mut self,
        record: &NetworkRecord,
        instance: &str,
    ) -> Result<(), NetworkError> {
        let Some(network) = self.parents.remove(&record.id) else { return Ok(()) };
        let mut others = self.parents.iter();
        let heir = others.find(|(_, other)| other.parent == network.parent);
        let heir = heir.and_then(|(id, _)| self.records.iter().find(|record| record.id == *id));
        network.close(record, instance, heir, &mut self.route)
    }

    /// Links with our alias that are no member's and no network's.
    pub(crate) fn orphans(&self, instance: &str, links: &[Link]) -> Vec<Link> {
        let members = members(&self.endpoints);
        let needed = |link: &Link, owner: &str| match bridge_network::network_of(owner) {
            Some(id) => self.records.iter().any(|record| record.id.as_str() == id),
            None => members.iter().any(|member| member.port == link.name),
        };
        let orphaned = |link: &&Link| {
            let owner = link.alias.as_deref().and_then(|alias| bridge::owner(instance, alias));
            owner.is_some_and(|owner| !needed(link, owner)) && link.name != instance
        };
        links.iter().filter(orphaned).cloned().collect()
    }

    /// Each waits for a grace period.
    pub(crate) fn remove_links(
        &mut self,
        names: &[String],
        instance: &str,
    ) -> Result<(), NetworkError> {
        let mut batch = Batch::new();
        for name in names {
            tracing::info!(link = name, "remove a link that belongs to nobody");
            route::delete_link(&mut batch, "delete link", name);
        }
        match self.route.transact(&mut batch) {
            // It went by itself meanwhile.
            Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(()),
            removed => removed.map_err(NetworkError::kernel(instance)),
        }
    }
}
