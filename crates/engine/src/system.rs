//! What the daemon says about itself and the machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use api_types::system::{
    Commit, Component, IndexInfo, Info, Platform, Plugins, RegistryConfig, Runtime, Swarm, Version,
};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use spec::Filters;
use spec::time::rfc3339_nano;

use crate::EngineConfig;
use crate::containers::registry::Registry;
use crate::containers::{Containers, ListOptions};
use crate::errors::{Error, Result};
use crate::events::Events;
use crate::images::{Images, ListOptions as ImageListOptions};
use crate::sysinfo::SysInfo;
use crate::volumes::Volumes;

/// The name of our own runtime in `--runtime` and `/info`. `runc` is accepted for it as well:
/// clients ask for it by that name.
pub const DEFAULT_RUNTIME: &str = "runc";
const OWN_RUNTIMES: [&str; 3] = ["runc", "io.containerd.runc.v2", "boxship"];
/// What clients are told; tools look for this name.
pub const STORAGE_DRIVER: &str = "overlay2";
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// `GET /system/df` (API below 1.52).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    pub layers_size: i64,
    pub images: Vec<api_types::image::Summary>,
    pub containers: Vec<api_types::container::Summary>,
    pub volumes: Vec<api_types::volume::Volume>,
    pub build_cache: Vec<serde_json::Value>,
}

#[derive(Debug)]
pub struct System {
    config: Arc<ArcSwap<EngineConfig>>,
    sysinfo: Arc<SysInfo>,
    registry: Arc<Registry>,
    pub(crate) images: Arc<Images>,
    pub(crate) containers: Arc<Containers>,
    events: Arc<Events>,
    networks: Arc<network::Networks>,
    pub(crate) volumes: Arc<Volumes>,
    storage: storage::Storage,
    /// Held while the store is being checked.
    pub(crate) checking: Arc<Mutex<()>>,
    /// Stable across restarts.
    id: String,
    machine: Machine,
    network_warnings: Mutex<Option<(Instant, Vec<String>)>>,
}

/// The kernel is asked about firewalls at most so often.
const WARNINGS_LAST: Duration = Duration::from_secs(1);

/// What does not change while we run.
#[derive(Debug)]
struct Machine {
    kernel: String,
    name: String,
    architecture: String,
    operating_system: String,
    os_version: String,
}

/// Everything [`System::new`] puts together.
#[derive(Debug)]
pub(crate) struct Parts {
    pub config: Arc<ArcSwap<EngineConfig>>,
    pub sysinfo: Arc<SysInfo>,
    pub registry: Arc<Registry>,
    pub images: Arc<Images>,
    pub containers: Arc<Containers>,
    pub events: Arc<Events>,
    pub networks: Arc<network::Networks>,
    pub volumes: Arc<Volumes>,
    pub storage: storage::Storage,
    pub id: String,
}

