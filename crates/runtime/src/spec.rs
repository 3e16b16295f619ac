//! What the supervisor is told to run: plain data, fully decided. Every name is resolved to a
//! number where the daemon can do it, every default is filled in; the runtime makes no policy.
//!
//! Paths on the host are absolute. Paths inside the container are as the user wrote them and are
//! resolved below the container's root by the init stage.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spec::Id;

/// One container's process and surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: Id,
    /// Counts the starts of this container; exit records carry it, so that an old exit is never
    /// taken for a new one.
    pub generation: u64,
    pub rootfs: Rootfs,
    /// `/etc/hosts`, volumes, tmpfs: in the order they are mounted, after the standard mounts.
    pub mounts: Vec<Mount>,
    pub process: Process,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub namespaces: Namespaces,
    pub network: NetworkSetup,
    pub cgroup: CgroupSpec,
    /// Device nodes made in `/dev` beside the standard ones.
    pub devices: Vec<DeviceNode>,
    pub sysctls: BTreeMap<String, String>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub readonly_rootfs: bool,
    /// `/sys` and `/proc/sys` writable, all devices: what `--privileged` means for mounts.
    pub privileged: bool,
    pub shm_size: u64,
    /// Run a small init as PID 1 that reaps zombies and forwards signals (`--init`).
    pub init: bool,
    pub log: LogSpec,
    /// An external OCI runtime program and its arguments (`--runtime`); none for our own.
    pub oci_runtime: Option<OciRuntime>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OciRuntime {
    pub path: PathBuf,
    pub args: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Rootfs {
    /// Mounted by the container's init inside its own mount namespace; the host never sees it.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf, volatile: bool },
    /// An existing directory, bound as the root.
    Directory { path: PathBuf },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    pub target: String,
    pub source: MountSource,
    pub readonly: bool,
    /// Also make mounts below a bind read-only (`ro` with recursive, the default since API 1.44,
    /// falls back silently; `rro` (force) is an error when the kernel cannot).
    pub recursive_readonly: RecursiveReadonly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecursiveReadonly {
    No,
    IfPossible,
    Force,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    Bind {
        path: PathBuf,
        recursive: bool,
        propagation: Propagation,
        /// Opened `path` below this directory without following links out of it (volume subpath).
        within: Option<PathBuf>,
    },
    /// `options` are those of tmpfs (`size=`, `mode=`, `uid=`...) plus `exec`, `suid`, `dev`, ...
    Tmpfs {
        options: Vec<String>,
    },
    /// The layers of an image, topmost first, or what they have at `subpath`. Nobody can write to
    /// it, as there is nowhere to write: two lower layers and no upper one. `empty` is the second
    /// of a single layer.
    Image {
        lower: Vec<PathBuf>,
        empty: PathBuf,
        subpath: String,
    },
    Mqueue,
    Cgroup,
    Proc,
    Sysfs,
    Devpts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    RPrivate,
    Private,
    RShared,
    Shared,
    RSlave,
    Slave,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path inside the container.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
    /// Only in cgroup rules: both kinds.
    All,
}

/// What is executed, for a container's first process and for `exec` alike.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// As written by the user: `""`, `name`, `uid`, `name:group`, `uid:gid`. Looked up in the
    /// container's `/etc/passwd` and `/etc/group`, below its root, with bounded reads.
    pub user: String,
    /// `--group-add`: names or numbers.
    pub additional_groups: Vec<String>,
    pub tty: bool,
    /// Columns and rows, when the client told them.
    pub console_size: Option<(u16, u16)>,
    pub open_stdin: bool,
    /// Close stdin when the first attached client goes away.
    pub stdin_once: bool,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
}

/// Bit masks over the kernel's capability numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Seccomp {
    Unconfined,
    /// Our built-in default for the process's capabilities.
    Default,
    /// A profile in Docker's JSON form, as given with `--security-opt seccomp=`.
    Profile(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, ... as in `--ulimit`.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Namespaces {
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub net: Namespace,
    pub cgroup: Namespace,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    Private,
    Host,
    /// Joined through the other container's first process, which must be running.
    Container(Id),
}

/// What happens in a private network namespace. `lo` is always brought up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetworkSetup {
    pub interfaces: Vec<Interface>,
    /// Whether 127.0.0.11 is to answer ([`crate::resolver`]).
    #[serde(default)]
    pub resolver: bool,
    /// `/proc/sys/net` values set before the program runs (`net.ipv4.ip_unprivileged_port_start`).
    pub sysctls: BTreeMap<String, String>,
    /// The daemon's own record of this. It is given back with the list of what runs, since the
    /// daemon may die before it has written down what it made.
    #[serde(default)]
    pub note: String,
}

/// What a container's interface is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    #[default]
    Veth,
    /// On a link of the host, with a MAC of its own. The mode is the kernel's number.
    Macvlan { mode: u32 },
    /// On a link of the host, with that one's MAC, in mode l2.
    Ipvlan { flags: u16 },
}

