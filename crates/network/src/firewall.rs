//! Who may talk to whom: our two nf_tables tables, replaced whole and at once.
//!
//! ```text
//! table inet boxship_<bridge> {                      # what the host routes
//!     set bridges { ifname }   set uplinks { ifname }
//!     set link4 { address . address . protocol . port }   # who may speak to whom; link6 for IPv6
//!     map any4   { protocol . port : address . port }           # published on every address
//!     map bound4 { address . protocol . port : address . port } # on one; the same for IPv6
//!     chain raw { type filter hook prerouting priority -300; policy accept
//!         iifname @bridges ip daddr 127.0.0.0/8 drop      # route_localnet is for answers only
//!     }
//!     chain dnat { type nat hook prerouting priority -100; policy accept
//!         ip daddr 127.0.0.0/8 accept                     # nobody's loopback but ours
//!         dnat ip to ip daddr . protocol . port map @bound4
//!         fib daddr type local dnat ip to protocol . port map @any4
//!     }
//!     chain dnat_own { type nat hook output priority -100; ... the same without the first }
//!                                                     # for IPv6 both have `ip6 daddr ::1 accept`
//!     chain forward { type filter hook forward priority 0; policy accept
//!         iifname @uplinks oifname @uplinks drop          # only if we turned forwarding on
//!         meta nfproto <a family we do not manage> accept # only with --iptables=false
//!         iifname B oifname != B drop, and back           # for each internal bridge
//!         oifname != @bridges accept
//!         ct state established,related accept
//!         ct status dnat accept                           # published ports
//!         ip saddr . ip daddr . protocol . port @link4 accept       # only with icc=false, if the
//!                                                     # kernel has bridges' frames filtered here
//!         iifname B oifname B accept                      # drop with icc=false, but for IPv6's
//!                                                     # neighbour discovery; for each bridge
//!         drop                                            # neighbours, other bridges
//!     }
//!     chain postrouting { type nat hook postrouting priority 100; policy accept
//!         ip saddr S oifname != B masquerade              # for each bridge and family
//!         ip saddr S oifname B ct status dnat masquerade  # a neighbour's or its own port
//!         ip saddr 127.0.0.0/8 oifname B masquerade       # our loopback to a published port
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
//!         icmpv6 type nd-router-advert drop               # the bridge is the only router
//!     }
//!     set link4, link6 { as above }   set doors { ifname }   # see [`crate::links`]
//!     chain forward { type filter hook forward priority 0; policy accept     # only with icc=false
//!         ether type arp accept; icmpv6 type { 135, 136 } accept
//!         ip saddr . ip daddr . protocol . port @link4 accept         # where one speaks to
//!         oifname @doors tcp flags & (syn | ack) == syn drop          # nobody calls back
//!         ip daddr . ip saddr . protocol . source port @link4 accept  # the answers
//!         iifname @doors drop; oifname @doors drop
//!     }
//! }
//! ```
//!
//! The second of these chains works without conntrack, which few kernels have for bridges: who is
//! linked to may send UDP from the open port to any port of the other, as with dockerd.
//!
//! The second table refuses what belongs to somebody else, rather than allowing only what was
//! given: a container with its own inner addresses (a VIP, a nested bridge) works as on Docker.
//!
//! Drop is final in nf_tables, accept is not: if another firewall's forward chain drops (iptables'
//! `FORWARD` policy under dockerd or ufw), an accept here cannot overrule it, and we do not write
//! into other tools' tables, which would make them unreadable for these tools. [`Firewall::conflicts`]
//! finds such chains for `info`. Legacy (xtables) rule sets cannot be seen from here.
//!
//! What the kernel lacks ([`crate::features`]) is left out. Without `ct` there is no telling what
//! is an answer: then only TCP's first packets are dropped where the drawing drops the rest.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sys::netlink::nft::{
    BaseChain, Conntrack, DroppingChain, Element, Expression, Family, Field, Hook, IFNAME_LENGTH,
    LOCAL_ADDRESS, Layer, Meta, Set, Table, Transaction, Verdict, contents,
    dropping_forward_chains, element_count, generation, word,
};
use sys::netlink::{NetlinkError, Socket};

