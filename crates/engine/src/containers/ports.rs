//! Published ports: what a container asks for, and how what it got is shown.

use std::ops::RangeInclusive;

use api_types::container::Port;
use api_types::host_config::{PortBinding, PortMap};
use network::{NetworkError, PortRequest, Protocol};

use super::record::Definition;
use super::snapshot::Snapshot;

/// The ports of `-p`, and with `-P` those exposed that have none. Docker publishes only what is
/// exposed as well; its clients always say both, and whoever says one means it.
pub(super) fn wanted(definition: &Definition) -> Result<Vec<PortRequest>, NetworkError> {
    let host_config = &definition.host_config;
    let mut wanted = Vec::new();
    for (port, bindings) in host_config.port_bindings.iter().flatten() {
        let (container_port, protocol) = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            wanted.push(PortRequest {
                protocol,
                container_port,
                host_ip: binding.host_ip.parse().ok(),
                host_ports: host_ports(&binding.host_port),
            });
        }
    }
    if host_config.publish_all_ports {
        for port in exposed(definition) {
            let (container_port, protocol) = parse_port(&port)?;
            let same = |request: &PortRequest| {
                (request.container_port, request.protocol) == (container_port, protocol)
            };
            if !wanted.iter().any(same) {
                let (host_ip, host_ports) = (None, None);
                wanted.push(PortRequest { protocol, container_port, host_ip, host_ports });
            }
        }
    }
    Ok(wanted)
}

/// `80/tcp`; the number was checked at create.
fn parse_port(port: &str) -> Result<(u16, Protocol), NetworkError> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    Ok((number.parse().unwrap_or_default(), protocol.parse()?))
}

/// `8080`, `8000-8010`; none for empty or `0`: any.
fn host_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let low: u16 = low.parse().ok().filter(|low| *low != 0)?;
    Some(low..=high.parse().ok()?)
}

/// The exposed ports with their protocol; ranges are expanded, nonsense is left out.
pub(super) fn exposed(definition: &Definition) -> impl Iterator<Item = String> + '_ {
    let ports = definition.config.exposed_ports.iter().flatten();
    ports.flat_map(|(port, _)| {
        let (numbers, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let (low, high) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let protocol = protocol.to_ascii_lowercase();
        let range = low.parse::<u16>().ok().zip(high.parse::<u16>().ok());
        let range = range.map(|(low, high)| low..=high);
        range.into_iter().flatten().map(move |number| format!("{number}/{protocol}"))
    })
}

/// `NetworkSettings.Ports` of a container that runs: exposed ports have null.
pub(super) fn map(snapshot: &Snapshot) -> PortMap {
    let mut map: PortMap = exposed(&snapshot.definition).map(|port| (port, None)).collect();
    for published in snapshot.progress.endpoints.iter().flat_map(|end| &end.published) {
        let port = format!("{}/{}", published.container_port, published.protocol);
        map.entry(port).or_default().get_or_insert_default().push(PortBinding {
            host_ip: published.host_ip.to_string(),
            host_port: published.host_port.to_string(),
        });
    }
    map
}

/// The list's `Ports`.
pub(super) fn list(snapshot: &Snapshot) -> Vec<Port> {
    if !snapshot.progress.is_alive() || snapshot.progress.endpoints.is_empty() {
        return Vec::new();
    }
    let number = |text: &str| text.parse().unwrap_or_default();
    let mut ports = Vec::new();
    for (port, bindings) in map(snapshot) {
        let (private, kind) = port.split_once('/').unwrap_or((&port, "tcp"));
        let plain =
            Port { private_port: number(private), kind: kind.to_owned(), ..Port::default() };
        match bindings {
            None => ports.push(plain),
            Some(bindings) => ports.extend(bindings.into_iter().map(|binding| Port {
                ip: binding.host_ip,
                public_port: number(&binding.host_port),
                ..plain.clone()
            })),
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(host_config: &str, config: &str) -> Definition {
        Definition {
            id: spec::Id::from_random([7; 32]),
            name: spec::ContainerName::parse("web").unwrap(),
            created_nanos: 0,
            image_id: String::new(),
            platform: String::new(),
            config: serde_json::from_str(config).unwrap(),
            host_config: serde_json::from_str(host_config).unwrap(),
            endpoints: Default::default(),
            mounts: Vec::new(),
            links: Vec::new(),
        }
    }

    fn check(host_config: &str, config: &str, expect: &[&str]) {
        let show = |request: PortRequest| {
            let ip = request.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
            let ports =
                request.host_ports.map(|range| format!("{}-{}", range.start(), range.end()));
            let ports = ports.unwrap_or_default();
            format!("{ip}|{ports}|{}/{}", request.container_port, request.protocol)
        };
        let found = wanted(&definition(host_config, config)).unwrap();
        assert_eq!(found.into_iter().map(show).collect::<Vec<_>>(), expect, "{host_config}");
    }

    #[test]
    fn requests_are_read_from_bindings() {
        check(r#"{"PortBindings":{"80":[{"HostPort":"8080"}]}}"#, "{}", &["|8080-8080|80/tcp"]);
        check(
            r#"{"PortBindings":{"53/UDP":[{"HostIp":"127.0.0.1"},{"HostIp":"::1","HostPort":"0"}]}}"#,
            "{}",
            &["127.0.0.1||53/udp", "::1||53/udp"],
        );
        check(
            r#"{"PortBindings":{"80/tcp":[{"HostPort":"1-3"}],"81/tcp":null}}"#,
            "{}",
            &["|1-3|80/tcp"],
        );
        check(
            r#"{"PublishAllPorts":true,"PortBindings":{"80/tcp":[{"HostPort":"1"}]}}"#,
            r#"{"ExposedPorts":{"80/tcp":{},"90-91/udp":{}}}"#,
            &["|1-1|80/tcp", "||90/udp", "||91/udp"],
        );
        check("{}", r#"{"ExposedPorts":{"80/tcp":{}}}"#, &[]);
        let odd = definition(r#"{"PortBindings":{"80/foo":[{"HostPort":"1"}]}}"#, "{}");
        assert_eq!(wanted(&odd).unwrap_err().to_string(), "unknown protocol");
    }
}
