//! The networks of one daemon and the endpoints of containers in them.
//!
//! One lock around everything that can change; under it at most a few netlink calls. What the
//! supervisor does with an [`Endpoint`]'s interface needs no lock.
//!
//! Attaching: address, firewall elements, and only then the link (by the supervisor), so that no
//! frame of a container is seen before its rules are there. Detaching goes the other way; the link
//! is gone by then, or goes with its namespace. A crash in between leaves an address and set
//! elements in no container's name: [`Networks::reconcile`] at the next start forgets both.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metadata::{Store, Table};
use runtime::spec::Interface;
use serde::{Deserialize, Serialize};
use spec::Id;
use sys::netlink::{Batch, Socket, route};

use crate::bridge::{self, Bridge};
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::firewall::{BridgeRules, Firewall, Member, Plan};
use crate::ipam::Pool;
use crate::subnet::Subnet;

/// What is kept of a network across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NetworkRecord {
    id: Id,
    name: String,
    driver: String,
    created_nanos: i64,
}

/// Key: the network's id.
const NETWORKS: Table<NetworkRecord> = Table::new("networks");
const DEFAULT_NETWORKS: [(&str, &str); 3] =
    [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// What a container asks of a network.
#[derive(Debug, Clone)]
pub struct EndpointRequest<'a> {
    pub container: &'a Id,
    /// `eth0`, or the next free.
    pub interface_name: &'a str,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub mac: Option<[u8; 6]>,
}

/// A container's place in a network. Plain data: kept with the container, and given back to
/// [`Networks::reconcile`] after a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    pub endpoint_id: Id,
    pub network_id: Id,
    pub network_name: String,
    pub container: Id,
    /// None on `host` and `none`.
    pub interface: Option<Interface>,
    pub ipv4: Option<Subnet>,
    pub gateway_v4: Option<IpAddr>,
    pub ipv6: Option<Subnet>,
    pub gateway_v6: Option<IpAddr>,
}

impl Endpoint {
    /// `02:42:ac:11:00:02`; empty without an interface.
    pub fn mac_text(&self) -> String {
        self.interface.as_ref().map(|interface| format_mac(interface.mac)).unwrap_or_default()
    }

    /// The addresses without their prefix lengths.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.ipv4.iter().chain(&self.ipv6).map(Subnet::ip).collect()
    }

    fn member(&self) -> Option<Member> {
        let interface = self.interface.as_ref()?;
        let (port, mac) = (interface.host_name.clone(), interface.mac);
        Some(Member { port, mac, ips: self.ips() })
    }
}

/// A network as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInfo {
    pub id: Id,
    pub name: String,
    pub driver: String,
    pub scope: &'static str,
    pub created_nanos: i64,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub pools: Vec<PoolInfo>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub endpoints: Vec<EndpointSummary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    pub subnet: Subnet,
    pub ip_range: Option<Subnet>,
    pub gateway: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSummary {
    pub container: Id,
    pub endpoint_id: Id,
    pub mac: String,
    /// With the prefix length.
    pub ipv4: Option<Subnet>,
    pub ipv6: Option<Subnet>,
}

/// All networks of a daemon.
#[derive(Debug)]
pub struct Networks {
    config: NetworkConfig,
    records: Vec<NetworkRecord>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Socket,
    default_bridge: Option<DefaultBridge>,
    endpoints: HashMap<(Id, Id), Endpoint>,
}

#[derive(Debug)]
struct DefaultBridge {
    bridge: Bridge,
    ipv4: Pool,
    ipv6: Option<Pool>,
    firewall: Firewall,
    plan: Plan,
}

impl Networks {
    /// Sets up the default networks in the calling thread's network namespace: bridge, forwarding,
    /// firewall. Call [`Networks::reconcile`] before the first [`Networks::attach`].
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Self, NetworkError> {
        let records = load_records(store)?;
        let mut route = Socket::route().map_err(NetworkError::kernel("networks"))?;
        let default_bridge = match &config.bridge {
            Some(name) => Some(DefaultBridge::open(name, &config, &mut route)?),
            None => None,
        };
        let state = State { route, default_bridge, endpoints: HashMap::new() };
        Ok(Self { config, records, state: Mutex::new(state) })
    }

