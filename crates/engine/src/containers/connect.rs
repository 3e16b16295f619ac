//! Joining and leaving networks, of containers that run and of those that do not.
//!
//! A running container gets its link from this process: a thread visits the namespace for it. Then
//! the definition is written, and the supervisor is told, which remembers the endpoints for a
//! daemon that comes after. A crash in between leaves a link that the container keeps until its
//! end, or a definition that its next start fulfils.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use api_types::network::EndpointSettings;
use network::files::Reach;
use network::{Endpoint, NetworkInfo};
use runtime::interfaces;
use runtime::protocol::{Failure, Request};
use runtime::spec::Interface;

use super::record::{DEFINITIONS, Definition};
use super::snapshot::Snapshot;
use super::start::NetworkFiles;
use super::task::{ContainerCommand, Task};
use super::validate::modes;
use super::{Containers, Shared, create, run_blocking};
use crate::errors::{ConnectError, Error, Result, StartError};

impl Containers {
    /// `docker network connect`
    pub async fn join_network(
        &self,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let info = self.shared.networks.inspect(network)?;
        if container.is_empty() {
            return Err(ConnectError::NoContainer.into());
        }
        let container = self.shared.registry.find(container)?;
        let (info, settings) = (Box::new(info), Box::new(settings));
        container.ask(|reply| ContainerCommand::Connect { info, settings, reply }).await
    }

    /// `docker network disconnect`
    pub async fn leave_network(&self, network: &str, container: &str) -> Result<()> {
        let info = Box::new(self.shared.networks.inspect(network)?);
        if container.is_empty() {
            return Err(ConnectError::NoContainer.into());
        }
        let container = self.shared.registry.find(container)?;
        container.ask(|reply| ContainerCommand::Disconnect { info, reply }).await
    }
}

impl Task {
    pub(super) async fn connect(
        &mut self,
        info: &NetworkInfo,
        settings: EndpointSettings,
    ) -> Result<()> {
        let name = &info.name;
        let mut definition = Definition::clone(&self.state.definition);
        check_modes(&definition, name)?;
        create::check_endpoint(&self.shared, name, &settings)?;
        let alive = self.state.progress.is_alive();
        let joined = |endpoint: &Endpoint| endpoint.network_id == info.id;
        if alive && self.state.progress.endpoints.iter().any(joined) {
            let (container, network) = (definition.name.to_string(), name.clone());
            return Err(ConnectError::AlreadyIn { container, network }.into());
        }
        definition.endpoints.insert(name.clone(), settings);
        if alive {
            self.plug_in(&definition, name).await?;
        }
        self.keep_definition(definition).await
    }

    /// Gives the running container an interface in a network.
    async fn plug_in(&mut self, definition: &Definition, name: &str) -> Result<()> {
        let mut endpoints = self.state.progress.endpoints.clone();
        let interface_name = free_name(&endpoints);
        let endpoint = self.attach_network(definition, name, &interface_name)?;
        let before = endpoints.iter().position(is_gateway);
        endpoints.push(endpoint.clone());
        choose_gateway(definition, &mut endpoints);
        let new = endpoints.last().and_then(|endpoint| endpoint.interface.clone());
        // While another route leads to the world, this one replaces it afterwards.
        let replaces = before.is_some() && endpoints.last().is_some_and(is_gateway);
        let netns = self.network_namespace();
        let plugged = run_blocking(move || {
            let (Some(interface), netns) = (new, netns?) else { return Ok(()) };
            let own = match replaces {
                true => without_gateway(&interface),
                false => interface.clone(),
            };
            interfaces::plug(&own, netns.as_fd()).map_err(start_failure)?;
            if replaces {
                interfaces::route_through(&interface, netns.as_fd()).map_err(start_failure)?;
            }
            Ok(())
        });
        if let Err(error) = plugged.await {
            self.detach_networks([endpoint]);
            return Err(error);
        }
        if let Err(error) = add_host_entries(&self.shared, &self.state, &endpoint.ips()) {
            tracing::warn!(container = %self.container.id, %error, "write the hosts file");
        }
        self.emit_network("connect", &endpoint);
        self.tell_endpoints(endpoints).await;
        if let Err(error) = self.begin_to_resolve(definition).await {
            tracing::warn!(container = %self.container.id, %error, "open a resolver");
        }
        Ok(())
    }

