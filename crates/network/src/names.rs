//! By what names the containers of a network know each other.
//!
//! Memory only, like the addresses: filled when a container joins, emptied when it leaves, so that
//! an answer is as true as the endpoint it names.

use std::collections::HashMap;
use std::net::IpAddr;

use spec::Id;

/// The names in all networks; case does not count.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    networks: HashMap<Id, NetworkNames>,
}

#[derive(Debug, Default)]
struct NetworkNames {
    places: HashMap<Id, Place>,
    /// Several containers may share an alias; in the order in which they came.
    by_name: HashMap<String, Vec<Id>>,
    by_ip: HashMap<IpAddr, Id>,
}

#[derive(Debug)]
struct Place {
    /// The first is the container's own.
    names: Vec<String>,
    ips: Vec<IpAddr>,
}

impl NameTable {
    /// Gives a container its names in a network, in place of those it had.
    pub(crate) fn insert(
        &mut self,
        network: &Id,
        container: &Id,
        names: &[String],
        ips: &[IpAddr],
    ) {
        self.remove(network, container);
        if names.is_empty() {
            return;
        }
        let found = self.networks.entry(network.clone()).or_default();
        for name in names {
            let holders = found.by_name.entry(name.to_ascii_lowercase()).or_default();
            if !holders.contains(container) {
                holders.push(container.clone());
            }
        }
        for ip in ips {
            found.by_ip.insert(*ip, container.clone());
        }
        let place = Place { names: names.to_vec(), ips: ips.to_vec() };
        found.places.insert(container.clone(), place);
    }

    pub(crate) fn remove(&mut self, network: &Id, container: &Id) {
        let Some(found) = self.networks.get_mut(network) else { return };
        let Some(place) = found.places.remove(container) else { return };
        for name in &place.names {
            let name = name.to_ascii_lowercase();
            if let Some(holders) = found.by_name.get_mut(&name) {
                holders.retain(|holder| holder != container);
                if holders.is_empty() {
                    found.by_name.remove(&name);
                }
            }
        }
        for ip in &place.ips {
            found.by_ip.remove(ip);
        }
        if found.places.is_empty() {
            self.networks.remove(network);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.networks.clear();
    }

    /// The addresses of all that have the name; nothing when none has. `name` is in lower case.
    pub(crate) fn addresses(&self, network: &Id, name: &str) -> Vec<IpAddr> {
        let Some(found) = self.networks.get(network) else { return Vec::new() };
        let holders = found.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let places = holders.iter().filter_map(|holder| found.places.get(holder));
        places.flat_map(|place| place.ips.iter().copied()).collect()
    }

    /// The own name of the container at an address.
    pub(crate) fn name(&self, network: &Id, ip: IpAddr) -> Option<String> {
        let found = self.networks.get(network)?;
        found.places.get(found.by_ip.get(&ip)?)?.names.first().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Id {
        Id::parse(&digit.to_string().repeat(64)).unwrap()
    }

    fn ip(last: u8) -> IpAddr {
        [172, 18, 0, last].into()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn aliases_are_shared_and_go_with_their_containers() {
        let (mut table, net) = (NameTable::default(), id('a'));
        table.insert(&net, &id('1'), &names(&["one", "Web"]), &[ip(2)]);
        table.insert(&net, &id('2'), &names(&["two", "web"]), &[ip(3)]);
        assert_eq!(table.addresses(&net, "web"), [ip(2), ip(3)]);
        assert_eq!(table.addresses(&id('b'), "web"), [] as [IpAddr; 0]);
        assert_eq!(table.name(&net, ip(3)).as_deref(), Some("two"));
        table.insert(&net, &id('1'), &names(&["renamed"]), &[ip(2)]);
        assert_eq!(table.addresses(&net, "web"), [ip(3)]);
        assert_eq!(table.addresses(&net, "one"), [] as [IpAddr; 0]);
        assert_eq!(table.name(&net, ip(2)).as_deref(), Some("renamed"));
        table.remove(&net, &id('1'));
        table.remove(&net, &id('2'));
        assert!(table.networks.is_empty());
    }
}
