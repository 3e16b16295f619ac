//! `--network` and the container's own network options, merged into endpoints.

use std::collections::BTreeMap;

use api_types::network::{EndpointIpamConfig, EndpointSettings};

use crate::flags::Parsed;
use crate::options::{NetworkOption, checked_mac, parse_network};

/// The network mode: the first network, or docker's `default`.
pub(super) fn mode(flags: &Parsed) -> Result<String, String> {
    Ok(networks(flags)?.first().map_or_else(|| "default".to_owned(), |first| first.target.clone()))
}

fn networks(flags: &Parsed) -> Result<Vec<NetworkOption>, String> {
    let given = flags.list("network").iter().chain(flags.list("net"));
    given.map(|text| parse_network(text)).collect()
}

pub(super) fn endpoints(flags: &Parsed) -> Result<BTreeMap<String, EndpointSettings>, String> {
    let mut networks = networks(flags)?;
    let only_named = networks.len() == 1;
    if networks.is_empty() {
        networks.push(NetworkOption { target: "default".to_owned(), ..NetworkOption::default() });
    }
    let (mut user_defined, mut others) = (false, false);
    let mut endpoints = BTreeMap::new();
    for (at, mut network) in networks.into_iter().enumerate() {
        if is_user_defined(&network.target) {
            user_defined = true;
        } else {
            others = true;
        }
        if at == 0 {
            apply_container_options(&mut network, flags)?;
        }
        let target = network.target.clone();
        let endpoint = endpoint(network)?;
        // The network mode says it all; old daemons take endpoints of user-defined networks only.
        if only_named && endpoint == EndpointSettings::default() {
            continue;
        }
        if endpoints.insert(target.clone(), endpoint).is_some() {
            return Err(format!("network {target:?} is specified multiple times"));
        }
    }
    if user_defined && others {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined \
                    network-modes"
            .to_owned());
    }
    Ok(endpoints)
}

fn is_user_defined(target: &str) -> bool {
    !["", "default", "bridge", "host", "none"].contains(&target)
        && !target.starts_with("container:")
}

/// `--ip`, `--network-alias` and the like belong to the first network.
fn apply_container_options(network: &mut NetworkOption, flags: &Parsed) -> Result<(), String> {
    let mut aliases = flags.list("network-alias").to_vec();
    aliases.extend_from_slice(flags.list("net-alias"));
    let conflict = |option: &str, own: &str| {
        Err(format!("conflicting options: cannot specify both --{option} and per-network {own}"))
    };
    if !network.aliases.is_empty() && !aliases.is_empty() {
        return conflict("network-alias", "alias");
    }
    if !network.links.is_empty() && !flags.list("link").is_empty() {
        return conflict("link", "links");
    }
    let pairs = [
        ("ip", "IPv4 address", &mut network.ipv4_address),
        ("ip6", "IPv6 address", &mut network.ipv6_address),
        ("mac-address", "MAC address", &mut network.mac_address),
    ];
    for (option, own, slot) in pairs {
        let given = flags.text(option);
        if !slot.is_empty() && !given.is_empty() {
            return conflict(option, own);
        }
        if !given.is_empty() {
            *slot = given.to_owned();
        }
    }
    if !network.link_local_ips.is_empty() && !flags.list("link-local-ip").is_empty() {
        return conflict("link-local-ip", "link-local IP addresses");
    }
    network.aliases.extend(aliases);
    network.links.extend_from_slice(flags.list("link"));
    network.link_local_ips.extend_from_slice(flags.list("link-local-ip"));
    Ok(())
}

fn endpoint(network: NetworkOption) -> Result<EndpointSettings, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    let user_defined = is_user_defined(&network.target);
    if !user_defined && !network.aliases.is_empty() {
        return Err(
            "network-scoped aliases are only supported for user-defined networks".to_owned()
        );
    }
    if !user_defined && !network.links.is_empty() && network.target.starts_with("container:") {
        return Err("links are only supported for user-defined networks".to_owned());
    }
    if !network.mac_address.is_empty() {
        checked_mac(&network.mac_address)?;
    }
    let list = super::resources::list;
    let ipam = EndpointIpamConfig {
        ipv4_address: network.ipv4_address,
        ipv6_address: network.ipv6_address,
        link_local_ips: list(network.link_local_ips),
    };
    Ok(EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
        // Links of the default network are host configuration; see `config.rs`.
        links: if user_defined { list(network.links) } else { None },
        aliases: list(network.aliases),
        mac_address: network.mac_address,
        driver_opts: Some(network.driver_opts).filter(|options| !options.is_empty()),
        gw_priority: network.gw_priority,
        ..EndpointSettings::default()
    })
}