use crate::features::{self, Missing, Module};
use crate::links::{LinkRules, OpenPort};
use crate::ports::Published;
use crate::subnet::Subnet;

/// Everything the tables say, apart from the containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub bridges: Vec<BridgeRules>,
    /// Links between which this host must not route, as it did not before we came.
    pub uplinks: Vec<String>,
    pub ipv4: bool,
    pub ipv6: bool,
    pub links: LinkRules,
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
    /// Nothing of it is routed, in or out.
    pub internal: bool,
}

/// A container's end of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub port: String,
    pub mac: [u8; 6],
    pub ips: Vec<IpAddr>,
    pub published: Vec<Published>,
}

const FORWARD: BaseChain =
    BaseChain { name: "forward", kind: "filter", hook: Hook::Forward, priority: 0 };
const POSTROUTING: BaseChain =
    BaseChain { name: "postrouting", kind: "nat", hook: Hook::Postrouting, priority: 100 };
const PREROUTING: BaseChain =
    BaseChain { name: "prerouting", kind: "filter", hook: Hook::Prerouting, priority: -300 };

const RAW: BaseChain = BaseChain { name: "raw", ..PREROUTING };
const DNAT: BaseChain =
    BaseChain { name: "dnat", kind: "nat", hook: Hook::Prerouting, priority: -100 };
const BRIDGED_FORWARD: BaseChain =
    BaseChain { name: "forward", kind: "filter", hook: Hook::Forward, priority: 0 };
const DNAT_OWN: BaseChain = BaseChain { name: "dnat_own", hook: Hook::Output, ..DNAT };

const ROUTED_SETS: [Set; 8] = [
    set("bridges", &[Field::InterfaceName]),
    set("uplinks", &[Field::InterfaceName]),
    Set { name: "any4", key: &[Field::Protocol, Field::Port], data: &[Field::Ipv4, Field::Port] },
    Set {
        name: "bound4",
        key: &[Field::Ipv4, Field::Protocol, Field::Port],
        data: &[Field::Ipv4, Field::Port],
    },
    Set { name: "any6", key: &[Field::Protocol, Field::Port], data: &[Field::Ipv6, Field::Port] },
    Set {
        name: "bound6",
        key: &[Field::Ipv6, Field::Protocol, Field::Port],
        data: &[Field::Ipv6, Field::Port],
    },
    LINK4,
    LINK6,
];
const BRIDGED_SETS: [Set; 10] = [
    set("ports", &[Field::InterfaceName]),
    set("macs", &[Field::Mac]),
    set("ipv4", &[Field::Ipv4]),
    set("ipv6", &[Field::Ipv6]),
    set("port_macs", &[Field::InterfaceName, Field::Mac]),
    set("port_ipv4", &[Field::InterfaceName, Field::Ipv4]),
    set("port_ipv6", &[Field::InterfaceName, Field::Ipv6]),
    set("doors", &[Field::InterfaceName]),
    LINK4,
    LINK6,
];
const LINK4: Set = set("link4", &[Field::Ipv4, Field::Ipv4, Field::Protocol, Field::Port]);
const LINK6: Set = set("link6", &[Field::Ipv6, Field::Ipv6, Field::Protocol, Field::Port]);

