//! From the flags of `run` and `create` to the request docker would send.
//!
//! The request is compared with docker's own, member by member, in `tests/differential.rs`: the
//! empty lists that docker sends as `[]` are `Some(vec![])` here, those it sends as `null` `None`.

use std::collections::BTreeMap;

use api_types::container::{Config, CreateRequest, NetworkingConfig};
use api_types::host_config::{DeviceRequest, HostConfig, LogConfig, PortMap, RestartPolicy};
use spec::oci::{Empty, Healthcheck};

use super::networks;
use super::resources::{list, resources};
use crate::flags::{Parsed, pairs};
use crate::options::{self, Device, VolumeOption, files};

/// Builds the request; the error is docker's sentence, to be shown with exit code 125.
pub(super) fn create_request(flags: &Parsed) -> Result<CreateRequest, String> {
    let (image, command) = flags.args.split_first().expect("the table requires an argument");
    let ports = Ports::read(flags)?;
    let volumes = Volumes::read(flags)?;
    let networking = networks::endpoints(flags)?;
    let mut config = config(flags, image, command)?;
    config.exposed_ports = Some(ports.exposed).filter(|ports| !ports.is_empty());
    config.volumes = Some(volumes.anonymous);
    let mut host_config = host_config(flags)?;
    host_config.port_bindings = Some(ports.bindings);
    host_config.binds = volumes.binds;
    if config.attach_stdin && config.open_stdin {
        config.stdin_once = true;
    }
    Ok(CreateRequest {
        config,
        host_config,
        networking_config: NetworkingConfig { endpoints_config: Some(networking) },
    })
}

fn config(flags: &Parsed, image: &str, command: &[String]) -> Result<Config, String> {
    let streams = flags.list("attach");
    let attached = |name: &str| streams.iter().any(|stream| stream == name);
    let all_output = streams.is_empty();
    let mut labels = pairs(&files::read_label_files(flags.list("label-file"))?);
    labels.extend(flags.map("label"));
    let mut env = files::read_env_files(flags.list("env-file"))?;
    env.extend_from_slice(flags.list("env"));
    let mac = flags.text("mac-address");
    if !mac.is_empty() {
        options::checked_mac(mac)?;
    }
    Ok(Config {
        hostname: flags.text("hostname").to_owned(),
        domainname: flags.text("domainname").to_owned(),
        user: flags.text("user").to_owned(),
        attach_stdin: attached("stdin") || (all_output && flags.bool("interactive")),
        attach_stdout: attached("stdout") || all_output,
        attach_stderr: attached("stderr") || all_output,
        tty: flags.bool("tty"),
        open_stdin: flags.bool("interactive"),
        env: Some(env).filter(|env| !env.is_empty()),
        cmd: Some(command.to_vec()).filter(|command| !command.is_empty()),
        healthcheck: healthcheck(flags)?,
        image: image.to_owned(),
        working_dir: flags.text("workdir").to_owned(),
        // An empty --entrypoint removes the image's.
        entrypoint: flags.given("entrypoint").map(|entrypoint| vec![entrypoint.to_owned()]),
        labels,
        stop_signal: flags.text("stop-signal").to_owned(),
        stop_timeout: flags.changed("stop-timeout").then(|| flags.int("stop-timeout")),
        ..Config::default()
    })
}

fn healthcheck(flags: &Parsed) -> Result<Option<Healthcheck>, String> {
    let command = flags.text("health-cmd");
    let duration = |name: &str| match flags.duration(name) {
        negative if negative < 0 => Err(format!("--{name} cannot be negative")),
        nanos => Ok(nanos),
    };
    let check = Healthcheck {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".to_owned(), command.to_owned()]),
        interval: duration("health-interval")?,
        timeout: duration("health-timeout")?,
        retries: flags.int("health-retries"),
        start_period: duration("health-start-period")?,
        start_interval: duration("health-start-interval")?,
    };
    let wanted = check != Healthcheck::default();
    if flags.bool("no-healthcheck") {
        if wanted {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(Healthcheck {
            test: Some(vec!["NONE".to_owned()]),
            ..Healthcheck::default()
        }));
    }
    if check.retries < 0 {
        return Err("--health-retries cannot be negative".to_owned());
    }
    Ok(wanted.then_some(check))
}

