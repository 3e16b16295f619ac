//! The three files that tell a container about names: `resolv.conf`, `hosts`, `hostname`.
//!
//! Pure: the caller reads the host's files and writes the container's. The texts are Docker's to
//! the byte, comments included (tools compare them); compared with dockerd 28.5 in the tests.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use runtime::resolver::ADDRESS as RESOLVER;

/// What the host's `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Lines of other directives, copied as they are.
    pub other: Vec<String>,
    /// Nameservers that are no addresses; named in a comment.
    pub invalid: Vec<String>,
}

/// `--dns`, `--dns-search`, `--dns-option` of the container, or else of the daemon. None means
/// not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    pub servers: Option<Vec<IpAddr>>,
    pub search: Option<Vec<String>>,
    pub options: Option<Vec<String>>,
}

/// Which of the host's nameservers a container can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It shares the host's network.
    Host,
    /// A network of its own without our resolver: the host's loopback is out of reach.
    Network { ipv6: bool },
    /// A user's network: it asks our resolver, which asks these servers for it.
    Resolver,
}

/// A server that our resolver asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalServer {
    pub address: IpAddr,
    /// As a program of the host would, whose server it is; others are the container's.
    pub from_host: bool,
}

impl fmt::Display for ExternalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from_host {
            true => write!(f, "host({})", self.address),
            false => self.address.fmt(f),
        }
    }
}

/// The path of the file that the host's nameservers are to be read from: systemd's list of real
/// servers when `/etc/resolv.conf` names only its stub.
pub fn resolv_conf_path(etc_resolv_conf: &str) -> &'static str {
    let parsed = ResolvConf::parse(etc_resolv_conf);
    if parsed.nameservers == ["127.0.0.53"] {
        "/run/systemd/resolve/resolv.conf"
    } else {
        "/etc/resolv.conf"
    }
}

impl ResolvConf {
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(directive) = words.next().filter(|word| !word.starts_with(['#', ';'])) else {
                continue;
            };
            let values: Vec<String> = words.map(str::to_owned).collect();
            match (directive, values.first()) {
                ("nameserver", Some(server)) if is_address(server) => {
                    parsed.nameservers.push(server.clone());
                }
                ("nameserver", Some(server)) => parsed.invalid.push(server.clone()),
                // The last one counts.
                ("domain" | "search", Some(_)) => parsed.search = values,
                ("options", Some(_)) => parsed.options.extend(values),
                ("nameserver" | "domain" | "search" | "options", None) => {}
                _ => parsed.other.push(line.to_owned()),
            }
        }
        parsed
    }

    /// Who is asked for names that are nobody's in a container's networks.
    pub fn external(&self, settings: &DnsSettings) -> Vec<ExternalServer> {
        let server = |from_host| move |address| ExternalServer { address, from_host };
        match &settings.servers {
            Some(servers) => servers.iter().copied().map(server(false)).collect(),
            // One with a zone names a link of the host; Docker does not ask it either.
            None => {
                let servers = self.nameservers.iter();
                servers.filter_map(|text| text.parse().ok()).map(server(true)).collect()
            }
        }
    }

    /// The container's file. `source` is the path the host's was read from.
    pub fn for_container(mut self, source: &str, settings: &DnsSettings, reach: Reach) -> String {
        let mut defaults_used = false;
        let external = self.external(settings);
        if reach == Reach::Resolver {
            self.nameservers = vec![RESOLVER.to_string()];
        } else if let Some(servers) = &settings.servers {
            self.nameservers = servers.iter().map(IpAddr::to_string).collect();
        } else if let Reach::Network { ipv6 } = reach {
            self.nameservers.retain(|server| is_reachable(server, ipv6));
            if self.nameservers.is_empty() {
                defaults_used = true;
                self.nameservers = public_servers(ipv6);
            }
        }
        if let Some(search) = &settings.search {
            // A single dot clears the list.
            self.search = search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if let Some(options) = &settings.options {
            self.options.clone_from(options);
        }
        let has_ndots = self.options.iter().any(|option| option.split(':').next() == Some("ndots"));
        if reach == Reach::Resolver && !has_ndots {
            // Names without a dot are those of containers.
            self.options.push("ndots:0".to_owned());
        }
        let mut text = self.directives();
        let transform = match reach {
            Reach::Host => "",
            Reach::Network { .. } => " (legacy)",
            Reach::Resolver => " (internal resolver)",
        };
        write!(text, "\n# Based on host file: '{source}'{transform}\n").expect("to memory");
        if defaults_used {
            text.push_str("# Used default nameservers.\n");
        }
        if reach == Reach::Resolver {
            let external: Vec<_> = external.iter().map(ExternalServer::to_string).collect();
            match external.is_empty() {
                true => text.push_str("# NO EXTERNAL NAMESERVERS DEFINED\n"),
                false => {
                    writeln!(text, "# ExtServers: [{}]", external.join(" ")).expect("to memory");
                }
            }
        }
        if !self.invalid.is_empty() {
            writeln!(text, "# Invalid nameservers: [{}]", self.invalid.join(" "))
                .expect("to memory");
        }
        writeln!(text, "# Overrides: [{}]", overrides(settings)).expect("to memory");
        let ndots_from = match (has_ndots, reach) {
            (true, _) if settings.options.is_some() => "override",
            (true, _) => "host",
            (false, Reach::Resolver) => "internal",
            (false, _) => return text,
        };
        writeln!(text, "# Option ndots from: {ndots_from}").expect("to memory");
        text
    }

    fn directives(&self) -> String {
        let mut text = "# Generated by Docker Engine.\n\
                        # This file can be edited; Docker Engine will not make further changes \
                        once it\n# has been modified.\n\n"
            .to_owned();
        for server in &self.nameservers {
            writeln!(text, "nameserver {server}").expect("to memory");
        }
        for (directive, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                writeln!(text, "{directive} {}", values.join(" ")).expect("to memory");
            }
        }
        for line in &self.other {
            writeln!(text, "{line}").expect("to memory");
        }
        text
    }
}

