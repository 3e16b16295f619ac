//! Landlock: a process takes itself the right to files outside of named directories (Linux 5.13).
//!
//! What a kernel does not know yet is left out of the rules; [`Ruleset::new`] answers `NOSYS` or
//! `OPNOTSUPP` where there is no Landlock at all.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

const EXECUTE: u64 = 1 << 0;
const READ: u64 = 1 << 2 | 1 << 3;
const MAKE_SOCKET: u64 = 1 << 9;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const DEVICE_IOCTL: u64 = 1 << 15;
/// All rights of the first version.
const FIRST: u64 = (1 << 13) - 1;
/// TCP bind and connect.
const NETWORK: u64 = 0b11;
/// Abstract sockets and signals to outside.
const SCOPES: u64 = 0b11;

/// What may be done below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Everything but executing, making sockets and talking to devices.
    Write,
}

/// Rules being collected; everything they do not allow is forbidden.
#[derive(Debug)]
pub struct Ruleset {
    rules: OwnedFd,
    handled: u64,
}

#[repr(C)]
struct Attributes {
    filesystem: u64,
    network: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

impl Ruleset {
    pub fn new() -> Result<Self> {
        // SAFETY: with this flag the kernel reads no memory and returns a number.
        let version = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Attributes>(), 0, 1)
        };
        let version = check(version)?;
        let handled = FIRST
            | if version >= 2 { REFER } else { 0 }
            | if version >= 3 { TRUNCATE } else { 0 }
            | if version >= 5 { DEVICE_IOCTL } else { 0 };
        let attributes = Attributes {
            filesystem: handled,
            network: if version >= 4 { NETWORK } else { 0 },
            scoped: if version >= 6 { SCOPES } else { 0 },
        };
        // An older kernel accepts a longer structure whose tail is zero.
        let size = size_of::<Attributes>();
        // SAFETY: `attributes` outlives the call and its size is passed; the kernel only reads it.
        let fd = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0)
        };
        let fd = i32::try_from(check(fd)?).map_err(|_range| Errno::BADF)?;
        // SAFETY: the kernel just made this descriptor for us (close-on-exec), nobody else owns it.
        let rules = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { rules, handled })
    }

    /// Allows `access` to everything below `directory`.
    pub fn allow(&self, directory: impl AsFd, access: Access) -> Result<()> {
        let wanted = match access {
            Access::Read => READ,
            Access::Write => self.handled & !(EXECUTE | MAKE_SOCKET | DEVICE_IOCTL),
        };
        let rule =
            PathBeneath { allowed: wanted & self.handled, parent: directory.as_fd().as_raw_fd() };
        let rules = self.rules.as_raw_fd();
        // SAFETY: `rule` has the kernel's layout for type 1 (path beneath) and outlives the call;
        // both descriptors are open for its duration.
        let ret =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules, 1, &raw const rule, 0) };
        check(ret).map(drop)
    }

    /// Puts the calling thread, and those it will make, under the rules for good. Gives up the
    /// gaining of privileges by exec, which the kernel demands first.
    pub fn restrict_self(self) -> Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: the call takes a descriptor that is open and no memory.
        let ret =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.rules.as_raw_fd(), 0) };
        check(ret).map(drop)
    }
}

fn check(ret: i64) -> Result<i64> {
    if ret >= 0 {
        return Ok(ret);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_thread_sees_only_what_is_allowed() {
        let dir = std::env::temp_dir().join(format!("landlock-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let inside = dir.join("in");
        let thread = std::thread::spawn({
            let (dir, inside) = (dir.clone(), inside.clone());
            move || {
                let rules = match Ruleset::new() {
                    // A kernel without Landlock has nothing to test.
                    Err(Errno::NOSYS | Errno::OPNOTSUPP) => return,
                    rules => rules.unwrap(),
                };
                rules.allow(std::fs::File::open(&dir).unwrap(), Access::Write).unwrap();
                rules.restrict_self().unwrap();
                std::fs::write(&inside, "x").unwrap();
                std::fs::rename(&inside, dir.join("moved")).unwrap();
                assert!(std::fs::read("/etc/passwd").is_err());
                assert!(std::fs::write(std::env::temp_dir().join("landlock-out"), "").is_err());
                assert!(std::process::Command::new("/bin/true").status().is_err());
            }
        });
        let outcome = thread.join();
        std::fs::remove_dir_all(&dir).unwrap();
        outcome.unwrap();
    }
}
