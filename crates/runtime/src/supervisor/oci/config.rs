//! `config.json` of an OCI bundle from a [`ContainerSpec`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::init::user::Identity;
use crate::protocol::Failure;
use crate::seccomp::{capability_names, oci_profile};
use crate::spec::{
    ContainerSpec, DeviceKind, DeviceRule, Mount, MountSource, Namespace, Process, Propagation,
    RecursiveReadonly, Resources, Seccomp,
};

/// The first processes of the containers whose namespaces are joined, by container.
pub(super) type Joined = BTreeMap<spec::Id, u32>;

/// The whole document. Binds have been resolved to `sources`, one for each of the spec's mounts.
pub(super) fn config(
    spec: &ContainerSpec,
    identity: &Identity,
    joined: &Joined,
    root: &Path,
    sources: &[Option<String>],
) -> Result<Value, Failure> {
    let mut sysctls = spec.sysctls.clone();
    sysctls.extend(spec.network.sysctls.clone());
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": spec.readonly_rootfs },
        "process": process(&spec.process, identity),
        "mounts": mounts(spec, joined, sources),
        "linux": {
            "namespaces": namespaces(spec, joined),
            "cgroupsPath": format!("/{}", spec.cgroup.path.trim_matches('/')),
            "resources": resources(&spec.cgroup.resources, &spec.cgroup.devices),
            "devices": spec.devices.iter().map(device).collect::<Vec<_>>(),
            "maskedPaths": spec.masked_paths,
            "readonlyPaths": spec.readonly_paths,
            "sysctl": sysctls,
        },
    });
    if let Some(hostname) = &spec.hostname
        && spec.namespaces.uts == Namespace::Private
    {
        config["hostname"] = hostname.as_str().into();
    }
    if let Some(domainname) = &spec.domainname
        && spec.namespaces.uts == Namespace::Private
    {
        config["domainname"] = domainname.as_str().into();
    }
    let profile = match &spec.process.seccomp {
        Seccomp::Unconfined => return Ok(config),
        Seccomp::Default => None,
        Seccomp::Profile(profile) => Some(profile.as_str()),
    };
    let seccomp = oci_profile(profile, &spec.process.capabilities)
        .map_err(|error| Failure::Invalid { text: error.to_string() })?;
    config["linux"]["seccomp"] = seccomp;
    Ok(config)
}

/// The `process` member, which is also what an exec is told with.
pub(super) fn process(process: &Process, identity: &Identity) -> Value {
    let Process { capabilities, .. } = process;
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    let mut document = json!({
        "terminal": process.tty,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "additionalGids": identity.groups,
        },
        "args": process.args,
        "env": environment(&process.env, &identity.home),
        "cwd": cwd,
        "capabilities": {
            "bounding": capability_names(capabilities.bounding),
            "effective": capability_names(capabilities.effective),
            "permitted": capability_names(capabilities.permitted),
            "inheritable": capability_names(capabilities.inheritable),
            "ambient": capability_names(capabilities.ambient),
        },
        "noNewPrivileges": process.no_new_privileges,
        "rlimits": process.rlimits.iter().map(|limit| json!({
            "type": format!("RLIMIT_{}", limit.name.to_uppercase()),
            "soft": limit.soft,
            "hard": limit.hard,
        })).collect::<Vec<_>>(),
    });
    if let Some((columns, rows)) = process.console_size {
        document["consoleSize"] = json!({ "width": columns, "height": rows });
    }
    if let Some(score) = process.oom_score_adj {
        document["oomScoreAdj"] = score.into();
    }
    if let Some(profile) = &process.apparmor_profile {
        document["apparmorProfile"] = profile.as_str().into();
    }
    document
}

fn environment(given: &[String], home: &str) -> Vec<String> {
    let mut environment = given.to_vec();
    if !given.iter().any(|variable| variable.starts_with("HOME=")) {
        environment.push(format!("HOME={home}"));
    }
    environment
}

fn namespaces(spec: &ContainerSpec, joined: &Joined) -> Vec<Value> {
    let all = [
        ("pid", "pid", &spec.namespaces.pid),
        ("ipc", "ipc", &spec.namespaces.ipc),
        ("uts", "uts", &spec.namespaces.uts),
        ("network", "net", &spec.namespaces.net),
        ("cgroup", "cgroup", &spec.namespaces.cgroup),
    ];
    let mut list = vec![json!({ "type": "mount" })];
    for (kind, file, namespace) in all {
        match namespace {
            Namespace::Host => {}
            Namespace::Private => list.push(json!({ "type": kind })),
            Namespace::Container(id) => {
                let pid = joined.get(id).copied().unwrap_or_default();
                list.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
            }
        }
    }
    list
}

fn mounts(spec: &ContainerSpec, joined: &Joined, sources: &[Option<String>]) -> Vec<Value> {
    let access = if spec.privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        shm(spec, joined),
    ];
    list.extend(spec.mounts.iter().zip(sources).map(|(wanted, source)| extra(wanted, source)));
    list
}

fn shm(spec: &ContainerSpec, joined: &Joined) -> Value {
    let options = ["nosuid", "noexec", "nodev", "mode=1777"];
    match &spec.namespaces.ipc {
        Namespace::Private => {
            let size = format!("size={}", spec.shm_size);
            mount("/dev/shm", "tmpfs", "shm", &[&options[..], &[&size]].concat())
        }
        Namespace::Host => mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rw"]),
        Namespace::Container(id) => {
            let pid = joined.get(id).copied().unwrap_or_default();
            mount("/dev/shm", "bind", &format!("/proc/{pid}/root/dev/shm"), &["rbind", "rw"])
        }
    }
}