impl LinkKind {
    pub const MACVLAN_PRIVATE: u32 = 1;
    pub const MACVLAN_VEPA: u32 = 2;
    pub const MACVLAN_BRIDGE: u32 = 4;
    pub const MACVLAN_PASSTHRU: u32 = 8;
}

/// A veth pair, one end on the host in a bridge, the other born inside the container; or only that
/// inside, on a link of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interface {
    #[serde(default)]
    pub link: LinkKind,
    /// Empty for what has no end on the host.
    pub host_name: String,
    pub container_name: String,
    /// Or the parent link.
    pub bridge: String,
    /// Set on the host end, so that a daemon knows its own links: `boxship:<bridge>:<container>`.
    #[serde(default)]
    pub alias: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// Forbid traffic to other ports of the bridge (`icc=false`).
    pub isolated: bool,
    /// Let the bridge send back on this port what came from it: with `br_netfilter` a container's
    /// way to its own published port is bridged, not routed.
    #[serde(default)]
    pub hairpin: bool,
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateway_v4: Option<Ipv4Addr>,
    pub gateway_v6: Option<Ipv6Addr>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Relative to each hierarchy's root: `docker/<id>`, or below `--cgroup-parent`.
    pub path: String,
    pub resources: Resources,
    /// First match wins from the end; starts from "deny all".
    pub devices: Vec<DeviceRule>,
}

/// Limits that `update` may change on a running container. `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// Memory plus swap as Docker counts it; -1 is unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: bool,
    pub cpu_shares: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_rt_period: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// -1 or 0 is unlimited.
    pub pids_limit: Option<i64>,
    pub blkio_weight: Option<u16>,
    /// `(major, minor, value)`
    pub blkio_weight_device: Vec<(u32, u32, u64)>,
    pub blkio_read_bps: Vec<(u32, u32, u64)>,
    pub blkio_write_bps: Vec<(u32, u32, u64)>,
    pub blkio_read_iops: Vec<(u32, u32, u64)>,
    pub blkio_write_iops: Vec<(u32, u32, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// `None` is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Any of `rwm`.
    pub access: String,
}

/// Where the supervisor writes what the container says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LogSpec {
    None,
    /// Docker's json-file format.
    JsonFile(LogFile),
    /// Docker's `local` format (length-prefixed protobuf entries).
    Local(LogFile),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogFile {
    pub path: PathBuf,
    /// Bytes after which the file is rotated; none for no limit.
    pub max_size: Option<u64>,
    pub max_files: u32,
    pub compress: bool,
    /// The `attrs` member of each json-file line: chosen labels and environment, and `tag`.
    pub attrs: BTreeMap<String, String>,
}

/// A process added to a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    pub exec_id: Id,
    pub container: Id,
    pub process: Process,
}
