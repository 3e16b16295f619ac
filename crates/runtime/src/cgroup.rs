//! Control groups, v1 and v2, behind one type.
//!
//! A container has one group in every mounted v1 hierarchy, or one group in the v2 tree, always
//! at the same path below the hierarchy's mount point. [`Hierarchies::create`] makes the groups
//! and writes every limit before a process is inside; [`Cgroup::remove`] takes them away. Limits
//! are planned as values first ([`limits`]), then written by [`v1`] or [`v2`].
//!
//! A limit that was asked for and that this kernel does not have is refused by name
//! ([`Failure::Invalid`]); who wants Docker's "discarded" warnings asks
//! [`Hierarchies::features`] first.

mod devices;
mod features;
mod files;
mod kill;
mod limits;
mod mounts;
mod stats;
mod v1;
mod v2;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

pub use features::Features;

use crate::protocol::{Failure, Stats};
use crate::spec::{CgroupSpec, Resources};

/// The hierarchies of this machine, found once.
#[derive(Debug, Clone)]
pub struct Hierarchies(Version<Arc<v1::Hierarchies>, Arc<v2::Hierarchy>>);

/// One container's group in every hierarchy.
#[derive(Debug)]
pub struct Cgroup(Version<v1::Group, v2::Group>);

#[derive(Debug, Clone)]
enum Version<A, B> {
    V1(A),
    V2(B),
}

/// A v1 hierarchy as a container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Mount {
    /// Its directory below `/sys/fs/cgroup`: `memory`, `cpu,cpuacct`, `systemd`.
    pub directory: String,
    /// Options of a `cgroup` mount: `memory`, `cpu,cpuacct`, `name=systemd`.
    pub options: String,
}

impl Hierarchies {
    /// Reads the mount table of the calling process. A hybrid machine, whose v2 tree has none of
    /// the controllers we limit with, counts as v1.
    pub fn detect() -> Result<Self, Failure> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| io_failure("read /proc/self/mountinfo", &error))?;
        match mounts::parse(&table) {
            mounts::Layout::V1(list) => {
                Ok(Self(Version::V1(Arc::new(v1::Hierarchies::open(list)?))))
            }
            mounts::Layout::V2(point) => {
                Ok(Self(Version::V2(Arc::new(v2::Hierarchy::open(&point)?))))
            }
            mounts::Layout::None => Err(Failure::Invalid {
                text: "no cgroup hierarchy with a known controller is mounted".to_owned(),
            }),
        }
    }

    pub fn is_v2(&self) -> bool {
        matches!(self.0, Version::V2(_))
    }

    /// Makes the groups and writes limits and device rules. Nothing is left behind on failure,
    /// except groups above the last component of the path.
    pub fn create(&self, spec: &CgroupSpec) -> Result<Cgroup, Failure> {
        let path = group_path(&spec.path)?;
        let rules = devices::normalize(&spec.devices)?;
        match &self.0 {
            Version::V1(all) => v1::create(all, path, &spec.resources, &rules).map(Version::V1),
            Version::V2(tree) => v2::create(tree, path, &spec.resources, &rules).map(Version::V2),
        }
        .map(Cgroup)
    }

    /// Takes over the groups that an earlier supervisor made.
    pub fn adopt(&self, path: &str) -> Result<Cgroup, Failure> {
        let path = group_path(path)?;
        match &self.0 {
            Version::V1(all) => v1::adopt(all, path).map(Version::V1),
            Version::V2(tree) => v2::adopt(tree, path).map(Version::V2),
        }
        .map(Cgroup)
    }

    /// Tells which limits this machine can enforce. Makes and removes one probe group in each v1
    /// hierarchy (under a millisecond): root groups lack most files.
    pub fn features(&self) -> Features {
        match &self.0 {
            Version::V1(all) => features::probe_v1(all),
            Version::V2(tree) => features::probe_v2(tree),
        }
    }
}

impl Cgroup {
    /// What a forked child must do to be inside: on v2 nothing (it is cloned with
    /// `CLONE_INTO_CGROUP` and this descriptor); on v1 write `0` to each of [`Self::v1_tasks`],
    /// which unlike `cgroup.procs` by pid does not wait for an RCU grace period.
    pub fn v2_fd(&self) -> Option<&OwnedFd> {
        match &self.0 {
            Version::V1(_) => None,
            Version::V2(group) => Some(group.fd()),
        }
    }

    /// The `tasks` file of each hierarchy, open for writing.
    pub fn v1_tasks(&self) -> &[OwnedFd] {
        match &self.0 {
            Version::V1(group) => group.tasks(),
            Version::V2(_) => &[],
        }
    }

