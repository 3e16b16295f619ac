//! Starting: everything the container needs is found or made, then the supervisor runs it.
//!
//! Order: checks, network endpoint, ports, files (`hosts`, `resolv.conf`, `hostname`), the plan
//! ([`super::plan`]), the supervisor. What fails is undone: an endpoint is given back; files stay,
//! they are written anew next time. A crash in between leaves an endpoint that the next
//! reconciliation of the network forgets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use network::files::{DnsSettings, ExternalServer, ExtraHost, Reach, ResolvConf};
use network::{Endpoint, EndpointRequest, NetworkError};
use runtime::protocol::{Failure, Reply, Request};
use runtime::resolver::Sockets;
use runtime::spec::Namespace;
use spec::{Digest, ErrorKind, Id, Kinded};
use storage::Lowers;

use super::links::{self, Linked};
use super::mounts::volumes_of;
use super::plan::{self, Surroundings};
use super::record::{Definition, Phase};
use super::task::Task;
use super::validate::modes::{self, Mode};
use crate::errors::{ContainerError, Error, Result, StartError};
use crate::resolver;
use crate::supervisor::SupervisorError;

/// The layers of the images that a container mounts.
pub(super) fn mounted_images(
    shared: &super::Shared,
    definition: &Definition,
) -> Result<Vec<(Digest, Lowers)>> {
    let chains = definition.mounts.iter().filter_map(|mount| mount.chain());
    chains.map(|chain| Ok((chain, shared.storage.lowers(&chain)?))).collect()
}

/// Where a container's network files are, and whether they are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkFiles {
    pub hostname: PathBuf,
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
}

impl NetworkFiles {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self {
            hostname: directory.join("hostname"),
            hosts: directory.join("hosts"),
            resolv_conf: directory.join("resolv.conf"),
        }
    }
}

impl Task {
    /// A user's start.
    pub(super) async fn start(&mut self) -> Result<()> {
        let id = || self.container.id.clone();
        match self.state.progress.phase {
            Phase::Dead => return Err(ContainerError::MarkedForRemoval.into()),
            Phase::Running if self.state.progress.paused => {
                return Err(ContainerError::StartPaused.into());
            }
            // What waits for its policy's restart counts as started.
            Phase::Running | Phase::Restarting => {
                return Err(ContainerError::NotModified { id: id() }.into());
            }
            Phase::Created | Phase::Exited => {}
        }
        self.restart_at = None;
        self.backoff = Default::default();
        self.state.progress.restart_count = 0;
        let started = self.launch().await;
        if started.is_err() {
            self.remove_if_asked().await;
        }
        started
    }

    /// Starts the program, by a user's or a policy's wish.
    pub(super) async fn launch(&mut self) -> Result<()> {
        self.stay_down = false;
        // Whoever copies from or to its files comes to an end first.
        let files = Arc::clone(&self.container.files).write_owned().await;
        let result = self.run_program().await;
        drop(files);
        if let Err(error) = &result {
            let code = match error {
                Error::Start(error) => error.exit_code(),
                _ => 128,
            };
            self.state.progress.exit_code = code;
            self.state.progress.error = error.to_string();
            self.publish();
        }
        result
    }

    async fn run_program(&mut self) -> Result<()> {
        let definition = self.state.definition.clone();
        let mut surroundings = self.surroundings(&definition)?;
        surroundings.links = links::for_start(&self.shared, &definition)?;
        self.attach_volumes(&definition).await?;
        surroundings.volumes = self.volume_sources(&definition);
        let (endpoints, kept) = match self.attach_and_publish(&definition, &surroundings.links) {
            Ok(attached) => attached,
            Err(error) => {
                self.detach_volumes();
                return Err(error);
            }
        };
        surroundings.endpoints.clone_from(&endpoints);
        let ran = self.run_with(&definition, surroundings, kept).await;
        match ran {
            Ok(resolver) => {
                for endpoint in &endpoints {
                    self.emit_network("connect", endpoint);
                }
                self.state.progress.endpoints = endpoints;
                self.publish();
                // What the program has asked already waits: answers need the endpoints.
                if let Some(sockets) = resolver {
                    self.serve_names(sockets);
                }
                self.shared.follow_links(&self.container.id);
                if !definition.links.is_empty() {
                    // A target may have moved while nobody saw that this one runs.
                    self.shared.refresh_links(&self.container);
                }
                self.state.emit(&self.shared.events, "start", []);
                self.start_health_checks();
                Ok(())
            }
            Err(error) => {
                for endpoint in &endpoints {
                    self.emit_network("disconnect", endpoint);
                }
                self.detach_networks(endpoints);
                self.detach_volumes();
                Err(error)
            }
        }
    }

