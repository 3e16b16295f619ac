//! Which cgroup hierarchies are mounted where, from the text of `/proc/self/mountinfo`.

use std::path::PathBuf;

/// A controller that we limit, count or freeze with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpuset,
    Cpu,
    Cpuacct,
    Memory,
    Devices,
    Freezer,
    Blkio,
    Pids,
}

impl Controller {
    fn from_v1(name: &str) -> Option<Self> {
        Some(match name {
            "cpuset" => Self::Cpuset,
            "cpu" => Self::Cpu,
            "cpuacct" => Self::Cpuacct,
            "memory" => Self::Memory,
            "devices" => Self::Devices,
            "freezer" => Self::Freezer,
            "blkio" => Self::Blkio,
            "pids" => Self::Pids,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpuset => "cpuset",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Pids => "pids",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    V1(Vec<Mount>),
    V2(PathBuf),
    None,
}

/// One mounted v1 hierarchy. Those without a controller of ours (`name=systemd`, `perf_event`)
/// are joined too, so that the host's tools see the container as a unit everywhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// `cpu,cpuacct` or `name=systemd`: what identifies the hierarchy to mount(2).
    pub(super) options: String,
    pub(super) controllers: Vec<Controller>,
}

/// Mount options of a v1 superblock that are not controllers.
const FLAGS: [&str; 7] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"];

pub(super) fn parse(mountinfo: &str) -> Layout {
    let mut v1: Vec<Mount> = Vec::new();
    let mut v2 = None;
    for line in mountinfo.lines() {
        let Some((point, fstype, options)) = fields(line) else { continue };
        match fstype {
            "cgroup" => {
                let mount = v1_mount(point, options);
                // The same hierarchy may be mounted twice, e.g. bound into a container.
                if !v1.iter().any(|known| known.options == mount.options) {
                    v1.push(mount);
                }
            }
            "cgroup2" if v2.is_none() => v2 = Some(point),
            _ => {}
        }
    }
    if v1.iter().any(|mount| !mount.controllers.is_empty()) {
        return Layout::V1(v1);
    }
    v2.map_or(Layout::None, Layout::V2)
}

/// Returns mount point, type and super options of a mountinfo line (proc_pid_mountinfo(5)).
fn fields(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let fstype = after.next()?;
    Some((unescape(point), fstype, after.nth(1).unwrap_or_default()))
}

fn v1_mount(point: PathBuf, options: &str) -> Mount {
    let named = |option: &&str| !FLAGS.contains(option) && !option.starts_with("release_agent=");
    let options: Vec<&str> = options.split(',').filter(named).collect();
    Mount {
        point,
        controllers: options.iter().filter_map(|name| Controller::from_v1(name)).collect(),
        options: options.join(","),
    }
}

/// Undoes mountinfo's octal escapes (`\040` is a space).
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (bytes[at], code) {
            (b'\\', Some(code)) => {
                plain.push(code);
                at += 4;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /mnt/memory\\040again rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup none rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[track_caller]
    fn check_v1(mountinfo: &str, expect: &[(&str, &str, &[Controller])]) {
        let Layout::V1(list) = parse(mountinfo) else { panic!("not v1") };
        let list: Vec<_> = list
            .iter()
            .map(|mount| {
                (
                    mount.point.to_str().unwrap(),
                    mount.options.as_str(),
                    mount.controllers.as_slice(),
                )
            })
            .collect();
        assert_eq!(list, expect);
    }

    #[test]
    fn hybrid_is_v1() {
        use Controller::{Cpu, Cpuacct, Memory};
        check_v1(
            HYBRID,
            &[
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct", &[Cpu, Cpuacct]),
                ("/sys/fs/cgroup/memory", "memory", &[Memory]),
                ("/sys/fs/cgroup/systemd", "name=systemd", &[]),
            ],
        );
    }

    #[test]
    fn v2_alone_or_beside_a_bare_named_hierarchy() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let named = "40 31 0:37 / /run/systemd-v1 rw - cgroup none rw,name=systemd\n";
        let expect = Layout::V2(PathBuf::from("/sys/fs/cgroup"));
        assert_eq!(parse(unified), expect);
        assert_eq!(parse(&format!("{named}{unified}")), expect);
        assert_eq!(parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), Layout::None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"/a\040b\134c\"), PathBuf::from(r"/a b\c\"));
    }
}