/// `lowerdir=`, of two layers at least.
fn lower_option(lower: &[PathBuf], empty: &Path) -> String {
    let mut lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    while lower.len() < 2 {
        lower.push(empty);
    }
    let escaped =
        |path: &Path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    format!("lowerdir={}", lower.into_iter().map(escaped).collect::<Vec<_>>().join(":"))
}

fn extra(wanted: &Mount, source: &Option<String>) -> Value {
    let layers;
    let mut options = match &wanted.source {
        MountSource::Bind { recursive, propagation, .. } => {
            vec![if *recursive { "rbind" } else { "bind" }, propagation_name(*propagation)]
        }
        MountSource::Tmpfs { options } => options.iter().map(String::as_str).collect(),
        MountSource::Image { lower, empty, .. } => {
            layers = lower_option(lower, empty);
            vec![layers.as_str()]
        }
        _ => vec!["nosuid", "noexec", "nodev"],
    };
    options.push(match (wanted.readonly, wanted.recursive_readonly) {
        (false, _) => "rw",
        (true, RecursiveReadonly::Force) => "rro",
        (true, _) => "ro",
    });
    let target = wanted.target.as_str();
    match &wanted.source {
        MountSource::Bind { .. } => {
            mount(target, "bind", source.as_deref().unwrap_or_default(), &options)
        }
        MountSource::Tmpfs { .. } => mount(target, "tmpfs", "tmpfs", &options),
        MountSource::Image { .. } => mount(target, "overlay", "overlay", &options),
        MountSource::Mqueue => mount(target, "mqueue", "mqueue", &options),
        MountSource::Cgroup => mount(target, "cgroup", "cgroup", &options),
        MountSource::Proc => mount(target, "proc", "proc", &options),
        MountSource::Sysfs => mount(target, "sysfs", "sysfs", &options),
        MountSource::Devpts => mount(target, "devpts", "devpts", &options),
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

const fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::RPrivate => "rprivate",
        Propagation::Private => "private",
        Propagation::RShared => "rshared",
        Propagation::Shared => "shared",
        Propagation::RSlave => "rslave",
        Propagation::Slave => "slave",
    }
}

fn device(device: &crate::spec::DeviceNode) -> Value {
    json!({
        "path": device.path,
        "type": kind_letter(device.kind),
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode & 0o7777,
        "uid": device.uid,
        "gid": device.gid,
    })
}

const fn kind_letter(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Char => "c",
        DeviceKind::Block => "b",
        DeviceKind::Fifo => "p",
        DeviceKind::All => "a",
    }
}

/// The runtime writes the same limits that the cgroup already has.
fn resources(resources: &Resources, devices: &[DeviceRule]) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(devices.iter().map(device_rule));
    let throttle = |list: &[(u32, u32, u64)]| -> Option<Vec<Value>> {
        let entries = list
            .iter()
            .map(|(major, minor, rate)| json!({ "major": major, "minor": minor, "rate": rate }));
        (!list.is_empty()).then(|| entries.collect())
    };
    let weights = resources
        .blkio_weight_device
        .iter()
        .map(|(major, minor, weight)| json!({ "major": major, "minor": minor, "weight": weight }));
    let mut document = json!({
        "devices": rules,
        "memory": present([
            ("limit", resources.memory.map(Value::from)),
            ("reservation", resources.memory_reservation.map(Value::from)),
            ("swap", resources.memory_swap.map(Value::from)),
            ("swappiness", resources.memory_swappiness.map(Value::from)),
            ("disableOOMKiller", resources.oom_kill_disable.then_some(Value::Bool(true))),
        ]),
        "cpu": present([
            ("shares", resources.cpu_shares.map(Value::from)),
            ("quota", resources.cpu_quota.map(Value::from)),
            ("period", resources.cpu_period.map(Value::from)),
            ("realtimeRuntime", resources.cpu_rt_runtime.map(Value::from)),
            ("realtimePeriod", resources.cpu_rt_period.map(Value::from)),
            ("cpus", resources.cpuset_cpus.as_deref().map(Value::from)),
            ("mems", resources.cpuset_mems.as_deref().map(Value::from)),
        ]),
        "blockIO": present([
            ("weight", resources.blkio_weight.map(Value::from)),
            ("weightDevice", (weights.len() > 0).then(|| weights.collect())),
            ("throttleReadBpsDevice", throttle(&resources.blkio_read_bps).map(Value::from)),
            ("throttleWriteBpsDevice", throttle(&resources.blkio_write_bps).map(Value::from)),
            ("throttleReadIOPSDevice", throttle(&resources.blkio_read_iops).map(Value::from)),
            ("throttleWriteIOPSDevice", throttle(&resources.blkio_write_iops).map(Value::from)),
        ]),
    });
    if let Some(limit) = resources.pids_limit {
        document["pids"] = json!({ "limit": limit });
    }
    document
}

fn device_rule(rule: &DeviceRule) -> Value {
    present([
        ("allow", Some(rule.allow.into())),
        ("type", Some(kind_letter(rule.kind).into())),
        ("major", rule.major.map(Value::from)),
        ("minor", rule.minor.map(Value::from)),
        ("access", Some(rule.access.as_str().into())),
    ])
}

/// An object without the members that have no value.
fn present<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let given = members.into_iter();
    let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}
