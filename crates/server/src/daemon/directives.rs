//! Every setting of the daemon, in one table: its flag, its key in `daemon.json`, the kind of its
//! value, and whether it is offered. Parser, help, file reader and refusals derive from it.
//!
//! The names are dockerd's. What dockerd knows and boxship does not do yet is in the table too,
//! so that it is refused by name when given, not taken and forgotten.

/// How a value is written and what it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--x`, `--x=false`; a boolean.
    Switch,
    Text,
    Integer,
    /// `64m`; also a number in the file.
    Size,
    /// May repeat; an array of strings.
    List,
    /// `key=value`, may repeat; an object of strings.
    Map,
    /// `base=10.0.0.0/8,size=24`; an array of objects.
    Pools,
    /// `nofile=1024:2048`; an object of `{Name, Soft, Hard}`.
    Ulimits,
    /// `name=path`; an object of `{path, runtimeArgs}`.
    Runtimes,
}

/// What giving the setting does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Offer {
    Yes,
    /// Only this value, which is what is done anyway.
    Only(Fixed),
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fixed {
    Switch(bool),
    Text(&'static str),
}

#[derive(Debug)]
pub(crate) struct Directive {
    /// In `daemon.json`; empty for what only the command line takes.
    pub(crate) key: &'static str,
    /// Empty for what only the file takes.
    pub(crate) flag: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) offer: Offer,
    /// SIGHUP takes a new value over.
    pub(crate) reloadable: bool,
    pub(crate) help: &'static str,
}

const fn yes(key: &'static str, flag: &'static str, kind: Kind, help: &'static str) -> Directive {
    Directive { key, flag, short: None, kind, offer: Offer::Yes, reloadable: false, help }
}

const fn no(key: &'static str, flag: &'static str, kind: Kind) -> Directive {
    let help = "Not supported yet";
    Directive { key, flag, short: None, kind, offer: Offer::No, reloadable: false, help }
}

const fn only(key: &'static str, flag: &'static str, kind: Kind, value: Fixed) -> Directive {
    let help = "Accepted with the one value that is in effect anyway";
    let offer = Offer::Only(value);
    Directive { key, flag, short: None, kind, offer, reloadable: false, help }
}

impl Directive {
    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn reloadable(mut self) -> Self {
        self.reloadable = true;
        self
    }

    /// What the setting is called in messages and as the id of its value.
    pub(crate) const fn name(&self) -> &'static str {
        if self.key.is_empty() { self.flag } else { self.key }
    }
}

/// The setting of this name in the file.
pub(crate) fn by_key(key: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| !directive.key.is_empty() && directive.key == key)
}

use Kind::{Integer, List, Map, Pools, Runtimes, Size, Switch, Text, Ulimits};

