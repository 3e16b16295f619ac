//! nf_tables over raw netlink: transactions of tables, chains, rules, sets and elements.
//!
//! A [`Transaction`] is one batch that the kernel carries out whole or not at all; packets see the
//! state before it or after it. Measured: 10 us for one set element, where the `nft` program takes
//! 4 to 125 ms.
//!
//! ```text
//! batch begin | new table | new chain ... | new rule ... | batch end
//! each: nlmsghdr (kind 0x0a00 | message) | nfgenmsg: u8 family, u8 0, u16 be resource | attributes
//! rule: list of expressions, run in order on 16-byte registers 1-4 until one does not match
//! ```
//!
//! Numbers in attributes are big endian; what an expression compares is in the packet's order, or
//! the host's for what the kernel computed (conntrack's state).

use super::{
    APPEND, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, Message, NetlinkError, Socket, attribute,
    read_text,
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const GET_GENERATION: u16 = 16;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const SET_IS_MAP: u32 = 8;
const LIST_ITEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const GENERATION_ID: u16 = 1;

/// Interface names are compared whole, as the kernel keeps them.
pub const IFNAME_LENGTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
    Ipv6 = 10,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A chain that packets enter by themselves; what falls off its end is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    Drop = 0,
    Accept = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    Protocol = 1,
    InputName = 6,
    OutputName = 7,
    Family = 15,
    L4Protocol = 16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Conntrack {
    State = 0,
    Status = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Layer {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// The address is one of this host's (`RTN_LOCAL`), as [`Expression::LoadAddressType`] says it.
pub const LOCAL_ADDRESS: u32 = 2;

/// The number of the 4-byte register `word` words after the beginning of the 16-byte register 1:
/// where the parts of a longer key go.
pub const fn word(word: u32) -> u32 {
    8 + word
}

/// One step of a rule. Registers are 1 to 4, 16 bytes each; a longer value runs on into the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    LoadMeta {
        key: Meta,
        register: u32,
    },
    LoadConntrack {
        key: Conntrack,
        register: u32,
    },
    LoadPacket {
        layer: Layer,
        offset: u32,
        length: u32,
        register: u32,
    },
    LoadValue {
        register: u32,
        value: Vec<u8>,
    },
    /// Writes a register into the packet and mends the checksum of its layer.
    WritePacket {
        layer: Layer,
        offset: u32,
        length: u32,
        register: u32,
        checksum_offset: u32,
    },
    And {
        register: u32,
        mask: Vec<u8>,
    },
    Equal {
        register: u32,
        value: Vec<u8>,
    },
    NotEqual {
        register: u32,
        value: Vec<u8>,
    },
    InSet {
        set: &'static str,
        register: u32,
    },
    NotInSet {
        set: &'static str,
        register: u32,
    },
    /// What the destination address is to this host's routes, in the host's byte order.
    LoadAddressType {
        register: u32,
    },
    /// Replaces the key that begins in register 1 by what the map has for it.
    Translate {
        map: &'static str,
    },
    /// Sends the connection to the address in register 1 and the port in register `port`.
    DestinationNat {
        family: Family,
        port: u32,
    },
    Verdict(Verdict),
    Masquerade,
}

/// The parts of a set's key, in order; each is padded to 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ipv6,
    Mac,
    Protocol,
    Port,
    InterfaceName,
}

impl Field {
    /// The number that the `nft` program shows the field by, and its length.
    const fn describe(self) -> (u32, u32) {
        match self {
            Self::Ipv4 => (7, 4),
            Self::Ipv6 => (8, 16),
            Self::Mac => (9, 6),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::InterfaceName => (41, IFNAME_LENGTH as u32),
        }
    }
}

/// A named set of keys, or a map from keys to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Field],
    /// Empty for a set.
    pub data: &'static [Field],
}

/// What a set or map has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub set: &'static str,
    pub key: Vec<u8>,
    /// Empty in a set.
    pub data: Vec<u8>,
}

impl Element {
    /// An element of a set.
    pub fn key(set: &'static str, key: Vec<u8>) -> Self {
        Self { set, key, data: Vec::new() }
    }
}

/// The type number and length of concatenated fields.
fn concatenated(fields: &[Field]) -> (u32, u32) {
    let (mut kind, mut length) = (0, 0);
    for field in fields {
        let (number, bytes) = field.describe();
        kind = kind << 6 | number;
        length += if fields.len() > 1 { bytes.next_multiple_of(4) } else { bytes };
    }
    (kind, length)
}

