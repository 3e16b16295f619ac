//! Blocking netlink: an encoder, a socket, and the kernel's answers.
//!
//! A [`Batch`] is one buffer of messages, sent by one `sendmsg`. The kernel works through it
//! before that call returns, so that the answers are already queued when we read them: nothing
//! here ever waits for somebody else, and no request has a time-out.
//!
//! ```text
//! nlmsghdr: u32 length | u16 kind | u16 flags | u32 sequence | u32 port
//! family header (ifinfomsg, nfgenmsg, ...), then attributes:
//! nlattr:   u16 length | u16 kind | value, padded to 4 bytes; a nest's value is attributes
//! ```
//!
//! Only the last message asks for an acknowledgement; a message that fails is always answered.
//! [`route`] has the vocabulary of links, addresses and routes; [`namespace`] makes and visits
//! network namespaces.

pub mod namespace;
pub mod nft;
pub mod route;

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink,
};

pub const REQUEST: u16 = 1;
pub const ACK: u16 = 4;
/// With [`REQUEST`]: all objects instead of one (`NLM_F_ROOT | NLM_F_MATCH`).
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCLUSIVE: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;
/// In an attribute's kind: the value is attributes.
pub const NESTED: u16 = 0x8000;

const HEADER: usize = 16;
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const EXT_ACK_TEXT: u16 = 1;
/// The kernel never sends more than this in one packet.
const PACKET_MAX: usize = 32 << 10;

/// What the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    /// The message that failed, in the words of whoever encoded it.
    pub step: &'static str,
    /// The kernel's explanation, where it has one.
    pub detail: Option<String>,
    #[source]
    pub errno: Errno,
}

impl NetlinkError {
    fn new(step: &'static str, errno: Errno) -> Self {
        Self { step, detail: None, errno }
    }
}