fn host_config(flags: &Parsed) -> Result<HostConfig, String> {
    let security = Security::read(flags)?;
    let (devices, mut requests) = devices(flags)?;
    for request in flags.list("gpus") {
        requests.push(options::parse_gpus(request)?);
    }
    let auto_remove = flags.bool("rm");
    let restart_policy = restart_policy(flags.text("restart"))?;
    if auto_remove && !["", "no"].contains(&restart_policy.name.as_str()) {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let mut dns_options = flags.list("dns-option").to_vec();
    dns_options.extend_from_slice(flags.list("dns-opt"));
    let map = |name: &str| Some(flags.map(name)).filter(|map| !map.is_empty());
    let annotations = map("annotation");
    let mut mounts = Vec::new();
    for mount in flags.list("mount") {
        mounts.push(options::parse_mount(mount)?);
    }
    Ok(HostConfig {
        container_id_file: flags.text("cidfile").to_owned(),
        log_config: log_config(flags)?,
        network_mode: networks::mode(flags)?,
        restart_policy,
        auto_remove,
        volume_driver: flags.text("volume-driver").to_owned(),
        volumes_from: flags.list_or_null("volumes-from"),
        annotations,
        cap_add: capabilities(flags.list("cap-add")),
        cap_drop: capabilities(flags.list("cap-drop")),
        cgroupns_mode: mode(flags, "cgroupns", "CGROUP", &["private", "host"])?,
        dns: Some(flags.list("dns").to_vec()),
        dns_options: Some(dns_options),
        dns_search: Some(flags.list("dns-search").to_vec()),
        extra_hosts: flags.list_or_null("add-host"),
        group_add: flags.list_or_null("group-add"),
        ipc_mode: flags.text("ipc").to_owned(),
        links: flags.list_or_null("link"),
        oom_score_adj: flags.int("oom-score-adj"),
        pid_mode: mode(flags, "pid", "PID", &["host"])?,
        privileged: flags.bool("privileged"),
        publish_all_ports: flags.bool("publish-all"),
        readonly_rootfs: flags.bool("read-only"),
        security_opt: security.options,
        storage_opt: storage_options(flags)?,
        tmpfs: tmpfs(flags),
        uts_mode: mode(flags, "uts", "UTS", &["host"])?,
        userns_mode: mode(flags, "userns", "USER", &["host"])?,
        shm_size: flags.bytes("shm-size"),
        sysctls: map("sysctl"),
        runtime: flags.text("runtime").to_owned(),
        isolation: flags.text("isolation").to_owned(),
        resources: resources(flags, devices, requests)?,
        mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        masked_paths: security.masked_paths,
        readonly_paths: security.readonly_paths,
        init: flags.changed("init").then(|| flags.bool("init")),
        ..HostConfig::default()
    })
}

/// Capabilities in the kernel's spelling, each once, by name.
fn capabilities(given: &[String]) -> Option<Vec<String>> {
    let canonical = |name: &String| match name.trim().to_ascii_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    let names: std::collections::BTreeSet<String> = given.iter().map(canonical).collect();
    list(names.into_iter().collect())
}

/// A namespace mode: empty, one of `words`, or another container's where that exists.
fn mode(flags: &Parsed, name: &str, kind: &str, words: &[&str]) -> Result<String, String> {
    let value = flags.text(name);
    let of_container = name == "pid"
        && value.strip_prefix("container:").is_some_and(|container| !container.is_empty());
    if value.is_empty() || words.contains(&value) || of_container {
        Ok(value.to_owned())
    } else {
        Err(format!("--{name}: invalid {kind} mode"))
    }
}

/// `name[:count]`; only `on-failure` has a count, which the daemon checks.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && text.contains(':') {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let maximum_retry_count = match count {
        "" => 0,
        _ => count.parse().map_err(|_not_a_number| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

fn log_config(flags: &Parsed) -> Result<LogConfig, String> {
    let config =
        LogConfig { kind: flags.text("log-driver").to_owned(), config: flags.map("log-opt") };
    if config.kind == "none" && !config.config.is_empty() {
        return Err("invalid logging opts for driver none".to_owned());
    }
    Ok(config)
}

fn storage_options(flags: &Parsed) -> Result<Option<BTreeMap<String, String>>, String> {
    let given = flags.list("storage-opt");
    if given.iter().any(|option| !option.contains('=')) {
        return Err("invalid storage option".to_owned());
    }
    Ok(Some(pairs(given)).filter(|options| !options.is_empty()))
}

fn tmpfs(flags: &Parsed) -> Option<BTreeMap<String, String>> {
    let entries = flags.list("tmpfs").iter().map(|text| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), options.to_owned())
    });
    Some(entries.collect()).filter(|map: &BTreeMap<_, _>| !map.is_empty())
}