    /// The v1 hierarchies to mount for a container, in the order of [`Self::v1_tasks`].
    pub fn v1_mounts(&self) -> &[V1Mount] {
        match &self.0 {
            Version::V1(group) => group.mounts(),
            Version::V2(_) => &[],
        }
    }

    /// Changes limits of a group in use. Limits are written one after the other: a refused one
    /// leaves those before it in force.
    pub fn update(&self, resources: &Resources) -> Result<(), Failure> {
        match &self.0 {
            Version::V1(group) => group.update(resources),
            Version::V2(group) => group.update(resources),
        }
    }

    /// Stops every process and returns when all stand still; thaws them again and fails if they
    /// do not within half a second.
    pub fn freeze(&self) -> Result<(), Failure> {
        match &self.0 {
            Version::V1(group) => group.freeze(),
            Version::V2(group) => group.freeze(),
        }
    }

    pub fn thaw(&self) -> Result<(), Failure> {
        match &self.0 {
            Version::V1(group) => group.thaw(),
            Version::V2(group) => group.thaw(),
        }
    }

    /// SIGKILL to everything inside, frozen or not, also in groups the container made below its
    /// own. Does not wait for the processes to be gone.
    pub fn kill_all(&self) -> Result<(), Failure> {
        match &self.0 {
            Version::V1(group) => group.kill_all(),
            Version::V2(group) => group.kill_all(),
        }
    }

    /// The processes inside, also in groups the container made below its own.
    pub fn pids(&self) -> Result<Vec<u32>, Failure> {
        match &self.0 {
            Version::V1(group) => group.pids(),
            Version::V2(group) => group.pids(),
        }
    }

    pub fn stats(&self) -> Result<Stats, Failure> {
        match &self.0 {
            Version::V1(group) => stats::of_v1(group),
            Version::V2(group) => stats::of_v2(group),
        }
    }

    /// How often the kernel killed a process of this group for want of memory. Groups below count
    /// on v2 only. 0 when the group is gone.
    pub fn oom_kills(&self) -> u64 {
        match &self.0 {
            Version::V1(group) => group.oom_kills(),
            Version::V2(group) => group.oom_kills(),
        }
    }

    /// A non-blocking descriptor for epoll that tells of out-of-memory: an eventfd (EPOLLIN) on
    /// v1, inotify on `memory.events` on v2. `oom_kills` then says whether it was one: v1 signals
    /// just before the kill, and once more when the group is removed; v2 signals for every kind
    /// of memory event. Read it empty with [`drain_oom_watch`].
    pub fn oom_watch(&self) -> Result<OwnedFd, Failure> {
        match &self.0 {
            Version::V1(group) => group.oom_watch(),
            Version::V2(group) => group.oom_watch(),
        }
    }

    /// Removes the groups, with any the container made below; `Ok(false)` when processes are
    /// still leaving (try again later). Groups already gone are no error.
    pub fn remove(&self) -> Result<bool, Failure> {
        match &self.0 {
            Version::V1(group) => group.remove(),
            Version::V2(group) => group.remove(),
        }
    }
}

/// Reads everything a descriptor of [`Cgroup::oom_watch`] has to say, so that a level-triggered
/// epoll goes quiet.
pub fn drain_oom_watch(watch: impl AsFd) -> Result<(), Failure> {
    // Holds at least one inotify event: a header and no name, as the watch is on a file.
    let mut buffer = [0; 1024];
    loop {
        match rustix::io::read(&watch, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(system("read the out-of-memory watch", errno)),
        }
    }
}

/// Checks a path from a spec: relative, and no way to climb out of the hierarchy.
fn group_path(path: &str) -> Result<&str, Failure> {
    let trimmed = path.trim_matches('/');
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if trimmed.split('/').all(plain) {
        Ok(trimmed)
    } else {
        Err(Failure::Invalid { text: format!("invalid cgroup path: {path:?}") })
    }
}

fn system(step: impl Into<String>, errno: Errno) -> Failure {
    Failure::System { step: step.into(), errno: errno.raw_os_error() }
}

fn io_failure(step: &str, error: &std::io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Failure::System { step: step.to_owned(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(path: &str, expect: Option<&str>) {
        assert_eq!(group_path(path).ok(), expect);
    }

    #[test]
    fn paths() {
        check_path("docker/abc", Some("docker/abc"));
        check_path("/docker/abc/", Some("docker/abc"));
        check_path("abc", Some("abc"));
        check_path("", None);
        check_path("/", None);
        check_path("a/../../b", None);
        check_path("a//b", None);
        check_path("./a", None);
    }
}
