//! What is mounted into a container: `Binds`, `Mounts`, `Tmpfs`, `Volumes`, `VolumesFrom`, checked
//! and put into one list. Pure; nothing is made or looked up here, the list is kept in the
//! container's record and carried out at each start.

use std::collections::BTreeMap;

use api_types::container::MountPoint;
use api_types::host_config::{HostConfig, Mount as MountRequest, TmpfsOptions};
use runtime::spec::{Propagation, RecursiveReadonly};
use serde::{Deserialize, Serialize};
use spec::Id;
use spec::oci::Empty;

use crate::errors::{CreateReason, MountReason, Result, ValidationError, VolumeError};
use crate::volumes::{Volumes, Wanted, check_name};

/// More than anyone uses and far less than what overflows a packet to the supervisor.
const MOUNTS_MAX: usize = 2_000;
const PATH_MAX: usize = 4_095;

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Cleaned; as the user wrote it when it is relative.
    pub target: String,
    pub source: Source,
    /// The third part of a bind (`ro,z`), kept for inspect.
    pub mode: String,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    Bind {
        path: String,
        recursive: bool,
        propagation: Propagation,
        recursive_readonly: RecursiveReadonly,
        /// A directory is made when nothing is there (`-v`, not `--mount`).
        create: bool,
    },
    Volume {
        /// Of an anonymous one empty until the container is made; then 64 hexadecimal digits.
        name: String,
        subpath: String,
        /// Named by the user: stays when the container is removed by `rm -v` or `--rm`.
        #[serde(default)]
        named: bool,
        /// Filled from the image while it is empty.
        #[serde(default)]
        copy: bool,
        /// The plugin that has it, known when the container is made; empty for `local`.
        #[serde(default)]
        driver: String,
        /// How to make it, for create alone.
        #[serde(skip)]
        wanted: Wanted,
    },
    Tmpfs {
        options: Vec<String>,
        /// Listed by inspect: came from `Mounts`, not from `Tmpfs`.
        listed: bool,
    },
    /// The layers of an image, read-only.
    Image {
        /// As the user wrote it.
        name: String,
        subpath: String,
        /// Looked up at create; what the name means later does not matter.
        image: String,
        chain: Option<spec::Digest>,
    },
}

impl Mount {
    /// How inspect shows it; `None` when it does not.
    pub(crate) fn shown(&self, user: &Id, volumes: &Volumes) -> Option<MountPoint> {
        let point = MountPoint {
            destination: self.target.clone(),
            mode: self.mode.clone(),
            rw: !self.readonly,
            ..MountPoint::default()
        };
        match &self.source {
            Source::Bind { path, propagation, .. } => Some(MountPoint {
                kind: "bind".to_owned(),
                source: path.clone(),
                propagation: propagation_name(*propagation).to_owned(),
                ..point
            }),
            Source::Volume { name, driver, .. } => Some(MountPoint {
                kind: "volume".to_owned(),
                name: name.clone(),
                source: volumes.source(user, name, driver).display().to_string(),
                driver: if driver.is_empty() { "local".to_owned() } else { driver.clone() },
                ..point
            }),
            Source::Tmpfs { listed: true, .. } => {
                Some(MountPoint { kind: "tmpfs".to_owned(), ..point })
            }
            Source::Tmpfs { listed: false, .. } => None,
            // There is no directory of the host to show: the layers meet in the container.
            Source::Image { name, image, .. } => Some(MountPoint {
                kind: "image".to_owned(),
                name: name.clone(),
                source: image.clone(),
                propagation: "rprivate".to_owned(),
                ..point
            }),
        }
    }

    /// The id of the image it mounts, if it does.
    pub(crate) fn image(&self) -> Option<&str> {
        match &self.source {
            Source::Image { image, .. } => Some(image),
            _ => None,
        }
    }

    /// The layers of that image.
    pub(crate) fn chain(&self) -> Option<spec::Digest> {
        match &self.source {
            Source::Image { chain, .. } => *chain,
            _ => None,
        }
    }

    /// The volume it mounts, if it does.
    pub(crate) fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { name, .. } => Some(name),
            _ => None,
        }
    }

    /// How many components the target has: mounts are made from the root outwards.
    pub(crate) fn depth(&self) -> usize {
        self.target.split('/').filter(|part| !part.is_empty()).count()
    }
}

/// The volumes that are mounted, each once, with the plugins that have them.
pub(crate) fn volumes_of(mounts: &[Mount]) -> BTreeMap<&str, &str> {
    let volumes = mounts.iter().filter_map(|mount| match &mount.source {
        Source::Volume { name, driver, .. } => Some((name.as_str(), driver.as_str())),
        _ => None,
    });
    volumes.collect()
}

