//! Groups in the unified hierarchy of cgroup v2.
//!
//! A controller works in a group only if every group above it passes it on in
//! `cgroup.subtree_control`, and a group that passes any on may hold no processes of its own (the
//! root excepted). Where we run inside of such a group, e.g. in a container whose cgroup
//! namespace makes it look like the root, its processes are moved to a leaf named [`LEAF`].

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;

use super::devices::Rules;
use super::files::{Dir, ancestors, gone_is_none, pids_below, remove_tree};
use super::kill::kill_listed;
use super::limits::{Current, Step, plan_v2};
use super::mounts::Controller;
use super::system;
use super::v1::write_setting;
use crate::protocol::Failure;
use crate::spec::Resources;

/// Where processes go that are in the way of `cgroup.subtree_control`.
const LEAF: &str = "boxship-leaf";

/// The controllers that containers are limited and counted with. Those that cannot live with
/// processes beside them come first: were the others passed on while processes are in the way, the
/// group would turn into a "thread root", which takes no others.
const WANTED: [&str; 5] = ["memory", "io", "cpuset", "cpu", "pids"];

#[derive(Debug)]
pub(super) struct Hierarchy {
    root: Dir,
    /// Those of [`WANTED`] that the root has.
    available: Vec<&'static str>,
}

impl Hierarchy {
    pub(super) fn open(point: &Path) -> Result<Self, Failure> {
        let open = || {
            let root = Dir::open_host(point)?;
            let controllers = root.read("cgroup.controllers")?;
            let has = |name: &&str| controllers.split_ascii_whitespace().any(|one| one == *name);
            Ok(Self { available: WANTED.into_iter().filter(has).collect(), root })
        };
        open().map_err(|errno| system(format!("open {}", point.display()), errno))
    }

    pub(super) const fn root(&self) -> &Dir {
        &self.root
    }

    /// Makes `path` and everything above it, with all controllers passed down to it.
    pub(super) fn make(&self, path: &str) -> Result<Dir, Errno> {
        match self.root.make_dir(path) {
            Err(Errno::NOENT) => {
                for parent in ancestors(path) {
                    match self.root.make_dir(parent) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                self.root.make_dir(path)?;
            }
            // Left by a crash.
            Err(Errno::EXIST) => {
                if !remove_tree(&self.root, path)? {
                    return Err(Errno::EXIST);
                }
                self.root.make_dir(path)?;
            }
            other => other?,
        }
        let dir = self.root.open_dir(path)?;
        if !self.missing(&dir, "cgroup.controllers")?.is_empty() {
            self.pass_down(&self.root)?;
            for parent in ancestors(path) {
                self.pass_down(&self.root.open_dir(parent)?)?;
            }
        }
        Ok(dir)
    }

    /// The controllers that the root has and a list in `dir` has not.
    fn missing(&self, dir: &Dir, list: &str) -> Result<Vec<&'static str>, Errno> {
        let present = dir.read(list)?;
        let lacks = |name: &&str| !present.split_ascii_whitespace().any(|one| one == *name);
        Ok(self.available.iter().copied().filter(lacks).collect())
    }

