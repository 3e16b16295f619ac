//! Checks a create request against everything that can be known before anything is made, and
//! gathers the warnings that create answers with. One file per part of `HostConfig`.

pub(super) mod logging;
pub(super) mod modes;
pub(super) mod resources;
pub(super) mod security;

use api_types::container::Config;
use api_types::host_config::{HostConfig, RestartPolicy};

use crate::errors::{Result, ValidationError};
use crate::sysinfo::SysInfo;

/// What the kernel takes for arguments and environment together.
const ARGUMENTS_MAX: usize = 2 << 20;

/// What the checks compare with.
pub(crate) struct Context<'a> {
    pub sysinfo: &'a SysInfo,
    /// Names that `--runtime` may have.
    pub runtimes: &'a (dyn Fn(&str) -> bool + Sync),
}

/// Checks all that needs neither the image nor other containers. `config` is already merged with
/// its image and has its defaults.
pub(crate) fn check(
    config: &Config,
    host_config: &HostConfig,
    context: &Context<'_>,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    process(config)?;
    health(config)?;
    resources::check(&host_config.resources, context.sysinfo, &mut warnings)?;
    host(host_config, &mut warnings)?;
    modes::check(config, host_config)?;
    security::check(host_config, context.sysinfo)?;
    logging::check(&host_config.log_config)?;
    ports(host_config)?;
    for link in host_config.links.iter().flatten() {
        super::links::parse(link)?;
    }
    if !host_config.runtime.is_empty() && !(context.runtimes)(&host_config.runtime) {
        return Err(ValidationError::Runtime { name: host_config.runtime.clone() }.into());
    }
    refuse_unsupported(host_config)?;
    Ok(warnings)
}

fn process(config: &Config) -> Result<(), ValidationError> {
    let env = config.env.iter().flatten();
    if let Some(variable) =
        env.clone().find(|variable| variable.is_empty() || variable.starts_with('='))
    {
        return Err(ValidationError::Environment { variable: variable.clone() });
    }
    let words = config.entrypoint.iter().chain(&config.cmd).flatten().chain(env);
    // Each word costs its bytes, its end and a pointer.
    let bytes: usize = words.map(|word| word.len() + 9).sum();
    if bytes > ARGUMENTS_MAX {
        return Err(ValidationError::ArgumentsTooLong { bytes, limit: ARGUMENTS_MAX });
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(ValidationError::WorkingDir { path: config.working_dir.clone() });
    }
    if !config.stop_signal.is_empty() && crate::signal::parse(&config.stop_signal).is_none() {
        return Err(ValidationError::Signal { signal: config.stop_signal.clone() });
    }
    // The kernel's limit; Docker finds out at the start.
    if config.hostname.len() > 64 || config.hostname.contains('\0') {
        return Err(ValidationError::Hostname { hostname: config.hostname.clone() });
    }
    let command = config.entrypoint.iter().chain(&config.cmd).flatten().next();
    if command.is_none() { Err(ValidationError::NoCommand) } else { Ok(()) }
}

fn health(config: &Config) -> Result<(), ValidationError> {
    let Some(check) = &config.healthcheck else { return Ok(()) };
    let durations = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (field, value) in durations {
        if value != 0 && value < 1_000_000 {
            return Err(ValidationError::HealthDuration { field });
        }
    }
    if check.retries < 0 { Err(ValidationError::HealthRetries) } else { Ok(()) }
}

fn host(host_config: &HostConfig, warnings: &mut Vec<String>) -> Result<(), ValidationError> {
    if host_config.shm_size < 0 {
        return Err(ValidationError::ShmSize);
    }
    let score = host_config.oom_score_adj;
    if !(-1000..=1000).contains(&score) {
        return Err(ValidationError::OomScore { value: score });
    }
    restart_policy(&host_config.restart_policy)?;
    if host_config.auto_remove && is_restarting(&host_config.restart_policy) {
        return Err(ValidationError::AutoRemoveAndRestart);
    }
    if host_config.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(ValidationError::Annotation);
    }
    for entry in host_config.extra_hosts.iter().flatten() {
        extra_host(entry)?;
    }
    if !matches!(host_config.isolation.as_str(), "" | "default") {
        return Err(ValidationError::Isolation { mode: host_config.isolation.clone() });
    }
    if host_config.network_mode == "host" && host_config.port_bindings.is_some_and_full() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok(())
}

