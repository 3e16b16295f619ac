//! Networks, for the API: the `network` crate's in Docker's shape, with the names of containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::network::{EndpointResource, Inspect, Ipam, IpamConfig};
use network::{EndpointSummary, NetworkInfo};
use spec::Filters;

use crate::containers::registry::Registry;
use crate::containers::time_text;
use crate::errors::Result;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const DEFAULT: [&str; 3] = ["bridge", "host", "none"];

#[derive(Debug)]
pub struct Networks {
    networks: Arc<network::Networks>,
    registry: Arc<Registry>,
}

impl Networks {
    pub(crate) fn new(networks: Arc<network::Networks>, registry: Arc<Registry>) -> Self {
        Self { networks, registry }
    }

    /// Without the containers in them, as Docker's list.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Inspect>> {
        filters.validate(FILTERS)?;
        let dangling = filters.boolean("dangling")?;
        let chosen = self.networks.list().into_iter().filter(|network| {
            let builtin = DEFAULT.contains(&network.name.as_str());
            let label = |key: &str| network.labels.get(key).map(String::as_str);
            filters.any("driver", |wanted| network.driver == wanted)
                && filters.any("id", |wanted| network.id.as_str().contains(wanted))
                && filters.any("name", |wanted| network.name.contains(wanted))
                && filters.any("scope", |wanted| network.scope == wanted)
                && filters.any("type", |wanted| (wanted == "builtin") == builtin)
                && filters.matches_labels("label", label)
                && dangling
                    .is_none_or(|dangling| !builtin && dangling == network.endpoints.is_empty())
        });
        let shown =
            chosen.map(|network| Inspect { containers: BTreeMap::new(), ..self.describe(network) });
        Ok(shown.collect())
    }

    /// By name, id or a beginning of the id.
    pub fn inspect(&self, reference: &str) -> Result<Inspect> {
        Ok(self.describe(self.networks.inspect(reference)?))
    }

    /// Answers why not: user-defined networks do not exist yet.
    pub fn create(&self, name: &str, driver: &str) -> Result<String> {
        Ok(self.networks.create(name, driver)?.to_string())
    }

    pub fn remove(&self, reference: &str) -> Result<()> {
        Ok(self.networks.remove(reference)?)
    }

    fn describe(&self, network: NetworkInfo) -> Inspect {
        let pools = network.pools.iter().map(|pool| IpamConfig {
            subnet: pool.subnet.network().to_string(),
            ip_range: pool.ip_range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: pool.gateway.to_string(),
            auxiliary_addresses: None,
        });
        let pools: Vec<_> = pools.collect();
        // Docker has a list for the bridge and null for those without addresses.
        let config = if pools.is_empty() { None } else { Some(pools) };
        Inspect {
            name: network.name,
            id: network.id.to_string(),
            created: time_text(network.created_nanos),
            scope: network.scope.to_owned(),
            driver: network.driver,
            enable_ipv4: network.enable_ipv4,
            enable_ipv6: network.enable_ipv6,
            ipam: Ipam { driver: "default".to_owned(), options: None, config },
            internal: network.internal,
            attachable: network.attachable,
            ingress: network.ingress,
            containers: network.endpoints.into_iter().map(|end| self.endpoint(end)).collect(),
            options: network.options,
            labels: network.labels,
            ..Inspect::default()
        }
    }

    fn endpoint(&self, endpoint: EndpointSummary) -> (String, EndpointResource) {
        let container = self.registry.get(&endpoint.container);
        let name = container.map(|container| container.snapshot().definition.name.to_string());
        let subnet = |subnet: Option<network::Subnet>| {
            subnet.map(|subnet| subnet.to_string()).unwrap_or_default()
        };
        let resource = EndpointResource {
            name: name.unwrap_or_default(),
            endpoint_id: endpoint.endpoint_id.to_string(),
            mac_address: endpoint.mac,
            ipv4_address: subnet(endpoint.ipv4),
            ipv6_address: subnet(endpoint.ipv6),
        };
        (endpoint.container.to_string(), resource)
    }
}
