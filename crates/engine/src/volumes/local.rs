//! The options of the driver `local`: `type`, `o` and `device`, as mount(8) takes them, made into a
//! mount without a shell and without a second look at any text. Servers of `nfs` and `cifs` may be
//! named by host names, which the kernel does not know: they are looked up for each mount.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use sys::mount::{Change, Context, MountAttrFlags, Propagation, change, clone_tree};

use crate::errors::{CreateReason, VolumeError};

pub(super) type Options = BTreeMap<String, String>;

/// Checks names and company of options; values are the kernel's affair when it mounts them.
pub(super) fn check(options: &Options) -> Result<(), CreateReason> {
    const KNOWN: [&str; 4] = ["type", "o", "device", "size"];
    if let Some(option) = options.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(CreateReason::Option { option: option.clone() });
    }
    if options.contains_key("size") {
        return Err(CreateReason::Quota);
    }
    let missing = |name: &'static str| !options.contains_key(name);
    if (!missing("type") || !missing("o")) && missing("device") {
        return Err(CreateReason::Missing { option: "device" });
    }
    if !options.is_empty() && missing("type") {
        return Err(CreateReason::Missing { option: "type" });
    }
    Ok(())
}

/// A word of `o` that is not the file system's own.
struct Flag {
    word: &'static str,
    /// What mount(2) calls it, for the error text.
    bits: u32,
    attribute: MountAttrFlags,
    /// Belongs to the file system rather than to the mount.
    superblock: bool,
}

const fn flag(word: &'static str, bits: u32, attribute: MountAttrFlags) -> Flag {
    Flag { word, bits, attribute, superblock: false }
}

const fn of_superblock(word: &'static str, bits: u32) -> Flag {
    Flag { word, bits, attribute: MountAttrFlags::empty(), superblock: true }
}

const BIND: u32 = 0x1000;
const RECURSIVE: u32 = 0x4000;

