//! Networks whose containers sit on a link of this host with a MAC (macvlan) or only an address
//! (ipvlan) of their own: no bridge, no rule, no port of ours in between.
//!
//! ```text
//! -o parent=eth0       that link, which must be there
//! -o parent=eth0.10    made if missing, as VLAN 10 of eth0, and removed with the last network on it
//! no parent            a dummy link dm-<12 hex>: the containers meet each other and nobody else
//! ```
//!
//! Links made here carry the network's alias, as bridges do, and what a crash leaves of them is
//! removed in the same way. The containers' own links are made by `runtime::interfaces::plug` in
//! their namespaces and die with these.

use std::net::IpAddr;

use runtime::spec::{Interface, LinkKind};
use rustix::io::Errno;
use sys::netlink::route::{self, Link};
use sys::netlink::{Batch, Socket};

use crate::bridge;
use crate::bridge_network;
use crate::endpoint::{EndpointRequest, as_v4, as_v6};
use crate::error::NetworkError;
use crate::features::Module;
use crate::pools::Pools;
use crate::records::{NetworkRecord, UserNetwork};
use crate::subnet::Subnet;

const LOOPBACK: &str = "lo";

/// What the options of such a network say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentOptions {
    pub parent: Option<String>,
    pub kind: LinkKind,
}

impl ParentOptions {
    /// Options that the driver does not know mean nothing, as in Docker.
    pub(crate) fn parse(driver: &str, user: &UserNetwork) -> Result<Self, NetworkError> {
        let option = |key: &str| user.options.get(key).map(String::as_str).unwrap_or_default();
        let kind = match driver {
            "macvlan" => macvlan(option("macvlan_mode"))?,
            _ => ipvlan(option("ipvlan_mode"), option("ipvlan_flag"))?,
        };
        let parent = Some(option("parent").to_owned()).filter(|parent| !parent.is_empty());
        if parent.as_deref() == Some(LOOPBACK) {
            return Err(driver_error(format!(
                "loopback interface is not a valid {driver} parent link"
            )));
        }
        Ok(Self { parent, kind })
    }
}

fn macvlan(mode: &str) -> Result<LinkKind, NetworkError> {
    let mode = match mode {
        "private" => LinkKind::MACVLAN_PRIVATE,
        "vepa" => LinkKind::MACVLAN_VEPA,
        "" | "bridge" => LinkKind::MACVLAN_BRIDGE,
        "passthru" => LinkKind::MACVLAN_PASSTHRU,
        other => {
            return Err(driver_error(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan \
                 driver default"
            )));
        }
    };
    Ok(LinkKind::Macvlan { mode })
}

fn ipvlan(mode: &str, flag: &str) -> Result<LinkKind, NetworkError> {
    match mode {
        "" | "l2" => {}
        "l3" | "l3s" => {
            return Err(NetworkError::Unsupported { feature: format!("ipvlan mode {mode}") });
        }
        other => {
            return Err(driver_error(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver \
                 default"
            )));
        }
    }
    let flags = match flag {
        "" | "bridge" => 0,
        "private" => 1,
        "vepa" => 2,
        other => {
            return Err(driver_error(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver \
                 default"
            )));
        }
    };
    Ok(LinkKind::Ipvlan { flags })
}

fn driver_error(reason: String) -> NetworkError {
    NetworkError::Driver { reason }
}

/// Splits `eth0.10`.
fn vlan_of(name: &str) -> Result<(&str, u16), NetworkError> {
    let (base, number) = name.rsplit_once('.').ok_or_else(|| {
        driver_error(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ))
    })?;
    let number: u32 = number.parse().map_err(|_bad| {
        driver_error(format!(
            "unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)"
        ))
    })?;
    match u16::try_from(number).ok().filter(|id| (1..=4094).contains(id)) {
        Some(id) => Ok((base, id)),
        None => Err(driver_error(format!("vlan id must be between 1-4094, received: {number}"))),
    }
}

/// A network on a parent link, as it is now.
#[derive(Debug)]
pub(crate) struct ParentNetwork {
    pub parent: String,
    pub kind: LinkKind,
    internal: bool,
    pub pools: Pools,
    /// One in each subnet.
    gateways: Vec<IpAddr>,
}