    /// Mounts the volumes that have options, and keeps all of them from being swapped.
    async fn attach_volumes(&self, definition: &Definition) -> Result<()> {
        if definition.volumes().next().is_none() {
            return Ok(());
        }
        let names = definition.volume_names();
        let (volumes, id) = (Arc::clone(&self.shared.volumes), self.container.id.clone());
        let mounts = definition.mounts.clone();
        super::run_blocking(move || {
            volumes.attach(&id, &mounts)?;
            let checked = mounts.iter().try_for_each(|mount| volumes.check_subpath(&id, mount));
            if checked.is_err() {
                volumes.detach(&id, &names);
            }
            checked
        })
        .await?;
        for mount in &definition.mounts {
            let Some(name) = mount.volume() else { continue };
            let writable = if mount.readonly { "false" } else { "true" };
            let extra = [
                ("container", self.container.id.as_str()),
                ("destination", &mount.target),
                ("propagation", ""),
                ("read/write", writable),
            ];
            self.shared.volumes.emit("mount", name, extra);
        }
        Ok(())
    }

    /// Where the files of its volumes are, now that they are mounted.
    fn volume_sources(&self, definition: &Definition) -> BTreeMap<String, PathBuf> {
        let volumes = volumes_of(&definition.mounts).into_iter();
        let sources = volumes.map(|(name, driver)| {
            (name.to_owned(), self.shared.volumes.source(&definition.id, name, driver))
        });
        sources.collect()
    }

    /// Plugins hear of the end of a container before those who wait for it; unless they hang.
    pub(super) async fn unmount_plugins(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        let definition = &self.state.definition;
        if volumes_of(&definition.mounts).values().all(|driver| driver.is_empty()) {
            return;
        }
        let (volumes, id) = (Arc::clone(&self.shared.volumes), self.container.id.clone());
        let names = definition.volume_names();
        let unmounting = super::run_blocking(move || {
            volumes.release_all(&id, &names);
            volumes.unmount_for(&id);
            Ok(())
        });
        if tokio::time::timeout(PATIENCE, unmounting).await.is_err() {
            tracing::warn!(container = %self.container.id, "a plugin hangs over an unmount");
        }
    }

    pub(super) fn detach_volumes(&self) {
        let definition = &self.state.definition;
        self.shared.volumes.detach(&self.container.id, &definition.volume_names());
        for name in definition.volumes() {
            let extra = [("container", self.container.id.as_str())];
            self.shared.volumes.emit("unmount", name, extra);
        }
    }

    /// `kept` is what the supervisor holds while the program runs: its ports. Returns the sockets
    /// of the resolver, if there is one.
    async fn run_with(
        &mut self,
        definition: &Definition,
        around: Surroundings,
        kept: Option<OwnedFd>,
    ) -> Result<Option<Sockets>> {
        write_network_files(&self.shared, definition, &around)?;
        if self.state.progress.generation == 0 {
            mark_root(&around.rootfs.upper)?;
        }
        let config = self.shared.config();
        let generation = self.state.progress.generation + 1;
        let spec = plan::container_spec(definition, &around, &config, generation)?;
        let (attach, mut descriptors): (_, Vec<_>) =
            std::mem::take(&mut self.streams).into_iter().unzip();
        let keeps = kept.is_some();
        descriptors.extend(kept);
        // Counted before it happens: what the supervisor reports of it is then ours.
        self.state.progress.generation = generation;
        let request = Request::Start { spec: Box::new(spec), attach, keeps };
        let answer = self.shared.supervisor().request(request, descriptors).await;
        let (reply, descriptors) = answer.map_err(|error| match error {
            SupervisorError::Failed(failure) => Error::Start(StartError::from_failure(failure)),
            other => Error::Supervisor(other),
        })?;
        let Reply::Started { pid, started_at_nanos } = reply else {
            return Err(SupervisorError::Confused.into());
        };
        let progress = &mut self.state.progress;
        progress.phase = Phase::Running;
        progress.pid = pid;
        progress.started_nanos = started_at_nanos;
        progress.exit_code = 0;
        progress.error.clear();
        progress.oom_killed = false;
        progress.paused = false;
        progress.manually_stopped = false;
        let mut descriptors = descriptors.into_iter();
        if let Some(process) = descriptors.next() {
            self.keep_process(process);
        }
        Ok(Sockets::from_descriptors(descriptors.collect()))
    }