const fn set(name: &'static str, key: &'static [Field]) -> Set {
    Set { name, key, data: &[] }
}

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Solicitation and advertisement: IPv6's ARP.
const NEIGHBOUR_DISCOVERY: [u8; 2] = [135, NEIGHBOUR_ADVERTISEMENT];

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
    missing: Missing,
    /// As if it were missing.
    unwanted: Missing,
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
            missing: Missing::default(),
            unwanted: Missing::default(),
        })
    }

    /// Does without these parts of the kernel.
    #[must_use]
    pub fn without(mut self, modules: &[Module]) -> Self {
        self.unwanted = Missing::new(modules);
        self.missing = self.unwanted.clone();
        self
    }

    /// What the kernel was found not to have.
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// Tries again what was missing. True when that changed.
    pub fn look_again(&mut self) -> Result<bool, NetlinkError> {
        let name = format!("{}_probe", self.routed.name);
        let mut found = features::probe(&mut self.socket, &name)?;
        found.add(&self.unwanted);
        let changed = found != self.missing;
        self.missing = found;
        Ok(changed)
    }

    fn is_absent(&self) -> bool {
        self.missing.has(Module::NfTables)
    }

    /// Makes the tables say what `plan` says, unless nobody touched them since they last did.
    /// Cheap when nothing changed anywhere (5 us).
    pub fn ensure(
        &mut self,
        plan: &Plan,
        members: impl FnOnce() -> Vec<Member>,
    ) -> Result<(), NetlinkError> {
        if self.is_absent() {
            return Ok(());
        }
        let generation = generation(&mut self.socket)?;
        if let Some((seen, expected)) = self.seen.take()
            && (seen == generation || expected == self.describe()?)
        {
            self.seen = Some((generation, expected));
            return Ok(());
        }
        self.replace(plan, &members())
    }

    /// Replaces both tables in one transaction, without what the kernel turns out not to have.
    pub fn replace(&mut self, plan: &Plan, members: &[Member]) -> Result<(), NetlinkError> {
        match self.write(plan, members) {
            Err(error) if features::is_unknown(error.errno) => {
                if !self.look_again()? {
                    return Err(error);
                }
                self.write(plan, members)
            }
            written => written,
        }
    }

    fn write(&mut self, plan: &Plan, members: &[Member]) -> Result<(), NetlinkError> {
        if self.is_absent() {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        self.delete(&mut transaction);
        if plan.ipv4 || plan.ipv6 {
            write_routed(&mut transaction, &self.routed, plan, &self.missing);
            if !self.missing.has(Module::NftMetaBridge) {
                write_bridged(&mut transaction, &self.bridged, plan);
            }
            self.add_links(&mut transaction, &plan.links);
            for member in members {
                self.add_elements(&mut transaction, member);
            }
        }
        let rules = transaction.rule_count();
        transaction.commit(&mut self.socket)?;
        self.remember(rules)
    }

    /// Removes both tables; no error when there are none.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        self.delete(&mut transaction);
        self.seen = None;
        if self.is_absent() { Ok(()) } else { transaction.commit(&mut self.socket) }
    }

    /// Whether the tables of an earlier run forbid routing between uplinks.
    pub fn guards_uplinks(&mut self) -> Result<bool, NetlinkError> {
        let uplinks = b"uplinks\0";
        let rules = match contents(&mut self.socket, &self.routed) {
            Err(error) if features::is_unknown(error.errno) => return Ok(false),
            rules => rules?,
        };
        Ok(rules.iter().any(|rule| rule.windows(uplinks.len()).any(|part| part == uplinks)))
    }

    pub fn add_member(&mut self, member: &Member) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        self.add_elements(&mut transaction, member);
        transaction.commit_any(&mut self.socket)
    }

    pub fn remove_member(&mut self, member: &Member) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for element in self.elements(member) {
            transaction.delete_element(&self.bridged, &element);
        }
        for published in &member.published {
            transaction.delete_element(&self.routed, &translation(published));
        }
        transaction.commit_any(&mut self.socket)
    }

    /// Opens ports; one element each (10 us).
    pub fn publish(&mut self, ports: &[Published]) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for published in ports {
            transaction.add_element(&self.routed, &translation(published));
        }
        transaction.commit(&mut self.socket)
    }

    /// Closes ports that were opened.
    pub fn retract(&mut self, ports: &[Published]) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for published in ports {
            transaction.delete_element(&self.routed, &translation(published));
        }
        transaction.commit_any(&mut self.socket)
    }

    /// Takes back and opens what links open; one element each, in both tables.
    pub fn change_links(&mut self, gone: &LinkRules, new: &LinkRules) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new();
        for door in &gone.doors {
            transaction.delete_element(&self.bridged, &door_element(door));
        }
        for element in gone.open.iter().map(link_element) {
            transaction.delete_element(&self.routed, &element);
            transaction.delete_element(&self.bridged, &element);
        }
        self.add_links(&mut transaction, new);
        transaction.commit(&mut self.socket)
    }

    fn add_links(&self, transaction: &mut Transaction, links: &LinkRules) {
        if self.missing.has(Module::NftMetaBridge) {
            // Then there are no links: nothing would keep others from their doors.
            return;
        }
        for door in &links.doors {
            transaction.add_element(&self.bridged, &door_element(door));
        }
        for element in links.open.iter().map(link_element) {
            transaction.add_element(&self.routed, &element);
            transaction.add_element(&self.bridged, &element);
        }
    }

    fn add_elements(&self, transaction: &mut Transaction, member: &Member) {
        for element in self.elements(member) {
            transaction.add_element(&self.bridged, &element);
        }
        for published in &member.published {
            transaction.add_element(&self.routed, &translation(published));
        }
    }

    /// What a member adds between ports: nothing where there are no rules.
    fn elements(&self, member: &Member) -> Vec<Element> {
        let ruled = !self.is_absent() && !self.missing.has(Module::NftMetaBridge);
        if ruled { elements(member) } else { Vec::new() }
    }

    /// How many ports are published by the tables.
    pub fn published_count(&mut self) -> Result<usize, NetlinkError> {
        let maps = ROUTED_SETS.iter().filter(|set| !set.data.is_empty());
        maps.map(|map| element_count(&mut self.socket, &self.routed, map.name)).sum()
    }

    /// How many elements the sets between ports have: one address of a container adds five.
    pub fn element_count(&mut self) -> Result<usize, NetlinkError> {
        let mut count = 0;
        for set in &BRIDGED_SETS {
            count += element_count(&mut self.socket, &self.bridged, set.name)?;
        }
        Ok(count)
    }

    /// Whether the sets have as many elements as they are to have: who empties one leaves no trace
    /// in [`Self::ensure`].
    pub fn is_complete(&mut self, plan: &Plan, members: &[Member]) -> Result<bool, NetlinkError> {
        if self.is_absent() || !(plan.ipv4 || plan.ipv6) {
            return Ok(true);
        }
        let mut wanted = HashMap::<_, HashSet<_>>::new();
        for member in members {
            let published = member.published.iter().map(translation);
            for element in self.elements(member).into_iter().chain(published) {
                wanted.entry(element.set).or_default().insert(element.key);
            }
        }
        let bridges = plan.bridges.iter();
        for bridge in bridges.filter(|_| !self.missing.has(Module::NftMetaBridge)) {
            for element in bridge_elements(bridge) {
                wanted.entry(element.set).or_default().insert(element.key);
            }
        }
        let names = plan.bridges.iter().map(|bridge| interface_name(&bridge.name)).collect();
        wanted.insert("bridges", names);
        for element in plan.links.open.iter().map(link_element) {
            wanted.entry(element.set).or_default().insert(element.key);
        }
        if !self.missing.has(Module::NftMetaBridge) {
            let doors = plan.links.doors.iter().map(|door| door_element(door).key);
            wanted.insert("doors", doors.collect());
        }
        for (set, keys) in wanted {
            let routed = ROUTED_SETS.iter().any(|other| other.name == set);
            let table = if routed { &self.routed } else { &self.bridged };
            if element_count(&mut self.socket, table, set)? != keys.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the chains of others that drop forwarded packets by default.
    pub fn conflicts(&mut self) -> Result<Vec<DroppingChain>, NetlinkError> {
        dropping_forward_chains(&mut self.socket)
    }

    fn delete(&self, transaction: &mut Transaction) {
        let bridged = (!self.missing.has(Module::NftMetaBridge)).then_some(&self.bridged);
        for table in [&self.routed].into_iter().chain(bridged) {
            // Deleting a table that is not there would undo the whole transaction.
            transaction.table(table);
            transaction.delete_table(table);
        }
    }

    /// Keeps what the tables look like, if they are whole: somebody may have flushed them since.
    fn remember(&mut self, rules: usize) -> Result<(), NetlinkError> {
        let generation = generation(&mut self.socket)?;
        let described = self.describe()?;
        self.seen = (described.len() == rules).then_some((generation, described));
        Ok(())
    }

    fn describe(&mut self) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut described = contents(&mut self.socket, &self.routed)?;
        described.extend(contents(&mut self.socket, &self.bridged)?);
        Ok(described)
    }
}

