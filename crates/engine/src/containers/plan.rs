//! From a definition to what the supervisor is told. Pure but for looking at devices and bind
//! sources on the host.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use api_types::host_config::{DeviceMapping, HostConfig};
use network::Endpoint;
use runtime::spec::{
    CgroupSpec, ContainerSpec, DeviceKind, DeviceNode, DeviceRule, Mount, MountSource, Namespace,
    Namespaces, NetworkSetup, Process, Propagation, RecursiveReadonly, Rlimit, Rootfs,
};
use spec::Digest;
use storage::{Lowers, OverlayDirs};

use super::links::Linked;
use super::mounts::{self, Source};
use super::record::Definition;
use super::start::NetworkFiles;
use super::validate::modes::{self, Mode};
use super::validate::security::{self, SecurityOptions};
use super::{resources, validate};
use crate::EngineConfig;
use crate::errors::{Error, Result, StartError};

/// What the daemon looked up and made for this start.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub rootfs: OverlayDirs,
    /// `<data>/containers/<id>`
    pub directory: PathBuf,
    /// Where the files of each volume are.
    pub volumes: BTreeMap<String, PathBuf>,
    pub files: NetworkFiles,
    pub net: Namespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub hostname: String,
    pub endpoints: Vec<Endpoint>,
    pub links: Vec<Linked>,
    /// The layers of the images it mounts, topmost first.
    pub images: Vec<(Digest, Lowers)>,
}

pub(crate) fn container_spec(
    definition: &Definition,
    around: &Surroundings,
    config: &EngineConfig,
    generation: u64,
) -> Result<ContainerSpec> {
    let host_config = &definition.host_config;
    let options = SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?;
    let (devices, rules) = devices(host_config)?;
    let privileged = host_config.privileged;
    let oci_runtime = oci_runtime(&host_config.runtime, config);
    let (net_sysctls, sysctls) = host_config
        .sysctls
        .clone()
        .unwrap_or_default()
        .into_iter()
        .partition(|(key, _)| key.starts_with("net.") || key.starts_with("net/"));
    let uts = namespace(modes::uts(&host_config.uts_mode)?);
    let masks = |paths: &Option<Vec<String>>| match paths {
        Some(paths) if !privileged && !options.unmasked => paths.clone(),
        _ => Vec::new(),
    };
    Ok(ContainerSpec {
        id: definition.id.clone(),
        generation,
        rootfs: rootfs(&around.rootfs),
        mounts: all_mounts(definition, around, oci_runtime.is_some())?,
        process: process(definition, around, &options, config)?,
        hostname: (uts == Namespace::Private).then(|| around.hostname.clone()),
        domainname: Some(definition.config.domainname.clone())
            .filter(|name| !name.is_empty() && uts == Namespace::Private),
        namespaces: Namespaces {
            pid: around.pid.clone(),
            ipc: around.ipc.clone(),
            uts,
            net: around.net.clone(),
            cgroup: namespace(modes::cgroup(&host_config.cgroupns_mode)?),
        },
        network: NetworkSetup {
            interfaces: around.endpoints.iter().filter_map(|end| end.interface.clone()).collect(),
            resolver: super::start::needs_resolver(&around.endpoints),
            sysctls: net_sysctls,
            note: super::start::note_endpoints(&around.endpoints),
        },
        cgroup: CgroupSpec {
            path: cgroup_path(definition, config),
            resources: resources::to_runtime(&host_config.resources)?,
            devices: rules,
        },
        devices,
        sysctls,
        masked_paths: masks(&host_config.masked_paths),
        readonly_paths: masks(&host_config.readonly_paths),
        readonly_rootfs: host_config.readonly_rootfs,
        privileged,
        shm_size: match modes::ipc(&host_config.ipc_mode)? {
            // No shared memory at all.
            Mode::None => 0,
            _ => host_config.shm_size.unsigned_abs(),
        },
        init: host_config.init.unwrap_or(config.init),
        log: log_spec(definition, around)?,
        oci_runtime,
    })
}

fn namespace(mode: Mode<'_>) -> Namespace {
    match mode {
        Mode::Host => Namespace::Host,
        Mode::Private | Mode::None | Mode::Container(_) => Namespace::Private,
    }
}

fn rootfs(dirs: &OverlayDirs) -> Rootfs {
    Rootfs::Overlay {
        lower: dirs.lower.clone(),
        upper: dirs.upper.clone(),
        work: dirs.work.clone(),
        volatile: false,
    }
}

