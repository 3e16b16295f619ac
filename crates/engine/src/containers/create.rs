//! Creating: the request is merged with its image, defaulted, checked, and written down.
//!
//! Order: everything that can be refused is refused; then the directories are made; then one
//! synced commit makes the container exist (its record and the hold on its image together). A
//! crash before the commit leaves directories without a record, swept at the next start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api_types::container::{Config, CreateRequest, CreateResponse};
use api_types::host_config::HostConfig;
use api_types::network::EndpointSettings;
use spec::{ContainerName, Digest, Id};

use super::links::{self, Link};
use super::merge;
use super::mounts::{self, Mount, Source};
use super::record::{DEFINITIONS, Definition, now_nanos};
use super::registry::Reservation;
use super::validate::{self, modes};
use super::{Containers, Shared};
use crate::EngineConfig;
use crate::errors::{ContainerError, Error, Result, ValidationError};
use crate::volumes::Holds;

/// `/proc` and `/sys` files that tell or change things of the host.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Containers {
    pub async fn create(
        &self,
        name: Option<String>,
        request: CreateRequest,
        platform: Option<String>,
    ) -> Result<CreateResponse> {
        let shared = &self.shared;
        let CreateRequest { mut config, host_config, networking_config } = request;
        if config == Config::default() && host_config == HostConfig::default() {
            return Err(ValidationError::EmptyConfig.into());
        }
        let image = shared.images.resolve_for_run(&config.image, platform.as_deref()).await?;
        if let Some(run) = &image.config.config {
            merge::merge_image(&mut config, run);
        }
        let id = Id::from_random(sys::random::bytes());
        let asked = networking_config.endpoints_config.unwrap_or_default();
        let Draft { config, host_config, endpoints, mut mounts, links, warnings } =
            draft(shared, &id, config, host_config, asked)?;
        resolve_images(shared, &mut mounts).await?;
        let reservation = take_name(shared, name.as_deref(), &id)?;
        let holds = hold_volumes(shared, &mut mounts).await?;
        let definition = Definition {
            id: id.clone(),
            name: reservation.name.clone(),
            created_nanos: now_nanos(),
            image_id: image.id,
            platform: "linux".to_owned(),
            config,
            host_config,
            endpoints,
            mounts,
            links,
        };
        self.make(definition, image.chain, reservation, holds).await?;
        Ok(CreateResponse { id: id.to_string(), warnings })
    }

    async fn make(
        &self,
        definition: Definition,
        chain: Option<Digest>,
        reservation: Reservation<'_>,
        holds: Holds,
    ) -> Result<()> {
        let shared = &self.shared;
        let id = definition.id.clone();
        let mounted: Vec<_> = definition.mounts.iter().filter_map(Mount::chain).collect();
        let image = definition.image_id.parse().expect("the id of an image is a digest");
        let _claim = shared.storage.claim_container(id.as_str());
        let mut lease = shared.storage.lease();
        chain.iter().chain(&mounted).for_each(|chain| lease.add(*chain));
        let made = make_directories(shared, &definition, chain.as_ref());
        let holds = Arc::new(holds);
        let made = made.map_err(|error| name_lost(error, &definition.config.image));
        let made = match made {
            Ok(()) => fill_volumes(shared, &id, &definition.mounts, chain, &holds).await,
            failed => failed,
        };
        let written = match made {
            Ok(()) => {
                let record = definition.clone();
                let volumes = holds.pending();
                let written = shared.write(move |txn| {
                    image::require_image(txn, &image)?;
                    storage::add_container(txn, record.id.as_str(), chain.as_ref(), &mounted)?;
                    volumes.put(txn)?;
                    DEFINITIONS.put(txn, record.id.as_str(), &record)?;
                    Ok::<(), image::ImageError>(())
                });
                written.await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            unmake_directories(shared, &definition);
            return Err(error);
        }
        reservation.keep();
        holds.settle();
        let container = self.adopt(definition, Default::default());
        container.snapshot().emit(&shared.events, "create", []);
        tracing::debug!(container = %id, "created");
        Ok(())
    }
}

/// What a request amounts to, before anything is made.
#[derive(Debug)]
pub(super) struct Draft {
    pub config: Config,
    pub host_config: HostConfig,
    pub endpoints: BTreeMap<String, EndpointSettings>,
    pub mounts: Vec<Mount>,
    pub links: Vec<Link>,
    pub warnings: Vec<String>,
}

