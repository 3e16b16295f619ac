//! From settings to what the daemon and the engine work with: everything parsed and defaulted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use engine::{AddressPool, EngineConfig, LogDefaults, Reload, SeccompDefault, Subnet, Versions};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::settings::Settings;
use crate::address::{Address, AddressError, DEFAULT_SOCKET};
use crate::tls::TlsFiles;
use crate::version;

const DATA_ROOT: &str = "/var/lib/boxship";
const EXEC_ROOT: &str = "/run/boxship";
const PIDFILE: &str = "/run/boxship.pid";

#[derive(Debug)]
pub(crate) struct DaemonConfig {
    pub(crate) hosts: Vec<Address>,
    /// `None` is `docker`, if there is such a group.
    pub(crate) group: Option<String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) pidfile: PathBuf,
    pub(crate) validate: bool,
    pub(crate) log: LogConfig,
    pub(crate) engine: EngineConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogConfig {
    pub(crate) level: tracing::Level,
    pub(crate) json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("invalid logging level: {0}")]
    LogLevel(String),
    #[error("invalid log format: {0}")]
    LogFormat(String),
    #[error("invalid value {value:?} for {name}: {reason}")]
    Value { name: &'static str, value: String, reason: &'static str },
    #[error("read the seccomp profile {}", path.display())]
    Seccomp {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "refusing to listen on {address} without --tlsverify: everyone who reaches it is root \
         here. Give --tlsverify with --tlscacert, --tlscert and --tlskey, or say that you mean it \
         by --tls=false (no encryption) or --tlsverify=false (no check of the client)"
    )]
    Insecure { address: String },
    #[error("find the path of this program")]
    Program(#[source] std::io::Error),
}

type Result<T> = std::result::Result<T, ConfigError>;

impl DaemonConfig {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let tls = tls_files(settings);
        let hosts = hosts(settings, tls.as_ref())?;
        let mut engine = engine_config(settings)?;
        engine.warnings = warnings(&hosts, tls.as_ref());
        Ok(Self {
            hosts,
            group: settings.text("group").map(str::to_owned),
            tls,
            pidfile: settings.text("pidfile").unwrap_or(PIDFILE).into(),
            validate: settings.switch("validate").unwrap_or(false),
            log: log_config(settings)?,
            engine,
        })
    }
}

fn hosts(settings: &Settings, tls: Option<&TlsFiles>) -> Result<Vec<Address>> {
    let texts = settings.list("hosts").filter(|hosts| !hosts.is_empty());
    let texts = texts.unwrap_or_else(|| vec![format!("unix://{DEFAULT_SOCKET}")]);
    let parse = |text: &String| Address::parse(text, tls.is_some());
    let hosts = texts.iter().map(parse).collect::<std::result::Result<Vec<_>, _>>()?;
    let verified = tls.is_some_and(|tls| tls.client_ca.is_some());
    let meant = [settings.switch("tls"), settings.switch("tlsverify")].contains(&Some(false));
    if !verified && !meant {
        let exposed = hosts.iter().find(|host| matches!(host, Address::Tcp { .. }));
        if let Some(address) = exposed {
            return Err(ConfigError::Insecure { address: address.to_string() });
        }
    }
    Ok(hosts)
}

fn warnings(hosts: &[Address], tls: Option<&TlsFiles>) -> Vec<String> {
    let what = match tls {
        Some(TlsFiles { client_ca: Some(_), .. }) => return Vec::new(),
        Some(_) => "without TLS client verification",
        None => "without encryption",
    };
    let warn = |host: &Address| match host {
        Address::Tcp { .. } => Some(format!(
            "WARNING: API is accessible on {} {what}.\n         Access to the remote API is \
             equivalent to root access on the host.",
            host.to_string().replace("tcp://", "http://")
        )),
        _ => None,
    };
    hosts.iter().filter_map(warn).collect()
}

fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    let verify = settings.switch("tlsverify");
    let on = verify == Some(true) || settings.switch("tls") == Some(true);
    let directory = || {
        let directory = std::env::var_os("DOCKER_CERT_PATH").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker");
        directory.unwrap_or_else(home)
    };
    let file = |name, default| {
        settings.text(name).map_or_else(|| directory().join(default), PathBuf::from)
    };
    on.then(|| TlsFiles {
        certificate: file("tlscert", "cert.pem"),
        key: file("tlskey", "key.pem"),
        client_ca: (verify == Some(true)).then(|| file("tlscacert", "ca.pem")),
    })
}

