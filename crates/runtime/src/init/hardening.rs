//! What a container may not see or change of the kernel: masked paths, read-only paths, and the
//! sysctls that belong to its own namespaces.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev, openat};
use rustix::io::Errno;
use sys::RootDir;
use sys::mount::{Change, MountAttrFlags, attach, change, clone_tree, new_filesystem};

use super::step::{Step, invalid};
use crate::protocol::Failure;
use crate::spec::{ContainerSpec, Namespace};

/// Covers each existing path: a file by our `/dev/null`, a directory by an empty tmpfs.
///
/// `dev` is the mount that we made, so that nothing an image or a volume put in its place can
/// become the cover (CVE-2025-31133).
pub(super) fn mask(root: &RootDir, dev: &RootDir, paths: &[String]) -> Result<(), Failure> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = open_null(dev)?;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let masked = match open_existing(root, path) {
            Ok(Some((target, FileType::Directory))) => cover_directory(&mut empty, target),
            Ok(Some((target, _))) => clone_tree(&null, false).and_then(|null| attach(null, target)),
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        masked.step(|| format!("mask {path}"))?;
    }
    Ok(())
}

fn open_null(dev: &RootDir) -> Result<OwnedFd, Failure> {
    let null =
        openat(dev, "null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open /dev/null".to_owned())?;
    let stat = fstat(&null).step(|| "stat /dev/null".to_owned())?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != makedev(1, 3) {
        return Err(invalid("/dev/null of the container is not the null device"));
    }
    Ok(null)
}

/// All directories share one filesystem; copies are made of the first mount once it is attached.
fn cover_directory(empty: &mut Option<OwnedFd>, target: OwnedFd) -> Result<(), Errno> {
    if let Some(first) = empty {
        return clone_tree(first, false).and_then(|copy| attach(copy, target));
    }
    let options = [("size", Some("4k")), ("nr_inodes", Some("1")), ("mode", Some("755"))];
    let first = new_filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    attach(&first, target)?;
    *empty = Some(first);
    Ok(())
}

/// Makes each existing path read-only, with everything mounted below it.
pub(super) fn make_readonly(root: &RootDir, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let changed = match open_existing(root, path) {
            Ok(Some((target, _))) => bind_readonly(target),
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        changed.step(|| format!("make {path} read-only"))?;
    }
    Ok(())
}

fn bind_readonly(target: OwnedFd) -> Result<(), Errno> {
    let copy = clone_tree(&target, true)?;
    let readonly = Change { recursive: true, ..Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY) };
    change(&copy, &readonly)?;
    attach(copy, target)
}

fn open_existing(root: &RootDir, path: &str) -> Result<Option<(OwnedFd, FileType)>, Errno> {
    match root.open_in(path, OFlags::PATH, Mode::empty()) {
        Ok(target) => {
            let kind = FileType::from_raw_mode(fstat(&target)?.st_mode);
            Ok(Some((target, kind)))
        }
        // The kernel was built without it.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Which of a container's namespaces are its own, and so are the sysctls that live in them.
#[derive(Debug, Clone, Copy)]
struct Owned {
    ipc: bool,
    uts: bool,
    net: bool,
}

/// Writes the container's sysctls. `proc_sys` is `/proc/sys` of its procfs, opened before the
/// directory was covered by a read-only mount.
pub(super) fn write_sysctls(proc_sys: &RootDir, spec: &ContainerSpec) -> Result<(), Failure> {
    let namespaces = &spec.namespaces;
    let owned = Owned {
        ipc: namespaces.ipc != Namespace::Host,
        uts: namespaces.uts != Namespace::Host,
        net: namespaces.net != Namespace::Host,
    };
    write_all(proc_sys, &spec.sysctls, owned)?;
    write_all(proc_sys, &spec.network.sysctls, owned)
}

fn write_all(
    proc_sys: &RootDir,
    sysctls: &BTreeMap<String, String>,
    owned: Owned,
) -> Result<(), Failure> {
    for (name, value) in sysctls {
        let path = sysctl_path(name, owned)?;
        proc_sys
            .open_in(&path, OFlags::WRONLY | OFlags::TRUNC, Mode::empty())
            .step(|| format!("open sysctl {name} file"))
            .and_then(|file| {
                rustix::io::write(file, value.as_bytes())
                    .step(|| format!("failed to write sysctl {name} = {value:?}"))
            })?;
    }
    Ok(())
}

/// `a.b.c` is `a/b/c`, if it belongs to a namespace of the container (CVE-2022-0811).
fn sysctl_path(name: &str, owned: Owned) -> Result<String, Failure> {
    let well_formed = name.split('.').all(|part| !part.is_empty())
        && !name.bytes().any(|byte| matches!(byte, b'/' | b'\\' | 0) || byte.is_ascii_whitespace());
    if !well_formed {
        return Err(invalid(format!("sysctl {name:?} is not a name")));
    }
    let allowed = match name {
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced" => owned.ipc,
        "kernel.domainname" | "kernel.hostname" => owned.uts,
        _ if name.starts_with("fs.mqueue.") => owned.ipc,
        _ if name.starts_with("net.") => owned.net,
        _ => false,
    };
    if !allowed {
        let text = format!("sysctl {name:?} is not in a separate kernel namespace");
        return Err(invalid(text));
    }
    Ok(name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, owned: bool, expect: &str) {
        let owned = Owned { ipc: owned, uts: owned, net: owned };
        let got = sysctl_path(name, owned).unwrap_or_else(|failure| failure.to_string());
        assert_eq!(got, expect);
    }

    #[test]
    fn only_sysctls_of_own_namespaces() {
        let refused = |name| format!("sysctl {name:?} is not in a separate kernel namespace");
        let malformed = |name| format!("sysctl {name:?} is not a name");
        check("net.ipv4.ip_forward", true, "net/ipv4/ip_forward");
        check("kernel.shmmax", true, "kernel/shmmax");
        check("fs.mqueue.msg_max", true, "fs/mqueue/msg_max");
        check("net.ipv4.ip_forward", false, &refused("net.ipv4.ip_forward"));
        check("kernel.shmmax", false, &refused("kernel.shmmax"));
        check("kernel.core_pattern", true, &refused("kernel.core_pattern"));
        check("vm.overcommit_memory", true, &refused("vm.overcommit_memory"));
        check("fs.file-max", true, &refused("fs.file-max"));
        check("net/../kernel/core_pattern", true, &malformed("net/../kernel/core_pattern"));
        check("net...kernel.core_pattern", true, &malformed("net...kernel.core_pattern"));
        check("net.", true, &malformed("net."));
        check("", true, &malformed(""));
    }
}
