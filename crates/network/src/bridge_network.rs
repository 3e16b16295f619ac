//! A network on a bridge, as it is now: link, addresses, and what its containers are told.

use std::net::IpAddr;

use sys::netlink::Socket;

use crate::bridge::{self, Bridge, Wanted};
use crate::config::NetworkConfig;
use crate::error::NetworkError;
use crate::firewall::BridgeRules;
use crate::info::PoolInfo;
use crate::pools::{Pools, own_address};
use crate::records::{NetworkRecord, PoolRecord, UserNetwork};
use crate::user::BridgeOptions;

#[derive(Debug)]
pub(crate) struct BridgeNetwork {
    pub bridge: Bridge,
    pub pools: Pools,
    pub gateway_v4: Option<IpAddr>,
    pub gateway_v6: Option<IpAddr>,
    pub mtu: u32,
    pub icc: bool,
    pub masquerade: bool,
    pub internal: bool,
    /// Where ports are published that say nothing of it.
    pub bind_ip: Option<IpAddr>,
}

impl BridgeNetwork {
    pub(crate) fn open_default(
        name: &str,
        config: &NetworkConfig,
        route: &mut Socket,
    ) -> Result<Self, NetworkError> {
        let bridge = bridge::set_up_default(name, config, route)?;
        let mut pools = Pools::default();
        for own in bridge.addresses() {
            pools.add(own, config.fixed_cidr.filter(|_| own.is_ipv4()))?;
        }
        let (gateway_v4, gateway_v6) = bridge::gateways(&bridge, config);
        // A gateway that is not the bridge may lie in the pools as well.
        for ip in gateway_v4.into_iter().chain(gateway_v6) {
            pools.reserve(ip);
        }
        Ok(Self {
            bridge,
            pools,
            gateway_v4,
            gateway_v6,
            mtu: config.mtu,
            icc: config.icc,
            masquerade: config.ip_masq,
            internal: false,
            bind_ip: config.default_bind_ip,
        })
    }

    /// Makes or completes the bridge of a user's network.
    pub(crate) fn open_user(
        record: &NetworkRecord,
        instance: &str,
        config: &NetworkConfig,
        route: &mut Socket,
    ) -> Result<Self, NetworkError> {
        let (Some(user), Some(options)) = (&record.user, options(record, config)?) else {
            return Err(NetworkError::NoBridge);
        };
        // Docker keeps, and shows, the subnet of a family that is not enabled.
        let pool_v4 = pool_of(user, true).filter(|_| user.enable_ipv4);
        let pool_v6 = pool_of(user, false).filter(|_| user.enable_ipv6);
        let name = bridge_name(record, &options);
        let alias = alias(instance, record);
        let wanted = Wanted { name: &name, alias, mtu: options.mtu };
        let ipv4 = pool_v4.filter(|_| !options.isolated_v4).map(own_address);
        let ipv6 = pool_v6.filter(|_| !options.isolated_v6).map(own_address);
        let bridge = bridge::set_up(&wanted, ipv4, ipv6, route)?;
        let mut pools = Pools::default();
        pool_v4.into_iter().chain(pool_v6).try_for_each(|pool| pools.add_record(pool))?;
        // Isolated ones are internal: no container is told of these.
        Ok(Self {
            gateway_v4: pool_v4.map(|pool| pool.gateway),
            gateway_v6: pool_v6.map(|pool| pool.gateway),
            pools,
            bridge,
            mtu: options.mtu,
            icc: options.icc,
            masquerade: options.masquerade,
            internal: user.internal,
            bind_ip: options.bind_ip.or(config.default_bind_ip),
        })
    }

    /// Makes the bridge what it was, after somebody changed or removed it.
    pub(crate) fn restore(
        &mut self,
        record: &NetworkRecord,
        instance: &str,
        route: &mut Socket,
    ) -> Result<(), NetworkError> {
        let alias = match record.user {
            Some(_) => alias(instance, record),
            None => bridge::default_alias(&self.bridge.name),
        };
        let wanted = Wanted { name: &self.bridge.name, alias, mtu: self.mtu };
        self.bridge = bridge::restore(&wanted, &self.bridge, route)?;
        Ok(())
    }

    pub(crate) fn rules(&self) -> BridgeRules {
        let addresses = || self.bridge.addresses();
        BridgeRules {
            name: self.bridge.name.clone(),
            mac: self.bridge.mac,
            gateways: addresses().map(|own| own.ip()).collect(),
            subnets: addresses().collect(),
            masquerade: self.masquerade && !self.internal,
            icc: self.icc,
            internal: self.internal,
        }
    }

    /// The host's own 127.0.0.1 may reach published ports; the rules keep containers from
    /// reaching it.
    pub(crate) fn open_loopback(&self) -> Result<(), NetworkError> {
        let key = format!("ipv4/conf/{}/route_localnet", self.bridge.name);
        bridge::write_setting(&key, "1")
    }

    /// The default bridge's pools, for inspection.
    pub(crate) fn pools_shown(&self, config: &NetworkConfig) -> Vec<PoolInfo> {
        let info = |subnet, ip_range, gateway| PoolInfo {
            subnet,
            ip_range,
            gateway: Some(gateway),
            auxiliary: Default::default(),
        };
        let ipv4 = self.pools.subnet(true).zip(self.gateway_v4);
        let ipv4 = ipv4.map(|(subnet, gateway)| info(subnet, config.fixed_cidr, gateway));
        let ipv6 = self.pools.subnet(false).zip(self.gateway_v6);
        let ipv6 = ipv6.map(|(subnet, gateway)| info(subnet, None, gateway));
        ipv4.into_iter().chain(ipv6).collect()
    }
}

/// The options of a user's bridge; none of the default networks.
pub(crate) fn options(
    record: &NetworkRecord,
    config: &NetworkConfig,
) -> Result<Option<BridgeOptions>, NetworkError> {
    let user = record.user.as_ref().filter(|_| record.driver == "bridge");
    user.map(|user| BridgeOptions::parse(&user.options, config.mtu)).transpose()
}

/// `br-` and twelve digits of the id, unless an option says otherwise.
pub(crate) fn bridge_name(record: &NetworkRecord, options: &BridgeOptions) -> String {
    options.name.clone().unwrap_or_else(|| format!("br-{}", record.id.short()))
}

const NETWORK: &str = "network:";

/// The alias of a user's bridge.
pub(crate) fn alias(instance: &str, record: &NetworkRecord) -> String {
    bridge::alias(instance, &format!("{NETWORK}{}", record.id))
}

/// The id of the network whose bridge has this owner in its alias.
pub(crate) fn network_of(owner: &str) -> Option<&str> {
    owner.strip_prefix(NETWORK)
}

fn pool_of(user: &UserNetwork, ipv4: bool) -> Option<&PoolRecord> {
    user.pools.iter().find(|pool| pool.subnet.is_ipv4() == ipv4)
}