fn overrides(settings: &DnsSettings) -> String {
    let given = [
        settings.servers.is_some().then_some("nameservers"),
        settings.search.is_some().then_some("search"),
        settings.options.is_some().then_some("options"),
    ];
    given.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// An address, perhaps with a zone (`fe80::1%eth0`).
fn is_address(server: &str) -> bool {
    parse_server(server).is_some()
}

fn parse_server(server: &str) -> Option<IpAddr> {
    let (address, zone) = server.split_once('%').unwrap_or((server, "-"));
    address.parse().ok().filter(|ip: &IpAddr| !zone.is_empty() && (zone == "-" || ip.is_ipv6()))
}

fn is_reachable(server: &str, ipv6: bool) -> bool {
    parse_server(server).is_some_and(|ip| !ip.is_loopback() && (ip.is_ipv4() || ipv6))
}

fn public_servers(ipv6: bool) -> Vec<String> {
    let all = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];
    all[..if ipv6 { 4 } else { 2 }].iter().map(|&server| server.to_owned()).collect()
}

/// The nameservers to keep clear of when a subnet is picked.
pub fn nameserver_addresses(resolv_conf: &str) -> Vec<IpAddr> {
    ResolvConf::parse(resolv_conf)
        .nameservers
        .iter()
        .filter_map(|text| parse_server(text))
        .collect()
}

/// `--add-host name:address`; [`HOST_GATEWAY`] stands for the bridge's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    pub name: String,
    pub address: String,
}

pub const HOST_GATEWAY: &str = "host-gateway";

/// Returns the entries with [`HOST_GATEWAY`] replaced: by each of `gateways` (`--host-gateway-ip`,
/// else the default bridge's addresses).
pub fn resolve_extra_hosts(extra: &[ExtraHost], gateways: &[IpAddr]) -> Vec<ExtraHost> {
    let resolve = |host: &ExtraHost| -> Vec<ExtraHost> {
        if host.address != HOST_GATEWAY {
            return vec![host.clone()];
        }
        gateways
            .iter()
            .map(|ip| ExtraHost { name: host.name.clone(), address: ip.to_string() })
            .collect()
    };
    extra.iter().flat_map(resolve).collect()
}

/// The container's `hosts`: the loopback's names, the extra ones, then its own on each address.
pub fn hosts(extra: &[ExtraHost], own: &[IpAddr], hostname: &str, domainname: &str) -> String {
    let mut text = loopback_hosts();
    for host in extra {
        writeln!(text, "{}\t{}", host.address, host.name).expect("to memory");
    }
    text.push_str(&own_entries(own, hostname, domainname));
    text
}

/// The lines of a container's own names.
pub fn own_entries(own: &[IpAddr], hostname: &str, domainname: &str) -> String {
    let mut text = String::new();
    let qualified = match domainname {
        "" => hostname.to_owned(),
        domain => format!("{hostname}.{domain}"),
    };
    // Known by its first label too.
    let names = match qualified.split_once('.') {
        Some((first, _)) => format!("{qualified} {first}"),
        None => qualified,
    };
    for ip in own {
        writeln!(text, "{ip}\t{names}").expect("to memory");
    }
    text
}

fn loopback_hosts() -> String {
    let names: [(IpAddr, &str); 2] = [
        (Ipv4Addr::LOCALHOST.into(), "localhost"),
        (Ipv6Addr::LOCALHOST.into(), "localhost ip6-localhost ip6-loopback"),
    ];
    let mut text = String::new();
    for (ip, names) in names {
        writeln!(text, "{ip}\t{names}").expect("to memory");
    }
    text.push_str("fe00::\tip6-localnet\nff00::\tip6-mcastprefix\n");
    text.push_str("ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
    text
}

/// The container's `hostname`.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

#[cfg(test)]
mod tests;
