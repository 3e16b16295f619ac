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
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metadata::Store;
use runtime::spec::Interface;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use spec::Id;
use sys::netlink::{Batch, Socket, route};

use crate::bridge::{self, Bridge};
use crate::config::NetworkConfig;
use crate::conntrack;
use crate::default_bridge::DefaultBridge;
use crate::error::NetworkError;
use crate::firewall::Member;
use crate::ports::{self, Place, PortRequest, Published};
use crate::records::{self, DEFAULT_NETWORKS, NetworkRecord};
use crate::subnet::Subnet;

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
    #[serde(default)]
    pub published: Vec<Published>,
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

    pub(crate) fn member(&self) -> Option<Member> {
        let interface = self.interface.as_ref()?;
        let (port, mac) = (interface.host_name.clone(), interface.mac);
        Some(Member { port, mac, ips: self.ips(), published: self.published.clone() })
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
    /// Where the next search in the ephemeral range begins.
    next_port: u16,
}

impl Networks {
    /// Sets up the default networks in the calling thread's network namespace: bridge, forwarding,
    /// firewall. Call [`Networks::reconcile`] before the first [`Networks::attach`].
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Self, NetworkError> {
        let records = records::load(store)?;
        let mut route = Socket::route().map_err(NetworkError::kernel("networks"))?;
        let default_bridge = match &config.bridge {
            Some(name) => Some(DefaultBridge::open(name, &config, &mut route)?),
            None => None,
        };
        let state = State { route, default_bridge, endpoints: HashMap::new(), next_port: 0 };
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

    /// Publishes ports of an endpoint, before its interface is made. Returns the descriptor that keeps them from the host's
    /// programs; it is to be held as long as the endpoint is there. [`Networks::detach`] takes them
    /// back; nothing is left behind when it fails.
    pub fn publish(
        &self,
        endpoint: &mut Endpoint,
        wanted: &[PortRequest],
    ) -> Result<Option<OwnedFd>, NetworkError> {
        let state = &mut *self.lock();
        let Some(default) = state.default_bridge.as_mut().filter(|_| !wanted.is_empty()) else {
            return Ok(None);
        };
        let firewall = default.firewall.as_mut().ok_or(NetworkError::NoFirewall)?;
        let taken: Vec<_> =
            state.endpoints.values().flat_map(|other| &other.published).cloned().collect();
        let managed =
            |ip: &IpAddr| if ip.is_ipv4() { default.plan.ipv4 } else { default.plan.ipv6 };
        let ips: Vec<_> = endpoint.ips().into_iter().filter(managed).collect();
        if ips.is_empty() {
            return Err(NetworkError::NoFirewall);
        }
        let place = Place { ips, default_bind_ip: self.config.default_bind_ip };
        let reserved = ports::reserve(wanted, &place, &taken, &mut state.next_port)?;
        let published = reserved.ports.clone();
        let carrier = reserved.into_carrier().map_err(NetworkError::PortSockets)?;
        let key = (endpoint.network_id.clone(), endpoint.container.clone());
        let opened = firewall.publish(&published);
        if let Some(known) = state.endpoints.get_mut(&key) {
            known.published.clone_from(&published);
        }
        let opened = match opened {
            // Somebody flushed the tables: all anew.
            Err(error) if error.errno == Errno::NOENT => {
                default.replace_rules(&members(&state.endpoints))
            }
            opened => opened.map_err(NetworkError::kernel(&default.bridge.name)),
        };
        if let Err(error) = opened {
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

    /// Takes `container` out of a network; no error when it is in none. Its link dies with its
    /// namespace; for a container that runs on, `runtime::interfaces::unplug` comes first.
    pub fn detach(&self, network: &str, container: &Id) -> Result<(), NetworkError> {
        let record = self.record(network)?;
        let state = &mut *self.lock();
        let key = (record.id.clone(), container.clone());
        let Some(endpoint) = state.endpoints.remove(&key) else { return Ok(()) };
        match (&mut state.default_bridge, endpoint.member()) {
            (Some(default), Some(member)) => default.forget(&member, &members(&state.endpoints)),
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
        let Some(firewall) = &mut default.firewall else { return Ok(()) };
        let ensured = firewall.ensure(&default.plan, || members(&state.endpoints));
        ensured.map_err(NetworkError::kernel(&default.bridge.name))
    }

    /// Removes our firewall tables, as a daemon does that will not come back.
    pub fn remove_firewall(&self) -> Result<(), NetworkError> {
        let Some(default) = &mut self.lock().default_bridge else { return Ok(()) };
        let Some(firewall) = &mut default.firewall else { return Ok(()) };
        firewall.remove().map_err(NetworkError::kernel(&default.bridge.name))
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
        let state = &mut *self.lock();
        let Some(default) = &mut state.default_bridge else { return warnings };
        let Some(firewall) = &mut default.firewall else { return warnings };
        match firewall.conflicts() {
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
            hairpin: false,
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
        default.admit(&endpoint, || members(&state.endpoints))?;
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
        let bind = self.config.default_bind_ip.unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into());
        let options = [
            ("bridge.default_bridge", "true".to_owned()),
            ("bridge.enable_icc", self.config.icc.to_string()),
            ("bridge.enable_ip_masquerade", self.config.ip_masq.to_string()),
            ("bridge.host_binding_ipv4", bind.to_string()),
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
        published: Vec::new(),
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

fn format_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