fn log_config(settings: &Settings) -> Result<LogConfig> {
    let level = match settings.text("log-level").unwrap_or("info") {
        _ if settings.switch("debug") == Some(true) => tracing::Level::DEBUG,
        "trace" => tracing::Level::TRACE,
        "debug" => tracing::Level::DEBUG,
        "info" => tracing::Level::INFO,
        "warn" | "warning" => tracing::Level::WARN,
        "error" | "fatal" | "panic" => tracing::Level::ERROR,
        other => return Err(ConfigError::LogLevel(other.to_owned())),
    };
    let json = match settings.text("log-format").unwrap_or("text") {
        "text" => false,
        "json" => true,
        other => return Err(ConfigError::LogFormat(other.to_owned())),
    };
    Ok(LogConfig { level, json })
}

fn engine_config(settings: &Settings) -> Result<EngineConfig> {
    let program = std::env::current_exe().map_err(ConfigError::Program)?;
    let place = |name, default: &str| PathBuf::from(settings.text(name).unwrap_or(default));
    let mut config =
        EngineConfig::new(place("data-root", DATA_ROOT), place("exec-root", EXEC_ROOT), program);
    bridge(settings, &mut config)?;
    dns(settings, &mut config)?;
    storage(settings, &mut config)?;
    containers(settings, &mut config)?;
    set(&mut config.live_restore, settings.switch("live-restore"));
    set(&mut config.labels, settings.list("labels"));
    set(&mut config.shutdown_timeout, settings.integer("shutdown-timeout"));
    set(&mut config.registry_mirrors, settings.list("registry-mirrors"));
    set(&mut config.insecure_registries, settings.list("insecure-registries"));
    config.debug = settings.switch("debug").unwrap_or(false);
    config.versions = Versions {
        product: env!("CARGO_PKG_VERSION").to_owned(),
        api: version::MAXIMUM.to_string(),
        minimum_api: version::MINIMUM.to_string(),
        git_commit: option_env!("BOXSHIP_GIT_COMMIT").unwrap_or("unknown").to_owned(),
        build_time: option_env!("BOXSHIP_BUILD_TIME").unwrap_or("unknown").to_owned(),
    };
    Ok(config)
}

fn bridge(settings: &Settings, config: &mut EngineConfig) -> Result<()> {
    let bridge = &mut config.bridge;
    if let Some(name) = settings.text("bridge") {
        bridge.bridge = Some(name.to_owned()).filter(|name| name != "none");
    }
    bridge.bip = parsed("bip", settings)?;
    bridge.fixed_cidr = parsed("fixed-cidr", settings)?;
    bridge.default_gateway = parsed("default-gateway", settings)?;
    bridge.fixed_cidr_v6 = parsed("fixed-cidr-v6", settings)?;
    bridge.default_gateway_v6 = parsed("default-gateway-v6", settings)?;
    let ipv6 = settings.switch("ipv6").unwrap_or(false);
    if ipv6 != bridge.fixed_cidr_v6.is_some() {
        let reason = "ipv6 and fixed-cidr-v6 are given together or not at all";
        return Err(invalid("ipv6", &ipv6.to_string(), reason));
    }
    if let Some(mtu) = settings.integer("mtu").filter(|mtu| *mtu != 0) {
        let in_range = u32::try_from(mtu).ok().filter(|mtu| (68..=65_535).contains(mtu));
        bridge.mtu =
            in_range.ok_or_else(|| invalid("mtu", &mtu.to_string(), "not between 68 and 65535"))?;
    }
    set(&mut bridge.icc, settings.switch("icc"));
    set(&mut bridge.ip_forward, settings.switch("ip-forward"));
    set(&mut bridge.ip_forward_no_drop, settings.switch("ip-forward-no-drop"));
    set(&mut bridge.ip_masq, settings.switch("ip-masq"));
    set(&mut bridge.iptables, settings.switch("iptables"));
    set(&mut bridge.ip6tables, settings.switch("ip6tables"));
    if let Some(pools) = settings.value("default-address-pools").and_then(Value::as_array) {
        bridge.default_address_pools = pools.iter().map(address_pool).collect::<Result<_>>()?;
    }
    Ok(())
}