    /// Looks up everything the plan needs.
    fn surroundings(&self, definition: &Definition) -> Result<Surroundings> {
        let shared = &self.shared;
        let directory = shared.directory(&definition.id);
        let host_config = &definition.host_config;
        let network = self.join(modes::container(&host_config.network_mode))?;
        let files = match &network {
            Some(other) => NetworkFiles::in_directory(&shared.directory(other)),
            None => NetworkFiles::in_directory(&directory),
        };
        let rootfs = shared.storage.rootfs(definition.id.as_str())?;
        let net = match (&network, host_config.network_mode.as_str()) {
            (Some(other), _) => Namespace::Container(other.clone()),
            (None, "host") => Namespace::Host,
            (None, _) => Namespace::Private,
        };
        Ok(Surroundings {
            rootfs,
            files,
            net,
            pid: self.namespace(&host_config.pid_mode, modes::pid)?,
            ipc: self.namespace(&host_config.ipc_mode, modes::ipc)?,
            hostname: self.hostname(definition, network.as_ref()),
            volumes: BTreeMap::new(),
            directory,
            endpoints: Vec::new(),
            links: Vec::new(),
            images: mounted_images(shared, definition)?,
        })
    }

    fn namespace(
        &self,
        mode: &str,
        parse: impl Fn(&str) -> Result<Mode<'_>, crate::errors::ValidationError>,
    ) -> Result<Namespace> {
        let mode = parse(mode)?;
        Ok(match mode {
            Mode::Private | Mode::None => Namespace::Private,
            Mode::Host => Namespace::Host,
            mode @ Mode::Container(_) => match self.join(Some(mode))? {
                Some(other) => Namespace::Container(other),
                None => Namespace::Private,
            },
        })
    }

    /// The container whose namespace is joined; it must run.
    fn join(&self, mode: Option<Mode<'_>>) -> Result<Option<Id>> {
        let Some(Mode::Container(reference)) = mode else { return Ok(None) };
        let joined = self
            .shared
            .registry
            .find(reference)
            .map_err(|error| StartError::JoinNetwork { reason: error.to_string() })?;
        if joined.snapshot().progress.is_alive() {
            return Ok(Some(joined.id.clone()));
        }
        let reference = format!("/{}", joined.snapshot().definition.name);
        Err(StartError::JoinStopped { reference }.into())
    }

    /// The name the container sees: its own, the host's, or that of the container whose network
    /// it shares.
    fn hostname(&self, definition: &Definition, network: Option<&Id>) -> String {
        let other = network.and_then(|id| self.shared.registry.get(id));
        if let Some(other) = other {
            return other.snapshot().definition.config.hostname.clone();
        }
        definition.config.hostname.clone()
    }

