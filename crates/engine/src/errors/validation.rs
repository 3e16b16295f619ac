//! Sentences about requests that can never work, found before anything is made.
//!
//! Engine 28.5 answers 500 to some of them (a bad bind mode, an unknown security option); they
//! are the client's mistake and answer 400 here, as in later engines. Where Docker notices only
//! at the start (sysctls, ulimits, seccomp), we notice at create, in the same words.

use spec::{ErrorKind, Kinded};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    #[error("config cannot be empty in order to create a container")]
    EmptyConfig,
    #[error("no command specified")]
    NoCommand,
    #[error("invalid environment variable: {variable}")]
    Environment { variable: String },
    #[error("arguments and environment take {bytes} bytes, more than {limit}")]
    ArgumentsTooLong { bytes: usize, limit: usize },
    #[error("the working directory '{path}' is invalid, it needs to be an absolute path")]
    WorkingDir { path: String },
    #[error("invalid signal: {signal}")]
    Signal { signal: String },
    #[error("invalid hostname: {hostname}")]
    Hostname { hostname: String },
    #[error("{field} in Healthcheck cannot be less than 1ms")]
    HealthDuration { field: &'static str },
    #[error("Retries in Healthcheck cannot be negative")]
    HealthRetries,
    #[error("Unknown type '{kind}' in HEALTHCHECK (try 'CMD')")]
    HealthKind { kind: String },

    #[error("Minimum memory limit allowed is 6MB")]
    MemoryTooLow,
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    #[error("Invalid value: {value}, valid memory swappiness range is 0-100")]
    Swappiness { value: i64 },
    #[error("Minimum memory reservation allowed is 6MB")]
    ReservationTooLow,
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    MemoryBelowReservation,
    #[error("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")]
    NanoCpus { cpus: usize },
    #[error("Conflicting options: Nano CPUs and CPU {other} cannot both be set")]
    NanoCpusConflict { other: &'static str },
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    CpuPeriod,
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    CpuQuota,
    #[error("invalid CPU shares ({value}): value must be a positive integer")]
    CpuShares { value: i64 },
    #[error("the minimum allowed cpu-shares is 2")]
    CpuSharesTooLow,
    #[error("the maximum allowed cpu-shares is 262144")]
    CpuSharesTooHigh,
    #[error("Invalid value {value} for cpuset {what}: {reason}")]
    Cpuset { what: &'static str, value: String, reason: String },
    #[error("Requested CPUs are not available - requested {value}, available: {available}")]
    CpusUnavailable { value: String, available: String },
    #[error("Requested memory nodes are not available - requested {value}, available: {available}")]
    MemsUnavailable { value: String, available: String },
    #[error("Range of blkio weight is from 10 to 1000")]
    BlkioWeight,
    #[error("SHM size can not be less than 0")]
    ShmSize,
    #[error("Invalid value {value}, range for oom score adj is [-1000, 1000]")]
    OomScore { value: i64 },
    #[error("invalid ulimit type: {name}")]
    UlimitName { name: String },
    #[error("ulimit {name}: soft limit {soft} is greater than hard limit {hard}")]
    UlimitOrder { name: String, soft: i64, hard: i64 },
    #[error("sysctl {key:?} is not in a separate kernel namespace")]
    SysctlNotNamespaced { key: String },
    #[error("sysctl {key:?} not allowed in host network namespace")]
    SysctlHostNetwork { key: String },
    #[error("sysctl {key:?} is not allowed in the hosts ipc namespace")]
    SysctlHostIpc { key: String },
    #[error("sysctl {key:?} is not allowed as it conflicts with the OCI {field:?} field")]
    SysctlConflict { key: String, field: &'static str },

    #[error(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', \
         'on-failure', or 'unless-stopped'"
    )]
    RestartPolicy { name: String },
    #[error("invalid restart policy: maximum retry count can only be used with 'on-failure'")]
    RetryCountUnused,
    #[error("invalid restart policy: maximum retry count cannot be negative")]
    RetryCountNegative,
    #[error("can't create 'AutoRemove' container with restart policy")]
    AutoRemoveAndRestart,
    #[error("invalid {field}: unknown capability: \"{name}\"")]
    Capability { field: &'static str, name: String },
    #[error("invalid --security-opt {code}: {option:?}")]
    SecurityOpt { code: u8, option: String },
    #[error("Decoding seccomp profile failed: {reason}")]
    Seccomp { reason: String },
    #[error("apparmor profile {name:?} cannot be used: AppArmor is not enabled on this host")]
    AppArmor { name: String },
    #[error("invalid device cgroup rule format: '{rule}'")]
    DeviceRule { rule: String },
    #[error("invalid device mode: {mode}")]
    DeviceMode { mode: String },

    #[error("invalid PID mode: {mode}")]
    PidMode { mode: String },
    #[error("invalid IPC mode: {mode}")]
    IpcMode { mode: String },
    #[error("invalid UTS mode: {mode}")]
    UtsMode { mode: String },
    #[error("invalid userns mode: {mode}")]
    UsernsMode { mode: String },
    #[error("invalid cgroup namespace mode: {mode}")]
    CgroupnsMode { mode: String },
    #[error("invalid network mode: invalid container format container:<name|id>")]
    NetworkContainer,
    #[error("{0}")]
    Reference(#[from] crate::errors::NoSuchContainer),
    #[error("conflicting options: {0}")]
    Conflict(&'static str),
    #[error("invalid isolation ({mode}): linux only supports 'default'")]
    Isolation { mode: String },
    #[error("unknown or invalid runtime name: {name}")]
    Runtime { name: String },
    #[error("invalid Annotations: the empty string is not permitted as an annotation key")]
    Annotation,
    #[error("invalid MAC address {address}")]
    MacAddress { address: String },

    #[error("invalid tmpfs option {option:?}")]
    TmpfsOption { option: String },
    #[error("error looking up logging plugin {driver}: plugin \"{driver}\" not found")]
    LogDriver { driver: String },
    #[error("unknown log opt '{option}' for {driver} log driver")]
    LogOption { driver: String, option: String },
    #[error("logger: logging mode not supported: {mode}")]
    LogMode { mode: String },
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    LogBuffer,
    #[error("failed to initialize logging driver: {reason}")]
    LogValue { reason: String },

    #[error("invalid volume specification: '{spec}'")]
    BindSyntax { spec: String },
    #[error("invalid mode: {mode}")]
    BindMode { mode: String },
    #[error("invalid volume specification: '{spec}': {cause}")]
    Bind { spec: String, cause: Box<Self> },
    #[error("invalid mount config for type \"{kind}\": {reason}")]
    Mount { kind: String, reason: MountReason },
    #[error("{options} must not be specified on mount type \"{kind}\"")]
    MountOptions { options: &'static str, kind: String },
    #[error("{0}")]
    Target(MountReason),
    #[error("Duplicate mount point: {target}")]
    DuplicateMount { target: String },
    #[error("{count} mounts are more than {limit}")]
    TooManyMounts { count: usize, limit: usize },
    #[error("volumes-from specification cannot be an empty string")]
    VolumesFrom,

    #[error("invalid port specification: \"{port}\"")]
    Port { port: String },
    #[error("invalid port binding: invalid host IP address: {ip}")]
    HostIp { ip: String },
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    #[error(
        "container cannot be connected to multiple networks with one of the networks in {network} \
         mode"
    )]
    OnlyNetwork { network: String },
    #[error("bad format for add-host: \"{entry}\"")]
    ExtraHost { entry: String },
    #[error("invalid IP address in add-host: \"{address}\"")]
    ExtraHostAddress { address: String },
    #[error("empty string specified for links")]
    EmptyLink,
    #[error("bad format for links: {link}")]
    Link { link: String },
    #[error("could not get container for {reference}: {cause}")]
    LinkTarget { reference: String, cause: String },
    #[error("invalid config for network {network}: {reason}")]
    Endpoint { network: String, reason: String },
}

/// Why a mount cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountReason {
    #[error("field Target must not be empty")]
    NoTarget,
    #[error("field Source must not be empty")]
    NoSource,
    #[error("field Source must not be specified")]
    SourceGiven,
    #[error("field VolumeOptions must not be specified")]
    VolumeOptions,
    #[error("field BindOptions must not be specified")]
    BindOptions,
    #[error("mount type unknown")]
    Unknown,
    #[error("invalid mount path: '{path}' mount path must be absolute")]
    NotAbsolute { path: String },
    #[error("invalid specification: destination can't be '/'")]
    Root,
    #[error("path is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("invalid propagation mode: {mode}")]
    Propagation { mode: String },
    #[error("invalid option: {option}")]
    Option { option: String },
    #[error("bind source path does not exist: {path}")]
    SourceMissing { path: String },
    #[error("subpath must be a relative path within the volume")]
    Subpath,
    #[error("must not set Subpath when using anonymous volumes")]
    SubpathAnonymous,
}

impl Kinded for ValidationError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: ValidationError, sentence: &str) {
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    /// The plain sentences are their own specification above; these are put together from parts.
    #[test]
    fn sentences_are_dockers() {
        check(
            ValidationError::NanoCpus { cpus: 2 },
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        );
        check(
            ValidationError::NanoCpusConflict { other: "Period" },
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        );
        check(
            ValidationError::RestartPolicy { name: "foo".to_owned() },
            "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', \
             'on-failure', or 'unless-stopped'",
        );
        check(
            ValidationError::SecurityOpt { code: 2, option: "foo=bar".to_owned() },
            "invalid --security-opt 2: \"foo=bar\"",
        );
        check(
            ValidationError::SysctlConflict {
                key: "kernel.hostname".to_owned(),
                field: "hostname",
            },
            "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" \
             field",
        );
        let mount = ValidationError::Mount {
            kind: "bind".to_owned(),
            reason: MountReason::NotAbsolute { path: "x".to_owned() },
        };
        check(
            ValidationError::Bind { spec: "/tmp:x".to_owned(), cause: Box::new(mount) },
            "invalid volume specification: '/tmp:x': invalid mount config for type \"bind\": \
             invalid mount path: 'x' mount path must be absolute",
        );
        check(
            ValidationError::LinkTarget {
                reference: "nope".to_owned(),
                cause: "No such container: nope".to_owned(),
            },
            "could not get container for nope: No such container: nope",
        );
    }
}