/// Changes that happen together or not at all.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    sets: u32,
    rules: usize,
    changes: usize,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    pub fn new() -> Self {
        let mut batch = Batch::new();
        let header = header(0, SUBSYSTEM);
        batch.message("begin a firewall transaction", BATCH_BEGIN, 0, &header, |_| {});
        Self { batch, sets: 0, rules: 0, changes: 0 }
    }

    /// Makes the table unless it is there.
    pub fn table(&mut self, table: &Table) {
        self.add("add table", NEW_TABLE, CREATE, table, |message| {
            message.text(TABLE_NAME, &table.name);
        });
    }

    /// Makes the table; it must not exist.
    pub fn new_table(&mut self, table: &Table) {
        self.add("add table", NEW_TABLE, CREATE | EXCLUSIVE, table, |message| {
            message.text(TABLE_NAME, &table.name);
        });
    }

    /// Deletes the table with all that is in it; it must exist.
    pub fn delete_table(&mut self, table: &Table) {
        self.add("delete table", DELETE_TABLE, 0, table, |message| {
            message.text(TABLE_NAME, &table.name);
        });
    }

    pub fn chain(&mut self, table: &Table, chain: &BaseChain) {
        self.rules += 1;
        self.add("add chain", NEW_CHAIN, CREATE, table, |message| {
            message.text(CHAIN_TABLE, &table.name);
            message.text(CHAIN_NAME, chain.name);
            message.nested(CHAIN_HOOK, |hook| {
                hook.u32_be(HOOK_NUMBER, chain.hook as u32);
                hook.u32_be(HOOK_PRIORITY, chain.priority.cast_unsigned());
            });
            message.u32_be(CHAIN_POLICY, Verdict::Accept as u32);
            message.text(CHAIN_TYPE, chain.kind);
        });
    }

    pub fn rule(&mut self, table: &Table, chain: &str, rule: &[Expression]) {
        self.rules += 1;
        self.add("add rule", NEW_RULE, CREATE | APPEND, table, |message| {
            message.text(RULE_TABLE, &table.name);
            message.text(RULE_CHAIN, chain);
            message.nested(RULE_EXPRESSIONS, |list| {
                for expression in rule {
                    list.nested(LIST_ITEM, |item| encode(expression, item));
                }
            });
        });
    }

    pub fn set(&mut self, table: &Table, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        let (kind, length) = concatenated(set.key);
        let (data_kind, data_length) = concatenated(set.data);
        let is_map = !set.data.is_empty();
        self.add("add set", NEW_SET, CREATE, table, |message| {
            message.text(SET_TABLE, &table.name);
            message.text(SET_NAME, set.name);
            message.u32_be(SET_FLAGS, if is_map { SET_IS_MAP } else { 0 });
            message.u32_be(SET_KEY_TYPE, kind);
            message.u32_be(SET_KEY_LENGTH, length);
            if is_map {
                message.u32_be(SET_DATA_TYPE, data_kind);
                message.u32_be(SET_DATA_LENGTH, data_length);
            }
            message.u32_be(SET_ID, id);
        });
    }

    pub fn add_element(&mut self, table: &Table, element: &Element) {
        self.add("add set element", NEW_ELEMENT, CREATE, table, |message| {
            write_element(message, table, element, &element.data);
        });
    }

    /// The element must be there.
    pub fn delete_element(&mut self, table: &Table, element: &Element) {
        self.add("delete set element", DELETE_ELEMENT, 0, table, |message| {
            write_element(message, table, element, &[]);
        });
    }

    fn add(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        table: &Table,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.changes += 1;
        let header = header(table.family as u8, 0);
        self.batch.message(step, SUBSYSTEM << 8 | kind, flags, &header, fill);
    }

    /// How many chains and rules it makes: as many as [`contents`] then finds.
    pub fn rule_count(&self) -> usize {
        self.rules
    }

    /// Nothing to do is no error, and costs nothing.
    pub fn commit_any(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.changes == 0 { Ok(()) } else { self.commit(socket) }
    }

    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        self.end();
        socket.transact(&mut self.batch)
    }

    fn end(&mut self) {
        self.batch.end("end a firewall transaction", BATCH_END, &header(0, SUBSYSTEM));
    }

    /// The encoded messages, for tests.
    pub fn bytes(mut self) -> Vec<u8> {
        self.end();
        self.batch.bytes().to_vec()
    }
}