    /// One write for each controller, so that one that cannot be passed on (`cpu`, while some
    /// process has a real-time policy) does not take the others with it. What is missing in the
    /// end is reported when a limit needs it.
    fn pass_down(&self, group: &Dir) -> Result<(), Errno> {
        for name in self.missing(group, "cgroup.subtree_control")? {
            let enable = || group.write("cgroup.subtree_control", &format!("+{name}"));
            match enable() {
                Err(Errno::BUSY) => {
                    evacuate(group)?;
                    enable()?;
                }
                Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Moves a group's processes to a leaf below it. They fork meanwhile, hence the rounds.
fn evacuate(group: &Dir) -> Result<(), Errno> {
    match group.make_dir(LEAF) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let leaf = group.open_dir(LEAF)?;
    for _ in 0..16 {
        let text = group.read("cgroup.procs")?;
        let mut pids = text.lines().peekable();
        if pids.peek().is_none() {
            return Ok(());
        }
        for pid in pids {
            match leaf.write("cgroup.procs", pid) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Err(Errno::BUSY)
}

#[derive(Debug)]
pub(super) struct Group {
    tree: Arc<Hierarchy>,
    path: String,
    dir: Dir,
}

pub(super) fn create(
    tree: &Arc<Hierarchy>,
    path: &str,
    resources: &Resources,
    rules: &Rules,
) -> Result<Group, Failure> {
    let dir = tree.make(path).map_err(|errno| system(format!("make cgroup {path}"), errno))?;
    let group = Group { tree: Arc::clone(tree), path: path.to_owned(), dir };
    let limited = group.update(resources).and_then(|()| group.filter_devices(rules));
    match limited {
        Ok(()) => Ok(group),
        Err(failure) => {
            // An empty group is all that can be left; the next create of this path removes it.
            group.remove().unwrap_or(false);
            Err(failure)
        }
    }
}

pub(super) fn adopt(tree: &Arc<Hierarchy>, path: &str) -> Result<Group, Failure> {
    let dir = gone_is_none(tree.root.open_dir(path))
        .map_err(|errno| system(format!("open cgroup {path}"), errno))?
        .ok_or(Failure::NotFound)?;
    Ok(Group { tree: Arc::clone(tree), path: path.to_owned(), dir })
}

impl Group {
    pub(super) const fn fd(&self) -> &OwnedFd {
        self.dir.fd()
    }

    pub(super) const fn dir(&self) -> &Dir {
        &self.dir
    }

    fn failure(&self, attempt: &str, errno: Errno) -> Failure {
        system(format!("{attempt} cgroup {}", self.path), errno)
    }

    fn filter_devices(&self, rules: &Rules) -> Result<(), Failure> {
        let Some(filter) = rules.v2_filter() else { return Ok(()) };
        filter.attach(self.fd()).map_err(|errno| self.failure("attach device filter to", errno))
    }

    pub(super) fn update(&self, resources: &Resources) -> Result<(), Failure> {
        for step in plan_v2(resources, &InForce(self))? {
            match &step {
                Step::Write(setting) => write_setting(&self.dir, setting)?,
                Step::Pair(first, second) => {
                    write_setting(&self.dir, first)?;
                    write_setting(&self.dir, second)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the kernel's event, at most half a second.
    pub(super) fn freeze(&self) -> Result<(), Failure> {
        let freeze = || {
            let events = self.dir.open_file("cgroup.events", OFlags::RDONLY)?;
            self.dir.write("cgroup.freeze", "1")?;
            wait_frozen(&events)
        };
        if freeze().map_err(|errno| self.failure("freeze", errno))? {
            return Ok(());
        }
        self.thaw()?;
        Err(self.failure("freeze", Errno::TIMEDOUT))
    }

    pub(super) fn thaw(&self) -> Result<(), Failure> {
        match self.dir.write("cgroup.freeze", "0") {
            // Removed already: killed processes do not wait for the thaw.
            Err(Errno::NODEV | Errno::NOENT) => Ok(()),
            other => other.map_err(|errno| self.failure("thaw", errno)),
        }
    }

    pub(super) fn kill_all(&self) -> Result<(), Failure> {
        let kill = || match self.dir.write("cgroup.kill", "1") {
            // Before kernel 5.14. SIGKILL wakes frozen processes by itself.
            Err(Errno::NOENT) => match kill_listed(64, || pids_below(&self.dir))? {
                true => Ok(()),
                false => Err(Errno::TIMEDOUT),
            },
            // Removed already.
            Err(Errno::NODEV) => Ok(()),
            other => other,
        };
        kill().map_err(|errno| self.failure("kill", errno))
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, Failure> {
        pids_below(&self.dir).map_err(|errno| self.failure("list", errno))
    }

    pub(super) fn oom_kills(&self) -> u64 {
        let text = self.dir.read("memory.events").unwrap_or_default();
        super::stats::keyed(&text, "oom_kill").unwrap_or(0)
    }

    pub(super) fn oom_watch(&self) -> Result<OwnedFd, Failure> {
        if !self.dir.has("memory.events") {
            return Err(super::v1::missing("out-of-memory watch", Controller::Memory));
        }
        let watch = || {
            let watch =
                inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let file = format!("/proc/self/fd/{}/memory.events", self.fd().as_raw_fd());
            inotify::add_watch(&watch, file, inotify::WatchFlags::MODIFY)?;
            Ok(watch)
        };
        watch().map_err(|errno| self.failure("watch memory of", errno))
    }

    pub(super) fn remove(&self) -> Result<bool, Failure> {
        remove_tree(&self.tree.root, &self.path).map_err(|errno| self.failure("remove", errno))
    }
}

/// Reads limits of a group that others are computed from.
struct InForce<'a>(&'a Group);

impl Current for InForce<'_> {
    fn memory_max(&self) -> Result<Option<u64>, Failure> {
        let max = gone_is_none(self.0.dir.read_number("memory.max"))
            .map_err(|errno| self.0.failure("read memory.max of", errno))?;
        Ok(max.filter(|bytes| *bytes != u64::MAX))
    }

    fn cpu_quota(&self) -> Result<String, Failure> {
        let both = gone_is_none(self.0.dir.read("cpu.max"))
            .map_err(|errno| self.0.failure("read cpu.max of", errno))?;
        let quota = both.as_deref().and_then(|both| both.split_ascii_whitespace().next());
        Ok(quota.unwrap_or("max").to_owned())
    }
}

fn wait_frozen(events: &OwnedFd) -> Result<bool, Errno> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        let mut buffer = [0; 256];
        let count = rustix::io::pread(events, &mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..count]);
        if super::stats::keyed(&text, "frozen") == Some(1) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
