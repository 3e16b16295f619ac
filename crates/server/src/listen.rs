//! Sockets that wait for clients.
//!
//! Bound before the runtime and any thread exists: the mode of a Unix socket must be right from
//! its first moment, and only the process's umask can do that.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Gid, Mode};
use rustix::net::{AddressFamily, sockopt};
use rustls::ServerConfig;

use crate::address::Address;
use crate::connection::ListenerInfo;

/// A bound socket with all that its connections need.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) info: Arc<ListenerInfo>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// For the log.
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// How addresses become listeners.
#[derive(Debug)]
pub(crate) struct Options {
    /// Owns Unix sockets, beside root.
    pub(crate) group: Option<Gid>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Clients prove who they are: no web page can.
    pub(crate) tls_verify: bool,
    /// The machine's own name, by which clients may call it.
    pub(crate) host_name: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("another daemon answers on {}", path.display())]
    Answered { path: PathBuf },
    #[error("{} exists and is no socket", path.display())]
    NoSocket { path: PathBuf },
    #[error("listen on {address}")]
    Bind {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("no sockets were passed to this process (LISTEN_FDS)")]
    NothingInherited,
    #[error("descriptor {number}, passed as a socket, is none")]
    NotASocket { number: i32 },
}

/// Binds one address; a host name may stand for several.
pub(crate) fn bind(address: &Address, options: &Options) -> Result<Vec<Listener>, ListenError> {
    let failed = |source| ListenError::Bind { address: address.to_string(), source };
    match address {
        Address::Unix(path) => {
            let socket = bind_unix(path, options.group)?;
            Ok(vec![options.unix(socket, address.to_string())])
        }
        Address::Tcp { host, port } => {
            let mut listeners = Vec::new();
            for address in (host.as_str(), *port).to_socket_addrs().map_err(failed)? {
                let socket = TcpListener::bind(address).map_err(failed)?;
                listeners.push(options.tcp(socket, vec![host.clone()]));
            }
            Ok(listeners)
        }
        Address::Inherited => inherited(options),
    }
}

impl Options {
    fn unix(&self, socket: UnixListener, name: String) -> Listener {
        let info = ListenerInfo { reachable_by_browsers: false, names: Vec::new() };
        Listener { socket: Socket::Unix(socket), info: Arc::new(info), tls: None, name }
    }

    fn tcp(&self, socket: TcpListener, mut names: Vec<String>) -> Listener {
        let name =
            socket.local_addr().map_or_else(|_| "tcp".to_owned(), |at| format!("tcp://{at}"));
        names.push(self.host_name.clone());
        let info = ListenerInfo { reachable_by_browsers: !self.tls_verify, names };
        let tls = self.tls.clone();
        Listener { socket: Socket::Tcp(socket), info: Arc::new(info), tls, name }
    }
}

/// Binds with mode 0660 from the first moment. A socket that a dead daemon left is replaced; one
/// that is answered is not.
fn bind_unix(path: &Path, group: Option<Gid>) -> Result<UnixListener, ListenError> {
    remove_stale(path)?;
    let failed = |source| ListenError::Bind { address: path.display().to_string(), source };
    // 0777 less this is 0660.
    let before = rustix::process::umask(Mode::from_raw_mode(0o117));
    let socket = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = socket.map_err(failed)?;
    if group.is_some() {
        rustix::fs::chown(path, None, group).map_err(|errno| failed(errno.into()))?;
    }
    Ok(socket)
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NoSocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|source| ListenError::Bind { address: path.display().to_string(), source })
        }
        _ => Err(ListenError::Answered { path: path.to_owned() }),
    }
}

/// The sockets of socket activation (sd_listen_fds(3)): descriptors from 3 on.
fn inherited(options: &Options) -> Result<Vec<Listener>, ListenError> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let count = number("LISTEN_FDS").filter(|_| {
        number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()))
    });
    let count = count.filter(|count| *count > 0).ok_or(ListenError::NothingInherited)?;
    (3..3 + count)
        .map(|number| {
            sys::descriptors::inherit(number)
                .and_then(|fd| adopt(fd, options))
                .ok_or(ListenError::NotASocket { number })
        })
        .collect()
}

fn adopt(fd: OwnedFd, options: &Options) -> Option<Listener> {
    match sockopt::socket_domain(&fd).ok()? {
        AddressFamily::UNIX => Some(options.unix(fd.into(), "fd:// (unix)".to_owned())),
        AddressFamily::INET | AddressFamily::INET6 => Some(options.tcp(fd.into(), Vec::new())),
        _ => None,
    }
}

/// A Unix socket's file, removed at the end if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        let inode = std::fs::symlink_metadata(&path).ok().map(|metadata| metadata.ino());
        Self { path, inode }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let inode = std::fs::symlink_metadata(&self.path).ok().map(|metadata| metadata.ino());
        if inode.is_some()
            && inode == self.inode
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "socket not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn unix_sockets_are_private_and_exclusive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = bind_unix(&path, None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = bind_unix(&path, None).unwrap_err().to_string();
        assert_eq!(error, format!("another daemon answers on {}", path.display()));
        drop(first);
        let again = bind_unix(&path, None).unwrap();
        drop(SocketFile::new(path.clone()));
        assert!(!path.exists());
        drop(again);
        std::fs::write(&path, "").unwrap();
        let error = bind_unix(&path, None).unwrap_err().to_string();
        assert_eq!(error, format!("{} exists and is no socket", path.display()));
    }
}