impl System {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            config: parts.config,
            sysinfo: parts.sysinfo,
            registry: parts.registry,
            images: parts.images,
            containers: parts.containers,
            events: parts.events,
            networks: parts.networks,
            volumes: parts.volumes,
            storage: parts.storage,
            checking: Arc::default(),
            id: parts.id,
            machine: Machine::look(),
            network_warnings: Mutex::default(),
        }
    }

    pub fn version(&self) -> Version {
        let config = self.config.load();
        let versions = &config.versions;
        let engine = Component {
            name: "Engine".to_owned(),
            version: versions.product.clone(),
            details: BTreeMap::from(
                [
                    ("ApiVersion", versions.api.as_str()),
                    ("Arch", go_architecture()),
                    ("BuildTime", &versions.build_time),
                    ("Experimental", if config.experimental { "true" } else { "false" }),
                    ("GitCommit", &versions.git_commit),
                    ("GoVersion", ""),
                    ("KernelVersion", &self.machine.kernel),
                    ("MinAPIVersion", &versions.minimum_api),
                    ("Os", "linux"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            ),
        };
        Version {
            platform: Platform { name: "Boxship".to_owned() },
            components: vec![engine],
            version: versions.product.clone(),
            api_version: versions.api.clone(),
            min_api_version: versions.minimum_api.clone(),
            git_commit: versions.git_commit.clone(),
            go_version: String::new(),
            os: "linux".to_owned(),
            arch: go_architecture().to_owned(),
            kernel_version: self.machine.kernel.clone(),
            experimental: config.experimental,
            build_time: versions.build_time.clone(),
        }
    }

    /// Counts containers in memory; asks the kernel and nobody else.
    pub fn info(&self) -> Info {
        let config = self.config.load();
        let (running, paused, stopped) = self.count_containers();
        let sys = &self.sysinfo;
        Info {
            id: self.id.clone(),
            containers: running + paused + stopped,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images: self.images.count() as i64,
            driver: STORAGE_DRIVER.to_owned(),
            driver_status: driver_status(self.storage.layout()),
            plugins: self.plugins(),
            memory_limit: sys.memory_limit,
            swap_limit: sys.swap_limit,
            cpu_cfs_period: sys.cpu_cfs,
            cpu_cfs_quota: sys.cpu_cfs,
            cpu_shares: sys.cpu_shares,
            cpu_set: sys.cpuset,
            pids_limit: sys.pids_limit,
            ipv4_forwarding: forwards(),
            debug: config.debug,
            n_fd: count_entries("/proc/self/fd"),
            oom_kill_disable: sys.oom_kill_disable,
            n_goroutines: count_entries("/proc/self/task"),
            system_time: rfc3339_nano(SystemTime::now()),
            logging_driver: config.log.driver.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if sys.cgroup_v2 { "2" } else { "1" }.to_owned(),
            n_events_listener: self.events.listeners() as i64,
            kernel_version: self.machine.kernel.clone(),
            operating_system: self.machine.operating_system.clone(),
            os_version: self.machine.os_version.clone(),
            os_type: "linux".to_owned(),
            architecture: self.machine.architecture.clone(),
            index_server_address: INDEX_SERVER.to_owned(),
            registry_config: registry_config(&config),
            n_cpu: sys.ncpu as i64,
            mem_total: i64::try_from(total_memory()).unwrap_or(i64::MAX),
            docker_root_dir: config.data_root.display().to_string(),
            name: self.machine.name.clone(),
            labels: config.labels.clone(),
            experimental_build: config.experimental,
            server_version: config.versions.product.clone(),
            runtimes: runtimes(&config),
            default_runtime: config.default_runtime.clone(),
            swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
            live_restore_enabled: config.live_restore,
            init_binary: "docker-init".to_owned(),
            init_commit: Commit::default(),
            security_options: security_options(&config, sys),
            cdi_spec_dirs: Vec::new(),
            warnings: self.warnings(&config),
            ..Info::default()
        }
    }

    fn count_containers(&self) -> (i64, i64, i64) {
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for container in self.registry.all() {
            let snapshot = container.snapshot();
            match () {
                () if snapshot.progress.paused => paused += 1,
                () if snapshot.progress.is_running() => running += 1,
                () => stopped += 1,
            }
        }
        (running, paused, stopped)
    }

    fn warnings(&self, config: &EngineConfig) -> Option<Vec<String>> {
        let mut warnings = config.warnings.clone();
        warnings.extend(self.sysinfo.warnings().into_iter().map(|text| format!("WARNING: {text}")));
        warnings.extend(self.network_warnings());
        if config.seccomp_profile != crate::SeccompDefault::Builtin {
            let text = "WARNING: daemon is not using the default seccomp profile";
            warnings.push(text.to_owned());
        }
        (!warnings.is_empty()).then_some(warnings)
    }

    fn network_warnings(&self) -> Vec<String> {
        let mut known = self.network_warnings.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((when, warnings)) if when.elapsed() < WARNINGS_LAST => warnings.clone(),
            _ => {
                let warnings = self.networks.warnings();
                *known = Some((Instant::now(), warnings.clone()));
                warnings
            }
        }
    }

    fn plugins(&self) -> Plugins {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let local = std::iter::once("local".to_owned());
        Plugins {
            volume: local.chain(self.volumes.drivers()).collect(),
            network: list(&["bridge", "host", "ipvlan", "macvlan", "null"]),
            authorization: None,
            log: list(&["json-file", "local"]),
        }
    }

    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let options = ImageListOptions {
            shared_size: true,
            count_containers: true,
            ..ImageListOptions::default()
        };
        let images = self.images.list(options).await?;
        let options =
            ListOptions { all: true, size: true, limit: None, filters: Filters::default() };
        let containers = self.containers.list(options).await?;
        let storage = self.storage.clone();
        let layers = crate::containers::run_blocking(move || Ok(storage.all_layers()?)).await?;
        let layers_size = layers.iter().map(|layer| layer.size).sum::<u64>();
        Ok(DiskUsage {
            layers_size: i64::try_from(layers_size).unwrap_or(i64::MAX),
            images,
            containers,
            volumes: self.volumes.usage().await?,
            build_cache: Vec::new(),
        })
    }

    /// `POST /auth`.
    pub async fn auth(&self, registry: &str) -> Result<()> {
        let registry = if registry.is_empty() { INDEX_SERVER } else { registry };
        Err(Error::unsupported(format!("logging in to the registry {registry}")))
    }
}