    /// Gives `request.container` a place in the network called, or identified by, `network`.
    /// Nothing is left behind when it fails.
    pub fn attach(
        &self,
        network: &str,
        request: &EndpointRequest<'_>,
    ) -> Result<Endpoint, NetworkError> {
        let record = self.record(network)?;
        let state = &mut *self.lock();
        let key = (record.id.clone(), request.container.clone());
        if state.endpoints.contains_key(&key) {
            return Err(NetworkError::EndpointExists {
                container: request.container.clone(),
                network: record.name.clone(),
            });
        }
        let endpoint = match record.driver.as_str() {
            "bridge" => self.attach_to_bridge(state, record, request)?,
            _ => bare_endpoint(record, request.container),
        };
        state.endpoints.insert(key, endpoint.clone());
        Ok(endpoint)
    }

    /// Takes `container` out of a network; no error when it is in none. Its link dies with its
    /// namespace; for a container that runs on, `runtime::interfaces::unplug` comes first.
    pub fn detach(&self, network: &str, container: &Id) -> Result<(), NetworkError> {
        let record = self.record(network)?;
        let state = &mut *self.lock();
        let key = (record.id.clone(), container.clone());
        let Some(endpoint) = state.endpoints.remove(&key) else { return Ok(()) };
        match (&mut state.default_bridge, endpoint.member()) {
            (Some(default), Some(member)) => default.forget(&member, &state.endpoints),
            _ => Ok(()),
        }
    }

    /// Makes memory and kernel agree with the endpoints of containers that run: their addresses
    /// and elements are taken, links of ours that belong to nobody are removed, and the firewall
    /// is complete. Returns what could not be done; all that can be done is.
    pub fn reconcile(&self, live: &[Endpoint]) -> Vec<NetworkError> {
        let state = &mut *self.lock();
        let mut errors = Vec::new();
        state.endpoints.clear();
        for endpoint in live {
            let key = (endpoint.network_id.clone(), endpoint.container.clone());
            if let Some(default) = &mut state.default_bridge {
                for ip in endpoint.ips() {
                    if default.pool(ip).is_some_and(|pool| !pool.reserve(ip)) {
                        errors.push(NetworkError::AddressInUse { ip });
                    }
                }
            }
            state.endpoints.insert(key, endpoint.clone());
        }
        if let Some(default) = &mut state.default_bridge {
            let members = members(&state.endpoints);
            let name = default.bridge.name.clone();
            errors.extend(remove_orphans(&name, &members, &mut state.route).err());
            errors.extend(default.replace_rules(&members).err());
        }
        errors
    }

    /// Puts the firewall's tables back if somebody touched them. Cheap; meant to be called often.
    pub fn ensure_firewall(&self) -> Result<(), NetworkError> {
        let state = &mut *self.lock();
        let Some(default) = &mut state.default_bridge else { return Ok(()) };
        let members = members(&state.endpoints);
        let object = default.bridge.name.clone();
        default.firewall.ensure(&default.plan, &members).map_err(NetworkError::kernel(&object))
    }

    /// Removes our firewall tables, as a daemon does that will not come back.
    pub fn remove_firewall(&self) -> Result<(), NetworkError> {
        let Some(default) = &mut self.lock().default_bridge else { return Ok(()) };
        let object = default.bridge.name.clone();
        default.firewall.remove().map_err(NetworkError::kernel(&object))
    }

    /// User-defined networks come with the next release.
    pub fn create(&self, name: &str, driver: &str) -> Result<Id, NetworkError> {
        match self.record(name) {
            Ok(_) if DEFAULT_NETWORKS.iter().any(|(predefined, _)| *predefined == name) => {
                Err(NetworkError::Predefined { name: name.to_owned() })
            }
            Ok(_) => Err(NetworkError::Exists { name: name.to_owned() }),
            Err(_) => {
                Err(NetworkError::UserNetwork { name: name.to_owned(), driver: driver.to_owned() })
            }
        }
    }