fn write_routed(transaction: &mut Transaction, table: &Table, plan: &Plan, missing: &Missing) {
    transaction.table(table);
    for set in &ROUTED_SETS {
        transaction.set(table, set);
    }
    for bridge in &plan.bridges {
        transaction.add_element(table, &Element::key("bridges", interface_name(&bridge.name)));
    }
    for uplink in &plan.uplinks {
        transaction.add_element(table, &Element::key("uplinks", interface_name(uplink)));
    }
    transaction.chain(table, &FORWARD);
    for rule in forward_rules(plan, missing) {
        transaction.rule(table, FORWARD.name, &rule);
    }
    if !missing.for_masquerade() {
        transaction.chain(table, &POSTROUTING);
        for rule in masquerade_rules(plan, missing) {
            transaction.rule(table, POSTROUTING.name, &rule);
        }
    }
    transaction.chain(table, &RAW);
    transaction.rule(table, RAW.name, &loopback_guard());
    if missing.for_ports().is_some() {
        return;
    }
    for chain in [&DNAT, &DNAT_OWN] {
        transaction.chain(table, chain);
        for rule in translation_rules(plan, chain.hook) {
            transaction.rule(table, chain.name, &rule);
        }
    }
}

fn write_bridged(transaction: &mut Transaction, table: &Table, plan: &Plan) {
    transaction.table(table);
    for set in &BRIDGED_SETS {
        transaction.set(table, set);
    }
    for element in plan.bridges.iter().flat_map(bridge_elements) {
        transaction.add_element(table, &element);
    }
    transaction.chain(table, &PREROUTING);
    for rule in spoofing_rules() {
        transaction.rule(table, PREROUTING.name, &rule);
    }
    if plan.bridges.iter().any(|bridge| !bridge.icc) {
        transaction.chain(table, &BRIDGED_FORWARD);
        for rule in door_rules() {
            transaction.rule(table, BRIDGED_FORWARD.name, &rule);
        }
    }
}