fn process(
    definition: &Definition,
    around: &Surroundings,
    options: &SecurityOptions,
    daemon: &EngineConfig,
) -> Result<Process> {
    let (config, host_config) = (&definition.config, &definition.host_config);
    let [rows, columns] = host_config.console_size;
    Ok(Process {
        args: definition.command_line(),
        env: super::merge::environment(
            config,
            &around.hostname,
            super::links::environment(&around.links),
        ),
        cwd: if config.working_dir.is_empty() {
            "/".to_owned()
        } else {
            config.working_dir.clone()
        },
        user: config.user.clone(),
        additional_groups: host_config.group_add.clone().unwrap_or_default(),
        tty: config.tty,
        console_size: (rows != 0 && columns != 0).then_some((columns, rows)),
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        capabilities: security::capabilities(host_config)?,
        no_new_privileges: options.no_new_privileges.unwrap_or(daemon.no_new_privileges),
        seccomp: options.seccomp(host_config.privileged, &daemon.seccomp_profile),
        rlimits: rlimits(host_config, daemon),
        oom_score_adj: i32::try_from(host_config.oom_score_adj).ok(),
        apparmor_profile: options
            .apparmor
            .clone()
            .filter(|name| !matches!(name.as_str(), "" | "unconfined")),
    })
}

/// The container's limits over the daemon's defaults; -1 is unlimited.
pub(crate) fn rlimits(host_config: &HostConfig, daemon: &EngineConfig) -> Vec<Rlimit> {
    let own = host_config.resources.ulimits.iter().flatten();
    let missing = |name: &str| !own.clone().any(|ulimit| ulimit.name == name);
    let defaults = daemon.default_ulimits.values().filter(|default| missing(&default.name));
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    own.clone()
        .chain(defaults)
        .map(|ulimit| Rlimit {
            name: ulimit.name.clone(),
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        })
        .collect()
}

/// The network files, then the user's mounts, outermost first. A user's mount over one of the
/// files replaces it.
fn all_mounts(definition: &Definition, around: &Surroundings, foreign: bool) -> Result<Vec<Mount>> {
    let files = [
        ("/etc/resolv.conf", &around.files.resolv_conf),
        ("/etc/hostname", &around.files.hostname),
        ("/etc/hosts", &around.files.hosts),
    ];
    let replaced = |target: &str| definition.mounts.iter().any(|mount| mount.target == target);
    let readonly = definition.host_config.readonly_rootfs;
    let own = files.into_iter().filter(|(target, _)| !replaced(target));
    let mut all: Vec<Mount> = own
        .map(|(target, path)| Mount {
            target: target.to_owned(),
            source: MountSource::Bind {
                path: path.clone(),
                recursive: false,
                propagation: Propagation::RPrivate,
                within: None,
            },
            readonly,
            recursive_readonly: RecursiveReadonly::No,
        })
        .collect();
    for mount in &definition.mounts {
        all.push(one_mount(mount, around, foreign)?);
    }
    Ok(all)
}

/// `foreign`: another program than ours sets the container up.
fn one_mount(mount: &mounts::Mount, around: &Surroundings, foreign: bool) -> Result<Mount> {
    let mut recursive_readonly = RecursiveReadonly::No;
    let source = match &mount.source {
        Source::Bind { path, recursive, propagation, recursive_readonly: wanted, create } => {
            bind_source(path, *create)?;
            check_propagation(path, *propagation)?;
            recursive_readonly = *wanted;
            MountSource::Bind {
                path: PathBuf::from(path),
                recursive: *recursive,
                propagation: *propagation,
                within: None,
            }
        }
        Source::Volume { name, subpath, .. } => {
            let root = around.volumes.get(name).cloned().unwrap_or_default();
            let within = (!subpath.is_empty()).then(|| root.clone());
            let path = if subpath.is_empty() { root } else { PathBuf::from(subpath) };
            MountSource::Bind { path, recursive: true, propagation: Propagation::RPrivate, within }
        }
        Source::Tmpfs { options, .. } => MountSource::Tmpfs { options: options.clone() },
        Source::Image { subpath, .. } => {
            if foreign && !subpath.is_empty() {
                return Err(Error::unsupported("a part of an image with this runtime"));
            }
            image_source(mount, subpath, &around.images, &around.directory)?
        }
    };
    Ok(Mount { target: mount.target.clone(), source, readonly: mount.readonly, recursive_readonly })
}

/// The image that `mount` names, of those in `images`; `directory` is the container's.
pub(super) fn image_source(
    mount: &super::mounts::Mount,
    subpath: &str,
    images: &[(Digest, Lowers)],
    directory: &Path,
) -> Result<MountSource> {
    // An overlay that nobody can write to has two lower layers; this is the second of a single one.
    let empty = directory.join("empty");
    let made = std::fs::create_dir_all(&empty);
    made.map_err(Error::io(format!("create {}", empty.display())))?;
    let found = images.iter().find(|(image, _)| Some(*image) == mount.chain());
    let lower = found.map(|(_, lower)| lower.paths.clone()).unwrap_or_default();
    Ok(MountSource::Image { lower, empty, subpath: subpath.to_owned() })
}

