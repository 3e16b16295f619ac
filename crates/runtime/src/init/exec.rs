//! A process added to a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::RootDir;
use sys::process::close_all_but;

use super::Stdio;
use super::channel::Channel;
use super::console;
use super::container::{enter_cgroup, quarantine};
use super::identity::{self, HostProc};
use super::step::Step;
use crate::cgroup::Cgroup;
use crate::protocol::Failure;
use crate::seccomp::Filter;
use crate::spec::ExecSpec;

/// Everything the process is made from, prepared by the supervisor.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) spec: &'a ExecSpec,
    /// Pidfd of the container's first process.
    pub(super) container: BorrowedFd<'a>,
    pub(super) cgroup: &'a Cgroup,
    pub(super) stdio: Stdio,
    pub(super) filter: Option<Filter>,
}

/// Runs in the helper that [`super::spawn_exec`] cloned: enters all of the container but its pid
/// namespace, becomes the user, and makes the program as its sibling.
pub(super) fn run(order: Order<'_>, channel: &Channel) -> Result<Infallible, Failure> {
    quarantine(&order.descriptors(channel))?;
    let process = &order.spec.process;
    let host = HostProc::prepare(process)?;
    enter_cgroup(order.cgroup)?;
    enter_namespaces(order.container)?;
    let root = RootDir::open("/").step(|| "open the container's root".to_owned())?;
    let devpts = || root.open_dir("/dev/pts");
    let ends = console::open(order.stdio, process.console_size, channel, devpts)?;
    let program = identity::Order { process, filter: order.filter.as_ref(), init: None };
    let ready = identity::assume(program, host, ends, &root)?;
    drop(root);
    // What is left of the host's belongs to the supervisor's stack frames, which are not ours.
    close_all_but(&[channel.as_fd()]).step(|| "close the last descriptors".to_owned())?;
    ready.execute_as_sibling(channel)
}

impl Order<'_> {
    fn descriptors<'a>(&'a self, channel: &'a Channel) -> Vec<BorrowedFd<'a>> {
        let mut keep = vec![channel.as_fd(), self.container];
        keep.extend(self.cgroup.v1_tasks().iter().map(AsFd::as_fd));
        keep.extend(self.stdio.descriptors());
        keep
    }
}

/// One call for all namespaces, or a container that ends meanwhile could be left half entered.
fn enter_namespaces(container: BorrowedFd<'_>) -> Result<(), Failure> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
    match move_into_thread_name_spaces(container, all) {
        Err(Errno::SRCH) => Err(Failure::NotRunning),
        entered => entered.step(|| "enter the container's namespaces".to_owned()),
    }
}
