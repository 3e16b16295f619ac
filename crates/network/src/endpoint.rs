//! A container's place in a network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use runtime::spec::{Interface, LinkKind};
use serde::{Deserialize, Serialize};
use spec::Id;

use crate::firewall::Member;
use crate::ports::Published;
use crate::records::NetworkRecord;
use crate::subnet::Subnet;

/// What a container asks of a network.
#[derive(Debug, Clone)]
pub struct EndpointRequest<'a> {
    pub container: &'a Id,
    /// `eth0`, or the next free.
    pub interface_name: &'a str,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub mac: Option<[u8; 6]>,
    /// By which the others of the network find it, its own first.
    pub names: Vec<String>,
}

impl EndpointRequest<'_> {
    pub(crate) fn addresses(&self) -> [Option<IpAddr>; 2] {
        [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)]
    }
}

/// A container's place in a network. Plain data: kept with the container, and given back to
/// [`Networks::reconcile`] after a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    pub endpoint_id: Id,
    pub network_id: Id,
    pub network_name: String,
    pub container: Id,
    /// None on `host` and `none`.
    pub interface: Option<Interface>,
    pub ipv4: Option<Subnet>,
    pub gateway_v4: Option<IpAddr>,
    pub ipv6: Option<Subnet>,
    pub gateway_v6: Option<IpAddr>,
    #[serde(default)]
    pub published: Vec<Published>,
    /// As in the request; whoever reads an endpoint from a record says them anew.
    #[serde(skip)]
    pub names: Vec<String>,
}

impl Endpoint {
    /// `02:42:ac:11:00:02`; empty without an interface.
    pub fn mac_text(&self) -> String {
        self.interface.as_ref().map(|interface| format_mac(interface.mac)).unwrap_or_default()
    }

    /// The addresses without their prefix lengths.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.ipv4.iter().chain(&self.ipv6).map(Subnet::ip).collect()
    }

    /// The network's driver.
    pub fn driver(&self) -> &'static str {
        match (self.interface.as_ref().map(|interface| interface.link), &*self.network_name) {
            (Some(LinkKind::Macvlan { .. }), _) => "macvlan",
            (Some(LinkKind::Ipvlan { .. }), _) => "ipvlan",
            (None, "none") => "null",
            (None, "host") => "host",
            _ => "bridge",
        }
    }

    pub(crate) fn member(&self) -> Option<Member> {
        let interface = self.interface.as_ref().filter(|own| !own.host_name.is_empty())?;
        let (port, mac) = (interface.host_name.clone(), interface.mac);
        Some(Member { port, mac, ips: self.ips(), published: self.published.clone() })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSummary {
    pub container: Id,
    pub endpoint_id: Id,
    pub mac: String,
    /// With the prefix length.
    pub ipv4: Option<Subnet>,
    pub ipv6: Option<Subnet>,
}

impl EndpointSummary {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            container: endpoint.container.clone(),
            endpoint_id: endpoint.endpoint_id.clone(),
            mac: endpoint.mac_text(),
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
        }
    }
}

/// An endpoint without an interface.
pub(crate) fn bare_endpoint(record: &NetworkRecord, request: &EndpointRequest<'_>) -> Endpoint {
    Endpoint {
        endpoint_id: Id::from_random(sys::random::bytes()),
        network_id: record.id.clone(),
        network_name: record.name.clone(),
        container: request.container.clone(),
        interface: None,
        ipv4: None,
        gateway_v4: None,
        ipv6: None,
        gateway_v6: None,
        published: Vec::new(),
        names: request.names.clone(),
    }
}

pub(crate) fn members(endpoints: &HashMap<(Id, Id), Endpoint>) -> Vec<Member> {
    endpoints.values().filter_map(Endpoint::member).collect()
}

fn format_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

pub(crate) const fn as_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

pub(crate) const fn as_v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}
