//! SIGKILL to every process of a group, where the kernel has no `cgroup.kill`.
//!
//! A pid read from a list may belong to a stranger a moment later. So processes are pinned by
//! pidfd first and looked up in the list again: who is in both is ours, or dead.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process with SIGKILL pending cannot fork any more, so a list without new names is the end.
/// `Ok(false)` if the group grew faster than this for `rounds` rounds; it must then be frozen.
pub(super) fn kill_listed(rounds: u32, list: impl Fn() -> Result<Vec<u32>>) -> Result<bool> {
    let mut killed = BTreeSet::new();
    for _ in 0..rounds {
        let mut pinned = Vec::new();
        for pid in list()? {
            if !killed.contains(&pid) {
                pinned.extend(pin(pid)?.map(|pidfd| (pid, pidfd)));
            }
        }
        if pinned.is_empty() {
            return Ok(true);
        }
        let still_listed: BTreeSet<u32> = list()?.into_iter().collect();
        for (pid, pidfd) in pinned.into_iter().filter(|(pid, _)| still_listed.contains(pid)) {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) => drop(killed.insert(pid)),
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(false)
}

fn pin(pid: u32) -> Result<Option<OwnedFd>> {
    let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // Gone, or a leader that exited before its threads: the next list tells.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}