/// What nobody but the bridge itself may claim.
fn bridge_elements(bridge: &BridgeRules) -> impl Iterator<Item = Element> {
    let mac = Element::key("macs", bridge.mac.to_vec());
    let gateway = |ip: &IpAddr| Element::key(address_sets(*ip).0, octets(*ip));
    std::iter::once(mac).chain(bridge.gateways.iter().map(gateway))
}

type Rule = Vec<Expression>;

fn forward_rules(plan: &Plan, missing: &Missing) -> Vec<Rule> {
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
    for bridge in plan.bridges.iter().filter(|bridge| bridge.internal) {
        for (here, there) in
            [(Meta::InputName, Meta::OutputName), (Meta::OutputName, Meta::InputName)]
        {
            let leaves = vec![
                Expression::LoadMeta { key: there, register: 1 },
                Expression::NotEqual { register: 1, value: interface_name(&bridge.name) },
                Expression::Verdict(Verdict::Drop),
            ];
            rules.push([name_is(here, bridge), leaves].concat());
        }
    }
    rules.push(vec![
        Expression::LoadMeta { key: Meta::OutputName, register: 1 },
        Expression::NotInSet { set: "bridges", register: 1 },
        Expression::Verdict(Verdict::Accept),
    ]);
    let knows_answers = !missing.has(Module::NftCt);
    if knows_answers {
        let state = conntrack_any(Conntrack::State, ESTABLISHED_OR_RELATED);
        rules.push([state, accept()].concat());
        rules.push([conntrack_any(Conntrack::Status, STATUS_DNAT), accept()].concat());
    }
    if plan.bridges.iter().any(|bridge| !bridge.icc) {
        let pass = |family| [conversation(family, Way::There), accept()].concat();
        rules.extend([pass(Family::Ipv4), pass(Family::Ipv6)]);
    }
    for bridge in &plan.bridges {
        let within = [name_is(Meta::InputName, bridge), name_is(Meta::OutputName, bridge)].concat();
        for kind in NEIGHBOUR_DISCOVERY.into_iter().filter(|_| !bridge.icc) {
            rules.push([within.clone(), icmpv6_is(kind), accept()].concat());
        }
        rules.push([within, if bridge.icc { accept() } else { drop_it() }].concat());
    }
    if knows_answers {
        rules.push(drop_it());
        return rules;
    }
    let from_another = vec![
        Expression::LoadMeta { key: Meta::InputName, register: 1 },
        Expression::InSet { set: "bridges", register: 1 },
    ];
    rules.push([from_another, drop_it()].concat());
    rules.push([begins_tcp(), drop_it()].concat());
    rules
}