/// `-v` makes a missing directory, `--mount` does not.
fn bind_source(path: &str, create: bool) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("stat {path}"))(error))
        }
        Err(_missing) if create => make_source(path),
        Err(_missing) => Err(StartError::BindSource { path: path.to_owned() }.into()),
    }
}

/// A link to nowhere is something that is there, and no directory.
fn make_source(path: &str) -> Result<()> {
    let occupied = std::fs::symlink_metadata(path).is_ok();
    let made = match occupied {
        true => Err(std::io::Error::from_raw_os_error(libc::EEXIST)),
        false => std::fs::create_dir_all(path),
    };
    made.map_err(|error| {
        let reason = match error.raw_os_error() {
            Some(errno) => runtime::protocol::errno_text(errno),
            None => error.to_string(),
        };
        StartError::MakeSource { path: path.to_owned(), reason }.into()
    })
}

/// A shared mount needs a shared source, a slave one a source that is shared or a slave.
fn check_propagation(path: &str, wanted: Propagation) -> Result<()> {
    let (wanted, accepted): (_, &[&str]) = match wanted {
        Propagation::Shared | Propagation::RShared => ("shared", &["shared:"]),
        Propagation::Slave | Propagation::RSlave => ("shared or slave", &["shared:", "master:"]),
        Propagation::Private | Propagation::RPrivate => return Ok(()),
    };
    let real = std::fs::canonicalize(path).map_err(Error::io(format!("resolve {path}")))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::io("read the mount table"))?;
    let (mount, tags) = mount_of(&table, &real).unwrap_or(("/", ""));
    if tags.split(' ').any(|tag| accepted.iter().any(|prefix| tag.starts_with(prefix))) {
        return Ok(());
    }
    Err(StartError::Propagation { path: path.to_owned(), mount: mount.to_owned(), wanted }.into())
}

/// The mount point that holds `path`, with its optional fields: the longest prefix, and of those
/// the last.
fn mount_of<'a>(mountinfo: &'a str, path: &Path) -> Option<(&'a str, &'a str)> {
    let mut best: Option<(&str, &str)> = None;
    for line in mountinfo.lines() {
        let (before, _) = line.split_once(" - ")?;
        let mut fields = before.splitn(7, ' ');
        let Some(point) = fields.nth(4) else { continue };
        let tags = fields.nth(1).unwrap_or_default();
        let longer = best.is_none_or(|(best, _)| point.len() >= best.len());
        if longer && path.starts_with(point) {
            best = Some((point, tags));
        }
    }
    best
}

/// What every container may use: `mknod` of anything, and the harmless devices.
fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access: &str| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let character = |major, minor| rule(DeviceKind::Char, Some(major), minor, "rwm");
    vec![
        rule(DeviceKind::Char, None, None, "m"),
        rule(DeviceKind::Block, None, None, "m"),
        character(1, Some(3)),
        character(1, Some(8)),
        character(1, Some(7)),
        character(5, Some(0)),
        character(1, Some(5)),
        character(1, Some(9)),
        character(5, Some(1)),
        character(136, None),
        character(5, Some(2)),
    ]
}

/// Device nodes and the cgroup's rules for them.
fn devices(host_config: &HostConfig) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>)> {
    if host_config.privileged {
        let all = DeviceRule {
            allow: true,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        };
        return Ok((host_devices(Path::new("/dev")), vec![all]));
    }
    let mut nodes = Vec::new();
    let mut rules = default_rules();
    for mapping in host_config.resources.devices.iter().flatten() {
        for node in mapped_devices(mapping)? {
            rules.push(DeviceRule {
                allow: true,
                kind: node.kind,
                major: Some(node.major),
                minor: Some(node.minor),
                access: mapping.access().to_owned(),
            });
            nodes.push(node);
        }
    }
    for rule in host_config.resources.device_cgroup_rules.iter().flatten() {
        rules.push(security::device_rule(rule)?);
    }
    Ok((nodes, rules))
}

trait Access {
    fn access(&self) -> &str;
}

impl Access for DeviceMapping {
    fn access(&self) -> &str {
        if self.cgroup_permissions.is_empty() { "rwm" } else { &self.cgroup_permissions }
    }
}

