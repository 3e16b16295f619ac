//! From a spec to a running program: clone, namespaces, mounts, identity, exec.
//!
//! ```text
//! supervisor                     child (born in its namespaces and cgroup)
//! spawn_container ── clone3 ──►  quarantine: close descriptors, not dumpable, dies with parent
//!   writes state                 standard::stage      generic: /proc, /dev, /sys as detached mounts
//!   plugs network                container::assemble  this spec: root, mounts, masks, pivot
//! release ──────────────────►    sysctls, identity, exec
//! ```
//!
//! The line between `stage` and `assemble` is where a pool of parked inits will be cut.
//! A process that enters a pid namespace other processes already live in (`exec`, `--pid
//! container:`) is visible there only from its last step on: everything before is done by a helper
//! outside, which then makes the final process as its own sibling, with the capabilities that it
//! is to have and no descriptor but its stdio (CVE-2016-9962, CVE-2024-21626).

mod binary;
mod cgroupfs;
mod channel;
mod console;
mod container;
mod exec;
mod hardening;
mod identity;
mod mounts;
mod options;
mod program;
pub(crate) mod rootfs;
mod spawn;
mod standard;
mod step;
mod still;
mod targets;
pub(crate) mod user;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

pub use self::binary::protect_own_binary;
pub use self::spawn::{spawn_container, spawn_exec};
use self::step::Step;
pub use self::still::{Still, assemble_still, enter_running};
pub use self::user::owner_of;
use crate::protocol::Failure;

/// The program's descriptors 0, 1 and 2, opened by the supervisor.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null` or the container's ends of the FIFOs.
    Files { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// The init stage opens a pty in the container's own devpts and sends back the master.
    Tty,
}

/// A process that was cloned and has not executed its program yet.
#[derive(Debug)]
pub struct Pending {
    /// Pid in the supervisor's pid namespace; the supervisor is the parent. For an exec, and for
    /// a container that joins another one's pid namespace, it is known only when [`Report::Pid`]
    /// has come.
    pub pid: Option<u32>,
    pub pidfd: Option<OwnedFd>,
    /// Non-blocking SEQPACKET socket, readable for epoll: one [`Report`] a packet; end of file
    /// without [`Report::Failed`] means that the program was executed.
    pub reports: OwnedFd,
    /// Pid and pidfd of a helper that makes the process where it cannot be cloned directly. Reaped
    /// when the reports end.
    helper: Option<(u32, OwnedFd)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Carries the pty's master in `SCM_RIGHTS`.
    Console,
    /// The final process (a child of the supervisor, by `CLONE_PARENT`): a helper's last report.
    Pid(u32),
    Failed(Failure),
}

/// Whose namespaces to join instead of making private ones: a pidfd of the other container's
/// first process in each (a `/proc/<pid>/ns` descriptor does too, except for `ipc`, which brings
/// the other container's `/dev/shm` along).
#[derive(Debug, Default)]
pub struct JoinNamespaces<'a> {
    pub pid: Option<BorrowedFd<'a>>,
    pub ipc: Option<BorrowedFd<'a>>,
    pub uts: Option<BorrowedFd<'a>>,
    pub net: Option<BorrowedFd<'a>>,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// An unused network namespace, its loopback up, to take instead of making a private one.
    pub spare_net: Option<BorrowedFd<'a>>,
}

impl Pending {
    /// Lets the container's process go on to its program. Call when the network is plugged in and
    /// the state file is written. An exec does not wait for it.
    pub fn release(&self) -> Result<(), Failure> {
        channel::release(&self.reports)
    }

    /// Opens the network namespace of a container's process (or of its helper, which is in the same
    /// one) that waits for its release.
    pub fn network_namespace(&self) -> Result<OwnedFd, Failure> {
        let helper = || self.helper.as_ref().map(|(pid, _)| *pid);
        let pid = self.pid.or_else(helper).ok_or(Failure::NotRunning)?;
        // Our unreaped child: the number cannot be another's.
        let path = format!("/proc/{pid}/ns/net");
        openat(CWD, path, OFlags::CLOEXEC, Mode::empty())
            .step(|| "open the network namespace of a new process".to_owned())
    }

    /// Reads one report; `None` when there is none yet. A console comes with its descriptor.
    pub fn report(&self) -> Result<Option<(ReportOrEnd, Option<OwnedFd>)>, Failure> {
        let report = channel::receive(&self.reports)?;
        if let (Some((ReportOrEnd::End, _)), Some((_, helper))) = (&report, &self.helper) {
            // It closed the socket by exiting, so this does not block. ECHILD: the supervisor's
            // own reaping was faster.
            match waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED) {
                Ok(_) | Err(Errno::CHILD) => {}
                Err(errno) => return Err(errno).step(|| "reap a helper process".to_owned()),
            }
        }
        Ok(report)
    }
}

#[derive(Debug)]
pub enum ReportOrEnd {
    Report(Report),
    /// The program was executed, if no failure came before.
    End,
}