/// SYN without ACK, whatever else is set.
fn begins_tcp() -> Rule {
    const TCP: u8 = 6;
    const FLAGS: u32 = 13;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let flags = [
        Expression::LoadPacket { layer: Layer::Transport, offset: FLAGS, length: 1, register: 1 },
        Expression::And { register: 1, mask: vec![SYN | ACK] },
        Expression::Equal { register: 1, value: vec![SYN] },
    ];
    [transport_is(TCP), flags.into()].concat()
}

fn masquerade_rules(plan: &Plan, missing: &Missing) -> Vec<Rule> {
    let mut rules = Vec::new();
    for bridge in &plan.bridges {
        let managed = |subnet: &&Subnet| if subnet.is_ipv4() { plan.ipv4 } else { plan.ipv6 };
        for subnet in bridge.subnets.iter().filter(managed) {
            if bridge.masquerade {
                let leaves = vec![
                    Expression::LoadMeta { key: Meta::OutputName, register: 1 },
                    Expression::NotEqual { register: 1, value: interface_name(&bridge.name) },
                    Expression::Masquerade,
                ];
                rules.push([source_in(subnet), leaves].concat());
            }
            if missing.for_ports().is_some() {
                continue;
            }
            // Whoever is on the bridge himself would answer the neighbour directly, from an
            // address that this one never spoke to.
            let comes_back = [
                source_in(subnet),
                name_is(Meta::OutputName, bridge),
                conntrack_any(Conntrack::Status, STATUS_DNAT),
            ];
            rules.push([comes_back.concat(), vec![Expression::Masquerade]].concat());
            if subnet.is_ipv4() {
                let answered =
                    [source_in(&loopback_v4()), name_is(Meta::OutputName, bridge)].concat();
                rules.push([answered, vec![Expression::Masquerade]].concat());
            }
        }
    }
    rules
}

/// Containers' packets to a loopback address, which `route_localnet` would let in.
fn loopback_guard() -> Rule {
    let from_containers = vec![
        Expression::LoadMeta { key: Meta::InputName, register: 1 },
        Expression::InSet { set: "bridges", register: 1 },
    ];
    [from_containers, destination_in(&loopback_v4()), drop_it()].concat()
}

