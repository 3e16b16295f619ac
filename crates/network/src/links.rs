//! Links: what one container may reach of another where neighbours may not (`--icc=false`).
//!
//! Ports of such a bridge are isolated by the kernel, which knows all or nothing. A container with
//! links gets a port that is not (a *door*), and the firewall drops all that goes through doors but
//! the conversations that are open:
//!
//! ```text
//! doors                          { ifname }
//! link4, link6                   { from . to . protocol . port }   one element per open port
//! ```
//!
//! Who is a door stays one until it is unplugged; what is open follows who is there: it is drawn
//! anew from [`Links`] and the addresses whenever somebody comes or goes, so no element outlives
//! the address that it speaks of. Without links nothing of this costs anything.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use spec::Id;

use crate::ports::Protocol;

/// What a container with links may reach of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub to: Id,
    pub ports: Vec<(Protocol, u16)>,
}

/// What the firewall says of links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkRules {
    /// Host ends of the containers that have links.
    pub doors: BTreeSet<String>,
    pub open: BTreeSet<OpenPort>,
}

/// A port of one address that another may speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPort {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// The links of containers that run, by who has them.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<Id, Vec<Link>>);

impl Links {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces all links of a container.
    pub(crate) fn set(&mut self, from: &Id, links: Vec<Link>) {
        if links.is_empty() {
            self.forget(from);
        } else {
            self.0.insert(from.clone(), links);
        }
    }

    pub(crate) fn forget(&mut self, from: &Id) {
        self.0.remove(from);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What they open, between those that have addresses.
    pub(crate) fn open<'a>(&self, addresses: impl Fn(&Id) -> &'a [IpAddr]) -> BTreeSet<OpenPort> {
        let mut open = BTreeSet::new();
        for (from, links) in &self.0 {
            for link in links {
                for (from, to) in pairs(addresses(from), addresses(&link.to)) {
                    let ports = link.ports.iter();
                    open.extend(ports.map(|&(protocol, port)| OpenPort {
                        from,
                        to,
                        protocol,
                        port,
                    }));
                }
            }
        }
        open
    }
}

/// Those of one family.
fn pairs(from: &[IpAddr], to: &[IpAddr]) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let all = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from.is_ipv4() == to.is_ipv4())
}

impl LinkRules {
    /// What is here and not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self { doors: &self.doors - &other.doors, open: &self.open - &other.open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_open_between_addresses_of_one_family() {
        let id = |byte| Id::from_random([byte; 32]);
        let (web, db) = (id(1), id(2));
        let mut links = Links::default();
        let to_db = |port| Link { to: db.clone(), ports: vec![(Protocol::Tcp, port)] };
        links.set(&web, vec![to_db(80), to_db(81), to_db(80)]);
        let both: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let four: [IpAddr; 1] = ["10.0.0.2".parse().unwrap()];
        let open = links.open(|id| if *id == web { &both } else { &four });
        let shown: Vec<_> =
            open.iter().map(|open| format!("{} {} {}", open.from, open.to, open.port)).collect();
        assert_eq!(shown, ["10.0.0.1 10.0.0.2 80", "10.0.0.1 10.0.0.2 81"]);
        assert!(
            links.open(|id| if *id == web { &both } else { &[] }).is_empty(),
            "db is not there"
        );
        links.set(&web, Vec::new());
        assert!(links.is_empty());
    }
}
