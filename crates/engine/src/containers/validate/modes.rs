//! Namespaces: how the mode strings read, and which of them exclude other settings.

use api_types::container::Config;
use api_types::host_config::HostConfig;

use crate::errors::{NoSuchContainer, ValidationError};

pub(in crate::containers) const HOST_AND_LINKS: &str =
    "host type networking can't be used with links. This would result in undefined behavior";

/// A namespace mode with the other container by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    Private,
    Host,
    Container(&'a str),
    /// IPC only: no `/dev/shm` of its own.
    None,
}

pub(in crate::containers) fn check(
    config: &Config,
    host_config: &HostConfig,
) -> Result<(), ValidationError> {
    pid(&host_config.pid_mode)?;
    ipc(&host_config.ipc_mode)?;
    uts(&host_config.uts_mode)?;
    if !matches!(host_config.userns_mode.as_str(), "" | "host") {
        return Err(ValidationError::UsernsMode { mode: host_config.userns_mode.clone() });
    }
    cgroup(&host_config.cgroupns_mode)?;
    network(config, host_config)
}

pub(crate) fn pid(mode: &str) -> Result<Mode<'_>, ValidationError> {
    match mode {
        "" | "private" => Ok(Mode::Private),
        "host" => Ok(Mode::Host),
        _ => container(mode).ok_or_else(|| ValidationError::PidMode { mode: mode.to_owned() }),
    }
}

pub(crate) fn ipc(mode: &str) -> Result<Mode<'_>, ValidationError> {
    match mode {
        "" | "private" | "shareable" => Ok(Mode::Private),
        "none" => Ok(Mode::None),
        "host" => Ok(Mode::Host),
        _ => container(mode).ok_or_else(|| ValidationError::IpcMode { mode: mode.to_owned() }),
    }
}

pub(crate) fn uts(mode: &str) -> Result<Mode<'_>, ValidationError> {
    match mode {
        "" | "private" => Ok(Mode::Private),
        "host" => Ok(Mode::Host),
        _ => Err(ValidationError::UtsMode { mode: mode.to_owned() }),
    }
}

pub(crate) fn cgroup(mode: &str) -> Result<Mode<'_>, ValidationError> {
    match mode {
        "" | "private" => Ok(Mode::Private),
        "host" => Ok(Mode::Host),
        _ => Err(ValidationError::CgroupnsMode { mode: mode.to_owned() }),
    }
}

/// `container:<name or id>`
pub(crate) fn container(mode: &str) -> Option<Mode<'_>> {
    mode.strip_prefix("container:").filter(|name| !name.is_empty()).map(Mode::Container)
}

fn network(config: &Config, host_config: &HostConfig) -> Result<(), ValidationError> {
    let mode = host_config.network_mode.as_str();
    if mode == "container:" {
        return Err(ValidationError::NetworkContainer);
    }
    let shares = container(mode).is_some();
    let full = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let publishes = host_config.publish_all_ports
        || host_config.port_bindings.as_ref().is_some_and(|map| !map.is_empty());
    let conflicts = [
        (
            host_config.uts_mode == "host" && !config.hostname.is_empty(),
            "hostname and the UTS mode",
        ),
        (shares && !config.hostname.is_empty(), "hostname and the network mode"),
        (mode == "host" && full(&host_config.links), HOST_AND_LINKS),
        (
            shares && full(&host_config.links),
            "container type network can't be used with links. This would result in undefined \
             behavior",
        ),
        (shares && full(&host_config.dns), "dns and the network mode"),
        (
            shares && full(&host_config.extra_hosts),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            (shares || mode == "host") && !config.mac_address.is_empty(),
            "mac-address and the network mode",
        ),
        (shares && publishes, "port publishing and the container type network mode"),
        (
            shares && config.exposed_ports.as_ref().is_some_and(|map| !map.is_empty()),
            "port exposing and the container type network mode",
        ),
    ];
    match conflicts.into_iter().find(|(conflict, _)| *conflict) {
        Some((_, text)) => Err(ValidationError::Conflict(text)),
        None => Ok(()),
    }
}

/// One of the networks that every daemon has.
pub(crate) fn is_predefined(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none" | "default")
}

/// The containers whose namespaces are joined, to be looked up.
pub(crate) fn referenced(host_config: &HostConfig) -> impl Iterator<Item = &str> {
    [&host_config.pid_mode, &host_config.ipc_mode].into_iter().filter_map(|mode| {
        match container(mode) {
            Some(Mode::Container(reference)) => Some(reference),
            _ => None,
        }
    })
}

/// Docker answers 400, not 404, when a referenced container is missing.
pub(crate) fn missing(reference: &str) -> ValidationError {
    ValidationError::Reference(NoSuchContainer { reference: reference.to_owned() })
}
