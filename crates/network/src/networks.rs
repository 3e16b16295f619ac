//! The networks of one daemon and the endpoints of containers in them.
//!
//! One lock around everything that can change; under it at most a few netlink calls. What the
//! supervisor does with an [`Endpoint`]'s interface needs no lock.
//!
//! Attaching: address, firewall elements, and only then the link (by the supervisor), so that no
//! frame of a container is seen before its rules are there. Detaching goes the other way; the link
//! is gone by then, or goes with its namespace. A crash in between leaves an address and set
//! elements in no container's name: [`Networks::reconcile`] at the next start forgets both.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use metadata::Store;
use runtime::spec::{Interface, LinkKind};
use spec::Id;
use sys::netlink::Socket;
use sys::netlink::route;

use crate::bridge::{self, Wanted};
use crate::bridge_network::{self, BridgeNetwork};
use crate::config::NetworkConfig;
use crate::conntrack;
use crate::endpoint::{Endpoint, EndpointRequest, as_v4, as_v6, bare_endpoint, members};
use crate::error::NetworkError;
use crate::features::{Missing, Module};
use crate::info::{NetworkInfo, is_predefined};
use crate::links::{self, Links};
use crate::names::NameTable;
use crate::ports::{self, Place, PortRequest, Published};
use crate::records::{self, NETWORKS, NetworkRecord};
use crate::state::State;
use crate::user::{self, NetworkRequest};
use crate::wall::Wall;

/// All networks of a daemon.
#[derive(Debug)]
pub struct Networks {
    pub(crate) config: NetworkConfig,
    store: Store,
    /// The default bridge's name, or what stands for it: the firewall tables' and links' mark.
    pub(crate) instance: String,
    state: Mutex<State>,
    /// Apart from the state, so that no query waits for the kernel.
    names: RwLock<NameTable>,
}

impl Networks {
    /// Sets up the networks in the calling thread's network namespace: bridges, forwarding,
    /// firewall. Call [`Networks::reconcile`] before the first [`Networks::attach`].
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Self, NetworkError> {
        let records = records::load(store)?;
        let mut route = Socket::route().map_err(NetworkError::kernel("networks"))?;
        let default = records.iter().find(|record| record.name == "bridge");
        let default = default.expect("load adds what is missing").id.clone();
        // Without a default bridge: something that no other daemon has.
        let instance = config.bridge.clone();
        let instance = instance.unwrap_or_else(|| format!("-{}", default.short()));
        let mut wall = Wall::open(&instance, &config)?;
        let mut bridges = HashMap::new();
        let mut missing = Missing::default();
        if let Some(name) = &config.bridge {
            match BridgeNetwork::open_default(name, &config, &mut route) {
                Ok(network) => {
                    wall.set(network.rules());
                    bridges.insert(default, network);
                }
                // Containers without a network, or with the host's, need no bridge.
                Err(error @ NetworkError::MissingModule { module, .. }) => {
                    tracing::warn!(%error, "set up the default bridge");
                    missing = Missing::new(&[module]);
                }
                Err(error) => return Err(error),
            }
        }
        let users = records.iter().filter(|record| record.user.is_some());
        for record in users.filter(|record| record.driver == "bridge") {
            // One network that cannot be made is no reason to have none.
            match BridgeNetwork::open_user(record, &instance, &config, &mut route) {
                Ok(network) => {
                    wall.set(network.rules());
                    bridges.insert(record.id.clone(), network);
                }
                Err(error) => {
                    tracing::error!(network = record.name, %error, "set up a network");
                }
            }
        }
        let mut state = State {
            route,
            wall,
            records,
            bridges,
            parents: HashMap::new(),
            endpoints: HashMap::new(),
            links: Links::default(),
            next_port: 0,
            missing,
            suspects: HashSet::new(),
        };
        // Which of them are doors is known with `reconcile`; until then all may be.
        state.wall.plan.links.doors = state.apart_ports(&instance)?;
        // Rules first: at no moment does the host route what it should not. The elements of
        // containers that still run come back with `reconcile`.
        if state.bridges.is_empty() {
            state.wall.replace(&[])?;
        } else {
            state.let_route(&config)?;
        }
        state.open_parents(&instance);
        for module in state.wall.missing().iter() {
            tracing::warn!("{}", module.warning());
        }
        let (store, state, names) = (store.clone(), Mutex::new(state), RwLock::default());
        Ok(Self { config, store, instance, state, names })
    }

