//! From a spec to a running program: clone, namespaces, mounts, identity, exec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::protocol::Failure;
use crate::spec::{ContainerSpec, ExecSpec};

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
    /// Pid in the supervisor's pid namespace; the supervisor is the parent. For an exec it is
    /// known only when [`Report::Pid`] has come.
    pub pid: Option<u32>,
    pub pidfd: Option<OwnedFd>,
    /// Non-blocking SEQPACKET socket, readable for epoll: one [`Report`] a packet; end of file
    /// without [`Report::Failed`] means that the program was executed.
    pub reports: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Carries the pty's master in `SCM_RIGHTS`.
    Console,
    /// The exec'd process (a child of the supervisor, by `CLONE_PARENT`).
    Pid(u32),
    Failed(Failure),
}

/// Descriptors of the namespaces to join instead of making private ones, by the other
/// container's first process.
#[derive(Debug, Default)]
pub struct JoinNamespaces<'a> {
    pub pid: Option<BorrowedFd<'a>>,
    pub ipc: Option<BorrowedFd<'a>>,
    pub uts: Option<BorrowedFd<'a>>,
    pub net: Option<BorrowedFd<'a>>,
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Clones the first process of a container into its namespaces and cgroup. It does all that needs
/// no network, then waits for [`Pending::release`]; it dies if the supervisor does before that.
pub fn spawn_container(
    _spec: &ContainerSpec,
    _join: &JoinNamespaces<'_>,
    _cgroup: &Cgroup,
    _stdio: Stdio,
) -> Result<Pending, Failure> {
    Err(Failure::NotFound)
}

/// Clones a process into the namespaces and the cgroup of a running container.
pub fn spawn_exec(
    _spec: &ExecSpec,
    _container: BorrowedFd<'_>,
    _cgroup: &Cgroup,
    _stdio: Stdio,
) -> Result<Pending, Failure> {
    Err(Failure::NotFound)
}

impl Pending {
    /// Lets the container's process go on to its program. Call when the network is plugged in and
    /// the state file is written.
    pub fn release(&self) -> Result<(), Failure> {
        Err(Failure::NotFound)
    }

    /// Reads one report; `None` when there is none yet. A console comes with its descriptor.
    pub fn report(&self) -> Result<Option<(ReportOrEnd, Option<OwnedFd>)>, Failure> {
        let _ = self.reports.as_fd();
        Err(Failure::NotFound)
    }
}

#[derive(Debug)]
pub enum ReportOrEnd {
    Report(Report),
    /// The program was executed, if no failure came before.
    End,
}
