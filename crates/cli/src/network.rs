//! Commands on networks.

use api_types::network::{EndpointIpamConfig, EndpointSettings, Inspect, Ipam, IpamConfig};
use client::Request;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::container::join_labels;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::short_id;
use crate::output::{self, Column, Listing, header_default};
use crate::progress::while_waiting;
use crate::system::confirm;
use crate::template::Value;

#[derive(Debug)]
struct NetworkRow {
    network: Inspect,
    truncate: bool,
}

static NETWORKS: Listing<NetworkRow> = Listing {
    type_name: "*network.networkContext",
    columns: &[
        Column {
            name: "CreatedAt",
            header: "CREATED AT",
            value: |row| Value::text(output::time_in_go(&row.network.created)),
        },
        Column {
            name: "Driver",
            header: "DRIVER",
            value: |row| Value::text(row.network.driver.as_str()),
        },
        Column {
            name: "ID",
            header: "NETWORK ID",
            value: |row| match row.truncate {
                true => Value::text(short_id(&row.network.id)),
                false => Value::text(row.network.id.as_str()),
            },
        },
        Column {
            name: "IPv4",
            header: "IPV4",
            value: |row| Value::text(row.network.enable_ipv4.to_string()),
        },
        Column {
            name: "IPv6",
            header: "IPV6",
            value: |row| Value::text(row.network.enable_ipv6.to_string()),
        },
        Column {
            name: "Internal",
            header: "INTERNAL",
            value: |row| Value::text(row.network.internal.to_string()),
        },
        Column {
            name: "Labels",
            header: "LABELS",
            value: |row| Value::text(join_labels(&row.network.labels)),
        },
        Column {
            name: "Name",
            header: "NAME",
            value: |row| Value::text(row.network.name.as_str()),
        },
        Column {
            name: "Scope",
            header: "SCOPE",
            value: |row| Value::text(row.network.scope.as_str()),
        },
    ],
    label: Some(|row, key| row.network.labels.get(key).cloned().unwrap_or_default()),
};