impl ParentNetwork {
    /// Finds or makes the parent. `others` are the networks that are there.
    pub(crate) fn open(
        record: &NetworkRecord,
        instance: &str,
        others: &[(String, &Self)],
        route: &mut Socket,
    ) -> Result<Self, NetworkError> {
        let user = record.user.as_ref().ok_or(NetworkError::NoBridge)?;
        let options = ParentOptions::parse(&record.driver, user)?;
        let (feature, module) = match options.kind {
            LinkKind::Ipvlan { .. } => ("the network driver ipvlan", Module::Ipvlan),
            _ => ("the network driver macvlan", Module::Macvlan),
        };
        if !route::knows_kind(route, module.name()).map_err(NetworkError::kernel(&record.name))? {
            return Err(NetworkError::MissingModule { feature, module });
        }
        let made = format!("dm-{}", record.id.short());
        let parent = options.parent.clone().unwrap_or(made);
        check_passthru(options.kind, &parent, others)?;
        let links = route::links(route).map_err(NetworkError::kernel(&parent))?;
        if !links.iter().any(|link| link.name == parent) {
            let alias = bridge_network::alias(instance, record);
            match &options.parent {
                None => make_dummy(&parent, &alias, route)?,
                Some(_) => make_vlan(&parent, &alias, &links, route)?,
            }
        }
        let enabled = |subnet: &Subnet| match subnet.is_ipv4() {
            true => user.enable_ipv4,
            false => user.enable_ipv6,
        };
        let mut pools = Pools::default();
        for pool in user.pools.iter().filter(|pool| enabled(&pool.subnet)) {
            pools.add_record(pool)?;
        }
        Ok(Self {
            parent,
            kind: options.kind,
            internal: user.internal || options.parent.is_none(),
            pools,
            gateways: user.pools.iter().map(|pool| pool.gateway).collect(),
        })
    }

    /// Takes the parent away if it was made here; with other networks on it, it becomes theirs.
    pub(crate) fn close(
        &self,
        record: &NetworkRecord,
        instance: &str,
        heir: Option<&NetworkRecord>,
        route: &mut Socket,
    ) -> Result<(), NetworkError> {
        let kernel = NetworkError::kernel;
        let alias = bridge_network::alias(instance, record);
        let links = route::links(route).map_err(kernel(&self.parent))?;
        let is_ours =
            |link: &Link| link.name == self.parent && link.alias.as_deref() == Some(&alias);
        if !links.iter().any(is_ours) {
            return Ok(());
        }
        let mut batch = Batch::new();
        match heir {
            Some(heir) => route::change_link(&mut batch, "mark parent", &self.parent, |link| {
                link.bytes(route::IFLA_IFALIAS, bridge_network::alias(instance, heir).as_bytes());
            }),
            None => route::delete_link(&mut batch, "delete parent", &self.parent),
        }
        route.transact(&mut batch).map_err(kernel(&self.parent))
    }

    /// Where the subnet of this address ends.
    pub(crate) fn gateway(&self, own: Subnet) -> Option<IpAddr> {
        let mut gateways = self.gateways.iter().filter(|_| !self.internal);
        gateways.find(|gateway| own.contains(**gateway)).copied()
    }

    /// The link of a container with these addresses.
    pub(crate) fn interface(
        &self,
        request: &EndpointRequest<'_>,
        own: [Option<Subnet>; 2],
        route: &mut Socket,
    ) -> Result<Interface, NetworkError> {
        let links = route::links(route).map_err(NetworkError::kernel(&self.parent))?;
        let parent = links.iter().find(|link| link.name == self.parent);
        let parent = parent.ok_or_else(|| no_parent(&self.parent))?;
        // These share the parent's.
        let shared = matches!(
            self.kind,
            LinkKind::Ipvlan { .. } | LinkKind::Macvlan { mode: LinkKind::MACVLAN_PASSTHRU }
        );
        let mac = request.mac.unwrap_or_else(bridge::random_mac);
        let [gateway_v4, gateway_v6] = own.map(|own| own.and_then(|own| self.gateway(own)));
        Ok(Interface {
            link: self.kind,
            host_name: String::new(),
            container_name: request.interface_name.to_owned(),
            bridge: self.parent.clone(),
            alias: String::new(),
            mac: if shared { parent.mac.unwrap_or(mac) } else { mac },
            mtu: parent.mtu,
            isolated: false,
            hairpin: false,
            addresses: own.iter().flatten().map(|own| (own.ip(), own.prefix())).collect(),
            gateway_v4: gateway_v4.and_then(as_v4),
            gateway_v6: gateway_v6.and_then(as_v6),
        })
    }
}