/// Defaults and checks everything. `config` is merged with its image.
pub(super) fn draft(
    shared: &Shared,
    id: &Id,
    mut config: Config,
    mut host_config: HostConfig,
    asked: BTreeMap<String, EndpointSettings>,
) -> Result<Draft> {
    let daemon = shared.config();
    let mut warnings = prepare(&mut config, &mut host_config, &daemon, id);
    let known = |name: &str| crate::system::is_runtime(name, &daemon);
    let context = validate::Context { sysinfo: &shared.sysinfo, runtimes: &known };
    warnings.extend(validate::check(&config, &host_config, &context)?);
    refer(shared, &host_config)?;
    let endpoints = endpoints_of(shared, &mut config, &mut host_config, asked, &mut warnings)?;
    let links = links::take(shared, &mut host_config, &mut warnings)?;
    let inherited = inherited_mounts(shared, &host_config)?;
    let mounts = mounts::plan(&host_config, config.volumes.as_ref(), inherited)?;
    check_sources(&mounts)?;
    Ok(Draft { config, host_config, endpoints, mounts, links, warnings })
}

/// Fills in the defaults that inspect shows, in place.
fn prepare(
    config: &mut Config,
    host_config: &mut HostConfig,
    daemon: &EngineConfig,
    id: &Id,
) -> Vec<String> {
    if config.hostname.is_empty()
        && host_config.uts_mode != "host"
        && modes::container(&host_config.network_mode).is_none()
    {
        config.hostname =
            if host_config.network_mode == "host" { host_name() } else { id.short().to_owned() };
    }
    // What is empty is left out of answers.
    host_config.tmpfs.take_if(|tmpfs| tmpfs.is_empty());
    if config.working_dir.starts_with('/') {
        config.working_dir = mounts::clean(&config.working_dir);
    }
    default(&mut host_config.network_mode, "bridge");
    if host_config.network_mode == "default" {
        "bridge".clone_into(&mut host_config.network_mode);
    }
    default(&mut host_config.restart_policy.name, "no");
    default(&mut host_config.ipc_mode, &daemon.default_ipc_mode);
    let cgroupns =
        if host_config.privileged { "host" } else { daemon.default_cgroupns_mode.as_str() };
    default(&mut host_config.cgroupns_mode, cgroupns);
    default(&mut host_config.runtime, &daemon.default_runtime);
    if host_config.shm_size == 0 {
        host_config.shm_size = daemon.default_shm_size;
    }
    default_log(host_config, daemon);
    let resources = &mut host_config.resources;
    resources.oom_kill_disable.get_or_insert(false);
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    resources.pids_limit = resources.pids_limit.filter(|limit| *limit > 0);
    // Removed from the kernel, accepted from old clients.
    resources.kernel_memory = 0;
    drop_empty(host_config);
    // Docker's note that SELinux has no say; there is none here, but it is shown.
    if host_config.privileged || host_config.pid_mode == "host" || host_config.ipc_mode == "host" {
        host_config.security_opt.get_or_insert_default().push("label=disable".to_owned());
    }
    if !host_config.privileged {
        let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        host_config.masked_paths.get_or_insert_with(|| list(&MASKED));
        host_config.readonly_paths.get_or_insert_with(|| list(&READONLY));
    }
    Vec::new()
}

fn default(text: &mut String, value: &str) {
    if text.is_empty() {
        value.clone_into(text);
    }
}

