//! What the daemon was told: the settings that `dockerd` takes as flags and in `daemon.json`,
//! already parsed and defaulted. Plain values; nothing here reads a file or the command line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use api_types::host_config::Ulimit;
use api_types::system;

/// Fixed for the life of the process, except what [`Reload`] names.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Everything that must survive a reboot.
    pub data_root: PathBuf,
    /// Sockets, FIFOs, state of running containers; may be on tmpfs.
    pub exec_root: PathBuf,
    /// How new layers are kept.
    pub storage_layout: storage::Layout,
    /// The program that serves as supervisor (`boxship supervisor`), usually our own binary.
    pub supervisor: PathBuf,
    /// `host_nameservers` is filled in by the engine.
    pub bridge: network::NetworkConfig,
    pub dns: DnsConfig,
    /// Containers outlive the daemon.
    pub live_restore: bool,
    pub log: LogDefaults,
    pub default_ulimits: BTreeMap<String, Ulimit>,
    pub default_runtime: String,
    /// `--add-runtime`: programs that speak the OCI runtime command line.
    pub runtimes: BTreeMap<String, system::Runtime>,
    pub cgroup_parent: Option<String>,
    /// `private` or `host`.
    pub default_cgroupns_mode: String,
    /// `private` or `shareable`.
    pub default_ipc_mode: String,
    pub labels: Vec<String>,
    pub shutdown_timeout: i64,
    pub default_stop_timeout: i64,
    pub default_shm_size: i64,
    pub init: bool,
    pub no_new_privileges: bool,
    pub seccomp_profile: SeccompDefault,
    /// `--userns-remap`; anything but empty is refused at start.
    pub userns_remap: String,
    pub registry_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub experimental: bool,
    pub debug: bool,
    /// Extra lines for `/info`: what the listener knows (an unencrypted TCP socket).
    pub warnings: Vec<String>,
    pub versions: Versions,
}

/// What `/version` says of this build.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    pub product: String,
    pub api: String,
    pub minimum_api: String,
    pub git_commit: String,
    pub build_time: String,
}

#[derive(Debug, Clone, Default)]
pub struct DnsConfig {
    pub servers: Vec<IpAddr>,
    pub options: Vec<String>,
    pub search: Vec<String>,
    /// What `host-gateway` in `--add-host` stands for; the bridge's address when empty.
    pub host_gateway: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
pub struct LogDefaults {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompDefault {
    Builtin,
    Unconfined,
    /// The text of the file that `--seccomp-profile` named.
    Profile(String),
}

/// What SIGHUP may change; `None` leaves a setting alone.
#[derive(Debug, Clone, Default)]
pub struct Reload {
    pub labels: Option<Vec<String>>,
    pub live_restore: Option<bool>,
    pub shutdown_timeout: Option<i64>,
    pub debug: Option<bool>,
    pub default_runtime: Option<String>,
    pub runtimes: Option<BTreeMap<String, system::Runtime>>,
    pub registry_mirrors: Option<Vec<String>>,
    pub insecure_registries: Option<Vec<String>>,
    pub default_shm_size: Option<i64>,
    pub default_ulimits: Option<BTreeMap<String, Ulimit>>,
    pub log: Option<LogDefaults>,
    pub no_new_privileges: Option<bool>,
    pub init: Option<bool>,
}

impl EngineConfig {
    /// Docker's defaults for everything but the places.
    pub fn new(data_root: PathBuf, exec_root: PathBuf, supervisor: PathBuf) -> Self {
        Self {
            data_root,
            exec_root,
            storage_layout: storage::Layout::default(),
            supervisor,
            bridge: network::NetworkConfig::default(),
            dns: DnsConfig::default(),
            live_restore: true,
            log: LogDefaults::default(),
            default_ulimits: BTreeMap::new(),
            default_runtime: crate::system::DEFAULT_RUNTIME.to_owned(),
            runtimes: BTreeMap::new(),
            cgroup_parent: None,
            default_cgroupns_mode: "private".to_owned(),
            default_ipc_mode: "private".to_owned(),
            labels: Vec::new(),
            shutdown_timeout: 15,
            default_stop_timeout: 10,
            default_shm_size: 64 << 20,
            init: false,
            no_new_privileges: false,
            seccomp_profile: SeccompDefault::Builtin,
            userns_remap: String::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            experimental: false,
            debug: false,
            warnings: Vec::new(),
            versions: Versions::default(),
        }
    }

    /// Takes over what a reload names.
    pub(crate) fn apply(&mut self, reload: Reload) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut self.labels, reload.labels);
        set(&mut self.live_restore, reload.live_restore);
        set(&mut self.shutdown_timeout, reload.shutdown_timeout);
        set(&mut self.debug, reload.debug);
        set(&mut self.default_runtime, reload.default_runtime);
        set(&mut self.runtimes, reload.runtimes);
        set(&mut self.registry_mirrors, reload.registry_mirrors);
        set(&mut self.insecure_registries, reload.insecure_registries);
        set(&mut self.default_shm_size, reload.default_shm_size);
        set(&mut self.default_ulimits, reload.default_ulimits);
        set(&mut self.log, reload.log);
        set(&mut self.no_new_privileges, reload.no_new_privileges);
        set(&mut self.init, reload.init);
    }
}

impl Default for LogDefaults {
    fn default() -> Self {
        Self { driver: "json-file".to_owned(), options: BTreeMap::new() }
    }
}
