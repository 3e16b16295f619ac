//! The supervisor's side: what is prepared before the clone, and what comes back from it.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use sys::process::{ForkOptions, Forked, UnshareFlags, exit_now, fork};

use super::cgroupfs::Layout;
use super::channel::{self, Channel};
use super::step::{Step, invalid};
use super::{JoinNamespaces, Pending, Report, Stdio, container, exec};
use crate::cgroup::Cgroup;
use crate::protocol::Failure;
use crate::seccomp::{self, Filter};
use crate::spec::{ContainerSpec, ExecSpec, Namespace, Namespaces, Process, Seccomp};

/// Clones the first process of a container into its namespaces and cgroup. It does all that needs
/// no network, then waits for [`Pending::release`]; it dies if the supervisor does before that.
pub fn spawn_container(
    spec: &ContainerSpec,
    join: &JoinNamespaces<'_>,
    cgroup: &Cgroup,
    stdio: Stdio,
) -> Result<Pending, Failure> {
    check_joins(&spec.namespaces, join)?;
    let order = container::Order {
        spec,
        join,
        cgroup,
        stdio,
        filter: filter(&spec.process)?,
        init: spec.init.then(small_init).transpose()?,
        layout: Layout::detect()?,
    };
    let options = ForkOptions {
        namespaces: Some(new_namespaces(&spec.namespaces, join)),
        cgroup: cgroup.v2_fd().map(AsFd::as_fd),
    };
    let is_helper = matches!(spec.namespaces.pid, Namespace::Container(_));
    spawn(&options, is_helper, |channel| container::run(order, channel))
}

/// Clones a process into the namespaces and the cgroup of a running container.
pub fn spawn_exec(
    spec: &ExecSpec,
    container: BorrowedFd<'_>,
    cgroup: &Cgroup,
    stdio: Stdio,
) -> Result<Pending, Failure> {
    let filter = filter(&spec.process)?;
    let order = exec::Order { spec, container, cgroup, stdio, filter };
    let options = ForkOptions { namespaces: None, cgroup: cgroup.v2_fd().map(AsFd::as_fd) };
    spawn(&options, true, |channel| exec::run(order, channel))
}

/// Runs `child` in a copy of this process. What it owns is dropped on this side.
fn spawn(
    options: &ForkOptions<'_>,
    is_helper: bool,
    child: impl FnOnce(&Channel) -> Result<Infallible, Failure>,
) -> Result<Pending, Failure> {
    let (reports, theirs) = channel::pair()?;
    match fork(options).step(|| "clone a new process".to_owned())? {
        Forked::Child => end_child(&theirs, child),
        Forked::Parent { pid, pidfd } if is_helper => {
            Ok(Pending { pid: None, pidfd: None, reports, helper: Some((pid, pidfd)) })
        }
        Forked::Parent { pid, pidfd } => {
            Ok(Pending { pid: Some(pid), pidfd: Some(pidfd), reports, helper: None })
        }
    }
}

/// The child never returns into the supervisor's frames: it becomes a program or says why not.
fn end_child(channel: &Channel, child: impl FnOnce(&Channel) -> Result<Infallible, Failure>) -> ! {
    let failure = match catch_unwind(AssertUnwindSafe(|| child(channel))) {
        Ok(Err(failure)) => failure,
        Err(_panic) => invalid("the init stage panicked; its message is on the daemon's stderr"),
    };
    // Without a supervisor there is nobody to tell.
    channel.report(&Report::Failed(failure)).ok();
    exit_now(1)
}

/// The program of `--init`; its file is made at the first use.
fn small_init() -> Result<OwnedFd, Failure> {
    static SEALED: OnceLock<OwnedFd> = OnceLock::new();
    let copy = || {
        if let Some(sealed) = SEALED.get() {
            return sealed.try_clone();
        }
        let sealed = sys::docker_init::sealed()?;
        SEALED.get_or_init(|| sealed).try_clone()
    };
    copy().map_err(|error| invalid(format!("make docker-init: {error}")))
}

fn new_namespaces(namespaces: &Namespaces, join: &JoinNamespaces<'_>) -> UnshareFlags {
    let wanted = [
        (&namespaces.pid, UnshareFlags::NEWPID),
        (&namespaces.ipc, UnshareFlags::NEWIPC),
        (&namespaces.uts, UnshareFlags::NEWUTS),
        (&namespaces.net, UnshareFlags::NEWNET),
    ];
    let private = wanted.into_iter().filter(|(namespace, _)| **namespace == Namespace::Private);
    let mut wanted = private.fold(UnshareFlags::NEWNS, |flags, (_, flag)| flags | flag);
    wanted.set(
        UnshareFlags::NEWNET,
        wanted.contains(UnshareFlags::NEWNET) && join.spare_net.is_none(),
    );
    wanted
}

fn check_joins(namespaces: &Namespaces, join: &JoinNamespaces<'_>) -> Result<(), Failure> {
    let wanted = [
        (&namespaces.pid, join.pid),
        (&namespaces.ipc, join.ipc),
        (&namespaces.uts, join.uts),
        (&namespaces.net, join.net),
        (&namespaces.cgroup, join.cgroup),
    ];
    for (namespace, descriptor) in wanted {
        if let (Namespace::Container(id), None) = (namespace, descriptor) {
            return Err(invalid(format!("cannot join namespaces of container {id}: not running")));
        }
    }
    Ok(())
}

/// Compiled here, where a compiled filter can be kept for the next container.
fn filter(process: &Process) -> Result<Option<Filter>, Failure> {
    match &process.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::default_filter(&process.capabilities))),
        Seccomp::Profile(profile) => seccomp::compile(profile, &process.capabilities)
            .map(Some)
            .map_err(|error| invalid(error.to_string())),
    }
}
