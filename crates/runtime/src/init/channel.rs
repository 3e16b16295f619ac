//! The socket between the supervisor and a child on its way to a program.
//!
//! Child to supervisor: one packet per [`Report`], JSON; a console's master travels beside it.
//! Supervisor to child: one byte, which is the release. End of file on either side means that the
//! other is gone, or, for the supervisor, that the program was executed (the socket is CLOEXEC).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};

use super::step::Step;
use super::{Report, ReportOrEnd};
use crate::protocol::Failure;

/// Longest report: a failure's text is cut to fit.
const PACKET_MAX: usize = 16 << 10;

/// The child's end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// Makes the supervisor's end and the child's.
pub(super) fn pair() -> Result<(OwnedFd, Channel), Failure> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .step(|| "socketpair for a new process".to_owned())?;
    rustix::io::ioctl_fionbio(&ours, true).step(|| "make a socket non-blocking".to_owned())?;
    Ok((ours, Channel(theirs)))
}

impl Channel {
    pub(super) fn report(&self, report: &Report) -> Result<(), Errno> {
        self.send(report, None)
    }

    pub(super) fn send_console(&self, master: BorrowedFd<'_>) -> Result<(), Errno> {
        self.send(&Report::Console, Some(master))
    }

    fn send(&self, report: &Report, descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let json = encode(report);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(&self.0, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Sleeps until the supervisor releases this process. False when the supervisor is gone.
    pub(super) fn wait_for_release(&self) -> bool {
        let mut byte = [0u8];
        loop {
            match recv(&self.0, &mut byte, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => return matches!(received, Ok((1, _))),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn encode(report: &Report) -> Vec<u8> {
    let json = serde_json::to_vec(report).unwrap_or_default();
    if !json.is_empty() && json.len() <= PACKET_MAX {
        return json;
    }
    let text = "the reason is too long to be told".to_owned();
    let failure = Report::Failed(Failure::Invalid { text });
    serde_json::to_vec(&failure).expect("a plain enum with a string is always JSON")
}

pub(super) fn release(reports: &OwnedFd) -> Result<(), Failure> {
    match send(reports, &[1], SendFlags::NOSIGNAL) {
        // The process is gone already; the next report says why.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(errno).step(|| "release the container's process".to_owned()),
    }
}

pub(super) fn receive(
    reports: &OwnedFd,
) -> Result<Option<(ReportOrEnd, Option<OwnedFd>)>, Failure> {
    let mut packet = [0u8; PACKET_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut slices = [IoSliceMut::new(&mut packet)];
        match recvmsg(reports, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received.bytes,
            Err(Errno::AGAIN) => return Ok(None),
            // The other side closed with an unread release byte. The error is told once, what was
            // sent before it is still in the queue.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno).step(|| "read a new process's report".to_owned()),
        }
    };
    if length == 0 {
        return Ok(Some((ReportOrEnd::End, None)));
    }
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    let report = serde_json::from_slice(&packet[..length])
        .map_err(|error| Failure::Invalid { text: format!("unreadable report: {error}") })?;
    Ok(Some((ReportOrEnd::Report(report), descriptor)))
}