fn write_element(message: &mut Attributes<'_>, table: &Table, element: &Element, data: &[u8]) {
    message.text(ELEMENTS_TABLE, &table.name);
    message.text(ELEMENTS_SET, element.set);
    message.nested(ELEMENTS_LIST, |list| {
        list.nested(LIST_ITEM, |item| {
            item.nested(ELEMENT_KEY, |value| value.bytes(DATA_VALUE, &element.key));
            if !data.is_empty() {
                item.nested(ELEMENT_DATA, |value| value.bytes(DATA_VALUE, data));
            }
        });
    });
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn encode(expression: &Expression, item: &mut Attributes<'_>) {
    match expression {
        Expression::LoadMeta { key, register } => named(item, "meta", |data| {
            data.u32_be(1, *register);
            data.u32_be(2, *key as u32);
        }),
        Expression::LoadConntrack { key, register } => named(item, "ct", |data| {
            data.u32_be(1, *register);
            data.u32_be(2, *key as u32);
        }),
        Expression::LoadPacket { layer, offset, length, register } => {
            named(item, "payload", |data| {
                data.u32_be(1, *register);
                data.u32_be(2, *layer as u32);
                data.u32_be(3, *offset);
                data.u32_be(4, *length);
            });
        }
        Expression::LoadValue { register, value } => named(item, "immediate", |data| {
            data.u32_be(1, *register);
            data.nested(2, |nest| nest.bytes(DATA_VALUE, value));
        }),
        Expression::WritePacket { layer, offset, length, register, checksum_offset } => {
            named(item, "payload", |data| {
                const INTERNET_CHECKSUM: u32 = 1;
                data.u32_be(2, *layer as u32);
                data.u32_be(3, *offset);
                data.u32_be(4, *length);
                data.u32_be(5, *register);
                data.u32_be(6, INTERNET_CHECKSUM);
                data.u32_be(7, *checksum_offset);
            });
        }
        Expression::And { register, mask } => named(item, "bitwise", |data| {
            data.u32_be(1, *register);
            data.u32_be(2, *register);
            data.u32_be(3, u32::try_from(mask.len()).expect("masks are short"));
            data.nested(4, |value| value.bytes(DATA_VALUE, mask));
            data.nested(5, |value| value.bytes(DATA_VALUE, &vec![0; mask.len()]));
        }),
        Expression::Equal { register, value } => compare(item, *register, 0, value),
        Expression::NotEqual { register, value } => compare(item, *register, 1, value),
        Expression::InSet { set, register } => lookup(item, set, *register, 0),
        Expression::NotInSet { set, register } => lookup(item, set, *register, 1),
        Expression::LoadAddressType { register } => named(item, "fib", |data| {
            const ADDRESS_TYPE: u32 = 3;
            const OF_DESTINATION: u32 = 2;
            data.u32_be(1, *register);
            data.u32_be(2, ADDRESS_TYPE);
            data.u32_be(3, OF_DESTINATION);
        }),
        Expression::Translate { map } => named(item, "lookup", |data| {
            data.text(1, map);
            data.u32_be(2, 1);
            data.u32_be(3, 1);
        }),
        Expression::DestinationNat { family, port } => named(item, "nat", |data| {
            const DESTINATION: u32 = 1;
            data.u32_be(1, DESTINATION);
            data.u32_be(2, *family as u32);
            data.u32_be(3, 1);
            data.u32_be(5, *port);
        }),
        Expression::Verdict(verdict) => named(item, "immediate", |data| {
            data.u32_be(1, 0);
            data.nested(2, |value| {
                value.nested(DATA_VERDICT, |code| code.u32_be(VERDICT_CODE, *verdict as u32));
            });
        }),
        Expression::Masquerade => named(item, "masq", |_| {}),
    }
}

fn compare(item: &mut Attributes<'_>, register: u32, operation: u32, value: &[u8]) {
    named(item, "cmp", |data| {
        data.u32_be(1, register);
        data.u32_be(2, operation);
        data.nested(3, |nest| nest.bytes(DATA_VALUE, value));
    });
}

fn lookup(item: &mut Attributes<'_>, set: &str, register: u32, flags: u32) {
    named(item, "lookup", |data| {
        data.text(1, set);
        data.u32_be(2, register);
        data.u32_be(5, flags);
    });
}

fn named(item: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    item.text(EXPRESSION_NAME, name);
    item.nested(EXPRESSION_DATA, fill);
}

/// The number that grows with every change of any table of the namespace.
pub fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let found = request(socket, "read the firewall's generation", GET_GENERATION, 0)?;
    let id = found.first().and_then(|message| attribute(message.body.get(4..)?, GENERATION_ID));
    Ok(id.and_then(be_u32).unwrap_or_default())
}