    /// Gives `request.container` a place in the network called, or identified by, `network`.
    /// Nothing is left behind when it fails.
    pub fn attach(
        &self,
        network: &str,
        request: &EndpointRequest<'_>,
    ) -> Result<Endpoint, NetworkError> {
        let state = &mut *self.lock();
        let record = state.record(network)?.clone();
        let key = (record.id.clone(), request.container.clone());
        if state.endpoints.contains_key(&key) {
            return Err(NetworkError::EndpointExists {
                container: request.container.clone(),
                network: record.name.clone(),
            });
        }
        let endpoint = match record.driver.as_str() {
            "bridge" => self.attach_to_bridge(state, &record, request)?,
            "macvlan" | "ipvlan" => self.attach_to_parent(state, &record, request)?,
            _ => bare_endpoint(&record, request),
        };
        self.name(&endpoint);
        state.endpoints.insert(key, endpoint.clone());
        if let Err(error) = state.open_links() {
            // The links of others to this container: no reason for it not to be.
            tracing::warn!(%error, network = record.name, "open the ports of links");
        }
        Ok(endpoint)
    }

    /// Tells the others of the network the endpoint's names, in place of earlier ones.
    pub fn name(&self, endpoint: &Endpoint) {
        let Endpoint { network_id, container, names, .. } = endpoint;
        self.names_mut().insert(network_id, container, names, &endpoint.ips());
    }

    /// The addresses of those in a network that have a name, which is in lower case.
    pub fn addresses(&self, network: &Id, name: &str) -> Vec<IpAddr> {
        self.names().addresses(network, name)
    }

    /// The name of who is at an address of a network.
    pub fn name_at(&self, network: &Id, ip: IpAddr) -> Option<String> {
        self.names().name(network, ip)
    }

