//! What the resolver of a container says to a query.
//!
//! Pure: bytes in, bytes out. Names of the container's own networks are answered from memory,
//! whatever is asked about them; all else is for the servers beyond.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Seconds that an answer may be believed: containers come and go. (Docker says 600, and clients
/// that believe it miss a replaced container for ten minutes.)
const TIME_TO_LIVE: u32 = 1;
const HEADER: usize = 12;
/// What every client takes in a datagram.
const DATAGRAM_MAX: usize = 512;

/// What a container's networks know.
pub trait Names {
    /// The addresses of a name in lower case, without the last dot; None when nobody has it.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// The name at an address.
    fn name(&self, ip: IpAddr) -> Option<String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answer(Vec<u8>),
    /// Nobody here knows.
    Forward,
    /// No query.
    Ignore,
}

/// Answers a query. Several addresses come in an order that `turn` rotates.
pub fn answer(query: &[u8], transport: Transport, turn: usize, names: &impl Names) -> Outcome {
    if query.len() < HEADER || query[2] & 0x80 != 0 {
        return Outcome::Ignore;
    }
    let Ok(message) = Message::from_vec(query) else {
        return refused(query, ResponseCode::FormErr);
    };
    if message.metadata.op_code != OpCode::Query {
        return refused(query, ResponseCode::NotImp);
    }
    let [asked] = &message.queries[..] else { return refused(query, ResponseCode::FormErr) };
    if ![DNSClass::IN, DNSClass::ANY].contains(&asked.query_class()) {
        return Outcome::Forward;
    }
    let Some(data) = look_up(asked, names) else { return Outcome::Forward };
    let mut reply = reply_to(&message);
    let record = |data| Record::from_rdata(asked.name().clone(), TIME_TO_LIVE, data);
    reply.answers = data.into_iter().map(record).collect();
    if let Some(first) = turn.checked_rem(reply.answers.len()) {
        reply.answers.rotate_left(first);
    }
    let room = match transport {
        Transport::Udp => {
            message.edns.map_or(0, |edns| edns.max_payload().into()).max(DATAGRAM_MAX)
        }
        Transport::Tcp => usize::from(u16::MAX),
    };
    Outcome::Answer(encode_within(reply, room))
}

/// Says that no server could be asked, or none answered.
pub fn failure(query: &[u8]) -> Vec<u8> {
    error(query, ResponseCode::ServFail)
}

/// Whether a server's message answers the query: anybody may send to a port.
pub fn answers(query: &[u8], reply: &[u8]) -> bool {
    let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_reply && query.get(..2) == reply.get(..2) && question(query) == question(reply)
}

/// The server could not, or would not, find out; another one may.
pub fn is_unsure(reply: &[u8]) -> bool {
    const SERVER_FAILURE: u8 = 2;
    const REFUSED: u8 = 5;
    reply.get(3).is_some_and(|flags| [SERVER_FAILURE, REFUSED].contains(&(flags & 0x0f)))
}

/// None when the name is nobody's; empty when it has nothing of the kind.
fn look_up(asked: &Query, names: &impl Names) -> Option<Vec<RData>> {
    if asked.query_type() == RecordType::PTR {
        let address = asked.name().parse_arpa_name().ok()?;
        // Not of a whole network.
        let whole = address.prefix_len() == address.max_prefix_len();
        let name = names.name(address.addr()).filter(|_name| whole)?;
        let name = Name::from_ascii(format!("{name}.")).ok()?;
        return Some(vec![RData::PTR(PTR(name))]);
    }
    let labels: Vec<_> = asked.name().iter().map(String::from_utf8_lossy).collect();
    let addresses = names.addresses(&labels.join(".").to_ascii_lowercase())?;
    let wanted = |ip: &IpAddr| match asked.query_type() {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let data = |ip| match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Some(addresses.into_iter().filter(wanted).map(data).collect())
}

fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&query.queries);
    if let Some(theirs) = &query.edns {
        let mut ours = hickory_proto::op::Edns::new();
        ours.set_max_payload(theirs.max_payload().max(DATAGRAM_MAX as u16));
        reply.edns = Some(ours);
    }
    reply
}

/// As many answers as there is room for; marked if these are not all.
fn encode_within(mut reply: Message, room: usize) -> Vec<u8> {
    // What was decoded, or checked when it was given, can be written.
    let encode = |reply: &Message| reply.to_vec().unwrap_or_default();
    let mut bytes = encode(&reply);
    while bytes.len() > room && !reply.answers.is_empty() {
        reply.metadata.truncation = true;
        let too_many = reply.answers.len() * (bytes.len() - room);
        let keep = reply.answers.len() - too_many.div_ceil(bytes.len());
        reply.answers.truncate(keep);
        bytes = encode(&reply);
    }
    bytes
}

fn refused(query: &[u8], code: ResponseCode) -> Outcome {
    Outcome::Answer(error(query, code))
}

/// The header alone can be believed: the question may be what is wrong.
fn error(query: &[u8], code: ResponseCode) -> Vec<u8> {
    if let Ok(message) = Message::from_vec(query) {
        let mut reply = reply_to(&message);
        reply.metadata.response_code = code;
        return reply.to_vec().unwrap_or_default();
    }
    let id = u16::from_be_bytes([query[0], query[1]]);
    let mut reply = Message::new(id, MessageType::Response, OpCode::Query);
    reply.metadata.response_code = code;
    reply.to_vec().unwrap_or_default()
}

/// The one question, in lower case.
fn question(message: &[u8]) -> Option<(Name, RecordType)> {
    let message = Message::from_vec(message).ok()?;
    let asked = message.queries.first()?;
    Some((asked.name().to_lowercase(), asked.query_type()))
}

#[cfg(test)]
mod tests;
