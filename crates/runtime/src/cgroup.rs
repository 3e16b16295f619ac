//! Control groups, v1 and v2, behind one type.

use std::os::fd::OwnedFd;

use crate::protocol::{Failure, Stats};
use crate::spec::{CgroupSpec, Resources};

/// The hierarchies of this machine, found once.
#[derive(Debug)]
pub struct Hierarchies {}

/// One container's group in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {}

impl Hierarchies {
    pub fn detect() -> Result<Self, Failure> {
        Err(Failure::NotFound)
    }

    pub fn is_v2(&self) -> bool {
        false
    }

    /// Makes the groups and writes limits and device rules.
    pub fn create(&self, _spec: &CgroupSpec) -> Result<Cgroup, Failure> {
        Err(Failure::NotFound)
    }

    /// Takes over the groups that an earlier supervisor made.
    pub fn adopt(&self, _path: &str) -> Result<Cgroup, Failure> {
        Err(Failure::NotFound)
    }
}

impl Cgroup {
    /// What a forked child must do to be inside: on v2 nothing (it is cloned with
    /// `CLONE_INTO_CGROUP` and this descriptor); on v1 write `0` to each of [`Self::v1_tasks`],
    /// which unlike `cgroup.procs` by pid does not wait for an RCU grace period.
    pub fn v2_fd(&self) -> Option<&OwnedFd> {
        None
    }

    pub fn v1_tasks(&self) -> &[OwnedFd] {
        &[]
    }

    pub fn update(&self, _resources: &Resources) -> Result<(), Failure> {
        Err(Failure::NotFound)
    }

    pub fn freeze(&self) -> Result<(), Failure> {
        Err(Failure::NotFound)
    }

    pub fn thaw(&self) -> Result<(), Failure> {
        Err(Failure::NotFound)
    }

    /// SIGKILL to everything inside, frozen or not.
    pub fn kill_all(&self) -> Result<(), Failure> {
        Err(Failure::NotFound)
    }

    pub fn pids(&self) -> Result<Vec<u32>, Failure> {
        Err(Failure::NotFound)
    }

    pub fn stats(&self) -> Result<Stats, Failure> {
        Err(Failure::NotFound)
    }

    /// How often the kernel killed a process of this group for want of memory.
    pub fn oom_kills(&self) -> u64 {
        0
    }

    /// A descriptor for epoll that tells of out-of-memory: an eventfd (EPOLLIN) on v1, inotify on
    /// `memory.events` on v2. `oom_kills` then says whether it was one.
    pub fn oom_watch(&self) -> Result<OwnedFd, Failure> {
        Err(Failure::NotFound)
    }

    /// Removes the groups; `Ok(false)` when processes are still leaving (try again later).
    pub fn remove(&self) -> Result<bool, Failure> {
        Err(Failure::NotFound)
    }
}