fn address_pool(pool: &Value) -> Result<AddressPool> {
    const NAME: &str = "default-address-pools";
    let error = |reason| invalid(NAME, &pool.to_string(), reason);
    // Go reads the names in any case.
    let member = |name: &str| {
        let members = pool.as_object()?.iter();
        members.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let base = member("base").and_then(Value::as_str).and_then(|base| base.parse().ok());
    let base: Subnet = base.ok_or_else(|| error("the base is no network in CIDR form"))?;
    let widest = if base.is_ipv4() { 32 } else { 128 };
    let size = member("size").and_then(Value::as_u64).and_then(|size| u8::try_from(size).ok());
    match size {
        Some(size) if (base.prefix()..=widest).contains(&size) => Ok(AddressPool { base, size }),
        _ => Err(error("the size is no prefix within the base")),
    }
}

fn dns(settings: &Settings, config: &mut EngineConfig) -> Result<()> {
    let addresses = |name| {
        let texts = settings.list(name).unwrap_or_default();
        texts.iter().map(|text| parse(name, text)).collect::<Result<Vec<IpAddr>>>()
    };
    config.dns.servers = addresses("dns")?;
    config.dns.host_gateway = addresses("host-gateway-ips")?;
    config.dns.options = settings.list("dns-opts").unwrap_or_default();
    config.dns.search = settings.list("dns-search").unwrap_or_default();
    Ok(())
}

fn storage(settings: &Settings, config: &mut EngineConfig) -> Result<()> {
    for option in settings.list("storage-opts").unwrap_or_default() {
        let layout = option.strip_prefix("layout=").ok_or("only layout is known");
        config.storage_layout = layout
            .and_then(str::parse)
            .map_err(|reason| invalid("storage-opts", &option, reason))?;
    }
    Ok(())
}

fn containers(settings: &Settings, config: &mut EngineConfig) -> Result<()> {
    config.log = log_defaults(settings).unwrap_or_default();
    set(&mut config.default_ulimits, typed("default-ulimits", settings)?);
    set(&mut config.runtimes, typed("runtimes", settings)?);
    set(&mut config.default_runtime, settings.text("default-runtime").map(str::to_owned));
    config.cgroup_parent = settings.text("cgroup-parent").map(str::to_owned);
    let modes = [
        ("default-cgroupns-mode", &mut config.default_cgroupns_mode, ["host", "private"]),
        ("default-ipc-mode", &mut config.default_ipc_mode, ["shareable", "private"]),
    ];
    for (name, field, choices) in modes {
        let Some(mode) = settings.text(name) else { continue };
        if !choices.contains(&mode) {
            return Err(invalid(name, mode, "no such mode"));
        }
        mode.clone_into(field);
    }
    set(&mut config.default_shm_size, settings.integer("default-shm-size"));
    set(&mut config.default_stop_timeout, settings.integer("default-stop-timeout"));
    set(&mut config.init, settings.switch("init"));
    set(&mut config.no_new_privileges, settings.switch("no-new-privileges"));
    set(&mut config.userns_remap, settings.text("userns-remap").map(str::to_owned));
    config.seccomp_profile = seccomp_profile(settings)?;
    for option in settings.list("exec-opts").unwrap_or_default() {
        if option != "native.cgroupdriver=cgroupfs" {
            return Err(invalid(
                "exec-opts",
                &option,
                "only native.cgroupdriver=cgroupfs is known",
            ));
        }
    }
    Ok(())
}

fn seccomp_profile(settings: &Settings) -> Result<SeccompDefault> {
    match settings.text("seccomp-profile") {
        None | Some("builtin") => Ok(SeccompDefault::Builtin),
        Some("unconfined") => Ok(SeccompDefault::Unconfined),
        Some(path) => std::fs::read_to_string(path)
            .map(SeccompDefault::Profile)
            .map_err(|source| ConfigError::Seccomp { path: path.into(), source }),
    }
}

fn log_defaults(settings: &Settings) -> Option<LogDefaults> {
    let (driver, options) = (settings.text("log-driver"), settings.map("log-opts"));
    let given = driver.is_some() || options.is_some();
    given.then(|| LogDefaults {
        driver: driver.unwrap_or("json-file").to_owned(),
        options: options.unwrap_or_default(),
    })
}

/// What SIGHUP changes: everything reloadable, back to its default if it is no longer given.
pub(crate) fn reload(settings: &Settings) -> Result<Reload> {
    let config = engine_config(settings)?;
    Ok(Reload {
        labels: Some(config.labels),
        live_restore: Some(config.live_restore),
        shutdown_timeout: Some(config.shutdown_timeout),
        debug: Some(config.debug),
        default_runtime: Some(config.default_runtime),
        runtimes: Some(config.runtimes),
        registry_mirrors: Some(config.registry_mirrors),
        insecure_registries: Some(config.insecure_registries),
        default_shm_size: Some(config.default_shm_size),
        default_ulimits: Some(config.default_ulimits),
        log: Some(config.log),
        no_new_privileges: Some(config.no_new_privileges),
        init: Some(config.init),
    })
}

/// The level of the log after a reload.
pub(crate) fn log_level(settings: &Settings) -> Result<tracing::Level> {
    Ok(log_config(settings)?.level)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn typed<T: DeserializeOwned>(
    name: &'static str,
    settings: &Settings,
) -> Result<Option<BTreeMap<String, T>>> {
    let Some(value) = settings.value(name) else { return Ok(None) };
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|_malformed| invalid(name, &value.to_string(), "not of the expected form"))
}

fn invalid(name: &'static str, value: &str, reason: &'static str) -> ConfigError {
    ConfigError::Value { name, value: value.to_owned(), reason }
}

/// A text that stands for an address or a network.
fn parsed<T: FromStr>(name: &'static str, settings: &Settings) -> Result<Option<T>> {
    settings.text(name).map(|text| parse(name, text)).transpose()
}

fn parse<T: FromStr>(name: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_malformed| invalid(name, text, "no address of the expected form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> std::result::Result<DaemonConfig, String> {
        let arguments = arguments.iter().map(Into::into).collect();
        let settings = Settings::load(arguments).map_err(|error| error.to_string())?;
        DaemonConfig::new(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_products() {
        let config = config(&[]).unwrap();
        assert_eq!(config.hosts, [Address::Unix(DEFAULT_SOCKET.into())]);
        assert_eq!(config.engine.data_root, PathBuf::from("/var/lib/boxship"));
        assert!(config.engine.live_restore && config.engine.bridge.icc);
        assert_eq!(config.log, LogConfig { level: tracing::Level::INFO, json: false });
    }

    #[test]
    fn tcp_needs_mutual_tls_or_a_word() {
        let check = |arguments: &[&str], warns: Option<usize>| {
            let seen = config(arguments).map(|config| config.engine.warnings.len()).ok();
            assert_eq!(seen, warns, "{arguments:?}");
        };
        check(&["-H", "tcp://127.0.0.1:1"], None);
        check(&["-H", "tcp://127.0.0.1:1", "--tls"], None);
        check(&["-H", "tcp://127.0.0.1:1", "--tls=false"], Some(1));
        check(&["-H", "tcp://127.0.0.1:1", "--tls", "--tlsverify=false"], Some(1));
        check(&["-H", "tcp://127.0.0.1:1", "--tlsverify"], Some(0));
        check(&["-H", "unix:///x"], Some(0));
    }

    #[test]
    fn values_reach_the_engine() {
        let config = config(&[
            "--bip=10.9.0.1/16",
            "--default-address-pool=base=10.10.0.0/16,size=24",
            "--default-ulimit=nofile=1:2",
            "--log-opt=max-size=1m",
            "--mtu=1400",
            "-D",
        ])
        .unwrap();
        let bridge = config.engine.bridge;
        assert_eq!(bridge.bip, Some("10.9.0.1/16".parse().unwrap()));
        let pool = AddressPool { base: "10.10.0.0/16".parse().unwrap(), size: 24 };
        assert_eq!(bridge.default_address_pools, [pool]);
        assert_eq!(bridge.mtu, 1400);
        assert_eq!(config.engine.default_ulimits["nofile"].hard, 2);
        assert_eq!(config.engine.log.options["max-size"], "1m");
        assert_eq!(config.log.level, tracing::Level::DEBUG);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |argument, expect: &str| assert_eq!(config(&[argument]).unwrap_err(), expect);
        check("--log-level=xx", "invalid logging level: xx");
        check(
            "--bip=10.0.0.1",
            "invalid value \"10.0.0.1\" for bip: no address of the expected form",
        );
        check("--dns=a", "invalid value \"a\" for dns: no address of the expected form");
        check("-Hfoo://x", "invalid bind address (foo://x): unsupported proto 'foo'");
    }
}