    /// In its first user's network a container that had none gets a resolver. One that asks
    /// other servers by its own `resolv.conf` goes on doing so.
    async fn begin_to_resolve(&mut self, definition: &Definition) -> Result<()> {
        if self.resolver.is_some() || !super::start::needs_resolver(&self.state.progress.endpoints)
        {
            return Ok(());
        }
        self.open_resolver().await?;
        let path = NetworkFiles::in_directory(&self.shared.directory(&definition.id)).resolv_conf;
        let ours = |reach| super::start::resolv_conf(&self.shared, definition, reach);
        let before = [false, true].map(|ipv6| ours(Reach::Network { ipv6 }));
        edit_file(&path, |text| match before.iter().any(|before| before == text) {
            true => ours(Reach::Resolver),
            false => text.to_owned(),
        })
    }

    pub(super) async fn disconnect(&mut self, info: &NetworkInfo) -> Result<()> {
        let mut definition = Definition::clone(&self.state.definition);
        if definition.host_config.network_mode == "host" && info.name == "host" {
            return Err(ConnectError::LeaveHost.into());
        }
        if definition.endpoints.remove(&info.name).is_none() {
            let (container, network) = (self.container.id.clone(), info.name.clone());
            return Err(ConnectError::NotIn { container, network }.into());
        }
        let endpoints = self.state.progress.endpoints.iter();
        let at = endpoints.clone().position(|endpoint| endpoint.network_id == info.id);
        if let Some(at) = at.filter(|_| self.state.progress.is_alive()) {
            self.unplug(&definition, at).await?;
        }
        self.keep_definition(definition).await
    }

    /// Takes an interface of the running container away.
    async fn unplug(&mut self, definition: &Definition, at: usize) -> Result<()> {
        let mut endpoints = self.state.progress.endpoints.clone();
        let gone = endpoints.remove(at);
        let was_gateway = is_gateway(&gone);
        if was_gateway {
            give_gateways_back(&mut endpoints);
            choose_gateway(definition, &mut endpoints);
        }
        // One for each family, perhaps the same.
        let heirs = endpoints.iter().filter(|endpoint| was_gateway && is_gateway(endpoint));
        let heirs: Vec<_> = heirs.filter_map(|endpoint| endpoint.interface.clone()).collect();
        let link = gone.interface.clone();
        let netns = self.network_namespace();
        run_blocking(move || {
            let netns = netns?;
            if let Some(interface) = link {
                interfaces::take_away(&interface, netns.as_fd()).map_err(start_failure)?;
            }
            heirs.iter().try_for_each(|interface| {
                interfaces::route_through(interface, netns.as_fd()).map_err(start_failure)
            })
        })
        .await?;
        if let Err(error) = remove_host_entries(&self.shared, &self.state, &gone.ips()) {
            tracing::warn!(container = %self.container.id, %error, "write the hosts file");
        }
        self.emit_network("disconnect", &gone);
        let ports = gone.published.clone();
        self.detach_networks([gone]);
        // They go with the way to the world.
        let heir = way_out(&mut endpoints);
        if let Some(heir) = heir.filter(|_| !ports.is_empty())
            && let Err(error) = self.shared.networks.move_ports(heir, ports)
        {
            tracing::warn!(container = %self.container.id, %error, "lead the ports elsewhere");
        }
        self.tell_endpoints(endpoints).await;
        Ok(())
    }

    pub(super) fn network_namespace(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/net", self.state.progress.pid);
        File::open(&path).map_err(Error::io(format!("open {path}")))
    }

    /// Shows the endpoints, and has the supervisor remember them.
    async fn tell_endpoints(&mut self, endpoints: Vec<Endpoint>) {
        let network = super::start::note_endpoints(&endpoints);
        self.state.progress.endpoints = endpoints;
        self.publish();
        self.shared.follow_links(&self.container.id);
        let id = self.container.id.clone();
        if let Err(error) = self.order(Request::Note { id, network }).await {
            tracing::warn!(container = %self.container.id, %error, "note the endpoints");
        }
    }

    async fn keep_definition(&mut self, definition: Definition) -> Result<()> {
        let record = definition.clone();
        self.shared.write(move |txn| DEFINITIONS.put(txn, record.id.as_str(), &record)).await?;
        self.state.definition = std::sync::Arc::new(definition);
        self.publish();
        if !self.state.definition.links.is_empty() {
            self.shared.refresh_links(&self.container);
        }
        Ok(())
    }
}

fn check_modes(definition: &Definition, network: &str) -> Result<(), ConnectError> {
    let mode = definition.host_config.network_mode.as_str();
    if modes::container(mode).is_some() || mode == "host" {
        return Err(ConnectError::SharedNamespace);
    }
    if network == "host" {
        return Err(ConnectError::HostNetwork);
    }
    if network == "none" || mode == "none" {
        return Err(ConnectError::NoneNetwork);
    }
    Ok(())
}

fn start_failure(failure: Failure) -> Error {
    StartError::from_failure(failure).into()
}

