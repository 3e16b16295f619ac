//! A user's network before it is made: what was asked for, checked, and what is chosen for it.
//!
//! Pure: [`plan`] takes what is used and returns the record that will be written down.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use spec::Id;

use crate::bridge;
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::ipam::Pool;
use crate::records::{NetworkRecord, PoolRecord, UserNetwork, now_nanos};
use crate::subnet::Subnet;

/// As `POST /networks/create` has it, its texts not yet read.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    pub name: String,
    /// Empty for `bridge`.
    pub driver: String,
    /// Not IPv6 only.
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam_driver: String,
    pub ipam_options: Option<BTreeMap<String, String>>,
    pub pools: Vec<PoolRequest>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Default for NetworkRequest {
    /// With IPv4.
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: String::new(),
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ipam_driver: String::new(),
            ipam_options: None,
            pools: Vec::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

/// What the options of a bridge say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeOptions {
    pub name: Option<String>,
    pub mtu: u32,
    pub icc: bool,
    pub masquerade: bool,
    pub bind_ip: Option<IpAddr>,
    /// The host has no address of this family on the bridge.
    pub isolated_v4: bool,
    pub isolated_v6: bool,
}

impl BridgeOptions {
    /// Options that nobody knows are kept and mean nothing, as in Docker; those that Docker knows
    /// and we do not are refused.
    pub(crate) fn parse(
        options: &BTreeMap<String, String>,
        default_mtu: u32,
    ) -> Result<Self, NetworkError> {
        let mut parsed = Self {
            name: None,
            mtu: default_mtu,
            icc: true,
            masquerade: true,
            bind_ip: None,
            isolated_v4: false,
            isolated_v6: false,
        };
        for (option, value) in options {
            let key = option.strip_prefix("com.docker.network.").unwrap_or(option);
            match key {
                "bridge.name" => parsed.name = Some(link_name(value)?),
                "driver.mtu" | "mtu" => parsed.mtu = number(option, value)?,
                "bridge.enable_icc" => parsed.icc = boolean(option, value)?,
                "bridge.enable_ip_masquerade" => parsed.masquerade = boolean(option, value)?,
                "bridge.host_binding_ipv4" => {
                    let ip = value.parse().map_err(|_bad| bad(option, value, "not an address"))?;
                    parsed.bind_ip = Some(ip);
                }
                "bridge.gateway_mode_ipv4" => parsed.isolated_v4 = is_isolated(option, value)?,
                "bridge.gateway_mode_ipv6" => parsed.isolated_v6 = is_isolated(option, value)?,
                "bridge.default_bridge" if value == "false" => {}
                "bridge.inhibit_ipv4"
                | "bridge.default_bridge"
                | "bridge.trusted_host_interfaces"
                | "container_iface_prefix"
                | "host_ipv4"
                | "host_ipv6" => {
                    return Err(NetworkError::Unsupported { feature: format!("option {option}") });
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// Reads a gateway mode.
fn is_isolated(option: &str, value: &str) -> Result<bool, NetworkError> {
    match value {
        "" | "nat" => Ok(false),
        "isolated" => Ok(true),
        "routed" | "nat-unprotected" => {
            Err(NetworkError::Unsupported { feature: format!("option {option}={value}") })
        }
        _ => Err(bad(option, value, &format!("unknown gateway mode {value}"))),
    }
}

fn link_name(name: &str) -> Result<String, NetworkError> {
    let fits = (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if fits { Ok(name.to_owned()) } else { Err(NetworkError::LinkName { name: name.to_owned() }) }
}

fn number(option: &str, value: &str) -> Result<u32, NetworkError> {
    let syntax = format!("strconv.Atoi: parsing {value:?}: invalid syntax");
    value.parse().ok().filter(|mtu| *mtu <= 65535).ok_or_else(|| bad(option, value, &syntax))
}

fn boolean(option: &str, value: &str) -> Result<bool, NetworkError> {
    spec::boolean::parse(value).map_err(|syntax| bad(option, value, &syntax))
}

fn bad(option: &str, value: &str, reason: &str) -> NetworkError {
    NetworkError::Option {
        option: option.to_owned(),
        value: value.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Makes the record of a new network. `others` are the subnets of networks that are there, `used`
/// all that this host knows.
pub(crate) fn plan(
    request: &NetworkRequest,
    config: &NetworkConfig,
    others: &[Subnet],
    used: &[Subnet],
) -> Result<NetworkRecord, NetworkError> {
    let driver = check_driver(request)?;
    if driver == "bridge" {
        let options = BridgeOptions::parse(&request.options, config.mtu)?;
        if (options.isolated_v4 || options.isolated_v6) && !request.internal {
            let reason = "gateway mode 'isolated' can only be used for an internal network";
            return Err(NetworkError::Driver { reason: reason.to_owned() });
        }
    }
    let mut pools = Vec::new();
    let mut reasons = Vec::new();
    for asked in &request.pools {
        pools.extend(read_pool(asked, &mut reasons));
    }
    if !reasons.is_empty() {
        return Err(NetworkError::Invalid { reasons });
    }
    for (at, pool) in pools.iter().enumerate() {
        let before = pools[..at].iter().map(|other| &other.subnet);
        if others.iter().chain(before).any(|other| other.overlaps(&pool.subnet)) {
            return Err(NetworkError::PoolOverlap);
        }
    }
    pools.iter().try_for_each(check_hosts)?;
    let count = |ipv4| pools.iter().filter(|pool| pool.subnet.is_ipv4() == ipv4).count();
    if driver == "bridge" && (count(true) > 1 || count(false) > 1) {
        return Err(NetworkError::SeveralSubnets);
    }
    // There is no way out for which a gateway would be shown.
    let shown = driver == "bridge" || !request.internal;
    if request.enable_ipv4 && !pools.iter().any(|pool| pool.subnet.is_ipv4()) {
        let all: Vec<_> = used.iter().chain(others).copied().collect();
        let subnet = bridge::pick(config, &all).ok_or(NetworkError::PoolsExhausted)?;
        pools.push(PoolRecord { gateway_shown: shown, ..chosen(subnet) });
    }
    if request.enable_ipv6 && !pools.iter().any(|pool| !pool.subnet.is_ipv4()) {
        pools.push(PoolRecord { gateway_shown: shown, ..chosen(unique_local()) });
    }
    Ok(NetworkRecord {
        id: Id::from_random(sys::random::bytes()),
        name: request.name.clone(),
        driver: driver.to_owned(),
        created_nanos: now_nanos(),
        user: Some(UserNetwork {
            enable_ipv4: request.enable_ipv4,
            enable_ipv6: request.enable_ipv6,
            internal: request.internal,
            attachable: request.attachable,
            pools,
            ipam_options: request.ipam_options.clone(),
            options: request.options.clone(),
            labels: request.labels.clone(),
        }),
    })
}

/// The driver's name; none is the bridge.
fn check_driver(request: &NetworkRequest) -> Result<&str, NetworkError> {
    let driver = match request.driver.as_str() {
        "" => "bridge",
        driver @ ("bridge" | "macvlan" | "ipvlan") => driver,
        driver @ ("host" | "null") => {
            return Err(NetworkError::OneInstance { driver: driver.to_owned() });
        }
        "overlay" => return Err(NetworkError::NotAManager),
        driver => return Err(NetworkError::NoPlugin { name: driver.to_owned() }),
    };
    match request.ipam_driver.as_str() {
        "" | "default" => Ok(driver),
        driver => Err(NetworkError::NoPlugin { name: driver.to_owned() }),
    }
}

/// No host has the subnet's own address or its broadcast address, and no two have one.
fn check_hosts(pool: &PoolRecord) -> Result<(), NetworkError> {
    let last = pool.subnet.last_offset();
    let is_nobodys = |ip: IpAddr| {
        last > 1 && (ip == pool.subnet.at(0) || ip.is_ipv4() && ip == pool.subnet.at(last))
    };
    let in_use = |what: String| NetworkError::Driver {
        reason: format!("failed to allocate {what}: Address already in use"),
    };
    if pool.gateway_shown && is_nobodys(pool.gateway) {
        return Err(in_use(format!("gateway ({})", pool.gateway)));
    }
    for (name, ip) in &pool.auxiliary {
        if is_nobodys(*ip) || *ip == pool.gateway {
            return Err(in_use(format!("secondary ip address ({name}:{ip})")));
        }
    }
    Ok(())
}

/// A subnet of ours: the gateway is its first address.
fn chosen(subnet: Subnet) -> PoolRecord {
    let gateway = subnet.at(1);
    let (ip_range, auxiliary) = (None, BTreeMap::new());
    PoolRecord { subnet, ip_range, gateway, gateway_shown: true, asked: false, auxiliary }
}

/// `fd`, 40 random bits, subnet 0 (RFC 4193).
fn unique_local() -> Subnet {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&sys::random::bytes::<5>());
    Subnet::new(Ipv6Addr::from(octets).into(), 64).expect("64 is below 128")
}

fn read_pool(asked: &PoolRequest, reasons: &mut Vec<String>) -> Option<PoolRecord> {
    let text = &asked.subnet;
    let Ok(subnet) = text.parse::<Subnet>() else {
        reasons.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    let before = reasons.len();
    if subnet != subnet.network() {
        reasons.push(format!("invalid subnet {subnet}: it should be {}", subnet.network()));
    }
    let ip_range = read_range(&asked.ip_range, &subnet, reasons);
    let gateway = read_address("gateway", &asked.gateway, &subnet, reasons);
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &asked.auxiliary {
        if let Some(ip) = read_address("auxiliary address", text, &subnet, reasons) {
            auxiliary.insert(name.clone(), ip);
        }
    }
    if reasons.len() > before {
        return None;
    }
    let mut pool = Pool::new(subnet, ip_range);
    for ip in auxiliary.values() {
        pool.reserve(*ip);
    }
    let Some(first) = gateway.or_else(|| pool.allocate()) else {
        reasons.push(format!("invalid subnet {subnet}: it has no room for a gateway"));
        return None;
    };
    Some(PoolRecord {
        subnet,
        ip_range,
        gateway: first,
        gateway_shown: gateway.is_some(),
        asked: true,
        auxiliary,
    })
}

fn read_range(text: &str, subnet: &Subnet, reasons: &mut Vec<String>) -> Option<Subnet> {
    if text.is_empty() {
        return None;
    }
    let Ok(range) = text.parse::<Subnet>() else {
        reasons.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if range != range.network() {
        reasons.push(format!("invalid ip-range {range}: it should be {}", range.network()));
    } else if !subnet.contains(range.at(0)) || range.prefix() < subnet.prefix() {
        reasons.push(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    Some(range)
}

fn read_address(
    what: &str,
    text: &str,
    subnet: &Subnet,
    reasons: &mut Vec<String>,
) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Err(_bad) => reasons.push(format!("invalid {what} {text}: invalid address")),
        Ok(ip) if !subnet.contains(ip) => reasons.push(format!(
            "invalid {what} {ip}: parent subnet {subnet} doesn't contain this address"
        )),
        Ok(ip) => return Some(ip),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnet: &str, ip_range: &str, gateway: &str) -> NetworkRequest {
        let pool = PoolRequest {
            subnet: subnet.to_owned(),
            ip_range: ip_range.to_owned(),
            gateway: gateway.to_owned(),
            auxiliary: BTreeMap::new(),
        };
        NetworkRequest { name: "n".to_owned(), pools: vec![pool], ..NetworkRequest::default() }
    }

    fn planned(request: &NetworkRequest) -> Result<Vec<String>, String> {
        let others = ["10.77.0.0/24".parse().unwrap()];
        let used = ["172.17.0.0/16".parse().unwrap()];
        let record = plan(request, &NetworkConfig::default(), &others, &used);
        let pools = record.map_err(|error| error.to_string())?.user.unwrap().pools;
        Ok(pools.iter().map(|pool| format!("{} {}", pool.subnet, pool.gateway)).collect())
    }

    #[test]
    fn subnets_are_chosen_or_checked() {
        let plain = NetworkRequest::default();
        assert_eq!(planned(&plain).unwrap(), ["172.18.0.0/16 172.18.0.1"]);
        let check = |request: NetworkRequest, expect: &str| {
            assert_eq!(planned(&request).unwrap(), [expect]);
        };
        check(asked("10.78.0.0/24", "", ""), "10.78.0.0/24 10.78.0.1");
        check(asked("10.78.0.0/24", "10.78.0.128/25", ""), "10.78.0.0/24 10.78.0.128");
        check(asked("10.78.0.0/24", "", "10.78.0.254"), "10.78.0.0/24 10.78.0.254");
        let six = NetworkRequest { enable_ipv6: true, ..plain };
        assert!(planned(&six).unwrap()[1].starts_with("fd"));
    }

    #[test]
    fn refusals_are_dockers() {
        let check = |request: NetworkRequest, expect: &str| {
            assert_eq!(planned(&request).unwrap_err(), expect);
        };
        let config = |text: &str| format!("invalid network config:\n{text}");
        check(
            asked("10.77.0.0/25", "", ""),
            "invalid pool request: Pool overlaps with other one on this address space",
        );
        check(
            asked("10.78.0.5/24", "", ""),
            &config("invalid subnet 10.78.0.5/24: it should be 10.78.0.0/24"),
        );
        check(asked("bad", "", ""), &config("invalid subnet bad: invalid CIDR block notation"));
        check(asked("", "", "1.2.3.4"), &config("invalid subnet : invalid CIDR block notation"));
        check(
            asked("10.78.0.0/24", "", "10.79.0.1"),
            &config(
                "invalid gateway 10.79.0.1: parent subnet 10.78.0.0/24 doesn't contain this \
                 address",
            ),
        );
        check(
            asked("10.78.0.0/24", "10.79.0.0/25", ""),
            &config(
                "invalid ip-range 10.79.0.0/25: parent subnet 10.78.0.0/24 doesn't contain \
                 ip-range",
            ),
        );
        for end in ["10.78.0.0", "10.78.0.255"] {
            check(
                asked("10.78.0.0/24", "", end),
                &format!("failed to allocate gateway ({end}): Address already in use"),
            );
        }
        let mut twice = asked("10.78.0.0/24", "", "10.78.0.9");
        twice.pools[0].auxiliary.insert("a".to_owned(), "10.78.0.9".to_owned());
        check(
            twice,
            "failed to allocate secondary ip address (a:10.78.0.9): Address already in use",
        );
        let driver = |driver: &str| NetworkRequest {
            driver: driver.to_owned(),
            ..NetworkRequest::default()
        };
        check(driver("nope"), "plugin \"nope\" not found");
        check(driver("host"), "only one instance of \"host\" network is allowed");
        let pool = |subnet: &str| asked(subnet, "", "").pools.remove(0);
        let several = NetworkRequest {
            pools: vec![pool("10.78.0.0/24"), pool("10.79.0.0/24")],
            ..NetworkRequest::default()
        };
        check(several.clone(), "bridge driver doesn't support multiple subnets");
        let on_parent = NetworkRequest { driver: "macvlan".to_owned(), ..several };
        assert_eq!(planned(&on_parent).unwrap().len(), 2);
    }

    #[test]
    fn options_are_read() {
        let parse = |pairs: &[(&str, &str)]| {
            let options =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            BridgeOptions::parse(&options, 1500).map_err(|error| error.to_string())
        };
        let parsed = parse(&[
            ("com.docker.network.bridge.name", "br9"),
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("foo", "bar"),
        ]);
        let parsed = parsed.unwrap();
        assert_eq!((parsed.name.as_deref(), parsed.mtu, parsed.icc), (Some("br9"), 1400, false));
        assert_eq!(
            parse(&[("com.docker.network.driver.mtu", "x")]).unwrap_err(),
            "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": \
             invalid syntax)"
        );
        assert!(parse(&[("com.docker.network.bridge.inhibit_ipv4", "true")]).is_err());
        assert!(parse(&[("com.docker.network.bridge.name", "a/b")]).is_err());
    }
}
