//! What networks need of the kernel, and what is done without where a kernel does not have it.
//!
//! Nothing is asked as long as all goes well. The first refusal that looks like a missing module
//! makes [`probe`] try each part by itself, in a table that exists for one transaction; from then
//! on rules are written without what is missing, `info` names it, and what cannot be had without
//! (publishing ports, say) is refused by the module's name.

use rustix::io::Errno;
use sys::netlink::{NetlinkError, Socket};

use sys::netlink::nft::{
    BaseChain, Conntrack, Expression, Family, Hook, LOCAL_ADDRESS, Layer, Meta, Table, Transaction,
    Verdict, word,
};

/// A part of the kernel that may be missing, by the name of the module that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    NfTables,
    /// What a connection is to the kernel: new, an answer, translated.
    NftCt,
    NftChainNat,
    NftMasq,
    /// Destinations may be translated.
    NftNat,
    /// Whether an address is this host's.
    NftFib,
    /// Rules between the ports of a bridge.
    NftMetaBridge,
    Bridge,
    Macvlan,
    Ipvlan,
    Dummy,
    Vlan,
}

impl Module {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NfTables => "nf_tables",
            Self::NftCt => "nft_ct",
            Self::NftChainNat => "nft_chain_nat",
            Self::NftMasq => "nft_masq",
            Self::NftNat => "nft_nat",
            Self::NftFib => "nft_fib_inet",
            Self::NftMetaBridge => "nft_meta_bridge",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Dummy => "dummy",
            Self::Vlan => "8021q",
        }
    }

    /// What does not work without.
    const fn loss(self) -> &'static str {
        match self {
            Self::NfTables => {
                "networks are not kept apart, nothing is masqueraded, no port is published, and \
                 forwarding is left as it is"
            }
            Self::NftCt => {
                "no port is published, and neighbours of this host reach UDP ports of containers"
            }
            Self::NftChainNat | Self::NftMasq => {
                "no port is published, and containers are seen outside by their own addresses"
            }
            Self::NftNat | Self::NftFib => "no port is published",
            Self::NftMetaBridge => "containers may speak with the addresses of others",
            Self::Bridge => "there are no bridge networks",
            Self::Macvlan | Self::Ipvlan | Self::Dummy | Self::Vlan => "some networks cannot be",
        }
    }

    /// For `info`.
    pub fn warning(self) -> String {
        format!("WARNING: the kernel has no module {}: {}", self.name(), self.loss())
    }
}

/// Modules that are not there, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing(Vec<Module>);

impl Missing {
    pub fn new(modules: &[Module]) -> Self {
        Self(modules.to_vec())
    }

    pub fn has(&self, module: Module) -> bool {
        self.0.contains(&module)
    }

    pub fn iter(&self) -> impl Iterator<Item = Module> + '_ {
        self.0.iter().copied()
    }

    /// The first module that published ports lack.
    pub fn for_ports(&self) -> Option<Module> {
        use Module::{NfTables, NftChainNat, NftCt, NftFib, NftMasq, NftNat};
        let needed = [NfTables, NftCt, NftChainNat, NftMasq, NftNat, NftFib];
        needed.into_iter().find(|module| self.has(*module))
    }

    pub fn for_masquerade(&self) -> bool {
        [Module::NfTables, Module::NftChainNat, Module::NftMasq]
            .into_iter()
            .any(|module| self.has(module))
    }

    pub(crate) fn add(&mut self, others: &Self) {
        for module in others.iter() {
            if !self.has(module) {
                self.0.push(module);
            }
        }
    }
}

/// Whether the kernel said so because it does not know what it was asked for.
pub(crate) fn is_unknown(errno: Errno) -> bool {
    // Which of them depends on the part: an expression, a family, a netlink subsystem.
    [Errno::NOENT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT, Errno::INVAL]
        .contains(&errno)
}

const FILTER: BaseChain =
    BaseChain { name: "probe", kind: "filter", hook: Hook::Prerouting, priority: 0 };
const SOURCE: BaseChain =
    BaseChain { name: "probe", kind: "nat", hook: Hook::Postrouting, priority: 100 };
const DESTINATION: BaseChain =
    BaseChain { name: "probe", kind: "nat", hook: Hook::Prerouting, priority: -100 };

