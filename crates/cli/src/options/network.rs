//! `--network NAME` and `--network name=NAME,alias=A,ip=1.2.3.4,...`.

use std::collections::BTreeMap;

use super::csv;
use crate::flags::parse_int;

/// One network to join, before the container's own options are merged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetworkOption {
    pub target: String,
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub ipv4_address: String,
    pub ipv6_address: String,
    pub link_local_ips: Vec<String>,
    pub mac_address: String,
    pub driver_opts: BTreeMap<String, String>,
    pub gw_priority: i64,
}

pub(crate) fn parse_network(text: &str) -> Result<NetworkOption, String> {
    let mut network = NetworkOption::default();
    if !is_long(text) {
        network.target = text.to_owned();
        return Ok(network);
    }
    for field in csv(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field {field}"));
        };
        apply(&mut network, key.trim().to_ascii_lowercase().as_str(), value.trim())?;
    }
    Ok(network)
}

/// The long form has a `key=value` in it.
fn is_long(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split_once('=').is_some_and(|(key, value)| key.ends_with(word) && value.starts_with(word))
}

fn apply(network: &mut NetworkOption, key: &str, value: &str) -> Result<(), String> {
    let owned = value.to_owned();
    match key {
        "name" => network.target = owned,
        "alias" => network.aliases.push(owned),
        "ip" => network.ipv4_address = owned,
        "ip6" => network.ipv6_address = owned,
        "mac-address" => network.mac_address = checked_mac(value)?,
        "link-local-ip" => network.link_local_ips.push(owned),
        "driver-opt" => {
            let Some((name, setting)) = value.split_once('=') else {
                return Err("invalid key value pair format in driver options".to_owned());
            };
            network.driver_opts.insert(name.trim().to_ascii_lowercase(), setting.trim().to_owned());
        }
        "gw-priority" => {
            network.gw_priority = parse_int(value, 64)
                .map_err(|_text| format!("invalid gw-priority ({value}): must be an integer"))?;
        }
        _ => return Err(format!("invalid field key {key}")),
    }
    Ok(())
}

/// Checks a MAC address of six or eight bytes in one of Go's notations.
pub(crate) fn checked_mac(text: &str) -> Result<String, String> {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|part| {
                part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
    };
    if groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10]) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text} is not a valid mac address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_a_network() {
        assert_eq!(parse_network("a,b").unwrap().target, "a,b");
        let network =
            parse_network("name=n,alias=a,alias=b,ip=10.0.0.2,driver-opt=K=v,gw-priority=-1")
                .unwrap();
        assert_eq!(network.target, "n");
        assert_eq!(network.aliases, ["a", "b"]);
        assert_eq!(network.driver_opts["k"], "v");
        assert_eq!(network.gw_priority, -1);
        assert_eq!(parse_network("name=a,foo=b").unwrap_err(), "invalid field key foo");
        assert_eq!(
            parse_network("name=a,driver-opt=x").unwrap_err(),
            "invalid key value pair format in driver options"
        );
    }

    #[test]
    fn mac_addresses_have_three_notations() {
        for good in ["92:d0:c6:0a:29:33", "92-d0-c6-0a-29-33", "92d0.c60a.2933"] {
            assert!(checked_mac(good).is_ok(), "{good}");
        }
        for bad in ["", "x", "92:d0:c6:0a:29", "92:d0:c6:0a:29:3g"] {
            assert!(checked_mac(bad).is_err(), "{bad}");
        }
    }
}