/// `docker network ls`, ordered by name.
pub(crate) async fn ls(app: &App, flags: &Parsed) -> Outcome {
    let filters = flags.filters();
    let request = Request::get("/networks").query_if(
        filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let mut networks: Vec<Inspect> = app.client.get(request).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let quiet = flags.bool("quiet");
    let given = match flags.text("format") {
        "" if !quiet => app.config.networks_format.as_str(),
        given => given,
    };
    let default = match quiet {
        true => "{{.ID}}",
        false => "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    };
    let format = match given {
        "raw" if quiet => "network_id: {{.ID}}",
        "raw" => "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        given => header_default(given, default),
    };
    let truncate = !flags.bool("no-trunc");
    let rows = networks.into_iter().map(|network| NetworkRow { network, truncate });
    output::print(&NETWORKS.render(format, rows)?)?;
    Ok(0)
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateRequest {
    name: String,
    driver: String,
    scope: String,
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_from: Option<api_types::network::ConfigFrom>,
    options: std::collections::BTreeMap<String, String>,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateResponse {
    id: String,
    warning: String,
}

/// `docker network create`.
pub(crate) async fn create(app: &App, flags: &Parsed) -> Outcome {
    let text = |name: &str| flags.text(name).to_owned();
    let switch = |name: &str| flags.changed(name).then(|| flags.bool(name));
    let config_from = text("config-from");
    let request = CreateRequest {
        name: flags.args[0].clone(),
        driver: text("driver"),
        scope: text("scope"),
        enable_ipv4: switch("ipv4"),
        enable_ipv6: switch("ipv6"),
        ipam: Ipam {
            driver: text("ipam-driver"),
            options: Some(flags.map("ipam-opt")),
            config: Some(ipam_configs(flags)?),
        },
        internal: flags.bool("internal"),
        attachable: flags.bool("attachable"),
        ingress: flags.bool("ingress"),
        config_only: flags.bool("config-only"),
        config_from: (!config_from.is_empty())
            .then_some(api_types::network::ConfigFrom { network: config_from }),
        options: flags.map("opt"),
        labels: flags.map("label"),
    };
    let created: CreateResponse =
        app.client.post(Request::post("/networks/create"), &request).await?;
    if !created.warning.is_empty() {
        output::complain(&format!("WARNING: {}", created.warning));
    }
    output::print_line(&created.id)?;
    Ok(0)
}

/// Sorts ranges, gateways and reserved addresses to the subnets that contain them.
fn ipam_configs(flags: &Parsed) -> Outcome<Vec<IpamConfig>> {
    let subnets = flags.list("subnet");
    let (ranges, gateways) = (flags.list("ip-range"), flags.list("gateway"));
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut configs: Vec<(Option<Subnet>, IpamConfig)> = Vec::new();
    for text in subnets {
        let subnet = Subnet::parse(text);
        let overlaps = |(other, _): &(Option<Subnet>, _)| {
            other.as_ref().zip(subnet.as_ref()).is_some_and(|(a, b)| a.overlaps(b))
        };
        if configs.iter().any(overlaps) {
            return Err(Failure::new("multiple overlapping subnet configuration is not supported"));
        }
        configs.push((subnet, IpamConfig { subnet: text.clone(), ..IpamConfig::default() }));
    }
    for range in ranges {
        let address = range.split('/').next().unwrap_or_default();
        let config = subnet_of(&mut configs, address)
            .ok_or_else(|| Failure::new(format!("no matching subnet for range {range}")))?;
        if !config.ip_range.is_empty() {
            return Err(Failure::new(format!(
                "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                config.ip_range, config.subnet
            )));
        }
        config.ip_range.clone_from(range);
    }
    for gateway in gateways {
        let config = subnet_of(&mut configs, gateway)
            .ok_or_else(|| Failure::new(format!("no matching subnet for gateway {gateway}")))?;
        if !config.gateway.is_empty() {
            return Err(Failure::new(format!(
                "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                config.gateway, config.subnet
            )));
        }
        config.gateway.clone_from(gateway);
    }
    for (name, address) in flags.map("aux-address") {
        let config = subnet_of(&mut configs, &address)
            .ok_or_else(|| Failure::new(format!("no matching subnet for aux-address {address}")))?;
        config.auxiliary_addresses.get_or_insert_default().insert(name, address);
    }
    Ok(configs.into_iter().map(|(_, config)| config).collect())
}

fn subnet_of<'a>(
    configs: &'a mut [(Option<Subnet>, IpamConfig)],
    address: &str,
) -> Option<&'a mut IpamConfig> {
    let address = address.parse().ok()?;
    configs
        .iter_mut()
        .find(|(subnet, _)| subnet.as_ref().is_some_and(|subnet| subnet.contains(address)))
        .map(|(_, config)| config)
}

/// Addresses of both families as 128 bits; an IPv4 subnet contains no IPv6 address.
struct Subnet {
    is_ipv6: bool,
    bits: u128,
    prefix: u32,
}

fn bits_of(address: std::net::IpAddr) -> (bool, u128) {
    match address {
        std::net::IpAddr::V4(address) => (false, u128::from(address.to_bits()) << 96),
        std::net::IpAddr::V6(address) => (true, address.to_bits()),
    }
}

impl Subnet {
    /// `None` for what is no subnet, which the daemon will say better.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (is_ipv6, bits) = bits_of(address.parse().ok()?);
        let prefix =
            prefix.parse().ok().filter(|prefix| *prefix <= if is_ipv6 { 128 } else { 32 })?;
        Some(Self { is_ipv6, bits, prefix })
    }

    fn shares(&self, is_ipv6: bool, bits: u128, prefix: u32) -> bool {
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        self.is_ipv6 == is_ipv6 && self.bits & mask == bits & mask
    }

    fn contains(&self, address: std::net::IpAddr) -> bool {
        let (is_ipv6, bits) = bits_of(address);
        self.shares(is_ipv6, bits, self.prefix)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.shares(other.is_ipv6, other.bits, self.prefix.min(other.prefix))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectRequest {
    container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_config: Option<EndpointSettings>,
}

/// `docker network connect`.
pub(crate) async fn connect(app: &App, flags: &Parsed) -> Outcome {
    let options = flags.list("driver-opt");
    if options.iter().any(|option| !option.contains('=')) {
        return Err(Failure::new("invalid key/value pair format in driver options"));
    }
    let list = |name: &str| flags.list_or_null(name);
    let ipam = EndpointIpamConfig {
        ipv4_address: flags.text("ip").to_owned(),
        ipv6_address: flags.text("ip6").to_owned(),
        link_local_ips: list("link-local-ip"),
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
        links: list("link"),
        aliases: list("alias"),
        driver_opts: Some(crate::flags::pairs(options)).filter(|options| !options.is_empty()),
        gw_priority: flags.int("gw-priority"),
        ..EndpointSettings::default()
    };
    let request =
        ConnectRequest { container: flags.args[1].clone(), endpoint_config: Some(endpoint) };
    let path = format!("/networks/{}/connect", Request::segment(&flags.args[0]));
    app.client.call(Request::post(path).json(&request)?).await?;
    Ok(0)
}

/// `docker network disconnect`.
pub(crate) async fn disconnect(app: &App, flags: &Parsed) -> Outcome {
    let request = serde_json::json!({
        "Container": flags.args[1],
        "Force": flags.bool("force"),
    });
    let path = format!("/networks/{}/disconnect", Request::segment(&flags.args[0]));
    app.client.call(Request::post(path).json(&request)?).await?;
    Ok(0)
}

/// `docker network rm`; with `-f`, what is gone already is no failure.
pub(crate) async fn rm(app: &App, flags: &Parsed) -> Outcome {
    let mut failed = false;
    for name in &flags.args {
        let path = format!("/networks/{}", Request::segment(name));
        match app.client.call(Request::delete(path)).await {
            Ok(()) => output::print_line(name)?,
            Err(error) if flags.bool("force") && error.is_not_found() => {}
            Err(error) => {
                output::complain(&error.to_string());
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Silent(1)) } else { Ok(0) }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PruneResponse {
    networks_deleted: Option<Vec<String>>,
}

/// `docker network prune`.
pub(crate) async fn prune(app: &App, flags: &Parsed) -> Outcome {
    let warning =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if !flags.bool("force") && !confirm(warning).await? {
        return Ok(0);
    }
    output::print(&prune_networks(app, &flags.filters()).await?)?;
    Ok(0)
}

/// Prunes; returns what to print.
pub(crate) async fn prune_networks(app: &App, filters: &spec::Filters) -> Outcome<String> {
    let request = Request::post("/networks/prune").query_if(
        *filters != spec::Filters::default(),
        "filters",
        &filters.to_json(),
    );
    let pruned: PruneResponse =
        while_waiting("Removing unused networks", app.client.get(request)).await?;
    let deleted = pruned.networks_deleted.unwrap_or_default();
    Ok(match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted Networks:\n{}\n\n", deleted.join("\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_contain_their_own_addresses() {
        let subnet = |text| Subnet::parse(text).unwrap();
        assert!(subnet("10.1.0.0/16").contains("10.1.2.3".parse().unwrap()));
        assert!(!subnet("10.1.0.0/16").contains("10.2.0.1".parse().unwrap()));
        assert!(!subnet("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(subnet("fd00::/8").contains("fd12::1".parse().unwrap()));
        assert!(subnet("10.0.0.0/8").overlaps(&subnet("10.3.0.0/16")));
        assert!(!subnet("10.0.0.0/8").overlaps(&subnet("11.0.0.0/8")));
        assert!(Subnet::parse("10.0.0.0/33").is_none() && Subnet::parse("x").is_none());
    }
}