/// Published ports: those of one address first, then those of all.
fn translation_rules(plan: &Plan, hook: Hook) -> Vec<Rule> {
    let mut rules = Vec::new();
    if plan.ipv4 {
        if hook == Hook::Prerouting {
            // What a neighbour of this host sends to 127.0.0.1 comes before routing discards it.
            rules.push([destination_in(&loopback_v4()), accept()].concat());
        }
        rules.extend(translations(Family::Ipv4, "bound4", "any4"));
    }
    if plan.ipv6 {
        // Not even the host's own: what ::1 sends never leaves a host, whatever it is made to be.
        // So it is refused at once, and clients try 127.0.0.1.
        rules.push([destination_in(&loopback_v6()), accept()].concat());
        rules.extend(translations(Family::Ipv6, "bound6", "any6"));
    }
    rules
}

fn translations(family: Family, bound: &'static str, any: &'static str) -> [Rule; 2] {
    let (offset, length) = if family == Family::Ipv4 { (16, 4) } else { (24, 16) };
    let destination = Expression::LoadPacket { layer: Layer::Network, offset, length, register: 1 };
    let words = length / 4;
    let protocol_and_port = |at: u32| {
        let port = Expression::LoadPacket {
            layer: Layer::Transport,
            offset: 2,
            length: 2,
            register: word(at + 1),
        };
        vec![Expression::LoadMeta { key: Meta::L4Protocol, register: word(at) }, port]
    };
    let send = |map| {
        let port = word(words);
        vec![Expression::Translate { map }, Expression::DestinationNat { family, port }]
    };
    let is_local = vec![
        Expression::LoadAddressType { register: 1 },
        Expression::Equal { register: 1, value: LOCAL_ADDRESS.to_ne_bytes().to_vec() },
    ];
    [
        [family_is(family), vec![destination], protocol_and_port(words), send(bound)].concat(),
        [family_is(family), is_local, protocol_and_port(0), send(any)].concat(),
    ]
}

/// The map's element of a published port.
fn translation(published: &Published) -> Element {
    let port = |number: u16| [number.to_be_bytes(), [0, 0]].concat();
    let ipv4 = published.host_ip.is_ipv4();
    let (set, address) = match (published.host_ip.is_unspecified(), ipv4) {
        (true, true) => ("any4", Vec::new()),
        (true, false) => ("any6", Vec::new()),
        (false, true) => ("bound4", octets(published.host_ip)),
        (false, false) => ("bound6", octets(published.host_ip)),
    };
    let protocol = vec![published.protocol.number(), 0, 0, 0];
    Element {
        set,
        key: [address, protocol, port(published.host_port)].concat(),
        data: [octets(published.container_ip), port(published.container_port)].concat(),
    }
}

fn loopback_v4() -> Subnet {
    Subnet::new(Ipv4Addr::LOCALHOST.into(), 8).expect("shorter than 32")
}

fn loopback_v6() -> Subnet {
    Subnet::new(Ipv6Addr::LOCALHOST.into(), 128).expect("128 is the longest")
}

/// Frames from our ports whose sender is somebody else's.
fn spoofing_rules() -> Vec<Rule> {
    let claims = |layer, offset, length, all, own| {
        vec![
            Expression::LoadPacket { layer, offset, length, register: 2 },
            Expression::InSet { set: all, register: 2 },
            Expression::LoadMeta { key: Meta::InputName, register: 1 },
            Expression::NotInSet { set: own, register: 1 },
            Expression::Verdict(Verdict::Drop),
        ]
    };
    let advertises = icmpv6_is(NEIGHBOUR_ADVERTISEMENT);
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
        [carries(IPV6), icmpv6_is(ROUTER_ADVERTISEMENT), drop_it()].concat(),
        [carries(IPV6), advertises, claims(Layer::Transport, 8, 16, "ipv6", "port_ipv6")].concat(),
    ]
}

/// From whom a packet of an open conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the one that has the link.
    There,
    Back,
}