    /// Refuses to remove the default networks; there are no others yet.
    pub fn remove(&self, network: &str) -> Result<(), NetworkError> {
        let name = self.record(network)?.name.clone();
        Err(NetworkError::Predefined { name })
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<NetworkInfo> {
        let state = self.lock();
        self.records.iter().map(|record| self.describe(record, &state)).collect()
    }

    /// One network by name, id, or a beginning of the id that no other has.
    pub fn inspect(&self, network: &str) -> Result<NetworkInfo, NetworkError> {
        let record = self.record(network)?;
        Ok(self.describe(record, &self.lock()))
    }

    /// The addresses that `host-gateway` stands for.
    pub fn host_gateways(&self) -> Vec<IpAddr> {
        let state = self.lock();
        let Some(default) = &state.default_bridge else { return Vec::new() };
        std::iter::once(default.bridge.ipv4)
            .chain(default.bridge.ipv6)
            .map(|own| own.ip())
            .collect()
    }

    /// What `info` warns of.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if bridge::read_setting("ipv4/ip_forward") == Some(0) {
            warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
        }
        if !self.config.iptables && !self.config.ip6tables {
            return warnings;
        }
        let state = &mut *self.lock();
        let Some(default) = &mut state.default_bridge else { return warnings };
        match default.firewall.conflicts() {
            Ok(chains) => warnings.extend(chains.iter().map(|chain| {
                format!(
                    "WARNING: chain {} of firewall table {} drops forwarded packets by default; \
                     containers have no network unless it accepts those of {}",
                    chain.chain, chain.table, default.bridge.name
                )
            })),
            Err(error) => tracing::debug!(%error, "list the chains of other firewalls"),
        }
        warnings
    }

    fn record(&self, network: &str) -> Result<&NetworkRecord, NetworkError> {
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

    fn attach_to_bridge(
        &self,
        state: &mut State,
        record: &NetworkRecord,
        request: &EndpointRequest<'_>,
    ) -> Result<Endpoint, NetworkError> {
        let default = state.default_bridge.as_mut().ok_or(NetworkError::NoBridge)?;
        if request.ipv4.is_some() || request.ipv6.is_some() {
            return Err(NetworkError::AddressOnDefault);
        }
        let host_name = free_link_name(&state.route)?;
        let (ipv4, ipv6) = default.allocate(&record.name)?;
        let (gateway_v4, gateway_v6) = bridge::gateways(&default.bridge, &self.config);
        let addresses = std::iter::once(ipv4).chain(ipv6);
        let interface = Interface {
            host_name,
            container_name: request.interface_name.to_owned(),
            bridge: default.bridge.name.clone(),
            alias: bridge::alias(&default.bridge.name, request.container.as_str()),
            mac: request.mac.unwrap_or_else(bridge::random_mac),
            mtu: self.config.mtu,
            isolated: !self.config.icc,
            addresses: addresses.map(|own| (own.ip(), own.prefix())).collect(),
            gateway_v4: match gateway_v4 {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            },
            gateway_v6: match gateway_v6 {
                Some(IpAddr::V6(ip)) => Some(ip),
                _ => None,
            },
        };
        let endpoint = Endpoint {
            interface: Some(interface),
            ipv4: Some(ipv4),
            gateway_v4: Some(gateway_v4),
            ipv6,
            gateway_v6,
            ..bare_endpoint(record, request.container)
        };
        default.admit(&endpoint)?;
        Ok(endpoint)
    }

    fn describe(&self, record: &NetworkRecord, state: &State) -> NetworkInfo {
        let default = state.default_bridge.as_ref().filter(|_| record.driver == "bridge");
        let mut endpoints: Vec<_> = state
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network_id == record.id)
            .map(summarize)
            .collect();
        endpoints.sort_by(|one, other| one.container.cmp(&other.container));
        NetworkInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver.clone(),
            scope: "local",
            created_nanos: record.created_nanos,
            enable_ipv4: true,
            enable_ipv6: default.is_some_and(|default| default.ipv6.is_some()),
            internal: false,
            attachable: false,
            ingress: false,
            pools: default.map(|default| default.pools(&self.config)).unwrap_or_default(),
            options: default.map(|default| self.options(&default.bridge)).unwrap_or_default(),
            labels: BTreeMap::new(),
            endpoints,
        }
    }

    fn options(&self, bridge: &Bridge) -> BTreeMap<String, String> {
        let options = [
            ("bridge.default_bridge", "true".to_owned()),
            ("bridge.enable_icc", self.config.icc.to_string()),
            ("bridge.enable_ip_masquerade", self.config.ip_masq.to_string()),
            ("bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
            ("bridge.name", bridge.name.clone()),
            ("driver.mtu", self.config.mtu.to_string()),
        ];
        options
            .into_iter()
            .map(|(key, value)| (format!("com.docker.network.{key}"), value))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-changed that the next reconcile does not mend.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DefaultBridge {
    fn open(name: &str, config: &NetworkConfig, route: &mut Socket) -> Result<Self, NetworkError> {
        let mut firewall = Firewall::open(name).map_err(NetworkError::kernel(name))?;
        let bridge = bridge::set_up(name, config, route)?;
        let ipv4_pool = make_pool(bridge.ipv4, config.fixed_cidr)?;
        let ipv6_pool = bridge.ipv6.map(|own| make_pool(own, None)).transpose()?;
        let closed = turn_on_forwarding(config, &mut firewall, name)?;
        let plan = Plan {
            bridges: vec![bridge_rules(&bridge, config)],
            uplinks: if closed { bridge::uplinks(route)? } else { Vec::new() },
            ipv4: config.iptables,
            ipv6: config.ip6tables,
        };
        let mut default = Self { bridge, ipv4: ipv4_pool, ipv6: ipv6_pool, firewall, plan };
        let (gateway_v4, gateway_v6) = bridge::gateways(&default.bridge, config);
        // A gateway that is not the bridge may lie in the pools as well.
        for ip in [Some(gateway_v4), gateway_v6].into_iter().flatten() {
            if let Some(pool) = default.pool(ip) {
                pool.reserve(ip);
            }
        }
        // Before the first container, and not narrower than what an earlier run left for those
        // that still run: their elements come back with `reconcile`.
        default.replace_rules(&[])?;
        Ok(default)
    }

    fn pool(&mut self, ip: IpAddr) -> Option<&mut Pool> {
        let pool = if ip.is_ipv4() { Some(&mut self.ipv4) } else { self.ipv6.as_mut() };
        pool.filter(|pool| pool.subnet().contains(ip))
    }

    fn allocate(&mut self, network: &str) -> Result<(Subnet, Option<Subnet>), NetworkError> {
        let exhausted =
            |family| NetworkError::AddressesExhausted { name: network.to_owned(), family };
        let with_prefix = |ip, pool: &Pool| Subnet::new(ip, pool.subnet().prefix());
        let ip = self.ipv4.allocate().ok_or_else(|| exhausted(4))?;
        let ipv4 = with_prefix(ip, &self.ipv4).expect("the pool's own prefix");
        let Some(pool) = &mut self.ipv6 else { return Ok((ipv4, None)) };
        match pool.allocate().and_then(|ip| with_prefix(ip, pool)) {
            Some(ipv6) => Ok((ipv4, Some(ipv6))),
            None => {
                self.ipv4.release(ip);
                Err(exhausted(6))
            }
        }
    }

    /// Adds the firewall's elements of a new endpoint, or gives its addresses back.
    fn admit(&mut self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let Some(member) = endpoint.member().filter(|_| self.has_rules()) else { return Ok(()) };
        let admitted = self.firewall.add_member(&member);
        admitted.map_err(NetworkError::kernel(&member.port)).inspect_err(|_| {
            for ip in endpoint.ips() {
                self.release(ip);
            }
        })
    }

    fn forget(
        &mut self,
        member: &Member,
        endpoints: &HashMap<(Id, Id), Endpoint>,
    ) -> Result<(), NetworkError> {
        for ip in &member.ips {
            self.release(*ip);
        }
        if !self.has_rules() {
            return Ok(());
        }
        let remaining = members(endpoints);
        let shared = remaining.iter().any(|other| other.mac == member.mac);
        // Elements that somebody removed, or that another endpoint needs too: all anew.
        if shared || self.firewall.remove_member(member).is_err() {
            return self.replace_rules(&remaining);
        }
        Ok(())
    }

    fn release(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pool(ip) {
            pool.release(ip);
        }
    }

    const fn has_rules(&self) -> bool {
        self.plan.ipv4 || self.plan.ipv6
    }

    fn replace_rules(&mut self, members: &[Member]) -> Result<(), NetworkError> {
        let replaced = self.firewall.replace(&self.plan, members);
        replaced.map_err(NetworkError::kernel(&self.bridge.name))
    }

    fn pools(&self, config: &NetworkConfig) -> Vec<PoolInfo> {
        let (gateway_v4, gateway_v6) = bridge::gateways(&self.bridge, config);
        let ipv4 = PoolInfo {
            subnet: self.ipv4.subnet(),
            ip_range: config.fixed_cidr,
            gateway: gateway_v4,
        };
        let ipv6 = self.ipv6.as_ref().zip(gateway_v6).map(|(pool, gateway)| PoolInfo {
            subnet: pool.subnet(),
            ip_range: None,
            gateway,
        });
        std::iter::once(ipv4).chain(ipv6).collect()
    }
}

/// Makes the pool around the bridge's own address.
fn make_pool(own: Subnet, range: Option<Subnet>) -> Result<Pool, NetworkError> {
    if let Some(range) = range
        && !(own.contains(range.at(0)) && own.contains(range.at(range.last_offset())))
    {
        return Err(NetworkError::RangeOutside { range, subnet: own.network() });
    }
    let mut pool = Pool::new(own, range);
    pool.reserve(own.ip());
    Ok(pool)
}

fn bridge_rules(bridge: &Bridge, config: &NetworkConfig) -> BridgeRules {
    let addresses = || std::iter::once(bridge.ipv4).chain(bridge.ipv6);
    BridgeRules {
        name: bridge.name.clone(),
        mac: bridge.mac,
        gateways: addresses().map(|own| own.ip()).collect(),
        subnets: addresses().collect(),
        masquerade: config.ip_masq,
        icc: config.icc,
    }
}

/// Lets the host route. Returns whether it did not before we (now, or in an earlier run) turned it
/// on: then it must still not route between networks that were apart.
fn turn_on_forwarding(
    config: &NetworkConfig,
    firewall: &mut Firewall,
    object: &str,
) -> Result<bool, NetworkError> {
    if !config.ip_forward {
        return Ok(false);
    }
    let mut keys = vec!["ipv4/ip_forward"];
    if config.fixed_cidr_v6.is_some() {
        keys.push("ipv6/conf/all/forwarding");
    }
    let mut closed = firewall.guards_uplinks().map_err(NetworkError::kernel(object))?;
    for key in keys {
        if bridge::read_setting(key) == Some(0) {
            bridge::write_setting(key, "1")?;
            closed = true;
        }
    }
    Ok(closed && !config.ip_forward_no_drop)
}

fn bare_endpoint(record: &NetworkRecord, container: &Id) -> Endpoint {
    Endpoint {
        endpoint_id: Id::from_random(sys::random::bytes()),
        network_id: record.id.clone(),
        network_name: record.name.clone(),
        container: container.clone(),
        interface: None,
        ipv4: None,
        gateway_v4: None,
        ipv6: None,
        gateway_v6: None,
    }
}

fn summarize(endpoint: &Endpoint) -> EndpointSummary {
    EndpointSummary {
        container: endpoint.container.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        mac: endpoint.mac_text(),
        ipv4: endpoint.ipv4,
        ipv6: endpoint.ipv6,
    }
}

fn members(endpoints: &HashMap<(Id, Id), Endpoint>) -> Vec<Member> {
    endpoints.values().filter_map(Endpoint::member).collect()
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

/// Removes links with our alias that are no member's. Each waits for a grace period, hence only
/// at start.
fn remove_orphans(
    bridge: &str,
    members: &[Member],
    route: &mut Socket,
) -> Result<(), NetworkError> {
    let links = route::links(route).map_err(NetworkError::kernel(bridge))?;
    let mut batch = Batch::new();
    for link in links {
        let ours = link.alias.as_deref().and_then(|alias| bridge::owner(bridge, alias)).is_some();
        let needed = members.iter().any(|member| member.port == link.name);
        if ours && !needed && link.name != bridge {
            tracing::info!(link = link.name, "remove a link that belongs to no container");
            route::delete_link(&mut batch, "delete link", &link.name);
        }
    }
    route.transact(&mut batch).map_err(NetworkError::kernel(bridge))
}

/// Reads the records, adding those of the default networks that are missing.
fn load_records(store: &Store) -> Result<Vec<NetworkRecord>, NetworkError> {
    store.adopt(NETWORKS)?;
    let mut records: Vec<_> = store.scan(NETWORKS)?.into_iter().map(|(_, record)| record).collect();
    let missing: Vec<_> = DEFAULT_NETWORKS
        .iter()
        .filter(|(name, _)| !records.iter().any(|record| record.name == *name))
        .map(|&(name, driver)| NetworkRecord {
            id: Id::from_random(sys::random::bytes()),
            name: name.to_owned(),
            driver: driver.to_owned(),
            created_nanos: now_nanos(),
        })
        .collect();
    if !missing.is_empty() {
        records.extend(missing.iter().cloned());
        store.write(move |txn| {
            missing.iter().try_for_each(|record| NETWORKS.put(txn, record.id.as_str(), record))
        })?;
    }
    records.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(records)
}

fn now_nanos() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok()).unwrap_or_default()
}

fn format_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
