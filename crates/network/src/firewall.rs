//! Who may talk to whom: our two nf_tables tables, replaced whole and at once.
//!
//! ```text
//! table inet boxship_<bridge> {                      # what the host routes
//!     set bridges { ifname }   set uplinks { ifname }
//!     chain forward { type filter hook forward priority 0; policy accept
//!         iifname @uplinks oifname @uplinks drop          # only if we turned forwarding on
//!         meta nfproto <a family we do not manage> accept # only with --iptables=false
//!         oifname != @bridges accept
//!         ct state established,related accept
//!         ct status dnat accept                           # published ports
//!         iifname B oifname B accept                      # drop with icc=false; for each bridge
//!         drop                                            # neighbours, other bridges
//!     }
//!     chain postrouting { type nat hook postrouting priority 100; policy accept
//!         ip saddr S oifname != B masquerade              # for each bridge and family
//!     }
//! }
//! table bridge boxship_<bridge> {                    # what goes from port to port
//!     set ports    { ifname }                             # host ends of our veths
//!     set macs, ipv4, ipv6              { what the engine gave, and the bridges' own }
//!     set port_macs, port_ipv4, port_ipv6 { ifname . the same }
//!     chain prerouting { type filter hook prerouting priority -300; policy accept
//!         iifname != @ports accept
//!         ether saddr @macs  iifname . ether saddr != @port_macs drop
//!         ... the same for ARP's sender, IPv4's and IPv6's source, and ND's target
//!     }
//! }
//! ```
//!
//! The second table refuses what belongs to somebody else, rather than allowing only what was
//! given: a container with its own inner addresses (a VIP, a nested bridge) works as on Docker.
//!
//! Drop is final in nf_tables, accept is not: if another firewall's forward chain drops (iptables'
//! `FORWARD` policy under dockerd or ufw), an accept here cannot overrule it, and we do not write
//! into other tools' tables, which would make them unreadable for these tools. [`Firewall::conflicts`]
//! finds such chains for `info`. Legacy (xtables) rule sets cannot be seen from here.

use std::net::IpAddr;

use sys::netlink::{NetlinkError, Socket};

use crate::nft::{
    BaseChain, Conntrack, DroppingChain, Expression, Family, Field, Hook, IFNAME_LENGTH, Layer,
    Meta, Set, Table, Transaction, Verdict, contents, dropping_forward_chains, element_count,
    generation,
};
use crate::subnet::Subnet;

/// Everything the tables say, apart from the containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub bridges: Vec<BridgeRules>,
    /// Links between which this host must not route, as it did not before we came.
    pub uplinks: Vec<String>,
    pub ipv4: bool,
    pub ipv6: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeRules {
    pub name: String,
    pub mac: [u8; 6],
    /// The host's addresses on the bridge.
    pub gateways: Vec<IpAddr>,
    pub subnets: Vec<Subnet>,
    pub masquerade: bool,
    pub icc: bool,
}

/// A container's end of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub port: String,
    pub mac: [u8; 6],
    pub ips: Vec<IpAddr>,
}

const FORWARD: BaseChain =
    BaseChain { name: "forward", kind: "filter", hook: Hook::Forward, priority: 0 };
const POSTROUTING: BaseChain =
    BaseChain { name: "postrouting", kind: "nat", hook: Hook::Postrouting, priority: 100 };
const PREROUTING: BaseChain =
    BaseChain { name: "prerouting", kind: "filter", hook: Hook::Prerouting, priority: -300 };

const ROUTED_SETS: [Set; 2] = [
    Set { name: "bridges", key: &[Field::InterfaceName] },
    Set { name: "uplinks", key: &[Field::InterfaceName] },
];
const BRIDGED_SETS: [Set; 7] = [
    Set { name: "ports", key: &[Field::InterfaceName] },
    Set { name: "macs", key: &[Field::Mac] },
    Set { name: "ipv4", key: &[Field::Ipv4] },
    Set { name: "ipv6", key: &[Field::Ipv6] },
    Set { name: "port_macs", key: &[Field::InterfaceName, Field::Mac] },
    Set { name: "port_ipv4", key: &[Field::InterfaceName, Field::Ipv4] },
    Set { name: "port_ipv6", key: &[Field::InterfaceName, Field::Ipv6] },
];

const ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
const STATUS_DNAT: u32 = 1 << 5;

/// The tables in the kernel, and what we last made them.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    routed: Table,
    bridged: Table,
    /// The kernel's generation after our last change, and its description of our tables.
    seen: Option<(u32, Vec<Vec<u8>>)>,
}

impl Firewall {
    /// Opens the way to the tables named after `bridge`; changes nothing.
    pub fn open(bridge: &str) -> Result<Self, NetlinkError> {
        let name = format!("boxship_{bridge}");
        Ok(Self {
            socket: Socket::netfilter()?,
            routed: Table { family: Family::Inet, name: name.clone() },
            bridged: Table { family: Family::Bridge, name },
            seen: None,
        })
    }

    /// Makes the tables say what `plan` says, unless nobody touched them since they last did.
    /// Cheap when nothing changed anywhere (5 us).
    pub fn ensure(
        &mut self,
        plan: &Plan,
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetlinkError> {
        let generation = generation(&mut self.socket)?;
        if let Some((seen, expected)) = self.seen.take()
            && (seen == generation || expected == self.describe()?)
        {
            self.seen = Some((generation, expected));
            return Ok(());
        }
        self.replace(plan, &members())
    }

    /// Replaces both tables in one transaction.
    pub fn replace(&mut self, plan: &Plan, members: &[Member]) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        self.delete(&mut transaction);
        if plan.ipv4 || plan.ipv6 {
            write_routed(&mut transaction, &self.routed, plan);
            write_bridged(&mut transaction, &self.bridged, plan);
            for member in members {
                for (set, key) in elements(member) {
                    transaction.add_element(&self.bridged, set, &key);
                }
            }
        }
        transaction.commit(&mut self.socket)?;
        self.remember()
    }

    /// Removes both tables; no error when there are none.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        self.delete(&mut transaction);
        self.seen = None;
        transaction.commit(&mut self.socket)
    }

    /// Whether the tables of an earlier run forbid routing between uplinks.
    pub fn guards_uplinks(&mut self) -> Result<bool, NetlinkError> {
        let uplinks = b"uplinks\0";
        let rules = contents(&mut self.socket, &self.routed)?;
        Ok(rules.iter().any(|rule| rule.windows(uplinks.len()).any(|part| part == uplinks)))
    }

    pub fn add_member(&mut self, member: &Member) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for (set, key) in elements(member) {
            transaction.add_element(&self.bridged, set, &key);
        }
        transaction.commit(&mut self.socket)
    }

    pub fn remove_member(&mut self, member: &Member) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for (set, key) in elements(member) {
            transaction.delete_element(&self.bridged, set, &key);
        }
        transaction.commit(&mut self.socket)
    }

    /// How many elements the sets between ports have: one address of a container adds five.
    pub fn element_count(&mut self) -> Result<usize, NetlinkError> {
        let mut count = 0;
        for set in &BRIDGED_SETS {
            count += element_count(&mut self.socket, &self.bridged, set.name)?;
        }
        Ok(count)
    }

    /// Returns the chains of others that drop forwarded packets by default.
    pub fn conflicts(&mut self) -> Result<Vec<DroppingChain>, NetlinkError> {
        dropping_forward_chains(&mut self.socket)
    }

    fn delete(&self, transaction: &mut Transaction) {
        for table in [&self.routed, &self.bridged] {
            // Deleting a table that is not there would undo the whole transaction.
            transaction.table(table);
            transaction.delete_table(table);
        }
    }

    fn remember(&mut self) -> Result<(), NetlinkError> {
        self.seen = Some((generation(&mut self.socket)?, self.describe()?));
        Ok(())
    }

    fn describe(&mut self) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut described = contents(&mut self.socket, &self.routed)?;
        described.extend(contents(&mut self.socket, &self.bridged)?);
        Ok(described)
    }
}

