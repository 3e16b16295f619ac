//! Our own executable, out of reach of the containers it runs.
//!
//! A process that executes `/proc/self/exe` (as a link, or behind `#!`) while it is still us
//! becomes our binary inside the container, and another process there may then open it by
//! `/proc/<pid>/exe` and overwrite the host's file (CVE-2019-5736). So whatever runs next to
//! containers is executed through a detached read-only mount of the binary: no name leads to that
//! mount, it costs no memory, and opening `/proc/<pid>/exe` for writing answers EROFS.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use sys::mount::{Change, MountAttrFlags, Propagation, change, clone_tree};
use sys::process::{Image, Program, exec};

use super::program::c_string;
use super::step::Step;
use crate::protocol::Failure;

/// Opens our executable on a read-only mount of its own.
fn open_protected() -> Result<OwnedFd, Failure> {
    let opened = open_own().and_then(|binary| {
        let mount = clone_tree(binary, false)?;
        let protection = Change {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID,
            propagation: Some(Propagation::Private),
            recursive: false,
        };
        change(&mount, &protection)?;
        Ok(mount)
    });
    opened.step(|| "open our executable read-only".to_owned())
}

fn open_own() -> rustix::io::Result<OwnedFd> {
    openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Executes the calling program again, with its arguments, from a protected copy, unless it runs
/// from one already. A supervisor calls this first.
pub fn protect_own_binary() -> Result<(), Failure> {
    let flags = open_own().and_then(fstatvfs).step(|| "stat our executable".to_owned())?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let bytes = |text: std::ffi::OsString| c_string(&String::from_utf8_lossy(&text.into_vec()));
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut variable = name;
        variable.push("=");
        variable.push(value);
        variable
    });
    let image = Image {
        program: Program::File(open_protected()?),
        arguments: std::env::args_os().map(bytes).collect::<Result<Vec<CString>, _>>()?,
        environment: environment.map(bytes).collect::<Result<Vec<CString>, _>>()?,
    };
    Err(exec(&image)).step(|| "execute our executable read-only".to_owned())
}
