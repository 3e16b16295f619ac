//! Networks, for the API: the `network` crate's in Docker's shape, with the names of containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::network::{
    CreateRequest, CreateResponse, EndpointResource, Inspect, Ipam, IpamConfig, PruneResponse,
};
use network::{EndpointSummary, NetworkError, NetworkInfo, NetworkRequest, PoolRequest};
use spec::{Filters, Id};

use crate::containers::registry::Registry;
use crate::containers::{run_blocking, time_text};
use crate::errors::{ConnectError, Error, Result, ValidationError};
use crate::events::Events;
use crate::keeper::release_dead;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

#[derive(Debug)]
pub struct Networks {
    networks: Arc<network::Networks>,
    registry: Arc<Registry>,
    events: Arc<Events>,
}

impl Networks {
    pub(crate) fn new(
        networks: Arc<network::Networks>,
        registry: Arc<Registry>,
        events: Arc<Events>,
    ) -> Self {
        Self { networks, registry, events }
    }

    /// Without the containers in them, as Docker's list.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Inspect>> {
        filters.validate(FILTERS)?;
        let dangling = filters.boolean("dangling")?;
        let chosen = self.networks.list().into_iter().filter(|network| {
            let builtin = network.is_predefined();
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

    pub async fn create(&self, request: CreateRequest) -> Result<CreateResponse> {
        let unsupported = [
            (request.config_only, "a network that is only configuration (ConfigOnly)"),
            (
                request.config_from.as_ref().is_some_and(|from| !from.network.is_empty()),
                "a network configured from another (ConfigFrom)",
            ),
            (request.ingress, "an ingress network (Ingress)"),
            (!matches!(request.scope.as_str(), "" | "local"), "a network of a swarm (Scope)"),
        ];
        if let Some((_, feature)) = unsupported.into_iter().find(|(asked, _)| *asked) {
            return Err(Error::unsupported(feature));
        }
        if request.enable_ipv4 == Some(false) && request.enable_ipv6 != Some(true) {
            return Err(ValidationError::NoFamily.into());
        }
        let name = request.name.clone();
        let driver = Some(request.driver.clone()).filter(|driver| !driver.is_empty());
        let driver = driver.unwrap_or_else(|| "bridge".to_owned());
        let networks = Arc::clone(&self.networks);
        let id = run_blocking(move || Ok(networks.create(&to_request(request))?)).await?;
        self.emit("create", &id, &name, &driver);
        Ok(CreateResponse { id: id.to_string(), warning: String::new() })
    }

    pub async fn remove(&self, reference: &str) -> Result<()> {
        let info = self.networks.inspect(reference)?;
        let (networks, registry) = (Arc::clone(&self.networks), Arc::clone(&self.registry));
        let id = info.id.clone();
        let removed = run_blocking(move || match networks.remove(id.as_str()) {
            // Containers that are gone, however they went, are no reason to keep it.
            Err(NetworkError::ActiveEndpoints { .. }) if release_dead(&networks, &registry) => {
                Ok(networks.remove(id.as_str())?)
            }
            removed => Ok(removed?),
        });
        let removed = removed.await;
        removed.map_err(|error| match error {
            Error::Network(NetworkError::ActiveEndpoints { name, endpoints }) => {
                let name_of = |(container, id): (Id, Id)| (self.container_name(&container), id);
                let endpoints = endpoints.into_iter().map(name_of).collect();
                ConnectError::ActiveEndpoints { network: name, endpoints }.into()
            }
            other => other,
        })?;
        self.emit("destroy", &info.id, &info.name, &info.driver);
        Ok(())
    }

    /// Removes the networks of users that nobody is in.
    pub async fn prune(&self, filters: &Filters) -> Result<PruneResponse> {
        filters.validate(&["label", "label!", "until"])?;
        let until = crate::containers::until(filters, std::time::SystemTime::now())?;
        let mut deleted = Vec::new();
        for network in self.networks.list() {
            let label = |key: &str| network.labels.get(key).map(String::as_str);
            if network.is_predefined()
                || !network.endpoints.is_empty()
                || until.is_some_and(|until| network.created_nanos > until)
                || !filters.matches_labels("label", label)
                || filters.any_label("label!", label)
            {
                continue;
            }
            match self.remove(network.id.as_str()).await {
                Ok(()) => deleted.push(network.name),
                // Somebody joined it meanwhile.
                Err(error) => tracing::debug!(network = network.name, %error, "prune"),
            }
        }
        let attributes = [("reclaimed".to_owned(), "0".to_owned())];
        self.events.emit("network", "prune", "", attributes.into());
        Ok(PruneResponse { networks_deleted: Some(deleted).filter(|list| !list.is_empty()) })
    }

    fn emit(&self, action: &str, id: &Id, name: &str, driver: &str) {
        let attributes = [("name", name), ("type", driver)];
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.events.emit("network", action, id.as_str(), attributes.collect());
    }

    fn container_name(&self, id: &Id) -> String {
        let container = self.registry.get(id);
        let name = container.map(|container| container.snapshot().definition.name.to_string());
        name.unwrap_or_default()
    }

    fn describe(&self, network: NetworkInfo) -> Inspect {
        let pools = network.pools.iter().map(|pool| IpamConfig {
            subnet: pool.subnet.network().to_string(),
            ip_range: pool.ip_range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: pool.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
            auxiliary_addresses: Some(&pool.auxiliary)
                .filter(|addresses| !addresses.is_empty())
                .map(|addresses| {
                    addresses.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect()
                }),
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
            ipam: Ipam { driver: "default".to_owned(), options: network.ipam_options, config },
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
        let subnet = |subnet: Option<network::Subnet>| {
            subnet.map(|subnet| subnet.to_string()).unwrap_or_default()
        };
        let resource = EndpointResource {
            name: self.container_name(&endpoint.container),
            endpoint_id: endpoint.endpoint_id.to_string(),
            mac_address: endpoint.mac,
            ipv4_address: subnet(endpoint.ipv4),
            ipv6_address: subnet(endpoint.ipv6),
        };
        (endpoint.container.to_string(), resource)
    }
}

fn to_request(request: CreateRequest) -> NetworkRequest {
    let ipam = request.ipam.unwrap_or_default();
    let pools = ipam.config.unwrap_or_default().into_iter().map(|pool| PoolRequest {
        subnet: pool.subnet,
        ip_range: pool.ip_range,
        gateway: pool.gateway,
        auxiliary: pool.auxiliary_addresses.unwrap_or_default(),
    });
    NetworkRequest {
        name: request.name,
        driver: request.driver,
        enable_ipv4: request.enable_ipv4.unwrap_or(true),
        enable_ipv6: request.enable_ipv6.unwrap_or_default(),
        internal: request.internal,
        attachable: request.attachable,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options,
        pools: pools.collect(),
        options: request.options.unwrap_or_default(),
        labels: request.labels.unwrap_or_default(),
    }
}