fn write_routed(transaction: &mut Transaction, table: &Table, plan: &Plan) {
    transaction.table(table);
    for set in &ROUTED_SETS {
        transaction.set(table, set);
    }
    for bridge in &plan.bridges {
        transaction.add_element(table, "bridges", &interface_name(&bridge.name));
    }
    for uplink in &plan.uplinks {
        transaction.add_element(table, "uplinks", &interface_name(uplink));
    }
    transaction.chain(table, &FORWARD);
    for rule in forward_rules(plan) {
        transaction.rule(table, FORWARD.name, &rule);
    }
    transaction.chain(table, &POSTROUTING);
    for rule in masquerade_rules(plan) {
        transaction.rule(table, POSTROUTING.name, &rule);
    }
}

fn write_bridged(transaction: &mut Transaction, table: &Table, plan: &Plan) {
    transaction.table(table);
    for set in &BRIDGED_SETS {
        transaction.set(table, set);
    }
    for bridge in &plan.bridges {
        transaction.add_element(table, "macs", &bridge.mac);
        for gateway in &bridge.gateways {
            transaction.add_element(table, address_sets(*gateway).0, &octets(*gateway));
        }
    }
    transaction.chain(table, &PREROUTING);
    for rule in spoofing_rules() {
        transaction.rule(table, PREROUTING.name, &rule);
    }
}

type Rule = Vec<Expression>;

fn forward_rules(plan: &Plan) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !plan.uplinks.is_empty() {
        rules.push(vec![
            Expression::LoadMeta { key: Meta::InputName, register: 1 },
            Expression::InSet { set: "uplinks", register: 1 },
            Expression::LoadMeta { key: Meta::OutputName, register: 1 },
            Expression::InSet { set: "uplinks", register: 1 },
            Expression::Verdict(Verdict::Drop),
        ]);
    }
    for (managed, family) in [(plan.ipv4, Family::Ipv4), (plan.ipv6, Family::Ipv6)] {
        if !managed {
            rules.push([family_is(family), accept()].concat());
        }
    }
    rules.push(vec![
        Expression::LoadMeta { key: Meta::OutputName, register: 1 },
        Expression::NotInSet { set: "bridges", register: 1 },
        Expression::Verdict(Verdict::Accept),
    ]);
    let state = conntrack_any(Conntrack::State, ESTABLISHED_OR_RELATED);
    rules.push([state, accept()].concat());
    rules.push([conntrack_any(Conntrack::Status, STATUS_DNAT), accept()].concat());
    for bridge in &plan.bridges {
        let within = [name_is(Meta::InputName, bridge), name_is(Meta::OutputName, bridge)].concat();
        rules.push([within, if bridge.icc { accept() } else { drop_it() }].concat());
    }
    rules.push(drop_it());
    rules
}

fn masquerade_rules(plan: &Plan) -> Vec<Rule> {
    let masquerading = plan.bridges.iter().filter(|bridge| bridge.masquerade);
    let subnets =
        masquerading.flat_map(|bridge| bridge.subnets.iter().map(move |subnet| (bridge, subnet)));
    subnets
        .filter(|(_, subnet)| if subnet.is_ipv4() { plan.ipv4 } else { plan.ipv6 })
        .map(|(bridge, subnet)| {
            let leaves = vec![
                Expression::LoadMeta { key: Meta::OutputName, register: 1 },
                Expression::NotEqual { register: 1, value: interface_name(&bridge.name) },
                Expression::Masquerade,
            ];
            [source_in(subnet), leaves].concat()
        })
        .collect()
}

