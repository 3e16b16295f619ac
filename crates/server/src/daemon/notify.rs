//! Tells systemd how far the daemon is (sd_notify(3)), if systemd started it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends one state; does nothing without `NOTIFY_SOCKET`.
pub(crate) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let path = path.as_encoded_bytes();
        let address = match path.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => {
                SocketAddr::from_pathname(std::path::Path::new(&*String::from_utf8_lossy(path)))?
            }
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::warn!(%error, state, "systemd not told");
    }
}