    /// A place in each network, that of the network mode first; one of them leads to the world.
    /// All or none.
    fn attach_networks(&self, definition: &Definition) -> Result<Vec<Endpoint>> {
        let mode = definition.host_config.network_mode.as_str();
        if modes::container(mode).is_some() || definition.config.network_disabled {
            return Ok(Vec::new());
        }
        let mut names: Vec<&str> = definition.endpoints.keys().map(String::as_str).collect();
        if names.is_empty() {
            names.push(mode);
        }
        names.sort_by_key(|name| *name != mode);
        let mut endpoints = Vec::with_capacity(names.len());
        for (at, name) in names.into_iter().enumerate() {
            match self.attach_network(definition, name, &format!("eth{at}")) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(error) => {
                    self.detach_networks(endpoints);
                    return Err(error);
                }
            }
        }
        super::connect::choose_gateway(definition, &mut endpoints);
        Ok(endpoints)
    }

    fn attach_and_publish(
        &self,
        definition: &Definition,
        links: &[Linked],
    ) -> Result<(Vec<Endpoint>, Option<OwnedFd>)> {
        let mut endpoints = self.attach_networks(definition)?;
        let linked = self.open_links(&mut endpoints, links);
        match linked.and_then(|()| self.publish_ports(definition, &mut endpoints)) {
            Ok(kept) => Ok((endpoints, kept)),
            Err(error) => {
                self.detach_networks(endpoints);
                Err(error)
            }
        }
    }

    /// Lets it reach what it is linked to.
    fn open_links(&self, endpoints: &mut [Endpoint], links: &[Linked]) -> Result<()> {
        let endpoint = endpoints.iter_mut().find(|endpoint| endpoint.network_name == "bridge");
        let Some(endpoint) = endpoint.filter(|_| !links.is_empty()) else { return Ok(()) };
        self.shared.networks.link(endpoint, links::opened(links)).map_err(|error| {
            let (reason, kind) = (error.to_string(), error.kind());
            StartError::Network { reason, kind }.into()
        })
    }

    pub(super) fn attach_network(
        &self,
        definition: &Definition,
        name: &str,
        interface_name: &str,
    ) -> Result<Endpoint> {
        let settings = definition.endpoints.get(name);
        let ipam = settings.and_then(|settings| settings.ipam_config.clone()).unwrap_or_default();
        let request = EndpointRequest {
            container: &self.container.id,
            interface_name,
            ipv4: ipam.ipv4_address.parse().ok(),
            ipv6: ipam.ipv6_address.parse().ok(),
            mac: parse_mac(settings.map_or("", |settings| settings.mac_address.as_str())),
            names: definition.dns_names(name),
        };
        let attached = self.shared.networks.attach(name, &request);
        attached.map_err(|error| {
            let error = match error.kind() {
                ErrorKind::NotFound => StartError::NetworkNotFound { name: name.to_owned() },
                kind => StartError::Network { reason: error.to_string(), kind },
            };
            error.into()
        })
    }

    /// Publishes what the container asks for, on the endpoint that leads to the world. Without one
    /// there is nothing to publish, and Docker says nothing.
    fn publish_ports(
        &self,
        definition: &Definition,
        endpoints: &mut [Endpoint],
    ) -> Result<Option<OwnedFd>> {
        let Some(endpoint) = super::connect::way_out(endpoints) else { return Ok(None) };
        let published = super::ports::wanted(definition)
            .and_then(|wanted| self.shared.networks.publish(endpoint, &wanted));
        published.map_err(|error| {
            let (name, id) = (definition.name.to_string(), endpoint.endpoint_id.clone());
            let (kind, mut reason) = (error.kind(), error.to_string());
            // After dockerd's words, which programs look for.
            if let NetworkError::PortAllocated { owner: Some(owner), .. } = &error
                && let Some(owner) = self.shared.registry.get(owner)
            {
                let name = owner.snapshot().definition.name.to_string();
                reason.push_str(&format!(" (by container {name})"));
            }
            StartError::Connectivity { name, id, reason, kind }.into()
        })
    }

    /// Gives a supervisor that has no descriptors of the one before it the container's ports to
    /// keep, as far as they can be had.
    pub(super) async fn keep_ports_again(&self) {
        let endpoints = self.state.progress.endpoints.iter();
        let published: Vec<_> = endpoints.flat_map(|endpoint| endpoint.published.clone()).collect();
        match network::ports::reserve_again(&published).into_carrier() {
            Ok(Some(carrier)) => self.keep_ports(carrier).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(container = %self.container.id, %error, "keep the ports"),
        }
    }

    async fn keep_ports(&self, kept: OwnedFd) {
        let request = Request::Keep { id: self.container.id.clone() };
        if let Err(error) = self.shared.supervisor().request(request, vec![kept]).await {
            tracing::warn!(container = %self.container.id, %error, "keep the ports");
        }
    }

    /// Answers the container's queries for names from now on.
    pub(super) fn serve_names(&mut self, sockets: Sockets) {
        self.resolver = resolver::serve(&self.shared, &self.container, sockets)
            .inspect_err(|error| {
                tracing::warn!(container = %self.container.id, %error, "serve names");
            })
            .ok();
    }

    /// Goes on answering for a container that runs: a new supervisor gets our sockets to keep, a
    /// new daemon has those that the supervisor kept. If neither has any, both were killed.
    pub(super) async fn serve_names_again(&mut self) {
        if let Some(resolver) = &self.resolver {
            let kept = match resolver.sockets() {
                Ok(sockets) => self.keep_resolver(sockets).await,
                Err(error) => Err(Error::io("duplicate sockets")(error)),
            };
            if let Err(error) = kept {
                tracing::warn!(container = %self.container.id, %error, "keep the resolver");
            }
            return;
        }
        if !needs_resolver(&self.state.progress.endpoints) {
            return;
        }
        let request = Request::Resolver { id: self.container.id.clone() };
        match self.shared.supervisor().request(request, Vec::new()).await {
            Ok((_done, kept)) => {
                if let Some(sockets) = Sockets::from_descriptors(kept) {
                    self.serve_names(sockets);
                }
            }
            Err(SupervisorError::Failed(Failure::NotFound)) => {
                if let Err(error) = self.open_resolver().await {
                    tracing::warn!(container = %self.container.id, %error, "open a resolver");
                }
            }
            Err(error) => {
                tracing::warn!(container = %self.container.id, %error, "ask for a resolver");
            }
        }
    }

    /// Makes the resolver of a container that runs.
    pub(super) async fn open_resolver(&mut self) -> Result<()> {
        let netns = self.network_namespace()?;
        let open = move || runtime::resolver::open(netns.as_fd());
        let sockets = super::run_blocking(move || {
            let sockets = open().map_err(StartError::from_failure)?;
            let copies = sockets.try_clone().map_err(Error::io("duplicate sockets"))?;
            Ok((sockets, copies))
        });
        let (sockets, copies) = sockets.await?;
        self.keep_resolver(copies).await?;
        self.serve_names(sockets);
        Ok(())
    }

    async fn keep_resolver(&self, sockets: Sockets) -> Result<()> {
        let request = Request::KeepResolver { id: self.container.id.clone() };
        self.shared.supervisor().request(request, sockets.into_descriptors().into()).await?;
        Ok(())
    }

    pub(super) fn detach_networks(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        for endpoint in endpoints {
            let network = endpoint.network_id.as_str();
            if let Err(error) = self.shared.networks.detach(network, &self.container.id) {
                tracing::warn!(container = %self.container.id, %error, "leave the network");
            }
        }
    }

    pub(super) fn emit_network(&self, action: &str, endpoint: &Endpoint) {
        let attributes = [
            ("container", self.container.id.as_str()),
            ("name", &endpoint.network_name),
            ("type", endpoint.driver()),
        ];
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let id = endpoint.network_id.as_str();
        self.shared.events.emit("network", action, id, attributes.collect());
    }
}

