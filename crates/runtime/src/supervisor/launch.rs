//! From a fresh process to a serving supervisor.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::event::epoll::EventFlags;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getpid, getrlimit, set_child_subreaper,
    set_dumpable_behavior, setrlimit, setsid,
};

use super::clients::Clients;
use super::handover::{self, Handover};
use super::poll::{Poller, Source};
use super::spares::Spares;
use super::streams::CHUNK;
use super::{Config, Supervisor, state};
use crate::cgroup::Hierarchies;
use crate::exits::ExitLog;

/// Set by the daemon: leave the parent before doing anything.
pub(crate) const DETACH_VARIABLE: &str = "BOXSHIP_SUPERVISOR_DETACH";
/// What a detached supervisor writes to its stdout when it accepts connections.
pub(crate) const READY: &str = "ready\n";

/// `None` in a process that only had to start the real one.
pub(super) fn launch(config: &Config) -> io::Result<Option<Supervisor>> {
    // First of all: it executes this program once more, with the descriptors of a handover.
    crate::init::protect_own_binary().map_err(io::Error::other)?;
    let handover = handover::receive()?;
    let detach = handover.is_none() && std::env::var_os(DETACH_VARIABLE).is_some();
    if handover.is_none() {
        sys::descriptors::close_from(3);
    }
    if detach && sys::descriptors::fork_away()? {
        return Ok(None);
    }
    prepare_process(detach)?;
    let supervisor = build(config, handover)?;
    if detach {
        announce()?;
    }
    Ok(Some(supervisor))
}

fn prepare_process(detach: bool) -> io::Result<()> {
    if detach {
        setsid()?;
    }
    std::env::set_current_dir("/")?;
    // Children start with the usual mask; what is private here says so itself.
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    survive()?;
    // Orphans of containers that share the host's pid namespace come here to be reaped.
    set_child_subreaper(Some(getpid()))?;
    // Nothing of it is to be read through /proc by a process of a container; the flag is copied
    // by fork and cleared by exec.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    Ok(())
}

/// Signals that must not end the supervisor. SIGCHLD comes through a descriptor.
pub(super) fn survive() -> io::Result<()> {
    sys::descriptors::hold_child_signals()?;
    sys::descriptors::survive_signals(&[libc::SIGHUP, libc::SIGINT, libc::SIGPIPE])
}

fn build(config: &Config, handover: Option<Handover>) -> io::Result<Supervisor> {
    let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(&config.exec_root)?;
    std::fs::set_permissions(&config.exec_root, PermissionsExt::from_mode(0o700))?;
    private(&state::containers_directory(&config.exec_root))?;
    let (lock, listener, handover) = match handover {
        Some(Handover { lock, listener, rest }) => (lock, listener, Some(rest)),
        None => (take_lock(&config.exec_root)?, None, None),
    };
    let path = crate::connection::socket_path(&config.exec_root);
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    let mut supervisor = Supervisor {
        config: config.clone(),
        poller: Poller::new()?,
        // Clients that connect from now on wait until the first round of `serve`.
        child_signals: sys::descriptors::child_signals()?,
        strays: true,
        listener: listener.map_or_else(|| sys::socket::listen(&path), Ok)?,
        lock,
        clients: Clients::default(),
        hierarchies,
        exit_log: ExitLog::open(&config.exits_log)?,
        runs: HashMap::new(),
        by_id: HashMap::new(),
        last_key: 0,
        unrecorded: Vec::new(),
        ended: Vec::new(),
        timers: Vec::new(),
        boot_id: state::boot_id(),
        buffer: vec![0; CHUNK],
        scratch: Vec::new(),
        spares: Spares::default(),
        stopping: false,
    };
    match handover {
        Some(rest) => supervisor.take_over(rest),
        None => supervisor.adopt_all()?,
    }
    supervisor.poller.watch(&supervisor.listener, Source::Listener, EventFlags::IN);
    supervisor.poller.watch(&supervisor.child_signals, Source::Children, EventFlags::IN);
    Ok(supervisor)
}

/// Takes the lock that makes this the only supervisor of the exec-root, and leaves the pid there.
fn take_lock(exec_root: &Path) -> io::Result<OwnedFd> {
    let path = exec_root.join("supervisor.pid");
    let mut options = OpenOptions::new();
    let mut file: File =
        options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let text = format!("{} is locked: another supervisor runs", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        other => other?,
    }
    file.set_len(0)?;
    writeln!(file, "{}", getpid().as_raw_nonzero())?;
    Ok(file.into())
}

/// Tells whoever waits that the socket is there, and lets go of the pipe to it.
fn announce() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}
