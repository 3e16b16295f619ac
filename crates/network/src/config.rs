//! The daemon's settings that concern networks, under dockerd's names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::features::Module;
use crate::subnet::Subnet;

#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// `--bridge`: made if missing. None for `--bridge=none`: no default bridge at all.
    pub bridge: Option<String>,
    /// `--bip`: the bridge's address with its subnet. None picks a free pool.
    pub bip: Option<Subnet>,
    /// `--fixed-cidr`: the part of the subnet that containers get addresses from.
    pub fixed_cidr: Option<Subnet>,
    /// `--default-gateway`, when it is not the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    /// `--default-address-pool`; empty for Docker's own list.
    pub default_address_pools: Vec<AddressPool>,
    /// `--fixed-cidr-v6` (with `--ipv6`): the bridge's IPv6 subnet. None: no IPv6 at all.
    pub fixed_cidr_v6: Option<Subnet>,
    /// `--default-gateway-v6`.
    pub default_gateway_v6: Option<Ipv6Addr>,
    pub mtu: u32,
    /// `--ip`: the host's address that ports are published on unless one is named.
    pub default_bind_ip: Option<IpAddr>,
    /// `--icc`: containers on the default bridge may talk to each other.
    pub icc: bool,
    /// `--iptables` and `--ip6tables`: false makes no rule of that family, nor any rule between
    /// bridge ports if both are false.
    pub iptables: bool,
    pub ip6tables: bool,
    /// `--ip-forward`: turn on forwarding if it is off.
    pub ip_forward: bool,
    /// `--ip-forward-no-drop`: having turned it on, let the host route between other networks.
    pub ip_forward_no_drop: bool,
    /// `--ip-masq`.
    pub ip_masq: bool,
    /// The nameservers of the host: a subnet that contains one is not picked.
    pub host_nameservers: Vec<IpAddr>,
    /// Parts of the kernel that are not used even if they are there: tests see by it what a kernel
    /// without them gets.
    pub do_without: Vec<Module>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: Some("boxship0".to_owned()),
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            default_address_pools: Vec::new(),
            fixed_cidr_v6: None,
            default_gateway_v6: None,
            mtu: 1500,
            default_bind_ip: None,
            icc: true,
            iptables: true,
            ip6tables: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            ip_masq: true,
            host_nameservers: Vec::new(),
            do_without: Vec::new(),
        }
    }
}

/// `base=172.20.0.0/14,size=16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    pub base: Subnet,
    pub size: u8,
}

/// Docker's list: 172.17 to 172.31 as /16, then 192.168 as /20.
pub fn default_pools() -> Vec<AddressPool> {
    let pool = |base: [u8; 4], prefix, size| AddressPool {
        base: Subnet::new(base.into(), prefix).expect("prefixes below 32"),
        size,
    };
    vec![
        pool([172, 17, 0, 0], 16, 16),
        pool([172, 18, 0, 0], 16, 16),
        pool([172, 19, 0, 0], 16, 16),
        pool([172, 20, 0, 0], 14, 16),
        pool([172, 24, 0, 0], 14, 16),
        pool([172, 28, 0, 0], 14, 16),
        pool([192, 168, 0, 0], 16, 20),
    ]
}

/// Returns the first subnet of the pools that overlaps nothing in use.
pub fn pick_subnet(pools: &[AddressPool], used: &[Subnet]) -> Option<Subnet> {
    pools
        .iter()
        .filter(|pool| pool.base.is_ipv4())
        .flat_map(|pool| pool.base.split(pool.size))
        .find(|candidate| !used.iter().any(|used| used.overlaps(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(used: &[&str], expect: Option<&str>) {
        let used: Vec<Subnet> = used.iter().map(|text| text.parse().unwrap()).collect();
        let picked = pick_subnet(&default_pools(), &used).map(|subnet| subnet.to_string());
        assert_eq!(picked.as_deref(), expect);
    }

    #[test]
    fn the_first_free_pool_is_taken() {
        check(&[], Some("172.17.0.0/16"));
        check(&["172.17.42.0/24"], Some("172.18.0.0/16"));
        check(&["172.16.0.0/12"], Some("192.168.0.0/20"));
        check(&["172.16.0.0/12", "192.168.0.0/20"], Some("192.168.16.0/20"));
        check(&["0.0.0.0/0"], None);
    }
}