/// Whether names are asked of us: in users' networks containers have some.
pub(super) fn needs_resolver(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().any(|endpoint| !modes::is_predefined(&endpoint.network_name))
}

/// What the supervisor is told of the endpoints, for a daemon that comes after.
pub(super) fn note_endpoints(endpoints: &[Endpoint]) -> String {
    serde_json::to_string(endpoints).unwrap_or_default()
}

/// The endpoints that the supervisor was told of last.
pub(super) fn noted_endpoints(running: &runtime::protocol::Running) -> Option<Vec<Endpoint>> {
    serde_json::from_str(&running.network).ok()
}

/// `02:42:ac:11:00:02`
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Makes `/.dockerenv`, by which programs know that they run in a container. The writable layer
/// has seen no process yet.
fn mark_root(upper: &Path) -> Result<()> {
    let path = upper.join(".dockerenv");
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(_file) => Ok(()),
        // A start that failed left it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io(format!("create {}", path.display()))(error)),
    }
}

/// Writes the three files, unless they are another container's.
fn write_network_files(
    shared: &super::Shared,
    definition: &Definition,
    around: &Surroundings,
) -> Result<()> {
    if matches!(around.net, Namespace::Container(_)) {
        return Ok(());
    }
    let host = around.net == Namespace::Host;
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
    };
    write(&around.files.hostname, network::files::hostname(&around.hostname))?;
    write(&around.files.hosts, hosts(shared, definition, around, host))?;
    let ipv6 = around.endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
    let reach = match host {
        true => Reach::Host,
        false if needs_resolver(&around.endpoints) => Reach::Resolver,
        false => Reach::Network { ipv6 },
    };
    write(&around.files.resolv_conf, resolv_conf(shared, definition, reach))
}

