//! Networks as the API shows them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use spec::Id;

use crate::bridge::Bridge;
use crate::endpoint::EndpointSummary;
use crate::networks::Networks;
use crate::records::{self, DEFAULT_NETWORKS, NetworkRecord};
use crate::state::State;
use crate::subnet::Subnet;

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
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub endpoints: Vec<EndpointSummary>,
}

impl NetworkInfo {
    /// One of those that every daemon has.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    pub subnet: Subnet,
    pub ip_range: Option<Subnet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl Networks {
    pub(crate) fn describe(&self, record: &NetworkRecord, state: &State) -> NetworkInfo {
        let bridge = state.bridges.get(&record.id);
        let mut endpoints: Vec<_> = state
            .endpoints
            .values()
            .filter(|endpoint| endpoint.network_id == record.id)
            .map(EndpointSummary::of)
            .collect();
        endpoints.sort_by(|one, other| one.container.cmp(&other.container));
        let mut info = NetworkInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver.clone(),
            scope: "local",
            created_nanos: record.created_nanos,
            enable_ipv4: true,
            enable_ipv6: bridge.is_some_and(|network| network.gateway_v6.is_some()),
            internal: false,
            attachable: false,
            ingress: false,
            pools: Vec::new(),
            ipam_options: None,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            endpoints,
        };
        match (&record.user, bridge) {
            (Some(user), _) => {
                info.enable_ipv4 = user.enable_ipv4;
                info.enable_ipv6 = user.enable_ipv6;
                info.internal = user.internal;
                info.attachable = user.attachable;
                info.pools = user.pools.iter().map(pool_info).collect();
                info.ipam_options.clone_from(&user.ipam_options);
                info.options.clone_from(&user.options);
                info.labels.clone_from(&user.labels);
            }
            (None, Some(network)) => {
                info.pools = network.pools_shown(&self.config);
                info.options = self.options(&network.bridge);
            }
            (None, None) => {}
        }
        info
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
}

pub(crate) fn is_predefined(name: &str) -> bool {
    DEFAULT_NETWORKS.iter().any(|(predefined, _)| *predefined == name)
}

fn pool_info(pool: &records::PoolRecord) -> PoolInfo {
    PoolInfo {
        subnet: pool.subnet,
        ip_range: pool.ip_range,
        gateway: pool.gateway_shown.then_some(pool.gateway),
        auxiliary: pool.auxiliary.clone(),
    }
}
