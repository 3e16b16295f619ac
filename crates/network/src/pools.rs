//! The addresses of one network: a pool for each of its subnets.

use std::net::IpAddr;

use crate::error::NetworkError;
use crate::ipam::Pool;
use crate::records::PoolRecord;
use crate::subnet::Subnet;

/// Of a family, the first pool that has room is used.
#[derive(Debug, Default)]
pub(crate) struct Pools(Vec<Pool>);

impl Pools {
    /// Adds the pool around the address that the network itself has there.
    pub(crate) fn add(&mut self, own: Subnet, range: Option<Subnet>) -> Result<(), NetworkError> {
        if let Some(range) = range
            && !(own.contains(range.at(0)) && own.contains(range.at(range.last_offset())))
        {
            return Err(NetworkError::RangeOutside { range, subnet: own.network() });
        }
        let mut pool = Pool::new(own, range);
        pool.reserve(own.ip());
        self.0.push(pool);
        Ok(())
    }

    /// Adds the pool of a user's subnet, without the addresses that it keeps for others.
    pub(crate) fn add_record(&mut self, record: &PoolRecord) -> Result<(), NetworkError> {
        self.add(own_address(record), record.ip_range)?;
        for ip in record.auxiliary.values() {
            self.reserve(*ip);
        }
        Ok(())
    }

    /// The first subnet of a family.
    pub(crate) fn subnet(&self, ipv4: bool) -> Option<Subnet> {
        self.0.iter().map(Pool::subnet).find(|subnet| subnet.is_ipv4() == ipv4)
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|pool| pool.subnet().contains(ip))
    }

    /// Takes an address; false when it is taken or outside.
    pub(crate) fn reserve(&mut self, ip: IpAddr) -> bool {
        self.pool(ip).is_some_and(|pool| pool.reserve(ip))
    }

    pub(crate) fn release(&mut self, ip: IpAddr) {
        if let Some(pool) = self.pool(ip) {
            pool.release(ip);
        }
    }

    fn pool(&mut self, ip: IpAddr) -> Option<&mut Pool> {
        self.0.iter_mut().find(|pool| pool.subnet().contains(ip))
    }

    /// An address of each family that there is a pool of, IPv4 first: the one that was asked for,
    /// else the next free one. All or none.
    pub(crate) fn allocate(
        &mut self,
        network: &str,
        asked: [Option<IpAddr>; 2],
    ) -> Result<[Option<Subnet>; 2], NetworkError> {
        let first = self.allocate_one(network, true, asked[0])?;
        let second = self.allocate_one(network, false, asked[1]);
        let second = second.inspect_err(|_| {
            if let Some(first) = first {
                self.release(first.ip());
            }
        })?;
        Ok([first, second])
    }

    fn allocate_one(
        &mut self,
        network: &str,
        ipv4: bool,
        asked: Option<IpAddr>,
    ) -> Result<Option<Subnet>, NetworkError> {
        if let Some(ip) = asked {
            let pool = self.pool(ip).ok_or(NetworkError::AddressOutside { ip })?;
            let taken = pool.reserve(ip).then(|| with_prefix(ip, pool.subnet()));
            return taken.map(Some).ok_or(NetworkError::AddressInUse { ip });
        }
        if self.subnet(ipv4).is_none() {
            return Ok(None);
        }
        let pools = self.0.iter_mut().filter(|pool| pool.subnet().is_ipv4() == ipv4);
        let mut free = pools.filter_map(|pool| Some(with_prefix(pool.allocate()?, pool.subnet())));
        let family = if ipv4 { 4 } else { 6 };
        let exhausted = || NetworkError::AddressesExhausted { name: network.to_owned(), family };
        free.next().map(Some).ok_or_else(exhausted)
    }
}

/// The address that a user's network itself has in a subnet.
pub(crate) fn own_address(pool: &PoolRecord) -> Subnet {
    with_prefix(pool.gateway, pool.subnet)
}

fn with_prefix(ip: IpAddr, subnet: Subnet) -> Subnet {
    Subnet::new(ip, subnet.prefix()).expect("of the subnet's family")
}