fn without_gateway(interface: &Interface) -> Interface {
    Interface { gateway_v4: None, gateway_v6: None, ..interface.clone() }
}

/// `eth0`, or the next that no endpoint has.
fn free_name(endpoints: &[Endpoint]) -> String {
    let interfaces = || endpoints.iter().filter_map(|endpoint| endpoint.interface.as_ref());
    let free = |name: &String| !interfaces().any(|interface| interface.container_name == *name);
    let mut names = (0..).map(|number| format!("eth{number}"));
    names.find(free).expect("there are more names than interfaces")
}

/// Whether the container's default route goes through this endpoint.
pub(crate) fn is_gateway(endpoint: &Endpoint) -> bool {
    let interface = endpoint.interface.as_ref();
    interface
        .is_some_and(|interface| interface.gateway_v4.is_some() || interface.gateway_v6.is_some())
}

/// The endpoint that ports are published on: that of IPv4's default route, else of IPv6's.
pub(super) fn way_out(endpoints: &mut [Endpoint]) -> Option<&mut Endpoint> {
    let has_ipv4 = |endpoint: &Endpoint| {
        endpoint.interface.as_ref().is_some_and(|interface| interface.gateway_v4.is_some())
    };
    let at = endpoints.iter().position(has_ipv4).or_else(|| endpoints.iter().position(is_gateway));
    at.and_then(|at| endpoints.get_mut(at))
}

/// Gives endpoints that did not lead to the world their gateways back, to choose among them.
fn give_gateways_back(endpoints: &mut [Endpoint]) {
    for endpoint in endpoints {
        let (v4, v6) = (endpoint.gateway_v4, endpoint.gateway_v6);
        let Some(interface) = &mut endpoint.interface else { continue };
        if let Some(IpAddr::V4(ip)) = v4 {
            interface.gateway_v4 = Some(ip);
        }
        if let Some(IpAddr::V6(ip)) = v6 {
            interface.gateway_v6 = Some(ip);
        }
    }
}

/// Leaves one endpoint with a gateway of each family: of those that have one, that of the highest
/// priority, of these the first by name.
pub(super) fn choose_gateway(definition: &Definition, endpoints: &mut [Endpoint]) {
    let priority = |endpoint: &Endpoint| {
        let settings = definition.endpoints.get(&endpoint.network_name);
        settings.map_or(0, |settings| settings.gw_priority)
    };
    let best = |has_gateway: fn(&Endpoint) -> bool| {
        let candidates = endpoints.iter().filter(|endpoint| has_gateway(endpoint));
        candidates
            .min_by_key(|endpoint| (-priority(endpoint), endpoint.network_name.clone()))
            .map(|endpoint| endpoint.network_id.clone())
    };
    let v4 = best(|endpoint| endpoint.gateway_v4.is_some());
    let v6 = best(|endpoint| endpoint.gateway_v6.is_some());
    for endpoint in endpoints.iter_mut() {
        let Some(interface) = &mut endpoint.interface else { continue };
        interface.gateway_v4.take_if(|_| Some(&endpoint.network_id) != v4.as_ref());
        interface.gateway_v6.take_if(|_| Some(&endpoint.network_id) != v6.as_ref());
    }
}

/// Appends the container's own names at its new addresses.
fn add_host_entries(shared: &Shared, state: &Snapshot, ips: &[IpAddr]) -> Result<()> {
    edit_hosts(shared, state, |text| {
        let config = &state.definition.config;
        let entries = network::files::own_entries(ips, &config.hostname, &config.domainname);
        format!("{text}{entries}")
    })
}

fn remove_host_entries(shared: &Shared, state: &Snapshot, ips: &[IpAddr]) -> Result<()> {
    edit_hosts(shared, state, |text| {
        let gone = |line: &&str| {
            let address = line.split_whitespace().next().and_then(|word| word.parse().ok());
            address.is_some_and(|ip: IpAddr| ips.contains(&ip))
        };
        text.lines().filter(|line| !gone(line)).map(|line| format!("{line}\n")).collect()
    })
}

/// In place: the container has this very file mounted.
fn edit_hosts(shared: &Shared, state: &Snapshot, edit: impl FnOnce(&str) -> String) -> Result<()> {
    let _alone = shared.lock_hosts();
    edit_file(&NetworkFiles::in_directory(&shared.directory(&state.definition.id)).hosts, edit)
}

fn edit_file(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<()> {
    let attempt = || Error::io(format!("edit {}", path.display()));
    let text = std::fs::read_to_string(path).map_err(attempt())?;
    std::fs::write(path, edit(&text)).map_err(attempt())
}
