//! The default bridge as it is now: link, addresses, rules.
//!
//! Rules are complete before the first container may come; an endpoint's elements are added before
//! its link and removed after it.

use std::net::IpAddr;

use sys::netlink::Socket;

use crate::bridge::{self, Bridge};
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::firewall::{BridgeRules, Firewall, Member, Plan};
use crate::ipam::Pool;
use crate::networks::{Endpoint, PoolInfo};
use crate::subnet::Subnet;

#[derive(Debug)]
pub(crate) struct DefaultBridge {
    pub bridge: Bridge,
    ipv4: Pool,
    pub ipv6: Option<Pool>,
    pub firewall: Firewall,
    pub plan: Plan,
}

impl DefaultBridge {
    pub(crate) fn open(
        name: &str,
        config: &NetworkConfig,
        route: &mut Socket,
    ) -> Result<Self, NetworkError> {
        let mut firewall = Firewall::open(name).map_err(NetworkError::kernel(name))?;
        let bridge = bridge::set_up(name, config, route)?;
        let ipv4_pool = make_pool(bridge.ipv4, config.fixed_cidr)?;
        let ipv6_pool = bridge.ipv6.map(|own| make_pool(own, None)).transpose()?;
        let closed = turn_on_forwarding(config, &mut firewall, name)?;
        let plan = Plan {
            bridges: vec![bridge_rules(&bridge, config)],
            uplinks: if closed { bridge::uplinks(route)? } else { Vec::new() },
            ipv4: config.iptables,
            ipv6: config.ip6tables,
        };
        let mut default = Self { bridge, ipv4: ipv4_pool, ipv6: ipv6_pool, firewall, plan };
        let (gateway_v4, gateway_v6) = bridge::gateways(&default.bridge, config);
        // A gateway that is not the bridge may lie in the pools as well.
        for ip in [Some(gateway_v4), gateway_v6].into_iter().flatten() {
            if let Some(pool) = default.pool(ip) {
                pool.reserve(ip);
            }
        }
        // Before the first container, and not narrower than what an earlier run left for those
        // that still run: their elements come back with `reconcile`.
        default.replace_rules(&[])?;
        Ok(default)
    }

    pub(crate) fn pool(&mut self, ip: IpAddr) -> Option<&mut Pool> {
        let pool = if ip.is_ipv4() { Some(&mut self.ipv4) } else { self.ipv6.as_mut() };
        pool.filter(|pool| pool.subnet().contains(ip))
    }

    pub(crate) fn allocate(
        &mut self,
        network: &str,
    ) -> Result<(Subnet, Option<Subnet>), NetworkError> {
        let exhausted =
            |family| NetworkError::AddressesExhausted { name: network.to_owned(), family };
        let with_prefix = |ip, pool: &Pool| Subnet::new(ip, pool.subnet().prefix());
        let ip = self.ipv4.allocate().ok_or_else(|| exhausted(4))?;
        let ipv4 = with_prefix(ip, &self.ipv4).expect("the pool's own prefix");
        let Some(pool) = &mut self.ipv6 else { return Ok((ipv4, None)) };
        match pool.allocate().and_then(|ip| with_prefix(ip, pool)) {
            Some(ipv6) => Ok((ipv4, Some(ipv6))),
            None => {
                self.ipv4.release(ip);
                Err(exhausted(6))
            }
        }
    }

    /// Adds the firewall's elements of a new endpoint, or gives its addresses back.
    pub(crate) fn admit(&mut self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let Some(member) = endpoint.member().filter(|_| self.has_rules()) else { return Ok(()) };
        let admitted = self.firewall.add_member(&member);
        admitted.map_err(NetworkError::kernel(&member.port)).inspect_err(|_| {
            for ip in endpoint.ips() {
                self.release(ip);
            }
        })
    }

    pub(crate) fn forget(
        &mut self,
        member: &Member,
        remaining: &[Member],
    ) -> Result<(), NetworkError> {
        for ip in &member.ips {
            self.release(*ip);
        }
        if !self.has_rules() {
            return Ok(());
        }
        let shared = remaining.iter().any(|other| other.mac == member.mac);
        // Elements that somebody removed, or that another endpoint needs too: all anew.
        if shared || self.firewall.remove_member(member).is_err() {
            return self.replace_rules(remaining);
        }
        Ok(())
    }

    fn release(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pool(ip) {
            pool.release(ip);
        }
    }

    const fn has_rules(&self) -> bool {
        self.plan.ipv4 || self.plan.ipv6
    }

    pub(crate) fn replace_rules(&mut self, members: &[Member]) -> Result<(), NetworkError> {
        let replaced = self.firewall.replace(&self.plan, members);
        replaced.map_err(NetworkError::kernel(&self.bridge.name))
    }

    pub(crate) fn pools(&self, config: &NetworkConfig) -> Vec<PoolInfo> {
        let (gateway_v4, gateway_v6) = bridge::gateways(&self.bridge, config);
        let ipv4 = PoolInfo {
            subnet: self.ipv4.subnet(),
            ip_range: config.fixed_cidr,
            gateway: gateway_v4,
        };
        let ipv6 = self.ipv6.as_ref().zip(gateway_v6).map(|(pool, gateway)| PoolInfo {
            subnet: pool.subnet(),
            ip_range: None,
            gateway,
        });
        std::iter::once(ipv4).chain(ipv6).collect()
    }
}

/// Makes the pool around the bridge's own address.
fn make_pool(own: Subnet, range: Option<Subnet>) -> Result<Pool, NetworkError> {
    if let Some(range) = range
        && !(own.contains(range.at(0)) && own.contains(range.at(range.last_offset())))
    {
        return Err(NetworkError::RangeOutside { range, subnet: own.network() });
    }
    let mut pool = Pool::new(own, range);
    pool.reserve(own.ip());
    Ok(pool)
}

fn bridge_rules(bridge: &Bridge, config: &NetworkConfig) -> BridgeRules {
    let addresses = || std::iter::once(bridge.ipv4).chain(bridge.ipv6);
    BridgeRules {
        name: bridge.name.clone(),
        mac: bridge.mac,
        gateways: addresses().map(|own| own.ip()).collect(),
        subnets: addresses().collect(),
        masquerade: config.ip_masq,
        icc: config.icc,
    }
}

/// Lets the host route. Returns whether it did not before we (now, or in an earlier run) turned it
/// on: then it must still not route between networks that were apart.
fn turn_on_forwarding(
    config: &NetworkConfig,
    firewall: &mut Firewall,
    object: &str,
) -> Result<bool, NetworkError> {
    if !config.ip_forward {
        return Ok(false);
    }
    let mut keys = vec!["ipv4/ip_forward"];
    if config.fixed_cidr_v6.is_some() {
        keys.push("ipv6/conf/all/forwarding");
    }
    let mut closed = firewall.guards_uplinks().map_err(NetworkError::kernel(object))?;
    for key in keys {
        if bridge::read_setting(key) == Some(0) {
            bridge::write_setting(key, "1")?;
            closed = true;
        }
    }
    Ok(closed && !config.ip_forward_no_drop)
}