/// Tries each part of the packet filter. `name` is a table of nobody's.
pub(crate) fn probe(socket: &mut Socket, name: &str) -> Result<Missing, NetlinkError> {
    let mut missing = Vec::new();
    let (inet, bridge) = (Family::Inet, Family::Bridge);
    if !is_there(socket, inet, name, None)? {
        return Ok(Missing(vec![Module::NfTables]));
    }
    let load = |layer, length, register| Expression::LoadPacket {
        layer,
        offset: if layer == Layer::Network { 16 } else { 2 },
        length,
        register,
    };
    let state = vec![Expression::LoadConntrack { key: Conntrack::State, register: 1 }];
    let address_type = vec![
        Expression::LoadAddressType { register: 1 },
        Expression::Equal { register: 1, value: LOCAL_ADDRESS.to_ne_bytes().to_vec() },
    ];
    let ipv4 = vec![
        Expression::LoadMeta { key: Meta::Family, register: 1 },
        Expression::Equal { register: 1, value: vec![Family::Ipv4 as u8] },
    ];
    let tcp = vec![
        Expression::LoadMeta { key: Meta::L4Protocol, register: 1 },
        Expression::Equal { register: 1, value: vec![6] },
    ];
    let translate = vec![
        load(Layer::Network, 4, 1),
        load(Layer::Transport, 2, word(1)),
        Expression::DestinationNat { family: Family::Ipv4, port: word(1) },
    ];
    let translate = [ipv4, tcp, translate].concat();
    let name_of_port = vec![
        Expression::LoadMeta { key: Meta::InputName, register: 1 },
        Expression::Verdict(Verdict::Accept),
    ];
    let parts = [
        (Module::NftCt, inet, FILTER, state),
        (Module::NftFib, inet, FILTER, address_type),
        (Module::NftMetaBridge, bridge, FILTER, name_of_port),
        (Module::NftChainNat, inet, SOURCE, Vec::new()),
        (Module::NftMasq, inet, SOURCE, vec![Expression::Masquerade]),
        (Module::NftNat, inet, DESTINATION, translate),
    ];
    for (module, family, chain, rule) in parts {
        // What needs this chain cannot be tried without.
        let untried = chain.kind == "nat" && missing.contains(&Module::NftChainNat);
        if !untried && !is_there(socket, family, name, Some((&chain, &rule)))? {
            missing.push(module);
        }
    }
    Ok(Missing(missing))
}

/// Makes and removes a table with this rule. Packets meet it for no longer than a batch takes.
fn is_there(
    socket: &mut Socket,
    family: Family,
    name: &str,
    part: Option<(&BaseChain, &[Expression])>,
) -> Result<bool, NetlinkError> {
    let table = Table { family, name: name.to_owned() };
    let mut transaction = Transaction::new();
    transaction.table(&table);
    if let Some((chain, rule)) = part {
        transaction.chain(&table, chain);
        if !rule.is_empty() {
            transaction.rule(&table, chain.name, rule);
        }
    }
    transaction.delete_table(&table);
    match transaction.commit(socket) {
        Ok(()) => Ok(true),
        Err(error) if is_unknown(error.errno) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use sys::netlink::namespace;

    use super::*;

    #[test]
    fn every_rule_of_the_probe_is_one_that_the_kernel_takes() {
        let space = namespace::create().unwrap();
        let mut socket = namespace::visit(space.as_fd(), Socket::netfilter).unwrap().unwrap();
        assert_eq!(probe(&mut socket, "probe").unwrap(), Missing::default());
        let table = Table { family: Family::Inet, name: "probe".to_owned() };
        assert!(sys::netlink::nft::contents(&mut socket, &table).unwrap().is_empty());
    }

    #[test]
    fn losses_follow_from_what_is_missing() {
        let check = |modules: &[Module], ports: Option<&str>, masquerade: bool| {
            let missing = Missing::new(modules);
            assert_eq!(missing.for_ports().map(Module::name), ports);
            assert_eq!(missing.for_masquerade(), masquerade);
        };
        check(&[], None, false);
        check(&[Module::NftFib], Some("nft_fib_inet"), false);
        check(&[Module::NftMetaBridge], None, false);
        check(&[Module::NftChainNat], Some("nft_chain_nat"), true);
        check(&[Module::NfTables], Some("nf_tables"), true);
    }
}