/// Whoever passes a link through has it for itself.
fn check_passthru(
    kind: LinkKind,
    parent: &str,
    others: &[(String, &ParentNetwork)],
) -> Result<(), NetworkError> {
    let passthru = LinkKind::Macvlan { mode: LinkKind::MACVLAN_PASSTHRU };
    let other = others.iter().find(|(_, other)| other.parent == parent);
    match other {
        Some((id, _)) if kind == passthru => Err(driver_error(format!(
            "cannot use mode passthru, macvlan network {id} is already using parent interface \
             {parent}"
        ))),
        Some((id, other)) if other.kind == passthru => Err(driver_error(format!(
            "macvlan network {id} is already using parent interface {parent} in mode passthru"
        ))),
        _ => Ok(()),
    }
}

fn no_parent(name: &str) -> NetworkError {
    driver_error(format!("-o parent interface was not found on the host: {name}"))
}

fn make_dummy(name: &str, alias: &str, route: &mut Socket) -> Result<(), NetworkError> {
    make(name, alias, route, |link| {
        link.nested(route::IFLA_LINKINFO, |info| info.text(route::IFLA_INFO_KIND, "dummy"));
    })
    .map_err(|error| missing(error, "a macvlan network without a parent", Module::Dummy))
}

fn make_vlan(
    name: &str,
    alias: &str,
    links: &[Link],
    route: &mut Socket,
) -> Result<(), NetworkError> {
    let (base, id) = vlan_of(name)?;
    let base = links.iter().find(|link| link.name == base).ok_or_else(|| no_parent(base))?;
    make(name, alias, route, |link| {
        link.u32(route::IFLA_LINK, base.index);
        link.nested(route::IFLA_LINKINFO, |info| {
            info.text(route::IFLA_INFO_KIND, "vlan");
            info.nested(route::IFLA_INFO_DATA, |vlan| {
                vlan.bytes(route::IFLA_VLAN_ID, &id.to_ne_bytes());
            });
        });
    })
    .map_err(|error| missing(error, "a VLAN as parent", Module::Vlan))
}

fn missing(error: NetworkError, feature: &'static str, module: Module) -> NetworkError {
    match error {
        NetworkError::Kernel { source, .. } if source.errno == Errno::OPNOTSUPP => {
            NetworkError::MissingModule { feature, module }
        }
        other => other,
    }
}

/// Makes a link of ours that is up.
fn make(
    name: &str,
    alias: &str,
    route: &mut Socket,
    fill: impl FnOnce(&mut sys::netlink::Attributes<'_>),
) -> Result<(), NetworkError> {
    let mut batch = Batch::new();
    route::create_link(&mut batch, "make parent", name, fill);
    route::change_link(&mut batch, "mark parent", name, |link| {
        link.bytes(route::IFLA_IFALIAS, alias.as_bytes());
    });
    route.transact(&mut batch).map_err(NetworkError::kernel(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(driver: &str, options: &[(&str, &str)]) -> Result<ParentOptions, String> {
        let options: BTreeMap<_, _> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let user = UserNetwork { options, ..UserNetwork::default() };
        ParentOptions::parse(driver, &user).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        let parsed = parse("macvlan", &[("parent", "eth0.10"), ("foo", "bar")]).unwrap();
        assert_eq!(parsed.parent.as_deref(), Some("eth0.10"));
        assert_eq!(parsed.kind, LinkKind::Macvlan { mode: LinkKind::MACVLAN_BRIDGE });
        assert_eq!(
            parse("macvlan", &[("macvlan_mode", "foo")]).unwrap_err(),
            "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default"
        );
        assert_eq!(
            parse("ipvlan", &[("ipvlan_mode", "foo")]).unwrap_err(),
            "requested ipvlan mode 'foo' is not valid, 'l2' mode is the ipvlan driver default"
        );
        assert_eq!(
            parse("macvlan", &[("parent", "lo")]).unwrap_err(),
            "loopback interface is not a valid macvlan parent link"
        );
    }

    #[test]
    fn vlans_are_read_from_names() {
        let check = |name: &str, expect: Result<(&str, u16), &str>| {
            let found = vlan_of(name).map_err(|error| error.to_string());
            assert_eq!(found, expect.map_err(str::to_owned), "{name}");
        };
        check("eth0.10", Ok(("eth0", 10)));
        check("a.b.4094", Ok(("a.b", 4094)));
        check("nope0", Err("invalid subinterface vlan name nope0, example formatting is eth0.10"));
        check("eth0.x", Err("unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"));
        check("eth0.5000", Err("vlan id must be between 1-4094, received: 5000"));
        check("eth0.70000", Err("vlan id must be between 1-4094, received: 70000"));
    }
}
