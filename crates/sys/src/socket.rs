//! Unix sockets that keep packet borders and carry descriptors: the supervisor's and the init
//! stage's way to talk. All descriptors made here are close-on-exec.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    recvmsg, sendmsg,
};

/// The kernel's limit for one message.
pub const MAX_DESCRIPTORS: usize = 253;

/// Two connected sockets: packets.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET)
}

/// Two connected sockets: bytes.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM)
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Listens for packet connections at `path`, replacing what a dead process left there. The
/// directory's mode is what keeps others out until the socket's own is set.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    listen_for(SocketType::SEQPACKET, path)
}

/// Listens for stream connections, as [`listen`].
pub fn listen_stream(path: &Path) -> io::Result<OwnedFd> {
    listen_for(SocketType::STREAM, path)
}

fn listen_for(kind: SocketType, path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    with_address(path, |address| Ok(rustix::net::bind(&socket, address)?))?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Connects to a [`listen`]ing socket. The result is non-blocking.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    with_address(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Connects to a stream socket without ever waiting: `EAGAIN` when too many others do already,
/// as before a stopped process. The result is blocking.
pub fn connect_stream(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    with_address(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// Accepts one connection, if there is one.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::accept_with(listener, flags)?)
}

/// The user the peer had when it connected.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// A path of any length as a socket address: one too long for `sun_path` goes through a
/// descriptor of its directory.
fn with_address<T>(
    path: &Path,
    call: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return call(&address);
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = crate::RootDir::open(directory)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory.as_fd());
    let short = Path::new("/proc/self/fd").join(number.to_string()).join(name);
    call(&SocketAddrUnix::new(&short)?)
}

/// Sends one packet with descriptors, whole or not at all. A vanished peer is `EPIPE`, never a
/// signal.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(bytes)];
    retry_on_intr(|| sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet into `buffer`, which is resized to it; `None` at the end of the
/// connection. A packet longer than `limit` is an error.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<Vec<OwnedFd>>> {
    buffer.resize(limit, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    buffer.truncate(message.bytes);
    Ok((message.bytes > 0).then_some(fds))
}

/// Puts bytes that are too long for a packet into a memory file that nobody can change any more.
pub fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create(c"boxship-message", flags)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(&memory, rest))?;
        rest = &rest[written..];
    }
    fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(memory)
}

/// Reads a [`sealed_memory`] of at most `limit` bytes.
pub fn read_sealed(memory: impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    let seals = fcntl_get_seals(&memory)?;
    if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let size = usize::try_from(rustix::fs::fstat(&memory)?.st_size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match retry_on_intr(|| rustix::io::pread(&memory, &mut bytes[filled..], filled as u64))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(bytes)
}

/// How much of what was sent has not been taken yet: by the peer's program on a Unix socket, by its
/// kernel on TCP.
pub fn untaken(socket: impl AsFd) -> std::io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ) writes one int, to which the pointer leads.
    let ret = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if ret != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_descriptors() {
        let (left, right) = seqpacket_pair().unwrap();
        let memory = sealed_memory(b"payload").unwrap();
        send(&left, b"one", &[memory.as_fd(), memory.as_fd()]).unwrap();
        send(&left, b"two", &[]).unwrap();
        let mut buffer = Vec::new();
        let fds = receive(&right, &mut buffer, 16).unwrap().unwrap();
        assert_eq!((buffer.as_slice(), fds.len()), (b"one".as_slice(), 2));
        assert_eq!(read_sealed(&fds[1], 7).unwrap(), b"payload");
        assert!(read_sealed(&fds[1], 6).is_err());
        assert!(receive(&right, &mut buffer, 16).unwrap().unwrap().is_empty());
        drop(left);
        assert!(receive(&right, &mut buffer, 16).unwrap().is_none());
        assert_eq!(send(&right, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn long_packets_are_errors_not_cut() {
        let (left, right) = seqpacket_pair().unwrap();
        send(&left, b"12345", &[]).unwrap();
        let error = receive(&right, &mut Vec::new(), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_socket_path_may_be_long() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let listener = listen(&path).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer_uid(&server).unwrap(), rustix::process::getuid().as_raw());
        send(&client, b"hi", &[]).unwrap();
        let mut buffer = Vec::new();
        receive(&server, &mut buffer, 16).unwrap();
        assert_eq!(buffer, b"hi");
    }
}