fn hosts(
    shared: &super::Shared,
    definition: &Definition,
    around: &Surroundings,
    host: bool,
) -> String {
    let config = shared.config();
    let entries = definition.host_config.extra_hosts.iter().flatten();
    let extra: Vec<ExtraHost> = entries
        .filter_map(|entry| super::validate::split_extra_host(entry))
        .map(|(name, address)| ExtraHost { name: name.to_owned(), address: address.to_owned() })
        .collect();
    let gateways = if config.dns.host_gateway.is_empty() {
        shared.networks.host_gateways()
    } else {
        config.dns.host_gateway.clone()
    };
    let mut extra = network::files::resolve_extra_hosts(&extra, &gateways);
    extra.extend(around.links.iter().flat_map(Linked::hosts));
    if host {
        let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.extend(extra.iter().map(|host| format!("{}\t{}\n", host.address, host.name)));
        return text;
    }
    let own: Vec<IpAddr> = around.endpoints.iter().flat_map(Endpoint::ips).collect();
    network::files::hosts(&extra, &own, &around.hostname, &definition.config.domainname)
}

/// The container's `resolv.conf`.
pub(super) fn resolv_conf(shared: &super::Shared, definition: &Definition, reach: Reach) -> String {
    let (path, host) = host_resolv_conf();
    let settings = dns_settings(&definition.host_config, &shared.config().dns);
    host.for_container(path, &settings, reach)
}

/// Whom the container's resolver asks for names that it does not know. The host's may change
/// while the container runs.
pub(crate) fn external_servers(
    shared: &super::Shared,
    definition: &Definition,
) -> Vec<ExternalServer> {
    let settings = dns_settings(&definition.host_config, &shared.config().dns);
    host_resolv_conf().1.external(&settings)
}

fn host_resolv_conf() -> (&'static str, ResolvConf) {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let path = network::files::resolv_conf_path(&text);
    let text = std::fs::read_to_string(path).unwrap_or(text);
    (path, ResolvConf::parse(&text))
}

/// The container's settings, each in place of the daemon's.
fn dns_settings(
    host_config: &api_types::host_config::HostConfig,
    daemon: &crate::DnsConfig,
) -> DnsSettings {
    fn full<T>(list: Vec<T>) -> Option<Vec<T>> {
        Some(list).filter(|list| !list.is_empty())
    }
    let own = |list: &Option<Vec<String>>| full(list.clone().unwrap_or_default());
    let servers: Vec<IpAddr> =
        host_config.dns.iter().flatten().filter_map(|text| text.parse().ok()).collect();
    DnsSettings {
        servers: full(servers).or_else(|| full(daemon.servers.clone())),
        search: own(&host_config.dns_search).or_else(|| full(daemon.search.clone())),
        options: own(&host_config.dns_options).or_else(|| full(daemon.options.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_parse() {
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for bad in ["", "02:42", "02:42:ac:11:00:02:03", "xx:42:ac:11:00:02", "2:42:ac:11:00:02"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