/// Puts together everything the request mounts. `inherited` are the mounts of the containers in
/// `VolumesFrom`, which all others override.
pub(crate) fn plan(
    host_config: &HostConfig,
    volumes: Option<&BTreeMap<String, Empty>>,
    inherited: Vec<Mount>,
) -> Result<Vec<Mount>> {
    let mut plan: BTreeMap<String, Mount> =
        inherited.into_iter().map(|mount| (mount.target.clone(), mount)).collect();
    let mut own = std::collections::BTreeSet::new();
    let driver = host_config.volume_driver.as_str();
    let binds = host_config.binds.iter().flatten().map(|bind| parse_bind(bind, driver));
    let mounts = host_config.mounts.iter().flatten().map(parse_mount);
    let tmpfs = host_config.tmpfs.iter().flatten();
    let tmpfs = tmpfs.map(|(target, options)| parse_tmpfs(target, options));
    for mount in binds.chain(mounts).chain(tmpfs) {
        let mount = mount?;
        if !own.insert(mount.target.clone()) {
            return Err(ValidationError::DuplicateMount { target: mount.target }.into());
        }
        plan.insert(mount.target.clone(), mount);
    }
    for target in volumes.iter().flat_map(|volumes| volumes.keys()) {
        let target = clean(target);
        if target == "/" || target == "." {
            return Err(ValidationError::Target(MountReason::Root).into());
        }
        plan.entry(target.clone()).or_insert_with(|| anonymous(target, driver));
    }
    if plan.len() > MOUNTS_MAX {
        let count = plan.len();
        return Err(ValidationError::TooManyMounts { count, limit: MOUNTS_MAX }.into());
    }
    let mut plan: Vec<_> = plan.into_values().collect();
    plan.sort_by_key(Mount::depth);
    Ok(plan)
}

fn anonymous(target: String, driver: &str) -> Mount {
    let source = volume("", true, Wanted { driver: driver.to_owned(), ..Wanted::default() });
    Mount { target, source, mode: String::new(), readonly: false }
}

fn volume(name: &str, copy: bool, wanted: Wanted) -> Source {
    let (named, name) = (!name.is_empty(), name.to_owned());
    let (subpath, driver) = (String::new(), String::new());
    Source::Volume { name, subpath, named, copy, driver, wanted }
}

/// What Docker shows as the mode of a volume that was given none: its default label.
fn volume_mode(mode: &str) -> String {
    if mode.is_empty() { "z".to_owned() } else { mode.to_owned() }
}

/// Parses `/host:/target[:mode]`, `volume:/target[:mode]` or `/target`.
fn parse_bind(spec: &str, driver: &str) -> Result<Mount> {
    let syntax = || ValidationError::BindSyntax { spec: spec.to_owned() };
    let parts: Vec<&str> = spec.splitn(4, ':').collect();
    let (source, target, mode) = match parts[..] {
        ["", ..] => return Err(syntax().into()),
        [target] => (None, target, ""),
        [_, mode] if !mode.is_empty() && BindMode::parse(mode).is_some() => {
            return Err(syntax().into());
        }
        [source, target] => (Some(source), target, ""),
        [source, target, mode] => (Some(source), target, mode),
        _ => return Err(syntax().into()),
    };
    let mode_error = || ValidationError::BindMode { mode: mode.to_owned() };
    let flags = BindMode::parse(mode).ok_or_else(mode_error)?;
    let absolute = source.is_some_and(|source| source.starts_with('/'));
    let kind = if absolute { "bind" } else { "volume" };
    let wrap = |reason| ValidationError::Bind {
        spec: spec.to_owned(),
        cause: Box::new(ValidationError::Mount { kind: kind.to_owned(), reason }),
    };
    let target = check_target(target).map_err(wrap)?;
    let source = match source {
        Some(path) if absolute => {
            if flags.nocopy {
                return Err(wrap(MountReason::VolumeOptions).into());
            }
            let path = clean(path);
            check_length(&path).map_err(wrap)?;
            Source::Bind {
                path,
                recursive: true,
                propagation: flags.propagation.unwrap_or_default(),
                recursive_readonly: recursive_readonly(flags.readonly),
                create: true,
            }
        }
        Some(_) if flags.propagation.is_some() => {
            return Err(wrap(MountReason::BindOptions).into());
        }
        Some(name) => {
            check_volume(name, driver)?;
            let wanted = Wanted { driver: driver.to_owned(), ..Wanted::default() };
            let source = volume(name, !flags.nocopy, wanted);
            return Ok(Mount { target, source, mode: volume_mode(mode), readonly: flags.readonly });
        }
        None => anonymous(String::new(), driver).source,
    };
    Ok(Mount { target, source, mode: mode.to_owned(), readonly: flags.readonly })
}

