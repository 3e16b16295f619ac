//! The default bridge as it is now: link, addresses, rules.
//!
//! Rules are complete before the first container may come; an endpoint's elements are added before
//! its link and removed after it.

use std::net::IpAddr;

use rustix::io::Errno;
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
    /// None with `--iptables=false --ip6tables=false`.
    pub firewall: Option<Firewall>,
    pub plan: Plan,
}

impl DefaultBridge {
    pub(crate) fn open(
        name: &str,
        config: &NetworkConfig,
        route: &mut Socket,
    ) -> Result<Self, NetworkError> {
        let mut firewall = open_firewall(name, config)?;
        let bridge = bridge::set_up(name, config, route)?;
        let ipv4_pool = make_pool(bridge.ipv4, config.fixed_cidr)?;
        let ipv6_pool = bridge.ipv6.map(|own| make_pool(own, None)).transpose()?;
        let forwarding = plan_forwarding(config, firewall.as_mut(), name)?;
        let plan = Plan {
            bridges: vec![bridge_rules(&bridge, config)],
            uplinks: if forwarding.closed { bridge::uplinks(route)? } else { Vec::new() },
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
        // Rules first: at no moment does the host route what it should not. The elements of
        // containers that still run come back with `reconcile`.
        default.replace_rules(&[])?;
        for key in forwarding.turn_on {
            bridge::write_setting(key, "1")?;
        }
        if default.plan.ipv4 {
            // The host's own 127.0.0.1 may reach published ports; the rules keep containers from
            // reaching it.
            bridge::write_setting(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        }
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

    /// Adds the firewall's elements of a new endpoint, or gives its addresses back. `others` are
    /// all that are there already.
    pub(crate) fn admit(
        &mut self,
        endpoint: &Endpoint,
        others: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetworkError> {
        let (Some(member), Some(firewall)) = (endpoint.member(), &mut self.firewall) else {
            return Ok(());
        };
        let admitted = match firewall.add_member(&member) {
            Ok(()) => return Ok(()),
            // Somebody flushed the tables: all anew.
            Err(error) if error.errno == Errno::NOENT => {
                let mut members = others();
                members.push(member);
                self.replace_rules(&members)
            }
            Err(error) => Err(NetworkError::kernel(&member.port)(error)),
        };
        admitted.inspect_err(|_| {
            for ip in endpoint.ips() {
                self.release(ip);
            }
        })
    }

    /// Takes back what [`DefaultBridge::admit`] and the pools gave.
    pub(crate) fn forget(
        &mut self,
        member: &Member,
        remaining: &[Member],
    ) -> Result<(), NetworkError> {
        for ip in &member.ips {
            self.release(*ip);
        }
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        let shared = remaining.iter().any(|other| other.mac == member.mac);
        // Elements that another endpoint needs too, or that somebody removed: all anew.
        if shared || firewall.remove_member(member).is_err() {
            return self.replace_rules(remaining);
        }
        Ok(())
    }

    fn release(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pool(ip) {
            pool.release(ip);
        }
    }

    pub(crate) fn replace_rules(&mut self, members: &[Member]) -> Result<(), NetworkError> {
        let Some(firewall) = &mut self.firewall else { return Ok(()) };
        let replaced = firewall.replace(&self.plan, members);
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

/// Without rules to make, what an earlier run left is removed, if the kernel has such a thing.
fn open_firewall(name: &str, config: &NetworkConfig) -> Result<Option<Firewall>, NetworkError> {
    let opened = Firewall::open(name);
    if config.iptables || config.ip6tables {
        return opened.map(Some).map_err(NetworkError::kernel(name));
    }
    if let Err(error) = opened.and_then(|mut firewall| firewall.remove()) {
        tracing::debug!(%error, bridge = name, "remove the rules of an earlier run");
    }
    Ok(None)
}

/// What it takes to let the host route for containers.
struct Forwarding {
    /// Settings that are off.
    turn_on: Vec<&'static str>,
    /// The host did not route before we, now or in an earlier run, turned it on: then it must
    /// still not route between networks that were apart.
    closed: bool,
}

fn plan_forwarding(
    config: &NetworkConfig,
    firewall: Option<&mut Firewall>,
    object: &str,
) -> Result<Forwarding, NetworkError> {
    if !config.ip_forward {
        return Ok(Forwarding { turn_on: Vec::new(), closed: false });
    }
    let mut keys = vec!["ipv4/ip_forward"];
    if config.fixed_cidr_v6.is_some() {
        keys.push("ipv6/conf/all/forwarding");
    }
    keys.retain(|key| bridge::read_setting(key) == Some(0));
    let guarded = firewall.map_or(Ok(false), Firewall::guards_uplinks);
    let guarded = guarded.map_err(NetworkError::kernel(object))?;
    let closed = !config.ip_forward_no_drop && (guarded || !keys.is_empty());
    Ok(Forwarding { turn_on: keys, closed })
}