/// Whether `--runtime` may name it.
pub(crate) fn is_runtime(name: &str, config: &EngineConfig) -> bool {
    OWN_RUNTIMES.contains(&name) || config.runtimes.contains_key(name)
}

fn runtimes(config: &EngineConfig) -> BTreeMap<String, Runtime> {
    let own = OWN_RUNTIMES.iter().map(|name| {
        let path = config.supervisor.display().to_string();
        ((*name).to_owned(), Runtime { path, runtime_args: Vec::new() })
    });
    own.chain(config.runtimes.clone()).collect()
}

fn driver_status(layout: String) -> Vec<[String; 2]> {
    let mut status: Vec<_> = [
        ("Backing Filesystem", "extfs"),
        ("Supports d_type", "true"),
        ("Using metacopy", "false"),
        ("Native Overlay Diff", "true"),
        ("userxattr", "false"),
    ]
    .map(|(key, value)| [key.to_owned(), value.to_owned()])
    .into();
    status.push(["Layers".to_owned(), layout]);
    status
}

fn registry_config(config: &EngineConfig) -> RegistryConfig {
    let hub = IndexInfo {
        mirrors: config.registry_mirrors.clone(),
        name: "docker.io".to_owned(),
        official: true,
        secure: true,
    };
    let mut index_configs = BTreeMap::from([("docker.io".to_owned(), hub)]);
    let mut cidrs = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    for registry in &config.insecure_registries {
        if registry.contains('/') {
            cidrs.push(registry.clone());
            continue;
        }
        let index = IndexInfo { name: registry.clone(), ..IndexInfo::default() };
        index_configs.insert(registry.clone(), index);
    }
    RegistryConfig {
        insecure_registry_cidrs: cidrs,
        index_configs,
        mirrors: (!config.registry_mirrors.is_empty()).then(|| config.registry_mirrors.clone()),
    }
}

fn security_options(config: &EngineConfig, sys: &SysInfo) -> Vec<String> {
    let seccomp = match &config.seccomp_profile {
        crate::SeccompDefault::Builtin => "builtin",
        crate::SeccompDefault::Unconfined => "unconfined",
        crate::SeccompDefault::Profile(_) => "custom",
    };
    let mut options = vec![format!("name=seccomp,profile={seccomp}")];
    if sys.cgroup_namespaces && config.default_cgroupns_mode == "private" {
        options.push("name=cgroupns".to_owned());
    }
    if config.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    options
}

fn forwards() -> bool {
    std::fs::read("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.first() == Some(&b'1'))
}

fn count_entries(path: &str) -> i64 {
    std::fs::read_dir(path).map_or(0, |entries| entries.count() as i64)
}

/// Bytes of memory of this machine.
pub(crate) fn total_memory() -> u64 {
    static TOTAL: OnceLock<u64> = OnceLock::new();
    *TOTAL.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Machine {
    fn look() -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
        };
        Self {
            kernel: text(uname.release()),
            name: text(uname.nodename()),
            architecture: text(uname.machine()),
            operating_system: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
        }
    }
}