/// The rule is that of the driver `local`; plugins have their own.
fn check_volume(name: &str, driver: &str) -> Result<(), VolumeError> {
    if !matches!(driver, "" | "local") {
        return Ok(());
    }
    let wrap = |reason: CreateReason| VolumeError::Create { name: name.to_owned(), reason };
    check_name(name).map_err(wrap)
}

const fn recursive_readonly(readonly: bool) -> RecursiveReadonly {
    if readonly { RecursiveReadonly::IfPossible } else { RecursiveReadonly::No }
}

/// The words after the second colon.
#[derive(Debug, Default)]
struct BindMode {
    readonly: bool,
    nocopy: bool,
    propagation: Option<Propagation>,
}

impl BindMode {
    /// `None` for unknown words and for two of one kind.
    fn parse(mode: &str) -> Option<Self> {
        let mut parsed = Self::default();
        let mut seen = [false; 5];
        for word in mode.split(',').filter(|_| !mode.is_empty()) {
            let kind = match word {
                "ro" | "rw" => {
                    parsed.readonly = word == "ro";
                    0
                }
                // SELinux labels; without SELinux they mean nothing.
                "z" | "Z" => 1,
                "nocopy" => {
                    parsed.nocopy = true;
                    2
                }
                "consistent" | "cached" | "delegated" | "default" => 3,
                _ => {
                    parsed.propagation = Some(propagation(word)?);
                    4
                }
            };
            if std::mem::replace(&mut seen[kind], true) {
                return None;
            }
        }
        Some(parsed)
    }
}

fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "rprivate" => Propagation::RPrivate,
        "private" => Propagation::Private,
        "rshared" => Propagation::RShared,
        "shared" => Propagation::Shared,
        "rslave" => Propagation::RSlave,
        "slave" => Propagation::Slave,
        _ => return None,
    })
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

/// Checks one element of `Mounts`.
fn parse_mount(request: &MountRequest) -> Result<Mount> {
    let kind = request.kind.as_str();
    let wrap = |reason| ValidationError::Mount { kind: kind.to_owned(), reason };
    if request.target.is_empty() {
        return Err(wrap(MountReason::NoTarget).into());
    }
    if !matches!(kind, "bind" | "volume" | "tmpfs" | "image") {
        return Err(wrap(MountReason::Unknown).into());
    }
    refuse_foreign_options(request)?;
    if request.source.is_empty() && matches!(kind, "bind" | "image") {
        return Err(wrap(MountReason::NoSource).into());
    }
    let target = check_target(&request.target).map_err(wrap)?;
    let source = match kind {
        "bind" => bind_source(request).map_err(wrap)?,
        "tmpfs" if !request.source.is_empty() => {
            return Err(wrap(MountReason::SourceGiven).into());
        }
        "tmpfs" => tmpfs_source(request.tmpfs_options.as_ref()).map_err(wrap)?,
        "volume" => volume_source(request)?,
        _ => image_source(request).map_err(wrap)?,
    };
    let mode = if kind == "volume" { volume_mode("") } else { String::new() };
    Ok(Mount { target, source, mode, readonly: request.read_only || kind == "image" })
}

fn refuse_foreign_options(request: &MountRequest) -> Result<()> {
    let given = [
        ("BindOptions", "bind", request.bind_options.is_some()),
        ("VolumeOptions", "volume", request.volume_options.is_some()),
        ("ImageOptions", "image", request.image_options.is_some()),
        ("TmpfsOptions", "tmpfs", request.tmpfs_options.is_some()),
    ];
    match given.into_iter().find(|(_, kind, given)| *given && *kind != request.kind) {
        Some((options, _, _)) => {
            Err(ValidationError::MountOptions { options, kind: request.kind.clone() }.into())
        }
        None => Ok(()),
    }
}