/// Matches the packets of conversations that links open.
fn conversation(family: Family, way: Way) -> Rule {
    let (set, source, length) =
        if family == Family::Ipv4 { ("link4", 12, 4) } else { ("link6", 8, 16) };
    let words = length / 4;
    let destination = source + length;
    let (from, to, port) =
        if way == Way::There { (source, destination, 2) } else { (destination, source, 0) };
    let address = |offset, at| {
        let register = word(at);
        Expression::LoadPacket { layer: Layer::Network, offset, length, register }
    };
    let port = Expression::LoadPacket {
        layer: Layer::Transport,
        offset: port,
        length: 2,
        register: word(2 * words + 1),
    };
    let protocol = match family {
        Family::Ipv4 => IPV4,
        _ => IPV6,
    };
    let key = vec![
        address(from, 0),
        address(to, words),
        Expression::LoadMeta { key: Meta::L4Protocol, register: word(2 * words) },
        port,
        Expression::InSet { set, register: 1 },
    ];
    [carries(protocol), key].concat()
}

/// Frames between ports, through doors.
fn door_rules() -> Vec<Rule> {
    let through = |key| {
        vec![
            Expression::LoadMeta { key, register: 1 },
            Expression::InSet { set: "doors", register: 1 },
        ]
    };
    let [solicits, advertises] =
        NEIGHBOUR_DISCOVERY.map(|kind| [carries(IPV6), icmpv6_is(kind), accept()].concat());
    vec![
        [carries(ARP), accept()].concat(),
        solicits,
        advertises,
        [conversation(Family::Ipv4, Way::There), accept()].concat(),
        [conversation(Family::Ipv6, Way::There), accept()].concat(),
        [through(Meta::OutputName), begins_tcp(), drop_it()].concat(),
        [conversation(Family::Ipv4, Way::Back), accept()].concat(),
        [conversation(Family::Ipv6, Way::Back), accept()].concat(),
        [through(Meta::InputName), drop_it()].concat(),
        [through(Meta::OutputName), drop_it()].concat(),
    ]
}

fn door_element(port: &str) -> Element {
    Element::key("doors", interface_name(port))
}

fn link_element(open: &OpenPort) -> Element {
    let set = if open.from.is_ipv4() { LINK4.name } else { LINK6.name };
    let protocol = vec![open.protocol.number(), 0, 0, 0];
    let port = [open.port.to_be_bytes(), [0, 0]].concat();
    Element::key(set, [octets(open.from), octets(open.to), protocol, port].concat())
}

/// The elements that a container's end brings along, between ports.
fn elements(member: &Member) -> Vec<Element> {
    let port = interface_name(&member.port);
    let mut mac = member.mac.to_vec();
    let mut elements = vec![Element::key("ports", port.clone()), Element::key("macs", mac.clone())];
    // Keys of several parts are padded to four bytes each.
    mac.resize(8, 0);
    elements.push(Element::key("port_macs", [&port[..], &mac].concat()));
    for ip in &member.ips {
        let (all, own) = address_sets(*ip);
        elements.push(Element::key(all, octets(*ip)));
        elements.push(Element::key(own, [port.clone(), octets(*ip)].concat()));
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

/// What follows the frame's header.
fn carries(protocol: u16) -> Rule {
    vec![
        Expression::LoadMeta { key: Meta::Protocol, register: 1 },
        Expression::Equal { register: 1, value: protocol.to_be_bytes().to_vec() },
    ]
}

fn icmpv6_is(kind: u8) -> Rule {
    const ICMPV6: u8 = 58;
    let kind = [
        Expression::LoadPacket { layer: Layer::Transport, offset: 0, length: 1, register: 1 },
        Expression::Equal { register: 1, value: vec![kind] },
    ];
    [transport_is(ICMPV6), kind.into()].concat()
}

fn transport_is(protocol: u8) -> Rule {
    vec![
        Expression::LoadMeta { key: Meta::L4Protocol, register: 1 },
        Expression::Equal { register: 1, value: vec![protocol] },
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
    address_in(subnet, if subnet.is_ipv4() { 12 } else { 8 })
}

fn destination_in(subnet: &Subnet) -> Rule {
    address_in(subnet, if subnet.is_ipv4() { 16 } else { 24 })
}

fn address_in(subnet: &Subnet, offset: u32) -> Rule {
    let family = if subnet.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
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
