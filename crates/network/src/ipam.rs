//! Addresses of one subnet: who has which is known elsewhere, here only that they are taken.
//!
//! A bitmap covers the window that addresses are handed out from; what was reserved outside it is
//! a small set. The next search starts after the last address handed out, so that one just freed
//! is not given away while caches still point at its old holder.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::subnet::Subnet;

/// Addresses in the window; no network here needs more.
const WINDOW_MAX: u128 = 1 << 16;

#[derive(Debug)]
pub struct Pool {
    subnet: Subnet,
    /// First offset in `subnet` that may be handed out, and how many.
    first: u128,
    size: usize,
    taken: Vec<u64>,
    free: usize,
    next: usize,
    outside: BTreeSet<u128>,
}

impl Pool {
    /// Hands out addresses of `range` (the whole subnet if none), never the network's own nor the
    /// IPv4 broadcast address.
    pub fn new(subnet: Subnet, range: Option<Subnet>) -> Self {
        let subnet = subnet.network();
        let range = range.unwrap_or(subnet).network();
        let start = subnet.offset(range.at(0)).unwrap_or(0);
        let end = start + range.last_offset().min(WINDOW_MAX - 1);
        // In a /31 or /32 every address is a host's.
        let spare = u128::from(subnet.last_offset() > 1);
        let broadcast = if subnet.is_ipv4() { spare } else { 0 };
        let first = start.max(spare);
        let last = end.min(subnet.last_offset() - broadcast);
        let size = usize::try_from((last + 1).saturating_sub(first)).expect("at most WINDOW_MAX");
        let mut taken = vec![0; size.div_ceil(64)];
        if let (Some(word), 1..) = (taken.last_mut(), size % 64) {
            *word = u64::MAX << (size % 64);
        }
        Self { subnet, first, size, taken, free: size, next: 0, outside: BTreeSet::new() }
    }

    pub const fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Returns the next free address.
    pub fn allocate(&mut self) -> Option<IpAddr> {
        if self.free == 0 {
            return None;
        }
        let index = self.first_free(self.next).or_else(|| self.first_free(0))?;
        self.set(index);
        self.next = index + 1;
        Some(self.subnet.at(self.first + index as u128))
    }

    /// Takes this address; false when it is taken or not of this subnet.
    pub fn reserve(&mut self, ip: IpAddr) -> bool {
        let Some(offset) = self.subnet.offset(ip) else { return false };
        match self.index(offset) {
            Some(index) if self.is_taken(index) => false,
            Some(index) => {
                self.set(index);
                true
            }
            None => self.outside.insert(offset),
        }
    }

    /// Gives an address back; no error when it was free.
    pub fn release(&mut self, ip: IpAddr) {
        let Some(offset) = self.subnet.offset(ip) else { return };
        match self.index(offset) {
            Some(index) if self.is_taken(index) => {
                self.taken[index / 64] &= !(1 << (index % 64));
                self.free += 1;
            }
            Some(_) => {}
            None => drop(self.outside.remove(&offset)),
        }
    }

    fn index(&self, offset: u128) -> Option<usize> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        (index < self.size).then_some(index)
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn set(&mut self, index: usize) {
        self.taken[index / 64] |= 1 << (index % 64);
        self.free -= 1;
    }

    /// Looks at one word for 64 addresses.
    fn first_free(&self, from: usize) -> Option<usize> {
        let mut ignore = (1_u64 << (from % 64)) - 1;
        for (number, word) in self.taken.iter().enumerate().skip(from / 64) {
            let free = !(word | ignore);
            if free != 0 {
                return Some(number * 64 + free.trailing_zeros() as usize);
            }
            ignore = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        Pool::new(subnet.parse().unwrap(), range.map(|range| range.parse().unwrap()))
    }

    fn all(pool: &mut Pool) -> Vec<String> {
        std::iter::from_fn(|| pool.allocate()).map(|ip| ip.to_string()).collect()
    }

    fn check(subnet: &str, range: Option<&str>, expect: &[&str]) {
        assert_eq!(all(&mut pool(subnet, range)), expect, "{subnet} {range:?}");
    }

    #[test]
    fn only_hosts_addresses_are_handed_out() {
        check(
            "10.0.0.0/29",
            None,
            &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"],
        );
        check("10.0.0.0/24", Some("10.0.0.8/31"), &["10.0.0.8", "10.0.0.9"]);
        check("10.0.0.0/24", Some("10.0.0.254/31"), &["10.0.0.254"]);
        check("10.0.0.0/31", None, &["10.0.0.0", "10.0.0.1"]);
        check("fd00::/126", None, &["fd00::1", "fd00::2", "fd00::3"]);
    }

    #[test]
    fn a_freed_address_rests() {
        let mut pool = pool("10.0.0.0/29", None);
        let first = pool.allocate().unwrap();
        pool.allocate().unwrap();
        pool.release(first);
        assert_eq!(pool.allocate().unwrap().to_string(), "10.0.0.3");
        assert_eq!(all(&mut pool).last().unwrap(), &first.to_string(), "the last choice");
    }

    #[test]
    fn reserving_is_exact() {
        let mut pool = pool("10.0.0.0/16", Some("10.0.1.0/24"));
        for ip in ["10.0.1.7", "10.0.9.9", "10.0.0.1"] {
            assert!(pool.reserve(ip.parse().unwrap()), "{ip}");
            assert!(!pool.reserve(ip.parse().unwrap()), "{ip} again");
            pool.release(ip.parse().unwrap());
            pool.release(ip.parse().unwrap());
            assert!(pool.reserve(ip.parse().unwrap()), "{ip} after release");
        }
        assert!(!pool.reserve("10.1.0.1".parse().unwrap()));
        assert_eq!(all(&mut pool).len(), 255);
    }

    #[test]
    fn large_subnets_cost_no_more_than_their_window() {
        let mut wide = pool("fd00::/64", None);
        assert_eq!(wide.allocate().unwrap().to_string(), "fd00::1");
        assert_eq!(all(&mut wide).len(), (1 << 16) - 2);
        let mut pool = pool("10.0.0.0/8", None);
        assert_eq!(all(&mut pool).len(), (1 << 16) - 1);
    }
}