const FLAGS: &[Flag] = &[
    flag("defaults", 0, MountAttrFlags::empty()),
    flag("rw", 0, MountAttrFlags::empty()),
    flag("suid", 0, MountAttrFlags::empty()),
    flag("dev", 0, MountAttrFlags::empty()),
    flag("exec", 0, MountAttrFlags::empty()),
    flag("async", 0, MountAttrFlags::empty()),
    flag("atime", 0, MountAttrFlags::empty()),
    flag("ro", 0x1, MountAttrFlags::MOUNT_ATTR_RDONLY),
    flag("nosuid", 0x2, MountAttrFlags::MOUNT_ATTR_NOSUID),
    flag("nodev", 0x4, MountAttrFlags::MOUNT_ATTR_NODEV),
    flag("noexec", 0x8, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    of_superblock("sync", 0x10),
    of_superblock("mand", 0x40),
    of_superblock("dirsync", 0x80),
    flag("noatime", 0x400, MountAttrFlags::MOUNT_ATTR_NOATIME),
    flag("nodiratime", 0x800, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    flag("bind", BIND, MountAttrFlags::empty()),
    flag("rbind", BIND | RECURSIVE, MountAttrFlags::empty()),
    flag("relatime", 0x20_0000, MountAttrFlags::empty()),
    flag("strictatime", 0x100_0000, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    of_superblock("lazytime", 0x200_0000),
];

/// What `o` says.
#[derive(Debug)]
struct Plan<'a> {
    bits: u32,
    attributes: MountAttrFlags,
    data: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Plan<'a> {
    fn read(o: &'a str) -> Self {
        let mut plan = Self { bits: 0, attributes: MountAttrFlags::empty(), data: Vec::new() };
        for word in o.split(',').filter(|word| !word.is_empty()) {
            match FLAGS.iter().find(|flag| flag.word == word) {
                Some(flag) => {
                    plan.bits |= flag.bits;
                    plan.attributes |= flag.attribute;
                    if flag.superblock {
                        plan.data.push((word, None));
                    }
                }
                None => plan.data.push(match word.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (word, None),
                }),
            }
        }
        plan
    }

    fn mount(&self, kind: &str, device: &str) -> Result<OwnedFd, Errno> {
        if self.bits & BIND != 0 {
            let source = openat(CWD, device, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let tree = clone_tree(source, self.bits & RECURSIVE != 0)?;
            let private = Change {
                set: self.attributes,
                propagation: Some(Propagation::Private),
                recursive: false,
            };
            change(&tree, &private)?;
            return Ok(tree);
        }
        let context = Context::open(kind, device)?;
        for (key, value) in &self.data {
            context.set(key, *value)?;
        }
        context.mount(self.attributes)
    }

    /// Flags and data, as Docker words them.
    fn detail(&self) -> String {
        let word = |(key, value): &(&str, Option<&str>)| match value {
            Some(_) if *key == "password" => "password=********".to_owned(),
            Some(value) => format!("{key}={value}"),
            None => (*key).to_owned(),
        };
        let own = self.data.iter().filter(|(key, _)| !FLAGS.iter().any(|flag| flag.word == *key));
        let data: Vec<_> = own.map(word).collect();
        let mut detail = String::new();
        if self.bits != 0 {
            detail.push_str(&format!(", flags: {:#x}", self.bits));
        }
        if !data.is_empty() {
            detail.push_str(&format!(", data: {}", data.join(",")));
        }
        detail
    }
}

/// `o` and `device` with the server's address for its name: the option `addr` of nfs, the host of
/// a cifs share.
fn resolve(
    kind: &str,
    o: &str,
    device: &str,
    look_up: impl Fn(&str) -> Result<IpAddr, String>,
) -> Result<(String, String), String> {
    let named = |host: &str| !host.is_empty() && host.parse::<IpAddr>().is_err();
    let (mut o, mut device) = (o.to_owned(), device.to_owned());
    if kind == "nfs" {
        let address = o.split(',').find_map(|word| word.strip_prefix("addr=")).unwrap_or_default();
        if named(address) {
            let found = look_up(address)?;
            o = o.replacen(&format!("addr={address}"), &format!("addr={found}"), 1);
        }
    }
    if kind == "cifs"
        && let Some((host, share)) = device.strip_prefix("//").and_then(|rest| rest.split_once('/'))
        && named(host)
    {
        device = format!("//{}/{share}", look_up(host)?);
    }
    Ok((o, device))
}

/// Go prefers IPv4, and so do servers of old.
fn look_up(host: &str) -> Result<IpAddr, String> {
    let none = || format!("lookup {host}: no such host");
    let found = (host, 0).to_socket_addrs().map_err(|error| {
        tracing::debug!(host, %error, "look up");
        none()
    })?;
    let mut found: Vec<_> = found.map(|address| address.ip()).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.first().copied().ok_or_else(none)
}

/// Makes the mount, detached; none for a volume that is a plain directory.
pub(super) fn mount(options: &Options, mountpoint: &str) -> Result<Option<OwnedFd>, VolumeError> {
    let text = |name: &str| options.get(name).map_or("", String::as_str);
    if options.is_empty() {
        return Ok(None);
    }
    let resolved = resolve(text("type"), text("o"), text("device"), look_up);
    let (o, device) = resolved
        .map_err(|reason| VolumeError::Address { mountpoint: mountpoint.to_owned(), reason })?;
    let plan = Plan::read(&o);
    let mounted = plan.mount(text("type"), &device).map_err(|errno| VolumeError::Mount {
        mountpoint: mountpoint.to_owned(),
        device: device.clone(),
        detail: plan.detail(),
        reason: runtime::protocol::errno_text(errno.raw_os_error()),
    })?;
    Ok(Some(mounted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let check = |text: &str, expect: &str| {
            let got = check(&options(text)).map_err(|reason| reason.to_string());
            assert_eq!(got.err().unwrap_or_default(), expect, "{text}");
        };
        check("", "");
        check("type=tmpfs device=tmpfs o=size=1m", "");
        check("type=nfs device=:/x", "");
        check("foo=x", "invalid option: \"foo\"");
        check("device=x", "missing required option: \"type\"");
        check("type=tmpfs", "missing required option: \"device\"");
        check("o=size=1", "missing required option: \"device\"");
        check("size=1m", "quota size requested but no quota support");
    }

    #[test]
    fn mount_options_are_told_apart() {
        let check = |o: &str, bits: u32, detail: &str| {
            let plan = Plan::read(o);
            assert_eq!((plan.bits, plan.detail().as_str()), (bits, detail), "{o}");
        };
        check("", 0, "");
        check("bind", 0x1000, ", flags: 0x1000");
        check("ro,foo", 1, ", flags: 0x1, data: foo");
        check("addr=127.0.0.1,soft;touch /x,rw", 0, ", data: addr=127.0.0.1,soft;touch /x");
        check("sync,rbind,nodev", 0x5014, ", flags: 0x5014");
    }

    #[test]
    fn servers_are_looked_up() {
        let known = |host: &str| match host {
            "files" => Ok([10, 0, 0, 7].into()),
            host => Err(format!("lookup {host}: no such host")),
        };
        let check = |kind: &str, o: &str, device: &str, expect: (&str, &str)| {
            let got = resolve(kind, o, device, known).unwrap();
            assert_eq!((got.0.as_str(), got.1.as_str()), expect);
        };
        check("nfs", "rw,addr=files,nfsvers=4", ":/x", ("rw,addr=10.0.0.7,nfsvers=4", ":/x"));
        check("nfs", "addr=10.0.0.8", ":/x", ("addr=10.0.0.8", ":/x"));
        check("nfs", "addr=::1", ":/x", ("addr=::1", ":/x"));
        check("nfs", "soft", "files:/x", ("soft", "files:/x"));
        check("cifs", "addr=files", "//files/a b/c", ("addr=files", "//10.0.0.7/a b/c"));
        check("cifs", "", "//10.0.0.8/a", ("", "//10.0.0.8/a"));
        check("tmpfs", "addr=files", "//files/a", ("addr=files", "//files/a"));
        let failed = resolve("nfs", "addr=gone", ":/x", known).unwrap_err();
        assert_eq!(failed, "lookup gone: no such host");
    }

    #[test]
    fn network_file_systems_are_mounted_as_told() {
        // Neither server nor, as a rule, file system is there: what was tried is in the answer.
        let fails = |text: &str| mount(&options(text), "/v/_data").unwrap_err().to_string();
        let text =
            fails("type=nfs device=:/x o=addr=localhost,nfsvers=4,ro,retrans=0,timeo=1,soft");
        let tried = "error while mounting volume '/v/_data': failed to mount local volume: mount \
             :/x:/v/_data, flags: 0x1, data: addr=127.0.0.1,nfsvers=4,retrans=0,timeo=1,soft: ";
        assert!(text.starts_with(tried), "{text}");
        let text = fails("type=cifs device=//127.0.0.1/x o=username=u,password=secret");
        let tried = "mount //127.0.0.1/x:/v/_data, data: username=u,password=********: ";
        assert!(text.contains(tried), "{text}");
        assert_eq!(
            fails("type=nfs device=:/x o=addr=no.such.host.invalid"),
            "error while mounting volume '/v/_data': error resolving passed in network volume \
             address: lookup no.such.host.invalid: no such host"
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let text = "type=none o=bind device=/nonexistent-device";
        assert_eq!(
            mount(&options(text), "/v/_data").unwrap_err().to_string(),
            "error while mounting volume '/v/_data': failed to mount local volume: mount \
             /nonexistent-device:/v/_data, flags: 0x1000: no such file or directory"
        );
        assert!(mount(&options(""), "/v/_data").unwrap().is_none());
    }
}