fn bind_source(request: &MountRequest) -> Result<Source, MountReason> {
    let options = request.bind_options.clone().unwrap_or_default();
    if !request.source.starts_with('/') {
        return Err(MountReason::NotAbsolute { path: request.source.clone() });
    }
    let unknown = || MountReason::Propagation { mode: options.propagation.clone() };
    let propagation = match options.propagation.as_str() {
        "" => Propagation::default(),
        word => propagation(word).ok_or_else(unknown)?,
    };
    let recursive_readonly = match options {
        _ if !request.read_only => RecursiveReadonly::No,
        ref options if options.read_only_force_recursive => RecursiveReadonly::Force,
        ref options if options.read_only_non_recursive => RecursiveReadonly::No,
        _ => RecursiveReadonly::IfPossible,
    };
    let path = clean(&request.source);
    check_length(&path)?;
    Ok(Source::Bind {
        path,
        recursive: !options.non_recursive,
        propagation,
        recursive_readonly,
        create: options.create_mountpoint,
    })
}

fn image_source(request: &MountRequest) -> Result<Source, MountReason> {
    let subpath = request.image_options.clone().unwrap_or_default().subpath;
    check_subpath(&subpath)?;
    let name = request.source.clone();
    Ok(Source::Image { name, subpath, image: String::new(), chain: None })
}

fn check_subpath(subpath: &str) -> Result<(), MountReason> {
    let path = std::path::Path::new(subpath);
    if path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err(MountReason::Subpath);
    }
    Ok(())
}

fn volume_source(request: &MountRequest) -> Result<Source> {
    let options = request.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    let wrap = |reason| ValidationError::Mount { kind: request.kind.clone(), reason };
    check_subpath(&options.subpath).map_err(wrap)?;
    let name = request.source.as_str();
    if name.is_empty() && !options.subpath.is_empty() {
        let kind = request.kind.clone();
        return Err(ValidationError::Mount { kind, reason: MountReason::SubpathAnonymous }.into());
    }
    if !name.is_empty() {
        check_volume(name, &driver.name)?;
    }
    let wanted = Wanted { driver: driver.name, options: driver.options, labels: options.labels };
    Ok(Source::Volume {
        name: name.to_owned(),
        named: !name.is_empty(),
        // What is below a part of the volume is nobody's to fill.
        copy: !options.no_copy && options.subpath.is_empty(),
        subpath: options.subpath,
        driver: String::new(),
        wanted,
    })
}

/// Without words to the contrary the runtime makes a tmpfs `nosuid,nodev,noexec`.
fn tmpfs_source(options: Option<&TmpfsOptions>) -> Result<Source, MountReason> {
    let given = options.cloned().unwrap_or_default();
    let mut options = Vec::new();
    if given.size_bytes > 0 {
        options.push(format!("size={}", given.size_bytes));
    }
    if given.mode != 0 {
        options.push(format!("mode={:o}", given.mode));
    }
    for option in given.options.iter().flatten() {
        match &option[..] {
            [word] if word == "exec" || word == "noexec" => options.push(word.clone()),
            [word, ..] => return Err(MountReason::Option { option: word.clone() }),
            [] => {}
        }
    }
    Ok(Source::Tmpfs { options, listed: true })
}

/// One element of `HostConfig.Tmpfs`: a target and mount options.
fn parse_tmpfs(target: &str, text: &str) -> Result<Mount> {
    let target = check_target(target).map_err(ValidationError::Target)?;
    let mut options = Vec::new();
    let mut readonly = false;
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => readonly = true,
            "rw" => readonly = false,
            _ if is_tmpfs_option(word) => options.push(word.to_owned()),
            _ => {
                return Err(ValidationError::TmpfsOption { option: word.to_owned() }.into());
            }
        }
    }
    let source = Source::Tmpfs { options, listed: false };
    Ok(Mount { target, source, mode: String::new(), readonly })
}

/// What the runtime understands.
fn is_tmpfs_option(word: &str) -> bool {
    const FLAGS: &[&str] = &[
        "defaults",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "async",
        "private",
        "rprivate",
    ];
    const KEYS: &[&str] = &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    match word.split_once('=') {
        Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
        None => FLAGS.contains(&word),
    }
}

fn check_target(target: &str) -> Result<String, MountReason> {
    if target.is_empty() {
        return Err(MountReason::NoTarget);
    }
    if !target.starts_with('/') {
        return Err(MountReason::NotAbsolute { path: target.to_owned() });
    }
    let target = clean(target);
    check_length(&target)?;
    if target == "/" { Err(MountReason::Root) } else { Ok(target) }
}

const fn check_length(path: &str) -> Result<(), MountReason> {
    if path.len() > PATH_MAX { Err(MountReason::TooLong { limit: PATH_MAX }) } else { Ok(()) }
}

/// The shortest lexically equal path: no `.`, no `..` that can be resolved, no double slash.
pub(crate) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