/// Messages in the order they will be carried out.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    /// Where each message starts, and its name in errors.
    messages: Vec<(usize, &'static str)>,
    /// Index of the message that asks for an acknowledgement.
    last_answered: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a message. `header` is the family's fixed part; `fill` writes the attributes.
    pub fn message(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last_answered = self.messages.len();
        let start = self.buffer.len();
        self.messages.push((start, step));
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 8]);
        self.buffer.extend_from_slice(header);
        pad(&mut self.buffer);
        fill(&mut Attributes(&mut self.buffer));
        let length = u32::try_from(self.buffer.len() - start).expect("messages are small");
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds the message that closes an nf_tables transaction; the kernel never acknowledges it.
    pub fn end(&mut self, step: &'static str, kind: u16, header: &[u8]) {
        let answered = self.last_answered;
        self.message(step, kind, 0, header, |_| {});
        self.last_answered = answered;
    }

    /// The encoded messages, for tests of encoders.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    fn number(&mut self, first: u32) {
        let mut sequence = first;
        for (start, _) in &self.messages {
            self.buffer[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
    }

    fn ask_for_ack(&mut self) {
        if let Some((start, _)) = self.messages.get(self.last_answered) {
            let flags = &mut self.buffer[start + 6..start + 8];
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
    }
}

/// Writes attributes at the end of a message.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes are below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(self.0);
    }

    pub fn flag(&mut self, kind: u16) {
        self.bytes(kind, &[]);
    }

    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// nf_tables speaks network byte order.
    pub fn u32_be(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn descriptor(&mut self, kind: u16, fd: BorrowedFd<'_>) {
        self.bytes(kind, &fd.as_raw_fd().to_ne_bytes());
    }

    /// A string with the NUL that older kernels want.
    pub fn text(&mut self, kind: u16, value: &str) {
        let length = u16::try_from(value.len() + 5).expect("attributes are below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        pad(self.0);
    }

    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nested_after(kind, &[], fill);
    }

    /// A nest that begins with a fixed header, such as veth's peer.
    pub fn nested_after(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.0.extend_from_slice(header);
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).expect("attributes are below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// One received message: its kind and all after the netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// Walks attributes; stops at the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the value of the first attribute of `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(this, _)| *this == kind).map(|(_, value)| value)
}

pub fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A string attribute without its NUL.
pub fn read_text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A socket to one netlink family of the namespace it was opened in, whichever namespace the
/// thread is in later.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Links, addresses, routes.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(None, "open a route netlink socket")
    }

    /// nf_tables.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(Some(netlink::NETFILTER), "open a netfilter netlink socket")
    }

    fn open(protocol: Option<Protocol>, step: &'static str) -> Result<Self, NetlinkError> {
        let flags = SocketFlags::CLOEXEC;
        let open =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol);
        let fd = open.map_err(|errno| NetlinkError::new(step, errno))?;
        // Explanations are a nicety and short answers an economy: a kernel without them will do.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            enable(fd.as_fd(), option);
        }
        Ok(Self { fd, sequence: 1 })
    }

    /// Returns the index of the link called `name`, without a message.
    pub fn link_index(&self, name: &str) -> Result<u32, NetlinkError> {
        rustix::net::netdevice::name_to_index(&self.fd, name)
            .map_err(|errno| NetlinkError::new("find the link", errno))
    }

    /// Carries out all messages of `batch`. On failure the first refused message is returned; what
    /// became of the others depends on the family (route goes on, nf_tables undoes everything).
    pub fn transact(&mut self, batch: &mut Batch) -> Result<(), NetlinkError> {
        let Some((_, last_step)) = batch.messages.last() else { return Ok(()) };
        let last_step = *last_step;
        batch.ask_for_ack();
        let first = self.send(batch)?;
        let mut refused = None;
        let mut acknowledged = false;
        let mut packet = [0; PACKET_MAX];
        loop {
            let received = match self.receive(&mut packet, RecvFlags::DONTWAIT) {
                Ok(length) => length,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(NetlinkError::new(last_step, errno)),
            };
            for (header, body) in messages(&packet[..received]) {
                if header.kind != MESSAGE_ERROR {
                    continue;
                }
                let index = header.sequence.wrapping_sub(first) as usize;
                let Some((_, step)) = batch.messages.get(index) else { continue };
                match answer(&header, body, step) {
                    Ok(()) => acknowledged = true,
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(NetlinkError::new(last_step, Errno::PROTO)),
        }
    }

    /// Sends one request and returns the messages that answer it: the object asked for, or all
    /// of them for a [`DUMP`].
    pub fn request(&mut self, batch: &mut Batch) -> Result<Vec<Message>, NetlinkError> {
        // A dump that raced with a change may lack objects; the kernel marks it.
        for _ in 0..16 {
            if let Some(found) = self.request_once(batch)? {
                return Ok(found);
            }
        }
        let step = batch.messages.first().map_or("dump", |(_, step)| *step);
        Err(NetlinkError::new(step, Errno::AGAIN))
    }

    fn request_once(&mut self, batch: &mut Batch) -> Result<Option<Vec<Message>>, NetlinkError> {
        batch.ask_for_ack();
        let first = self.send(batch)?;
        let step = batch.messages.first().map_or("request", |(_, step)| *step);
        let mut found = Vec::new();
        let mut interrupted = false;
        let mut packet = [0; PACKET_MAX];
        loop {
            let received = self
                .receive(&mut packet, RecvFlags::empty())
                .map_err(|errno| NetlinkError::new(step, errno))?;
            for (header, body) in messages(&packet[..received]) {
                if header.sequence != first {
                    continue;
                }
                interrupted |= header.flags & DUMP_INTERRUPTED != 0;
                match header.kind {
                    MESSAGE_ERROR | MESSAGE_DONE => {
                        answer(&header, body, step)?;
                        return Ok((!interrupted).then_some(found));
                    }
                    kind => found.push(Message { kind, body: body.to_vec() }),
                }
            }
        }
    }

    fn send(&mut self, batch: &mut Batch) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        batch.number(first);
        self.sequence = first.wrapping_add(batch.messages.len() as u32);
        let step = batch.messages.first().map_or("send", |(_, step)| *step);
        loop {
            match rustix::net::send(&self.fd, &batch.buffer, SendFlags::empty()) {
                Ok(_) => return Ok(first),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::new(step, errno)),
            }
        }
    }

    fn receive(&self, packet: &mut [u8; PACKET_MAX], flags: RecvFlags) -> Result<usize, Errno> {
        loop {
            match rustix::net::recv(&self.fd, &mut packet[..], flags) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn messages(mut packet: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = read_u32(packet, 0)? as usize;
        let header = Header {
            kind: read_u16(packet, 4)?,
            flags: read_u16(packet, 6)?,
            sequence: read_u32(packet, 8)?,
        };
        let body = packet.get(HEADER..length)?;
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

/// Reads an `nlmsgerr` (or the code in `NLMSG_DONE`): code, the refused message or only its
/// header, attributes with the explanation.
fn answer(header: &Header, body: &[u8], step: &'static str) -> Result<(), NetlinkError> {
    let code = read_u32(body, 0).unwrap_or_default().cast_signed();
    if code == 0 {
        return Ok(());
    }
    let echoed = if header.flags & CAPPED != 0 {
        HEADER
    } else {
        read_u32(body, 4).unwrap_or_default() as usize
    };
    let explained = (header.flags & ACK_TLVS != 0)
        .then(|| body.get(4 + echoed.next_multiple_of(4)..))
        .flatten()
        .and_then(|tlvs| attribute(tlvs, EXT_ACK_TEXT));
    Err(NetlinkError {
        step,
        detail: explained.map(read_text),
        errno: Errno::from_raw_os_error(-code),
    })
}

fn enable(fd: BorrowedFd<'_>, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads the integer, whose size is passed, during the call only. rustix has
    // no netlink socket options.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_nests_know_their_length() {
        let mut batch = Batch::new();
        batch.message("test", 0x1234, CREATE, &[1, 2, 3, 4], |message| {
            message.text(3, "veth0");
            message.nested(18, |nest| nest.u8(1, 7));
        });
        batch.number(9);
        let expect = [
            44, 0, 0, 0, 0x34, 0x12, 1, 4, 9, 0, 0, 0, 0, 0, 0, 0, // header
            1, 2, 3, 4, // family header
            10, 0, 3, 0, b'v', b'e', b't', b'h', b'0', 0, 0, 0, // text, padded
            12, 0, 18, 0x80, 5, 0, 1, 0, 7, 0, 0, 0, // nest
        ];
        assert_eq!(batch.bytes(), expect);
    }

    #[test]
    fn attributes_survive_the_way_back() {
        let mut buffer = Vec::new();
        let mut writer = Attributes(&mut buffer);
        writer.bytes(1, &[1, 2, 3]);
        writer.nested(2, |nest| nest.text(5, "x"));
        let found: Vec<_> = attributes(&buffer).collect();
        assert_eq!(found[0], (1, &[1, 2, 3][..]));
        assert_eq!(attribute(found[1].1, 5).map(read_text).as_deref(), Some("x"));
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0, "a length past the end");
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0, "a length too small");
    }

    #[test]
    fn the_kernel_explains_what_it_refuses() {
        let mut socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        route::set_up(&mut batch, "bring up nothing", 0x7fff_fff0);
        let error = socket.transact(&mut batch).unwrap_err();
        assert_eq!((error.step, error.errno), ("bring up nothing", Errno::NODEV));
    }

    #[test]
    fn dumps_contain_the_loopback() {
        let links = route::links(&mut Socket::route().unwrap()).unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.index == 1), "{links:?}");
    }
}