/// One device, or all devices of a directory.
fn mapped_devices(mapping: &DeviceMapping) -> Result<Vec<DeviceNode>> {
    let path = &mapping.path_on_host;
    let inside =
        if mapping.path_in_container.is_empty() { path } else { &mapping.path_in_container };
    let problem = |reason: String| StartError::Device { path: path.clone(), reason };
    let real = std::fs::canonicalize(path).map_err(|error| problem(plain(&error)))?;
    if real.is_dir() {
        let mut nodes = host_devices(&real);
        for node in &mut nodes {
            let rest = node.path.strip_prefix(&*real.to_string_lossy()).unwrap_or_default();
            node.path = format!("{}{rest}", inside.trim_end_matches('/'));
        }
        return Ok(nodes);
    }
    match device_node(&real) {
        Some(node) => Ok(vec![DeviceNode { path: inside.clone(), ..node }]),
        None => Err(problem("not a device node".to_owned()).into()),
    }
}

fn plain(error: &std::io::Error) -> String {
    runtime::protocol::errno_text(error.raw_os_error().unwrap_or(libc::EIO))
}

fn device_node(path: &Path) -> Option<DeviceNode> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    let device = metadata.rdev();
    Some(DeviceNode {
        path: path.to_string_lossy().into_owned(),
        kind,
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Every device below `directory`, except what the runtime makes itself.
fn host_devices(directory: &Path) -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let own = ["pts", "shm", "fd", "mqueue", "console", ".udev", ".lxc", ".lxd-mounts"];
            if own.iter().any(|skip| name == *skip) || is_standard(&path) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(path),
                Ok(_) => nodes.extend(device_node(&path)),
                Err(error) => tracing::debug!(path = %path.display(), %error, "look at a device"),
            }
        }
    }
    nodes
}

fn is_standard(path: &Path) -> bool {
    let names = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
    path.parent() == Some(Path::new("/dev")) && names.iter().any(|name| path.ends_with(name))
}

/// `docker/<id>`, or below the parent that was asked for. Never above the root of a hierarchy.
pub(crate) fn cgroup_path(definition: &Definition, config: &EngineConfig) -> String {
    let own = &definition.host_config.resources.cgroup_parent;
    let parent = match (own.as_str(), &config.cgroup_parent) {
        ("", Some(parent)) => parent,
        ("", None) => "boxship",
        (own, _) => own,
    };
    let parent = mounts::clean(&format!("/{parent}"));
    format!("{}/{}", parent.trim_matches('/'), definition.id).trim_start_matches('/').to_owned()
}

fn log_spec(definition: &Definition, around: &Surroundings) -> Result<runtime::spec::LogSpec> {
    let config = &definition.host_config.log_config;
    let path = validate::logging::log_path(&config.kind, &around.directory, definition.id.as_str());
    if let Some(parent) = path.as_deref().and_then(Path::parent)
        && config.kind == "local"
    {
        std::fs::create_dir_all(parent)
            .map_err(Error::io(format!("create {}", parent.display())))?;
    }
    let env = definition.config.env.as_deref().unwrap_or_default();
    let labels = &definition.config.labels;
    Ok(validate::logging::spec(config, path.unwrap_or_default(), labels, env)?)
}

/// A program from `--add-runtime`; our own runtime answers to its name and to `runc`.
fn oci_runtime(name: &str, config: &EngineConfig) -> Option<runtime::spec::OciRuntime> {
    let runtime = config.runtimes.get(name)?;
    Some(runtime::spec::OciRuntime {
        path: PathBuf::from(&runtime.path),
        args: runtime.runtime_args.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let table = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
                     30 21 0:5 / /tmp rw - tmpfs tmpfs rw\n\
                     31 30 0:6 / /tmp/a rw,nosuid shared:7 master:2 - tmpfs tmpfs rw\n";
        assert_eq!(mount_of(table, Path::new("/etc")), Some(("/", "shared:1")));
        assert_eq!(mount_of(table, Path::new("/tmp/b")), Some(("/tmp", "")));
        assert_eq!(mount_of(table, Path::new("/tmp/a/x")), Some(("/tmp/a", "shared:7 master:2")));
    }

    #[test]
    fn a_device_that_is_none_is_named() {
        let mapping = |path: &str| DeviceMapping {
            path_on_host: path.to_owned(),
            ..DeviceMapping::default()
        };
        assert_eq!(
            mapped_devices(&mapping("/dev/nope")).unwrap_err().to_string(),
            "error gathering device information while adding custom device \"/dev/nope\": no such \
             file or directory"
        );
        let null = mapped_devices(&mapping("/dev/null")).unwrap();
        assert_eq!((null[0].major, null[0].minor, null[0].path.as_str()), (1, 3, "/dev/null"));
    }
}