    /// Lets a container in the default network reach ports of others where neighbours may not, from
    /// before its interface is made until it is detached. Opens nothing where all may anyway.
    pub fn link(
        &self,
        endpoint: &mut Endpoint,
        links: Vec<links::Link>,
    ) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        let apart = state.bridges.get(&endpoint.network_id).is_some_and(|network| !network.icc);
        if apart && state.wall.firewall.is_none() {
            return Err(NetworkError::NoLinks);
        }
        if apart && state.wall.missing().has(Module::NftMetaBridge) {
            let feature = "a link without inter-container communication";
            return Err(NetworkError::MissingModule { feature, module: Module::NftMetaBridge });
        }
        if apart && let Some(interface) = &mut endpoint.interface {
            interface.isolated = false;
            let key = (endpoint.network_id.clone(), endpoint.container.clone());
            if let Some(known) = state.endpoints.get_mut(&key) {
                known.interface = endpoint.interface.clone();
            }
        }
        state.links.set(&endpoint.container, links);
        state.open_links()
    }

    /// Replaces the links of a container that runs.
    pub fn relink(&self, container: &Id, links: Vec<links::Link>) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        state.links.set(container, links);
        state.open_links()
    }

    /// Publishes ports of an endpoint, before its interface is made. Returns the descriptor that
    /// keeps them from the host's programs; it is to be held as long as the endpoint is there.
    /// [`Networks::detach`] takes them back; nothing is left behind when it fails.
    pub fn publish(
        &self,
        endpoint: &mut Endpoint,
        wanted: &[PortRequest],
    ) -> Result<Option<OwnedFd>, NetworkError> {
        let state = &mut *self.lock();
        // Nothing gets into an internal network; Docker is silent about it too.
        let network = state.bridges.get(&endpoint.network_id).filter(|network| !network.internal);
        let Some(network) = network.filter(|_| !wanted.is_empty()) else { return Ok(None) };
        state.wall.check_ports()?;
        let plan = &state.wall.plan;
        let managed = |ip: &IpAddr| if ip.is_ipv4() { plan.ipv4 } else { plan.ipv6 };
        let ips: Vec<_> = endpoint.ips().into_iter().filter(managed).collect();
        if ips.is_empty() {
            return Err(NetworkError::NoFirewall);
        }
        let place = Place { ips, default_bind_ip: network.bind_ip };
        let taken: Vec<_> =
            state.endpoints.values().flat_map(|other| &other.published).cloned().collect();
        let reserved = ports::reserve(wanted, &place, &taken, &mut state.next_port);
        let reserved = reserved.map_err(|error| name_owner(error, wanted, &state.endpoints))?;
        let published = reserved.ports.clone();
        let carrier = reserved.into_carrier().map_err(NetworkError::PortSockets)?;
        let key = (endpoint.network_id.clone(), endpoint.container.clone());
        if let Some(known) = state.endpoints.get_mut(&key) {
            known.published.clone_from(&published);
        }
        if let Err(error) = state.wall.publish(&published, || members(&state.endpoints)) {
            if let Some(known) = state.endpoints.get_mut(&key) {
                known.published.clear();
            }
            return Err(error);
        }
        if let Err(error) = conntrack::forget_udp(&published) {
            tracing::debug!(%error, "forget earlier clients of published ports");
        }
        endpoint.published = published;
        if let Some(interface) = &mut endpoint.interface {
            interface.hairpin = true;
        }
        Ok(carrier)
    }

    /// Leads ports that were another endpoint's of the same container to this one; what keeps them
    /// goes on doing so. Those of a family that it has no address of are closed.
    pub fn move_ports(
        &self,
        endpoint: &mut Endpoint,
        ports: Vec<Published>,
    ) -> Result<(), NetworkError> {
        let own = endpoint.ips();
        let lead = |port: Published| {
            let ip = own.iter().find(|ip| ip.is_ipv4() == port.container_ip.is_ipv4())?;
            Some(Published { container_ip: *ip, ..port })
        };
        let published: Vec<_> = ports.into_iter().filter_map(lead).collect();
        let state = &mut *self.lock();
        let key = (endpoint.network_id.clone(), endpoint.container.clone());
        if let Some(known) = state.endpoints.get_mut(&key) {
            known.published.clone_from(&published);
        }
        state.wall.publish(&published, || members(&state.endpoints))?;
        endpoint.published = published;
        Ok(())
    }

    /// Takes `container` out of a network; no error when it is in none. Its link dies with its
    /// namespace; for a container that runs on, `runtime::interfaces::unplug` comes first.
    pub fn detach(&self, network: &str, container: &Id) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        let id = state.record(network)?.id.clone();
        let key = (id, container.clone());
        let Some(endpoint) = state.endpoints.remove(&key) else { return Ok(()) };
        self.names_mut().remove(&key.0, container);
        if endpoint.network_name == "bridge" {
            state.links.forget(container);
        }
        let closed = state.open_links();
        for ip in endpoint.ips() {
            if let Some(pools) = state.pools(&key.0) {
                pools.release(ip);
            }
        }
        let forgotten = match endpoint.member() {
            Some(member) => state.wall.forget(&member, &members(&state.endpoints)),
            None => Ok(()),
        };
        closed.and(forgotten)
    }

    /// Makes memory and kernel agree with the endpoints of containers that run: their addresses
    /// and elements are taken, links of ours that belong to nobody are removed, and the firewall
    /// is complete. Links open nothing before [`Networks::relink`]. Returns what could not be done;
    /// all that can be done is.
    pub fn reconcile(&self, live: &[Endpoint]) -> Vec<NetworkError> {
        let state = &mut *self.lock();
        let mut errors = Vec::new();
        state.endpoints.clear();
        self.names_mut().clear();
        state.links.clear();
        for endpoint in live {
            self.name(endpoint);
            let key = (endpoint.network_id.clone(), endpoint.container.clone());
            for ip in endpoint.ips() {
                if !state.reserve(&endpoint.network_id, ip) {
                    errors.push(NetworkError::AddressInUse { ip });
                }
            }
            state.endpoints.insert(key, endpoint.clone());
        }
        errors.extend(self.remove_orphans(state).err());
        state.wall.plan.links = state.link_rules();
        errors.extend(state.wall.replace(&members(&state.endpoints)).err());
        errors
    }

    /// Puts the firewall's tables back if somebody touched them. Cheap; meant to be called often.
    pub fn ensure_firewall(&self) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        let Some(firewall) = &mut state.wall.firewall else { return Ok(()) };
        let ensured = firewall.ensure(&state.wall.plan, || members(&state.endpoints));
        ensured.map_err(NetworkError::kernel(&self.instance))
    }

    /// Removes our firewall tables, as a daemon does that will not come back.
    pub fn remove_firewall(&self) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.lock().wall.firewall else { return Ok(()) };
        firewall.remove().map_err(NetworkError::kernel(&self.instance))
    }

    /// Makes a network: bridge, rules, and only then the record. A crash in between leaves a bridge
    /// whose alias names no network, which the next reconciliation removes.
    pub fn create(&self, request: &NetworkRequest) -> Result<Id, NetworkError> {
        let name = request.name.as_str();
        if name.is_empty() {
            return Err(NetworkError::NoName);
        }
        if is_predefined(name) || name == "default" {
            return Err(NetworkError::Predefined { name: name.to_owned() });
        }
        let state = &mut *self.lock();
        if state.records.iter().any(|record| record.name == name) {
            return Err(NetworkError::Exists { name: name.to_owned() });
        }
        let others = state.subnets();
        let used = bridge::used_subnets(&self.config.host_nameservers, &mut state.route)?;
        let record = user::plan(request, &self.config, &others, &used)?;
        self.check_bridge_name(state, &record)?;
        let made = self.make(state, &record).and_then(|()| {
            let (key, value) = (record.id.to_string(), record.clone());
            self.store.write(move |txn| NETWORKS.put(txn, &key, &value)).map_err(Into::into)
        });
        if let Err(error) = made {
            if let Err(error) = self.unmake(state, &record) {
                tracing::warn!(%error, network = name, "undo the creation of a network");
            }
            return Err(error);
        }
        let id = record.id.clone();
        state.records.push(record);
        state.records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(id)
    }

    /// Removes a network that nobody is in: first the record, so that what a crash leaves is a
    /// bridge without a network.
    pub fn remove(&self, network: &str) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        let record = state.record(network)?.clone();
        if record.user.is_none() {
            return Err(NetworkError::CannotRemove { name: record.name });
        }
        let inside: Vec<_> = state
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network_id == record.id)
            .map(|endpoint| (endpoint.container.clone(), endpoint.endpoint_id.clone()))
            .collect();
        if !inside.is_empty() {
            return Err(NetworkError::ActiveEndpoints { name: record.name, endpoints: inside });
        }
        let key = record.id.to_string();
        self.store.write(move |txn| {
            NETWORKS.remove(txn, &key);
            Ok::<_, metadata::StoreError>(())
        })?;
        state.records.retain(|other| other.id != record.id);
        self.unmake(state, &record)
    }

    /// Makes the links and rules of a new network.
    fn make(&self, state: &mut State, record: &NetworkRecord) -> Result<(), NetworkError> {
        if record.driver != "bridge" {
            return state.open_parent(record, &self.instance);
        }
        let network =
            BridgeNetwork::open_user(record, &self.instance, &self.config, &mut state.route)?;
        state.wall.set(network.rules());
        state.bridges.insert(record.id.clone(), network);
        state.let_route(&self.config)
    }

    /// Takes the bridge and its rules away.
    fn unmake(&self, state: &mut State, record: &NetworkRecord) -> Result<(), NetworkError> {
        if record.driver != "bridge" {
            return state.close_parent(record, &self.instance);
        }
        state.bridges.remove(&record.id);
        let Some(options) = bridge_network::options(record, &self.config)? else { return Ok(()) };
        let name = bridge_network::bridge_name(record, &options);
        state.wall.unset(&name);
        let replaced = state.wall.replace(&members(&state.endpoints));
        let alias = bridge_network::alias(&self.instance, record);
        let wanted = Wanted { name: &name, alias, mtu: options.mtu };
        bridge::remove(&wanted, &mut state.route).and(replaced)
    }

    fn check_bridge_name(&self, state: &State, record: &NetworkRecord) -> Result<(), NetworkError> {
        let Some(options) = bridge_network::options(record, &self.config)? else { return Ok(()) };
        let bridge = bridge_network::bridge_name(record, &options);
        let same = state.bridges.iter().find(|(_, network)| network.bridge.name == bridge);
        match same {
            None => Ok(()),
            Some((other, _)) => Err(NetworkError::SameBridge {
                id: record.id.clone(),
                other: other.clone(),
                bridge,
            }),
        }
    }

    /// Whether a container may ask for this address. A network that is not there is no reason to
    /// refuse.
    pub fn check_address(&self, network: &str, ip: IpAddr) -> Result<(), NetworkError> {
        let state = self.lock();
        let Ok(record) = state.record(network) else { return Ok(()) };
        let Some(user) = &record.user else { return Err(NetworkError::AddressOnDefault) };
        let mut pools = user.pools.iter().filter(|pool| pool.subnet.is_ipv4() == ip.is_ipv4());
        if !pools.clone().any(|pool| pool.asked) {
            return Err(NetworkError::AddressNotAsked);
        }
        if pools.any(|pool| pool.subnet.contains(ip)) {
            return Ok(());
        }
        Err(NetworkError::NoSubnetContains { ip })
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<NetworkInfo> {
        let state = self.lock();
        state.records.iter().map(|record| self.describe(record, &state)).collect()
    }

    /// One network by name, id, or a beginning of the id that no other has.
    pub fn inspect(&self, network: &str) -> Result<NetworkInfo, NetworkError> {
        let state = self.lock();
        let record = state.record(network)?;
        Ok(self.describe(record, &state))
    }

    /// The addresses that `host-gateway` stands for.
    pub fn host_gateways(&self) -> Vec<IpAddr> {
        let state = self.lock();
        let default = state.bridges.values().find(|network| network.bridge.name == self.instance);
        let own = default.iter().flat_map(|network| network.bridge.addresses());
        own.map(|own| own.ip()).collect()
    }

    /// What `info` warns of.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if bridge::read_setting("ipv4/ip_forward") == Some(0) {
            warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
        }
        let state = &mut *self.lock();
        let mut missing = state.wall.missing();
        missing.add(&state.missing);
        warnings.extend(missing.iter().map(Module::warning));
        let Some(firewall) = &mut state.wall.firewall else { return warnings };
        match firewall.conflicts() {
            Ok(chains) => warnings.extend(chains.iter().map(|chain| {
                format!(
                    "WARNING: chain {} of firewall table {} drops forwarded packets by default; \
                     containers have no network unless it accepts those of {}",
                    chain.chain, chain.table, self.instance
                )
            })),
            Err(error) => tracing::debug!(%error, "list the chains of other firewalls"),
        }
        warnings
    }

    fn attach_to_bridge(
        &self,
        state: &mut State,
        record: &NetworkRecord,
        request: &EndpointRequest<'_>,
    ) -> Result<Endpoint, NetworkError> {
        let no_bridge = match state.missing.has(Module::Bridge) {
            true => NetworkError::no_module(Module::Bridge),
            false => NetworkError::NoBridge,
        };
        let network = state.bridges.get_mut(&record.id).ok_or(no_bridge)?;
        let asked = request.addresses();
        if asked.iter().any(Option::is_some) && record.user.is_none() {
            return Err(NetworkError::AddressOnDefault);
        }
        let host_name = free_link_name(&state.route)?;
        // Of a family that the bridge does not have, it is as if none was asked for.
        let asked = asked.map(|ip| ip.filter(|ip| network.pools.subnet(ip.is_ipv4()).is_some()));
        let [ipv4, ipv6] = network.pools.allocate(&record.name, asked)?;
        let addresses = ipv4.into_iter().chain(ipv6);
        let (gateway_v4, gateway_v6) = match network.internal {
            true => (None, None),
            false => (network.gateway_v4, network.gateway_v6),
        };
        let interface = Interface {
            link: LinkKind::Veth,
            host_name,
            container_name: request.interface_name.to_owned(),
            bridge: network.bridge.name.clone(),
            alias: bridge::alias(&self.instance, request.container.as_str()),
            mac: request.mac.unwrap_or_else(bridge::random_mac),
            mtu: network.mtu,
            isolated: !network.icc,
            hairpin: false,
            addresses: addresses.map(|own| (own.ip(), own.prefix())).collect(),
            gateway_v4: gateway_v4.and_then(as_v4),
            gateway_v6: gateway_v6.and_then(as_v6),
        };
        let endpoint = Endpoint {
            interface: Some(interface),
            ipv4,
            gateway_v4,
            ipv6,
            gateway_v6,
            ..bare_endpoint(record, request)
        };
        let Some(member) = endpoint.member() else { return Ok(endpoint) };
        let admitted = state.wall.admit(member, || members(&state.endpoints));
        admitted.inspect_err(|_| {
            for ip in endpoint.ips() {
                network.pools.release(ip);
            }
        })?;
        Ok(endpoint)
    }

    fn attach_to_parent(
        &self,
        state: &mut State,
        record: &NetworkRecord,
        request: &EndpointRequest<'_>,
    ) -> Result<Endpoint, NetworkError> {
        if !state.parents.contains_key(&record.id) {
            // Its parent may have come since the daemon did.
            state.open_parent(record, &self.instance)?;
        }
        let network = state.parents.get_mut(&record.id).ok_or(NetworkError::NoBridge)?;
        let own = network.pools.allocate(&record.name, request.addresses())?;
        let interface = network.interface(request, own, &mut state.route);
        let interface = interface.inspect_err(|_| {
            for own in own.iter().flatten() {
                network.pools.release(own.ip());
            }
        })?;
        let [ipv4, ipv6] = own;
        Ok(Endpoint {
            interface: Some(interface),
            ipv4,
            gateway_v4: ipv4.and_then(|own| network.gateway(own)),
            ipv6,
            gateway_v6: ipv6.and_then(|own| network.gateway(own)),
            ..bare_endpoint(record, request)
        })
    }

    /// At the start all of them.
    fn remove_orphans(&self, state: &mut State) -> Result<(), NetworkError> {
        let kernel = NetworkError::kernel(&self.instance);
        let links = route::links(&mut state.route).map_err(kernel)?;
        let names: Vec<_> =
            state.orphans(&self.instance, &links).into_iter().map(|link| link.name).collect();
        state.remove_links(&names, &self.instance)
    }

    fn names(&self) -> RwLockReadGuard<'_, NameTable> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn names_mut(&self) -> RwLockWriteGuard<'_, NameTable> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-changed that the next reconcile does not mend.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whose the port is that was not to be had.
fn name_owner(
    error: NetworkError,
    wanted: &[PortRequest],
    endpoints: &HashMap<(Id, Id), Endpoint>,
) -> NetworkError {
    let NetworkError::PortAllocated { ip, port, owner: None } = error else { return error };
    let asked = |other: &Published| {
        let protocols = wanted.iter().map(|request| request.protocol);
        protocols.into_iter().any(|protocol| {
            let mine = Published { protocol, host_ip: ip, host_port: port, ..other.clone() };
            mine.collides(other)
        })
    };
    let owner = endpoints.values().find(|endpoint| endpoint.published.iter().any(asked));
    let owner = owner.map(|endpoint| endpoint.container.clone());
    NetworkError::PortAllocated { ip, port, owner }
}

/// `veth` and 7 hexadecimal digits, as Docker names them; free at this moment on this host.
fn free_link_name(route: &Socket) -> Result<String, NetworkError> {
    for _ in 0..16 {
        let number = u32::from_ne_bytes(sys::random::bytes()) >> 4;
        let name = format!("veth{number:07x}");
        if route.link_index(&name).is_err() {
            return Ok(name);
        }
    }
    Err(NetworkError::NoInterfaceName)
}
