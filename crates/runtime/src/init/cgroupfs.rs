//! `/sys/fs/cgroup` as a container sees it: its own groups as the roots, read-only unless
//! privileged (CVE-2022-0492, CVE-2023-25809).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::RootDir;
use sys::mount::{Change, Context, MountAttrFlags, attach, change, clone_tree, new_filesystem};
use sys::process::{UnshareFlags, unshare};

use super::step::{Step, invalid};
use crate::protocol::Failure;

/// The hierarchies of the machine, as `/proc/self/cgroup` lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Only the unified hierarchy.
    Unified,
    /// The v1 hierarchies, each by its controllers or `name=...`. A unified hierarchy beside them
    /// has no controllers and is not shown.
    Legacy(Vec<String>),
}

/// What a container is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) layout: Layout,
    /// It shares the host's cgroup namespace.
    pub(super) host_namespace: bool,
}

impl Layout {
    pub(super) fn detect() -> Result<Self, Failure> {
        let listed = std::fs::read_to_string("/proc/self/cgroup")
            .map_err(|error| invalid(format!("read /proc/self/cgroup: {error}")))?;
        Ok(Self::parse(&listed))
    }

    /// Lines are `number:controllers:path`; number 0 is the unified hierarchy.
    fn parse(listed: &str) -> Self {
        let mut hierarchies: Vec<String> = listed
            .lines()
            .filter_map(|line| line.split(':').nth(1))
            .filter(|controllers| !controllers.is_empty())
            .map(str::to_owned)
            .collect();
        if hierarchies.is_empty() {
            return Self::Unified;
        }
        hierarchies.sort_unstable();
        Self::Legacy(hierarchies)
    }
}

/// Detached mounts for one container.
#[derive(Debug)]
pub(super) enum Staged {
    Unified(OwnedFd),
    Legacy {
        /// A tmpfs with a directory per hierarchy.
        directory: OwnedFd,
        hierarchies: Vec<(String, OwnedFd)>,
        readonly: bool,
    },
}

/// Mounts the hierarchies. The caller is in the container's groups and cgroup namespace.
pub(super) fn stage(view: &View, readonly: bool) -> Result<Staged, Failure> {
    match &view.layout {
        Layout::Unified => unified(view, readonly).map(Staged::Unified),
        Layout::Legacy(hierarchies) if view.host_namespace => {
            in_own_namespace(|| legacy(hierarchies, readonly))
        }
        Layout::Legacy(hierarchies) => legacy(hierarchies, readonly),
    }
}

fn attributes(readonly: bool) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, readonly);
    attributes
}

fn unified(view: &View, readonly: bool) -> Result<OwnedFd, Failure> {
    let mounted = if view.host_namespace {
        // Mounted anew from the first cgroup namespace it would change the options of the one
        // and only filesystem.
        openat(CWD, "/sys/fs/cgroup", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|host| clone_tree(host, false))
            .and_then(|tree| change(&tree, &Change::set(attributes(readonly))).map(|()| tree))
    } else {
        // Docker's mount table has the same name on both versions.
        Context::open("cgroup2", "cgroup").and_then(|context| context.mount(attributes(readonly)))
    };
    mounted.step(|| "mount cgroup2".to_owned())
}

fn legacy(hierarchies: &[String], readonly: bool) -> Result<Staged, Failure> {
    let directory = new_filesystem("tmpfs", &[("mode", Some("755"))], attributes(false))
        .step(|| "mount tmpfs for /sys/fs/cgroup".to_owned())?;
    let mut mounted = Vec::with_capacity(hierarchies.len());
    for hierarchy in hierarchies {
        let name = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
        let mount = legacy_mount(hierarchy, readonly)
            .and_then(|mount| make_names(&directory, name).map(|()| mount))
            .step(|| format!("mount cgroup {hierarchy}"))?;
        mounted.push((name.to_owned(), mount));
    }
    Ok(Staged::Legacy { directory, hierarchies: mounted, readonly })
}

fn legacy_mount(hierarchy: &str, readonly: bool) -> Result<OwnedFd, Errno> {
    let context = Context::open("cgroup", "cgroup")?;
    if let Some(name) = hierarchy.strip_prefix("name=") {
        context.set("none", None)?;
        context.set("name", Some(name))?;
    } else {
        for controller in hierarchy.split(',') {
            context.set(controller, None)?;
        }
    }
    context.mount(attributes(readonly))
}

/// A hierarchy of several controllers is found by each of their names, too.
fn make_names(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    if name.contains(',') {
        for controller in name.split(',') {
            symlinkat(name, directory, controller)?;
        }
    }
    Ok(())
}

/// A v1 mount shows the group at the root of the cgroup namespace in which it was made, so with
/// the host's namespace the container's own group is shown by a detour through one of its own.
fn in_own_namespace<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let host = openat(CWD, "/proc/self/ns/cgroup", OFlags::CLOEXEC, Mode::empty())
        .step(|| "open /proc/self/ns/cgroup".to_owned())?;
    unshare(UnshareFlags::NEWCGROUP).step(|| "make a cgroup namespace".to_owned())?;
    let result = work()?;
    move_into_thread_name_spaces(host.as_fd(), ThreadNameSpaceType::CONTROL_GROUP)
        .step(|| "go back to the host's cgroup namespace".to_owned())?;
    Ok(result)
}

impl Staged {
    /// Attaches everything at `/sys/fs/cgroup`, which is open as `target`.
    pub(super) fn attach(self, target: &OwnedFd) -> Result<(), Failure> {
        let attached = |what: &str| format!("attach cgroup {what}");
        let (directory, hierarchies, readonly) = match self {
            Self::Unified(mount) => {
                return attach(mount, target).step(|| attached("v2"));
            }
            Self::Legacy { directory, hierarchies, readonly } => (directory, hierarchies, readonly),
        };
        attach(&directory, target).step(|| attached("directory"))?;
        let directory = RootDir::from_fd(directory);
        for (name, mount) in hierarchies {
            directory
                .open_dir(&name)
                .and_then(|target| attach(mount, target))
                .step(|| attached(&name))?;
        }
        if readonly {
            change(&directory, &Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY))
                .step(|| attached("directory read-only"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &str, expect: &Layout) {
        assert_eq!(&Layout::parse(listed), expect);
    }

    #[test]
    fn layouts() {
        let legacy =
            |names: &[&str]| Layout::Legacy(names.iter().map(ToString::to_string).collect());
        check("0::/user.slice\n", &Layout::Unified);
        check(
            "9:name=systemd:/\n4:memory:/a:b\n2:cpu,cpuacct:/\n0::/\n",
            &legacy(&["cpu,cpuacct", "memory", "name=systemd"]),
        );
    }

    /// In a thread, as a mount namespace is a thread's.
    #[test]
    fn the_unified_hierarchy_is_mounted_readonly() {
        let mounted = std::thread::spawn(|| {
            unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP).unwrap();
            let slash = RootDir::open("/").unwrap();
            let private = Change {
                set: MountAttrFlags::empty(),
                propagation: Some(sys::mount::Propagation::Private),
                recursive: true,
            };
            change(&slash, &private).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let view = View { layout: Layout::Unified, host_namespace: false };
            let target = RootDir::open(directory.path()).unwrap().into();
            stage(&view, true).unwrap().attach(&target).unwrap();
            let procs = std::fs::read_to_string(directory.path().join("cgroup.procs"));
            let refused = std::fs::create_dir(directory.path().join("x")).unwrap_err();
            rustix::mount::unmount(directory.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
            (procs.is_ok(), refused.kind())
        });
        let expect = (true, std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(mounted.join().unwrap(), expect);
    }
}