/// Frames from our ports whose sender is somebody else's.
fn spoofing_rules() -> Vec<Rule> {
    const ARP: u16 = 0x0806;
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    const ICMPV6: u8 = 58;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    let claims = |layer, offset, length, all, own| {
        vec![
            Expression::LoadPacket { layer, offset, length, register: 2 },
            Expression::InSet { set: all, register: 2 },
            Expression::LoadMeta { key: Meta::InputName, register: 1 },
            Expression::NotInSet { set: own, register: 1 },
            Expression::Verdict(Verdict::Drop),
        ]
    };
    let carries = |protocol: u16| {
        vec![
            Expression::LoadMeta { key: Meta::Protocol, register: 1 },
            Expression::Equal { register: 1, value: protocol.to_be_bytes().to_vec() },
        ]
    };
    let advertises = vec![
        Expression::LoadMeta { key: Meta::L4Protocol, register: 1 },
        Expression::Equal { register: 1, value: vec![ICMPV6] },
        Expression::LoadPacket { layer: Layer::Transport, offset: 0, length: 1, register: 1 },
        Expression::Equal { register: 1, value: vec![NEIGHBOUR_ADVERTISEMENT] },
    ];
    let not_ours = vec![
        Expression::LoadMeta { key: Meta::InputName, register: 1 },
        Expression::NotInSet { set: "ports", register: 1 },
        Expression::Verdict(Verdict::Accept),
    ];
    vec![
        not_ours,
        claims(Layer::Link, 6, 6, "macs", "port_macs"),
        [carries(ARP), claims(Layer::Network, 14, 4, "ipv4", "port_ipv4")].concat(),
        [carries(IPV4), claims(Layer::Network, 12, 4, "ipv4", "port_ipv4")].concat(),
        [carries(IPV6), claims(Layer::Network, 8, 16, "ipv6", "port_ipv6")].concat(),
        [carries(IPV6), advertises, claims(Layer::Transport, 8, 16, "ipv6", "port_ipv6")].concat(),
    ]
}

/// The set elements that a container's end brings along.
fn elements(member: &Member) -> Vec<(&'static str, Vec<u8>)> {
    let port = interface_name(&member.port);
    let mut mac = member.mac.to_vec();
    let mut elements = vec![("ports", port.clone()), ("macs", mac.clone())];
    // Keys of several parts are padded to four bytes each.
    mac.resize(8, 0);
    elements.push(("port_macs", [&port[..], &mac].concat()));
    for ip in &member.ips {
        let (all, own) = address_sets(*ip);
        elements.push((all, octets(*ip)));
        elements.push((own, [port.clone(), octets(*ip)].concat()));
    }
    elements
}

fn address_sets(ip: IpAddr) -> (&'static str, &'static str) {
    if ip.is_ipv4() { ("ipv4", "port_ipv4") } else { ("ipv6", "port_ipv6") }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_LENGTH, 0);
    bytes
}

fn name_is(key: Meta, bridge: &BridgeRules) -> Rule {
    vec![
        Expression::LoadMeta { key, register: 1 },
        Expression::Equal { register: 1, value: interface_name(&bridge.name) },
    ]
}

fn family_is(family: Family) -> Rule {
    vec![
        Expression::LoadMeta { key: Meta::Family, register: 1 },
        Expression::Equal { register: 1, value: vec![family as u8] },
    ]
}

fn conntrack_any(key: Conntrack, bits: u32) -> Rule {
    vec![
        Expression::LoadConntrack { key, register: 1 },
        Expression::And { register: 1, mask: bits.to_ne_bytes().to_vec() },
        Expression::NotEqual { register: 1, value: vec![0; 4] },
    ]
}

fn source_in(subnet: &Subnet) -> Rule {
    let (family, offset) = if subnet.is_ipv4() { (Family::Ipv4, 12) } else { (Family::Ipv6, 8) };
    let network = octets(subnet.at(0));
    let last = octets(subnet.at(subnet.last_offset()));
    let mask = network.iter().zip(&last).map(|(first, last)| !(first ^ last)).collect();
    let length = u32::try_from(network.len()).expect("4 or 16");
    let load = Expression::LoadPacket { layer: Layer::Network, offset, length, register: 1 };
    let within = vec![
        load,
        Expression::And { register: 1, mask },
        Expression::Equal { register: 1, value: network },
    ];
    [family_is(family), within].concat()
}

fn accept() -> Rule {
    vec![Expression::Verdict(Verdict::Accept)]
}

fn drop_it() -> Rule {
    vec![Expression::Verdict(Verdict::Drop)]
}
