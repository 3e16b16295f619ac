//! `-p [[ip:]host:]container[/proto]` and `--expose port[-port][/proto]`.

/// One container port and where it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishedPort {
    /// `80/tcp`.
    pub container: String,
    pub host_ip: String,
    /// Empty for "any"; a range when one container port may take any of it.
    pub host_port: String,
}

/// Parses one `-p`, in the short form or as `published=,target=,protocol=`.
pub(crate) fn parse_publish(text: &str) -> Result<Vec<PublishedPort>, String> {
    if text.contains('=') { parse_short(&short_form(text)?) } else { parse_short(text) }
}

fn short_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for parameter in text.split(',') {
        match parameter.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => {
                return Err(format!(
                    "invalid publish opts format (should be name=value but got '{parameter}')"
                ));
            }
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn parse_short(text: &str) -> Result<Vec<PublishedPort>, String> {
    let (address, host, container) = split_parts(text);
    let (container, protocol) = split_protocol(container);
    let address = checked_address(address)?;
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) =
        port_range(container).map_err(|_reason| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        _ => Some(port_range(host).map_err(|_reason| format!("invalid hostPort: {host}"))?),
    };
    if let Some((host_first, host_last)) = host_range
        && host_last - host_first != last - first
        && first != last
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    Ok((first..=last)
        .map(|port| PublishedPort {
            container: format!("{port}/{protocol}"),
            host_ip: address.clone(),
            host_port: match host_range {
                None => String::new(),
                Some((host_first, host_last)) if first == last && host_first != host_last => {
                    format!("{host_first}-{host_last}")
                }
                Some((host_first, _)) => (host_first + (port - first)).to_string(),
            },
        })
        .collect())
}

/// Splits at the last two colons: an IPv6 address has more.
fn split_parts(text: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = text.rsplit_once(':') else { return ("", "", text) };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn split_protocol(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(("", _)) => ("", ""),
        Some((port, "")) => (port, "tcp"),
        Some((port, protocol)) => (port, protocol),
        None => (text, "tcp"),
    }
}

fn checked_address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() || bare.parse::<std::net::IpAddr>().is_ok() {
        Ok(bare.to_owned())
    } else {
        Err(format!("invalid IP address: {bare}"))
    }
}

/// Parses `80` or `80-90`; the error is Go's.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let port = |part: &str| -> Result<u16, String> {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("strconv.ParseUint: parsing {part:?}: invalid syntax"));
        }
        part.parse()
            .map_err(|_too_big| format!("strconv.ParseUint: parsing {part:?}: value out of range"))
    };
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| (port, port));
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}

/// Parses one `--expose` into `port/proto` names.
pub(crate) fn parse_expose(text: &str) -> Result<Vec<String>, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = split_protocol(text);
    let (first, last) = port_range(ports)
        .map_err(|reason| format!("invalid range format for --expose: {text}, error: {reason}"))?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match parse_publish(text) {
            Ok(ports) => ports
                .iter()
                .map(|port| format!("{}>{}:{}", port.container, port.host_ip, port.host_port))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn ports_are_published_as_docker_publishes_them() {
        check("80", "80/tcp>:");
        check("8080:80", "80/tcp>:8080");
        check("127.0.0.1:8080:80/udp", "80/udp>127.0.0.1:8080");
        check("127.0.0.1::80", "80/tcp>127.0.0.1:");
        check("[::1]:8080:80", "80/tcp>::1:8080");
        check("80-81:90-91", "90/tcp>:80 91/tcp>:81");
        check("80-90:80", "80/tcp>:80-90");
        check("mode=host,target=80", "80/tcp>:");
        check("published=1,target=2,protocol=udp", "2/udp>:1");
        check("x", "invalid containerPort: x");
        check("99999", "invalid containerPort: 99999");
        check("x:80", "invalid hostPort: x");
        check("1:2:3:4", "invalid IP address: 1:2");
        check("80/foo", "invalid proto: foo");
        check("1-3:1-2", "invalid ranges specified for container and host Ports: 1-2 and 1-3");
    }

    #[test]
    fn exposed_ports_may_be_ranges() {
        assert_eq!(parse_expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(
            parse_expose("80-70").unwrap_err(),
            "invalid range format for --expose: 80-70, error: invalid range specified for port: \
             80-70"
        );
        assert!(parse_expose("1:2").is_err());
    }
}