/// Returns the kernel's description of the chains and rules of `table`, to tell whether somebody
/// changed them. Elements of sets are not in it.
pub fn contents(socket: &mut Socket, table: &Table) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut found = request(socket, "list chains", GET_CHAIN, DUMP)?;
    found.extend(request(socket, "list rules", GET_RULE, DUMP)?);
    let ours = |message: &Message| {
        let attributes = message.body.get(4..).unwrap_or_default();
        message.body.first() == Some(&(table.family as u8))
            && attribute(attributes, CHAIN_TABLE).map(read_text).as_ref() == Some(&table.name)
    };
    // The header counts changes of any table; what is described here has not changed with it.
    let described = |message: Message| message.body.get(4..).unwrap_or_default().to_vec();
    Ok(found.into_iter().filter(ours).map(described).collect())
}

/// How many elements a set has.
pub fn element_count(socket: &mut Socket, table: &Table, set: &str) -> Result<usize, NetlinkError> {
    let mut batch = Batch::new();
    let header = header(table.family as u8, 0);
    batch.message("list set elements", SUBSYSTEM << 8 | GET_ELEMENT, DUMP, &header, |message| {
        message.text(ELEMENTS_TABLE, &table.name);
        message.text(ELEMENTS_SET, set);
    });
    let lists = socket.request(&mut batch)?;
    let count = |message: &Message| {
        let list = attribute(message.body.get(4..)?, ELEMENTS_LIST)?;
        Some(super::attributes(list).count())
    };
    Ok(lists.iter().filter_map(count).sum())
}

/// A chain of anybody's that drops what it was not told to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    pub table: String,
    pub chain: String,
}

/// Returns the chains at the forward hook of IP families whose policy is drop.
pub fn dropping_forward_chains(socket: &mut Socket) -> Result<Vec<DroppingChain>, NetlinkError> {
    let found = request(socket, "list chains", GET_CHAIN, DUMP)?;
    Ok(found.iter().filter_map(|message| parse_dropping(&message.body)).collect())
}

fn parse_dropping(body: &[u8]) -> Option<DroppingChain> {
    let family = *body.first()?;
    let attributes = body.get(4..)?;
    let hook = attribute(attribute(attributes, CHAIN_HOOK)?, HOOK_NUMBER).and_then(be_u32)?;
    let policy = attribute(attributes, CHAIN_POLICY).and_then(be_u32)?;
    let routed = [Family::Inet as u8, Family::Ipv4 as u8, Family::Ipv6 as u8].contains(&family);
    let drops = routed && hook == Hook::Forward as u32 && policy == Verdict::Drop as u32;
    drops.then_some(DroppingChain {
        table: read_text(attribute(attributes, CHAIN_TABLE)?),
        chain: read_text(attribute(attributes, CHAIN_NAME)?),
    })
}

fn request(
    socket: &mut Socket,
    step: &'static str,
    kind: u16,
    flags: u16,
) -> Result<Vec<Message>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(step, SUBSYSTEM << 8 | kind, flags, &header(0, 0), |_| {});
    socket.request(&mut batch)
}

fn be_u32(value: &[u8]) -> Option<u32> {
    super::read_u32(value, 0).map(u32::from_be)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_what_the_kernel_reads() {
        let table = Table { family: Family::Inet, name: "t".to_owned() };
        let mut transaction = Transaction::new();
        let rule = [
            Expression::LoadMeta { key: Meta::OutputName, register: 1 },
            Expression::Verdict(Verdict::Drop),
        ];
        transaction.rule(&table, "c", &rule);
        let expect: &[&[u8]] = &[
            &[20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10], // begin
            &[124, 0, 0, 0, 6, 10, 1, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], // new rule, inet
            &[6, 0, 1, 0, b't', 0, 0, 0],
            &[6, 0, 2, 0, b'c', 0, 0, 0],
            &[88, 0, 4, 0x80], // expressions
            &[36, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0],
            &[20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 7], // register 1, oifname
            &[48, 0, 1, 0x80, 14, 0, 1, 0],
            b"immediate\0\0\0",
            &[28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 16, 0, 2, 0x80], // verdict register
            &[12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0],                 // drop
            &[20, 0, 0, 0, 0x11, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10], // end
        ];
        assert_eq!(transaction.bytes(), expect.concat());
    }
}