pub(crate) static DIRECTIVES: &[Directive] = &[
    // Sockets and the process.
    yes("hosts", "host", List, "Sockets to listen on: unix://, tcp://, fd://").short('H'),
    yes("group", "group", Text, "Group that owns the Unix socket [default: docker]").short('G'),
    yes("tls", "tls", Switch, "Use TLS; implied by --tlsverify"),
    yes("tlsverify", "tlsverify", Switch, "Use TLS and verify the client"),
    yes("tlscacert", "tlscacert", Text, "Trust clients signed by this authority only"),
    yes("tlscert", "tlscert", Text, "TLS certificate file"),
    yes("tlskey", "tlskey", Text, "TLS key file"),
    yes("pidfile", "pidfile", Text, "PID file [default: /run/boxship.pid]").short('p'),
    yes("", "config-file", Text, "Configuration file [default: /etc/boxship/daemon.json]"),
    yes("", "validate", Switch, "Validate the configuration and exit"),
    yes("debug", "debug", Switch, "Log more").short('D').reloadable(),
    yes("log-level", "log-level", Text, "debug, info, warn, error or fatal [default: info]")
        .short('l'),
    yes("log-format", "log-format", Text, "text or json [default: text]"),
    yes("raw-logs", "raw-logs", Switch, "Full timestamps without colours"),
    yes("labels", "label", List, "key=value labels of the daemon").reloadable(),
    yes("live-restore", "live-restore", Switch, "Containers outlive the daemon [default: true]")
        .reloadable(),
    yes(
        "shutdown-timeout",
        "shutdown-timeout",
        Integer,
        "Seconds to stop containers [default: 15]",
    )
    .reloadable(),
    // Places.
    yes("data-root", "data-root", Text, "Persistent state [default: /var/lib/boxship]"),
    yes("exec-root", "exec-root", Text, "State of running containers [default: /run/boxship]"),
    only("storage-driver", "storage-driver", Text, Fixed::Text("overlay2")).short('s'),
    yes("storage-opts", "storage-opt", List, "layout=dirs|erofs|erofs-file|erofs-loop|auto only"),
    // The default network.
    yes("bridge", "bridge", Text, "Bridge of the default network, or none [default: boxship0]")
        .short('b'),
    yes("bip", "bip", Text, "Address and prefix of the default bridge"),
    no("bip6", "bip6", Text),
    yes("fixed-cidr", "fixed-cidr", Text, "Part of the bridge's network for containers"),
    yes("fixed-cidr-v6", "fixed-cidr-v6", Text, "IPv6 network of the default bridge"),
    yes("default-gateway", "default-gateway", Text, "Gateway of containers on the default bridge"),
    yes("default-gateway-v6", "default-gateway-v6", Text, "IPv6 gateway of containers"),
    yes("mtu", "mtu", Integer, "MTU of the default bridge's containers"),
    yes("icc", "icc", Switch, "Containers on the default bridge reach each other [default: true]"),
    only("ip", "ip", Text, Fixed::Text("0.0.0.0")),
    yes("ip-forward", "ip-forward", Switch, "Switch IP forwarding on [default: true]"),
    yes("ip-forward-no-drop", "ip-forward-no-drop", Switch, "Forward other traffic as well"),
    yes("ip-masq", "ip-masq", Switch, "Masquerade containers' traffic [default: true]"),
    yes("iptables", "iptables", Switch, "Write packet filter rules [default: true]"),
    yes("ip6tables", "ip6tables", Switch, "Write IPv6 packet filter rules [default: true]"),
    yes("ipv6", "ipv6", Switch, "IPv6 on the default bridge; needs --fixed-cidr-v6"),
    only("firewall-backend", "firewall-backend", Text, Fixed::Text("nftables")),
    only("userland-proxy", "userland-proxy", Switch, Fixed::Switch(false)),
    no("userland-proxy-path", "userland-proxy-path", Text),
    only("allow-direct-routing", "allow-direct-routing", Switch, Fixed::Switch(false)),
    no("bridge-accept-fwmark", "bridge-accept-fwmark", Text),
    yes("default-address-pools", "default-address-pool", Pools, "Networks to cut new ones from"),
    no("default-network-opts", "default-network-opt", Map),
    no("network-control-plane-mtu", "network-control-plane-mtu", Integer),
    no("network-diagnostic-port", "network-diagnostic-port", Integer),
    // Names.
    yes("dns", "dns", List, "DNS servers of containers"),
    yes("dns-opts", "dns-opt", List, "DNS options of containers"),
    yes("dns-search", "dns-search", List, "DNS search domains of containers"),
    yes("host-gateway-ips", "host-gateway-ip", List, "What host-gateway stands for"),
    no("host-gateway-ip", "", Text),
    no("resolv-conf", "", Text),
    // What containers get when they do not say.
    yes("log-driver", "log-driver", Text, "Default log driver [default: json-file]").reloadable(),
    yes("log-opts", "log-opt", Map, "Default options of the log driver").reloadable(),
    yes("default-ulimits", "default-ulimit", Ulimits, "Default ulimits").reloadable(),
    yes("default-runtime", "default-runtime", Text, "Default runtime").reloadable(),
    yes("runtimes", "add-runtime", Runtimes, "name=path of an OCI runtime").reloadable(),
    yes("cgroup-parent", "cgroup-parent", Text, "Parent cgroup of all containers"),
    yes("default-cgroupns-mode", "default-cgroupns-mode", Text, "host or private"),
    yes("default-ipc-mode", "default-ipc-mode", Text, "shareable or private"),
    yes("default-shm-size", "default-shm-size", Size, "Size of /dev/shm [default: 64MiB]")
        .reloadable(),
    yes("default-stop-timeout", "default-stop-timeout", Integer, "Seconds before SIGKILL"),
    yes("init", "init", Switch, "Run an init in containers").reloadable(),
    no("init-path", "init-path", Text),
    no("default-init", "", Text),
    yes("no-new-privileges", "no-new-privileges", Switch, "Set no-new-privileges").reloadable(),
    yes("seccomp-profile", "seccomp-profile", Text, "Profile's file, builtin or unconfined"),
    yes("userns-remap", "userns-remap", Text, "User of user namespaces"),
    only("selinux-enabled", "selinux-enabled", Switch, Fixed::Switch(false)),
    no("cpu-rt-period", "cpu-rt-period", Integer),
    no("cpu-rt-runtime", "cpu-rt-runtime", Integer),
    no("cdi-spec-dirs", "cdi-spec-dir", List),
    no("node-generic-resources", "node-generic-resource", List),
    yes("exec-opts", "exec-opt", List, "native.cgroupdriver=cgroupfs only"),
    only("rootless", "rootless", Switch, Fixed::Switch(false)),
    no("", "restart", Switch),
    // Registries.
    yes("registry-mirrors", "registry-mirror", List, "Preferred mirrors").reloadable(),
    yes("insecure-registries", "insecure-registry", List, "Registries without TLS").reloadable(),
    no("max-concurrent-downloads", "max-concurrent-downloads", Integer),
    no("max-concurrent-uploads", "max-concurrent-uploads", Integer),
    no("max-download-attempts", "max-download-attempts", Integer),
    no("http-proxy", "http-proxy", Text),
    no("https-proxy", "https-proxy", Text),
    no("no-proxy", "no-proxy", Text),
    no("proxies", "", Map),
    // The rest of dockerd.
    only("experimental", "experimental", Switch, Fixed::Switch(false)),
    no("features", "feature", Map),
    no("authorization-plugins", "authorization-plugin", List),
    no("builder", "", Map),
    no("containerd", "containerd", Text),
    no("containerd-namespace", "containerd-namespace", Text),
    no("containerd-plugin-namespace", "containerd-plugins-namespace", Text),
    only("cri-containerd", "cri-containerd", Switch, Fixed::Switch(false)),
    no("metrics-addr", "metrics-addr", Text),
    no("min-api-version", "", Text),
    no("nri-opts", "nri-opts", Map),
    no("swarm-default-advertise-addr", "swarm-default-advertise-addr", Text),
    no("swarm-raft-election-tick", "", Integer),
    no("swarm-raft-heartbeat-tick", "", Integer),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `--version` is clap's own.
    #[test]
    fn the_table_has_all_that_dockerd_has() {
        for line in include_str!("../../tests/directives.tsv").lines() {
            let (kind, name) = line.split_once('\t').unwrap();
            let known = |directive: &&Directive| match kind {
                "flag" => directive.flag == name,
                _ => directive.key == name,
            };
            assert!(DIRECTIVES.iter().any(|directive| known(&directive)), "{line}");
        }
    }

    #[test]
    fn names_are_unique() {
        for directive in DIRECTIVES {
            let same = |other: &&Directive| other.name() == directive.name();
            assert_eq!(DIRECTIVES.iter().filter(same).count(), 1, "{}", directive.name());
        }
    }
}