pub(crate) fn restart_policy(policy: &RestartPolicy) -> Result<(), ValidationError> {
    match policy.name.as_str() {
        "on-failure" if policy.maximum_retry_count < 0 => Err(ValidationError::RetryCountNegative),
        "on-failure" => Ok(()),
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count == 0 => Ok(()),
        "" | "no" | "always" | "unless-stopped" => Err(ValidationError::RetryCountUnused),
        name => Err(ValidationError::RestartPolicy { name: name.to_owned() }),
    }
}

pub(crate) fn is_restarting(policy: &RestartPolicy) -> bool {
    !matches!(policy.name.as_str(), "" | "no")
}

/// `name:address`, `name=address`; the address may be in brackets or `host-gateway`.
fn extra_host(entry: &str) -> Result<(), ValidationError> {
    let (name, address) = split_extra_host(entry)
        .ok_or_else(|| ValidationError::ExtraHost { entry: entry.to_owned() })?;
    if name.is_empty() {
        return Err(ValidationError::ExtraHost { entry: entry.to_owned() });
    }
    if address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(ValidationError::ExtraHostAddress { address: address.to_owned() })
}

pub(crate) fn split_extra_host(entry: &str) -> Option<(&str, &str)> {
    let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':'))?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    Some((name, bare.unwrap_or(address)))
}

/// `80`, `80/tcp`, and host ports that may be ranges.
fn ports(host_config: &HostConfig) -> Result<(), ValidationError> {
    for (port, bindings) in host_config.port_bindings.iter().flatten() {
        let number = port.split('/').next().unwrap_or_default();
        port_number(number)?;
        for binding in bindings.iter().flatten() {
            host_ports(&binding.host_port)?;
            let ip = &binding.host_ip;
            if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
                // Docker takes it for no address, and publishes on all.
                return Err(ValidationError::HostIp { ip: ip.clone() });
            }
        }
    }
    Ok(())
}

/// Empty, `8080` or `8000-8010`.
fn host_ports(text: &str) -> Result<(), ValidationError> {
    let invalid = || ValidationError::Port { port: text.to_owned() };
    let number = |text: &str| text.parse::<u16>().map_err(|_bad| invalid());
    match text.split_once('-') {
        None if text.is_empty() => Ok(()),
        None => number(text).map(drop),
        Some((low, high)) if number(low)? <= number(high)? => Ok(()),
        Some(_) => Err(invalid()),
    }
}

fn port_number(text: &str) -> Result<u16, ValidationError> {
    text.parse().map_err(|_bad| ValidationError::Port { port: text.to_owned() })
}

/// Features that Docker has and we do not, when a request uses them.
fn refuse_unsupported(host_config: &HostConfig) -> Result<()> {
    use crate::errors::Error;
    let storage = host_config.storage_opt.as_ref().is_some_and(|map| !map.is_empty());
    let requests = host_config.resources.device_requests.as_ref();
    let windows = &host_config.resources;
    let used = [
        (storage, "a size limit for the container's disk (StorageOpt)"),
        (requests.is_some_and(|list| !list.is_empty()), "requesting devices (DeviceRequests)"),
        (!host_config.cgroup.is_empty(), "joining another container's cgroup (Cgroup)"),
        (
            windows.cpu_count != 0
                || windows.cpu_percent != 0
                || windows.io_maximum_iops != 0
                || windows.io_maximum_bandwidth != 0,
            "limits of Windows containers (CpuCount, CpuPercent, IOMaximumIOps, \
             IOMaximumBandwidth)",
        ),
    ];
    match used.into_iter().find(|(used, _)| *used) {
        Some((_, feature)) => Err(Error::unsupported(feature)),
        None => Ok(()),
    }
}

/// `Some` and not empty.
trait IsSomeAndFull {
    fn is_some_and_full(&self) -> bool;
}

impl<K, V> IsSomeAndFull for Option<std::collections::BTreeMap<K, V>> {
    fn is_some_and_full(&self) -> bool {
        self.as_ref().is_some_and(|map| !map.is_empty())
    }
}

#[cfg(test)]
mod tests;
