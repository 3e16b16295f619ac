//! Pseudoterminals of a given devpts, found without trusting any name in `/dev`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::{Errno, Result};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a terminal in the devpts whose root directory is `devpts`. Anything but a devpts with a
/// genuine `ptmx` is refused with ENODEV.
pub fn open_in(devpts: impl AsFd) -> Result<Pty> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    if fstatfs(&devpts)?.f_type as i64 != DEVPTS_SUPER_MAGIC {
        return Err(Errno::NODEV);
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(devpts, "ptmx", flags, Mode::empty())?;
    if fstat(&master)?.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Errno::NODEV);
    }
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pty { master, slave })
}