fn devices(
    flags: &Parsed,
) -> Result<(Vec<api_types::host_config::DeviceMapping>, Vec<DeviceRequest>), String> {
    let mut mappings = Vec::new();
    let mut names = Vec::new();
    for device in flags.list("device") {
        match options::parse_device(device)? {
            Device::Mapping(mapping) => mappings.push(mapping),
            Device::Cdi(name) => names.push(name),
        }
    }
    let request = (!names.is_empty()).then(|| DeviceRequest {
        driver: "cdi".to_owned(),
        device_ids: Some(names),
        ..DeviceRequest::default()
    });
    Ok((mappings, request.into_iter().collect()))
}

/// `--security-opt`; `systempaths=unconfined` is not one for the daemon but two empty lists.
struct Security {
    options: Option<Vec<String>>,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
}

impl Security {
    fn read(flags: &Parsed) -> Result<Self, String> {
        let mut options = Vec::new();
        let mut unmasked = false;
        for option in flags.list("security-opt") {
            let (key, value) =
                option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            if value.is_empty() && key != "no-new-privileges" {
                return Err(format!("Invalid --security-opt: {option:?}"));
            }
            if option == "systempaths=unconfined" {
                unmasked = true;
            } else {
                options.push(files::inline_seccomp(option)?);
            }
        }
        let paths = || unmasked.then(Vec::new);
        let options = Some(options).filter(|_options| flags.changed("security-opt"));
        Ok(Self { options, masked_paths: paths(), readonly_paths: paths() })
    }
}

struct Ports {
    exposed: BTreeMap<String, Empty>,
    bindings: PortMap,
}

impl Ports {
    fn read(flags: &Parsed) -> Result<Self, String> {
        let mut ports = Self { exposed: BTreeMap::new(), bindings: PortMap::new() };
        for text in flags.list("publish") {
            for port in options::parse_publish(text)? {
                ports.exposed.insert(port.container.clone(), Empty {});
                let bindings = ports.bindings.entry(port.container).or_default();
                bindings.get_or_insert_default().push(api_types::host_config::PortBinding {
                    host_ip: port.host_ip,
                    host_port: port.host_port,
                });
            }
        }
        for text in flags.list("expose") {
            for port in options::parse_expose(text)? {
                ports.exposed.insert(port, Empty {});
            }
        }
        Ok(ports)
    }
}

struct Volumes {
    anonymous: BTreeMap<String, Empty>,
    binds: Option<Vec<String>>,
}

impl Volumes {
    fn read(flags: &Parsed) -> Result<Self, String> {
        let mut binds = Vec::new();
        let mut anonymous = BTreeMap::new();
        for text in flags.list("volume") {
            match options::parse_volume(text)? {
                VolumeOption::Bind(bind) if binds.contains(&bind) => {}
                VolumeOption::Bind(bind) => binds.push(bind),
                VolumeOption::Anonymous(path) => {
                    anonymous.insert(path, Empty {});
                }
            }
        }
        Ok(Self { anonymous, binds: list(binds) })
    }
}
