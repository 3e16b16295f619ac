//! Subnets of both families: an address and a prefix length, with the arithmetic that address
//! management needs. `10.0.0.7/24` keeps its host part; [`Subnet::network`] clears it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::NetworkError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    ip: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// None when the prefix is longer than the address.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= bits(ip)).then_some(Self { ip, prefix })
    }

    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    pub const fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    /// The same subnet without host bits.
    pub fn network(&self) -> Self {
        Self { ip: self.at(0), prefix: self.prefix }
    }

    /// How many addresses, less one, so that `::/0` has an answer too.
    pub fn last_offset(&self) -> u128 {
        let host_bits = u32::from(bits(self.ip) - self.prefix);
        u128::MAX.checked_shr(128 - host_bits).unwrap_or(0)
    }

    /// The address `offset` places after the network's own.
    pub fn at(&self, offset: u128) -> IpAddr {
        let number = (number(self.ip) & !self.last_offset()) + offset;
        match self.ip {
            IpAddr::V4(_) => {
                let low = u32::try_from(number & u128::from(u32::MAX)).expect("masked");
                Ipv4Addr::from_bits(low).into()
            }
            IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// The inverse of [`Subnet::at`]; none for an address outside.
    pub fn offset(&self, ip: IpAddr) -> Option<u128> {
        let same_family = ip.is_ipv4() == self.is_ipv4();
        let start = number(self.at(0));
        let offset = number(ip).checked_sub(start)?;
        (same_family && offset <= self.last_offset()).then_some(offset)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.offset(ip).is_some()
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.at(0)) || other.contains(self.at(0))
    }

    /// All subnets of length `prefix` inside, in order.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Self> {
        let step = Self { ip: self.ip, prefix }.last_offset() + 1;
        let count = if prefix < self.prefix { 0 } else { (self.last_offset() / step) + 1 };
        (0..count).map(move |index| Self { ip: self.at(index * step), prefix })
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parse = || {
            let (ip, prefix) = text.split_once('/')?;
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            Self::new(ip.parse().ok()?, prefix.parse().ok().filter(|_| digits)?)
        };
        parse().ok_or_else(|| NetworkError::InvalidSubnet { text: text.to_owned() })
    }
}

impl TryFrom<String> for Subnet {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn arithmetic_works_in_both_families() {
        let lan = subnet("10.1.2.3/24");
        assert_eq!(lan.network().to_string(), "10.1.2.0/24");
        assert_eq!(lan.at(5).to_string(), "10.1.2.5");
        assert_eq!(lan.offset([10, 1, 2, 255].into()), Some(255));
        assert_eq!(lan.offset([10, 1, 3, 0].into()), None);
        assert_eq!(lan.offset("::1".parse().unwrap()), None);
        let six = subnet("fd00::7/64");
        assert_eq!(six.at(2).to_string(), "fd00::2");
        assert_eq!(six.last_offset(), u128::from(u64::MAX));
        assert_eq!(subnet("1.2.3.4/32").last_offset(), 0);
        assert_eq!(subnet("::/0").last_offset(), u128::MAX);
    }

    #[test]
    fn overlap_goes_both_ways() {
        let check = |one: &str, other: &str, expect| {
            assert_eq!(subnet(one).overlaps(&subnet(other)), expect, "{one} {other}");
            assert_eq!(subnet(other).overlaps(&subnet(one)), expect, "{other} {one}");
        };
        check("172.17.0.0/16", "172.17.5.0/24", true);
        check("172.17.0.0/16", "172.18.0.0/16", false);
        check("0.0.0.0/0", "10.0.0.0/8", true);
        check("0.0.0.0/0", "::/0", false);
    }

    #[test]
    fn pools_split() {
        let split: Vec<_> =
            subnet("172.20.0.0/14").split(16).map(|subnet| subnet.to_string()).collect();
        assert_eq!(split, ["172.20.0.0/16", "172.21.0.0/16", "172.22.0.0/16", "172.23.0.0/16"]);
        assert_eq!(subnet("192.168.0.0/16").split(20).count(), 16);
        assert_eq!(subnet("10.0.0.0/24").split(16).count(), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "a/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