/// The daemon's options go with the daemon's driver.
fn default_log(host_config: &mut HostConfig, daemon: &EngineConfig) {
    let log = &mut host_config.log_config;
    default(&mut log.kind, &daemon.log.driver);
    if log.kind == daemon.log.driver {
        for (key, value) in &daemon.log.options {
            log.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Empty maps that Docker leaves out of its answer.
fn drop_empty(host_config: &mut HostConfig) {
    for map in [
        &mut host_config.storage_opt,
        &mut host_config.tmpfs,
        &mut host_config.sysctls,
        &mut host_config.annotations,
    ] {
        if map.as_ref().is_some_and(BTreeMap::is_empty) {
            *map = None;
        }
    }
    if host_config.links.as_ref().is_some_and(Vec::is_empty) {
        host_config.links = None;
    }
    if host_config.mounts.as_ref().is_some_and(Vec::is_empty) {
        host_config.mounts = None;
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The containers whose namespaces are to be joined must be there. That of the network is looked
/// up at the start, as in Docker.
fn refer(shared: &Shared, host_config: &HostConfig) -> Result<()> {
    for reference in modes::referenced(host_config) {
        shared.registry.find(reference).map_err(|_missing| modes::missing(reference))?;
    }
    Ok(())
}

/// The networks to join by name: what the request configures, else the network mode. Docker finds
/// a missing network at the start; so do we.
fn endpoints_of(
    shared: &Shared,
    config: &mut Config,
    host_config: &mut HostConfig,
    asked: BTreeMap<String, EndpointSettings>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    if config.network_disabled || modes::container(&host_config.network_mode).is_some() {
        return Ok(BTreeMap::new());
    }
    // By the name, whatever it was called; "default" is the bridge.
    let name_of = |network: String| match network.as_str() {
        "bridge" | "default" => "bridge".to_owned(),
        other => {
            shared.networks.inspect(other).map_or_else(|_missing| network.clone(), |info| info.name)
        }
    };
    let mode = name_of(host_config.network_mode.clone());
    let mut endpoints: BTreeMap<_, _> =
        asked.into_iter().map(|(network, settings)| (name_of(network), settings)).collect();
    if endpoints.is_empty() || !modes::is_predefined(&mode) {
        endpoints.entry(mode.clone()).or_default();
    }
    if endpoints.len() > 1
        && let Some(only) = endpoints.keys().find(|name| matches!(name.as_str(), "host" | "none"))
    {
        return Err(ValidationError::OnlyNetwork { network: only.clone() }.into());
    }
    let first = mode;
    if !modes::is_predefined(&first)
        && let (Some(links), Some(endpoint)) = (host_config.links.take(), endpoints.get_mut(&first))
    {
        // Docker's own clients say it in both places.
        let own = endpoint.links.get_or_insert_default();
        if own.is_empty() {
            *own = links;
        }
    }
    for (network, settings) in &mut endpoints {
        if !config.mac_address.is_empty() && settings.mac_address.is_empty() && *network == first {
            settings.mac_address.clone_from(&config.mac_address);
            warnings.push(
                "The container-wide MacAddress field is now deprecated. It should be specified \
                 in EndpointsConfig instead."
                    .to_owned(),
            );
        }
        check_endpoint(shared, network, settings)?;
        if config.mac_address.is_empty() && *network == first {
            config.mac_address.clone_from(&settings.mac_address);
        }
        if network != &host_config.network_mode && host_config.network_mode == "bridge" {
            host_config.network_mode.clone_from(network);
        }
    }
    Ok(endpoints)
}

pub(super) fn check_endpoint(
    shared: &Shared,
    network: &str,
    settings: &EndpointSettings,
) -> Result<()> {
    for link in settings.links.iter().flatten() {
        links::parse(link)?;
    }
    check_settings(network, settings, |ip| shared.networks.check_address(network, ip))
}

fn check_settings(
    network: &str,
    settings: &EndpointSettings,
    check_address: impl Fn(IpAddr) -> Result<(), network::NetworkError>,
) -> Result<()> {
    let invalid =
        |reason: String| ValidationError::Endpoint { network: network.to_owned(), reason };
    let mac = &settings.mac_address;
    if !mac.is_empty() && super::start::parse_mac(mac).is_none() {
        return Err(invalid(format!("invalid MAC address {mac}")).into());
    }
    let mut reasons = Vec::new();
    if let Some(ipam) = &settings.ipam_config {
        for (address, what) in [(&ipam.ipv4_address, "IPv4"), (&ipam.ipv6_address, "IPv6")] {
            if address.is_empty() {
                continue;
            }
            if modes::is_predefined(network) {
                reasons.push(
                    "user specified IP address is supported on user defined networks only"
                        .to_owned(),
                );
            }
            match address.parse::<IpAddr>() {
                Err(_bad) => reasons.push(format!("invalid {what} address: {address}")),
                Ok(ip) if !modes::is_predefined(network) => {
                    reasons.extend(check_address(ip).err().map(|error| error.to_string()));
                }
                Ok(_) => {}
            }
        }
    }
    if modes::is_predefined(network)
        && settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty())
    {
        reasons.push(
            "network-scoped alias is supported only for containers in user defined networks"
                .to_owned(),
        );
    }
    match reasons.len() {
        0 => Ok(()),
        1 => Err(invalid(format!("invalid endpoint settings:\n{}", reasons[0])).into()),
        _ => {
            let list: Vec<_> = reasons.iter().map(|reason| format!("* {reason}")).collect();
            Err(invalid(format!("invalid endpoint settings:\n{}", list.join("\n"))).into())
        }
    }
}

/// `VolumesFrom`: `container`, `container:ro`.
fn inherited_mounts(shared: &Shared, host_config: &HostConfig) -> Result<Vec<Mount>> {
    let mut inherited: Vec<Mount> = Vec::new();
    for entry in host_config.volumes_from.iter().flatten() {
        if entry.is_empty() {
            return Err(ValidationError::VolumesFrom.into());
        }
        let (reference, mode) = entry.split_once(':').unwrap_or((entry, ""));
        let readonly = match mode {
            "" => None,
            "ro" => Some(true),
            "rw" | "z" | "Z" => Some(false),
            _ => return Err(ValidationError::BindMode { mode: mode.to_owned() }.into()),
        };
        let other =
            shared.registry.find(reference).map_err(|_missing| modes::missing(reference))?;
        for mount in &other.snapshot().definition.mounts {
            if matches!(mount.source, Source::Tmpfs { .. }) {
                continue;
            }
            inherited.retain(|before| before.target != mount.target);
            let readonly = readonly.unwrap_or(mount.readonly) || mount.readonly;
            let mut mount = Mount { readonly, mode: String::new(), ..mount.clone() };
            // It was filled for the container that it comes from, or was not to be.
            if let Source::Volume { copy, .. } = &mut mount.source {
                *copy = false;
            }
            inherited.push(mount);
        }
    }
    Ok(inherited)
}

/// A `--mount` of a path that is not there is refused at once.
fn check_sources(mounts: &[Mount]) -> Result<()> {
    use crate::errors::MountReason;
    for mount in mounts {
        if let Source::Bind { path, create: false, .. } = &mount.source
            && std::fs::symlink_metadata(path).is_err()
        {
            let reason = MountReason::SourceMissing { path: path.clone() };
            return Err(ValidationError::Mount { kind: "bind".to_owned(), reason }.into());
        }
    }
    Ok(())
}

/// The name that was asked for, or one that is free.
fn take_name<'a>(shared: &'a Shared, name: Option<&str>, id: &Id) -> Result<Reservation<'a>> {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        let parsed = ContainerName::parse(name)
            .map_err(|error| ContainerError::InvalidName { name: error.name })?;
        return shared.registry.reserve(parsed, id);
    }
    for attempt in 0..16 {
        let random = u32::from_ne_bytes(sys::random::bytes());
        let name = crate::names::make(random, attempt);
        let parsed = ContainerName::parse(&name).expect("made of letters and an underscore");
        if let Ok(reservation) = shared.registry.reserve(parsed, id) {
            return Ok(reservation);
        }
    }
    let parsed = ContainerName::parse(id.short()).expect("twelve hexadecimal digits");
    shared.registry.reserve(parsed, id)
}

/// Looks up the images to mount. One that was inherited stays what it is.
async fn resolve_images(shared: &Shared, mounts: &mut [Mount]) -> Result<()> {
    for mount in mounts {
        if let Source::Image { name, image, chain, .. } = &mut mount.source
            && image.is_empty()
        {
            let found = shared.images.resolve_for_run(name, None).await?;
            (*image, *chain) = (found.id, found.chain);
        }
    }
    Ok(())
}

/// Names the anonymous volumes, and keeps all of them until the container is there to do so.
pub(super) async fn hold_volumes(shared: &Shared, mounts: &mut Vec<Mount>) -> Result<Holds> {
    let mut holds = Holds::new(&shared.volumes);
    if !mounts.iter().any(|mount| mount.volume().is_some()) {
        return Ok(holds);
    }
    let mut held = std::mem::take(mounts);
    // Plugins may have to be asked.
    let (holds, held) = super::run_blocking(move || {
        for mount in &mut held {
            let Source::Volume { name, driver, wanted, .. } = &mut mount.source else { continue };
            let volume = holds.add(name, wanted)?;
            (*name, *driver) = (volume.name, volume.driver);
            // The default label is the directory's of the driver `local`.
            if !driver.is_empty() && mount.mode == "z" {
                mount.mode.clear();
            }
        }
        Ok((holds, held))
    })
    .await?;
    *mounts = held;
    Ok(holds)
}

/// Makes the directories of new volumes, and fills those that are empty with what the image has
/// in their place.
pub(super) async fn fill_volumes(
    shared: &Arc<Shared>,
    id: &Id,
    mounts: &[Mount],
    chain: Option<Digest>,
    holds: &Arc<Holds>,
) -> Result<()> {
    let wanted = mounts.iter().filter_map(|mount| match &mount.source {
        Source::Volume { name, copy, .. } => Some((name.clone(), mount.target.clone(), *copy)),
        _ => None,
    });
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (id, storage, holds) = (id.clone(), shared.storage.clone(), Arc::clone(holds));
    super::run_blocking(move || {
        holds.prepare()?;
        if !wanted.iter().any(|(_, _, copy)| *copy) {
            return Ok(());
        }
        let image = storage.prepared_root(id.as_str(), chain.as_ref())?;
        let mut filled = wanted.iter().filter(|(_, _, copy)| *copy);
        filled.try_for_each(|(name, target, _)| holds.fill(name, &image, target))
    })
    .await
}

/// The writable layer, and the directory of the network files and the log.
fn make_directories(
    shared: &Shared,
    definition: &Definition,
    chain: Option<&Digest>,
) -> Result<()> {
    super::make_directory(&shared.directory(&definition.id), super::DIRECTORY_MODE)?;
    Ok(shared.storage.prepare_container(definition.id.as_str(), chain)?)
}

/// Says which image a layer is missing from.
fn name_lost(error: Error, image: &str) -> Error {
    match error {
        Error::Storage(storage::StorageError::Lost { chain }) => {
            ContainerError::LayerLost { image: image.to_owned(), layer: chain.to_string() }.into()
        }
        other => other,
    }
}

/// After a failure, as far as it goes; the next start sweeps the rest.
fn unmake_directories(shared: &Shared, definition: &Definition) {
    let directory = shared.directory(&definition.id);
    if let Err(error) = std::fs::remove_dir_all(&directory) {
        tracing::debug!(%error, "remove {}", directory.display());
    }
    if let Err(error) = shared.storage.discard_container(definition.id.as_str(), &[]) {
        tracing::debug!(%error, "discard the layer of a container that was not made");
    }
}

/// What create needs to know of an image.
#[derive(Debug, Clone)]
pub(crate) struct RunImage {
    pub id: String,
    /// Its top layer; none for an image without layers.
    pub chain: Option<Digest>,
    pub config: Arc<spec::oci::ImageConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(change: impl FnOnce(&mut HostConfig)) -> HostConfig {
        let mut host_config = HostConfig::default();
        change(&mut host_config);
        let daemon = EngineConfig::new("/d".into(), "/r".into(), "/b".into());
        let id = Id::from_random([7; 32]);
        prepare(&mut Config::default(), &mut host_config, &daemon, &id);
        host_config
    }

    #[test]
    fn defaults_are_dockers() {
        let host_config = prepared(|_| {});
        assert_eq!(host_config.network_mode, "bridge");
        assert_eq!(host_config.ipc_mode, "private");
        assert_eq!(host_config.cgroupns_mode, "private");
        assert_eq!(host_config.restart_policy.name, "no");
        assert_eq!(host_config.log_config.kind, "json-file");
        assert_eq!(host_config.shm_size, 64 << 20);
        assert_eq!(host_config.resources.oom_kill_disable, Some(false));
        assert_eq!(host_config.masked_paths.unwrap().len(), 12);
        let privileged = prepared(|config| config.privileged = true);
        assert_eq!((privileged.masked_paths, privileged.readonly_paths), (None, None));
        let unmasked = prepared(|config| config.masked_paths = Some(Vec::new()));
        assert_eq!(unmasked.masked_paths, Some(Vec::new()));
    }

    #[test]
    fn memory_brings_as_much_swap() {
        let memory = |memory, memory_swap| {
            let resources = prepared(|config| {
                config.resources.memory = memory;
                config.resources.memory_swap = memory_swap;
                config.resources.pids_limit = Some(-1);
            })
            .resources;
            (resources.memory_swap, resources.pids_limit)
        };
        assert_eq!(memory(20 << 20, 0), (40 << 20, None));
        assert_eq!(memory(20 << 20, -1), (-1, None));
        assert_eq!(memory(0, 0), (0, None));
    }

    #[test]
    fn endpoints_on_the_default_bridge_take_no_address() {
        let settings = |json| serde_json::from_str::<EndpointSettings>(json).unwrap();
        let check = |json, text| {
            let error = check_settings("bridge", &settings(json), |_ip| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), text);
        };
        check(
            r#"{"Aliases":["x"]}"#,
            "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped alias \
             is supported only for containers in user defined networks",
        );
        check(
            r#"{"IPAMConfig":{"IPv4Address":"x"}}"#,
            "invalid config for network bridge: invalid endpoint settings:\n* user specified IP \
             address is supported on user defined networks only\n* invalid IPv4 address: x",
        );
        check(
            r#"{"MacAddress":"xx"}"#,
            "invalid config for network bridge: invalid MAC address xx",
        );
    }
}
