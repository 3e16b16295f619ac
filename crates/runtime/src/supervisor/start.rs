//! Starting containers and execs.
//!
//! What can be done at once is done at once, in the order that lets the child work in parallel:
//! cgroup, clone (the child mounts meanwhile), network, `state.json`, release. The rest is told
//! by the child's reports, so several starts are under way at a time. A crash before `state.json`
//! kills the child with the supervisor; one after it leaves a container that is adopted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::termios::{Winsize, tcsetwinsize};

use super::poll::{Part, Source};
use super::recorder::Recorder;
use super::state::{self, Saved, StdinMode};
use super::streams::{Ends, Streams};
use super::{Phase, Run, Starting, Supervisor, Timer};
use crate::cgroup::Cgroup;
use crate::init::{self, JoinNamespaces, Pending, Report, ReportOrEnd};
use crate::protocol::{AttachOptions, Failure, Reply};
use crate::resolver::{self, Sockets};
use crate::spec::{ContainerSpec, ExecSpec, LogSpec, Namespace};

/// A killed process takes some milliseconds to leave its cgroup.
const BUSY_PAUSE: Duration = Duration::from_millis(3);
const BUSY_ATTEMPTS: u32 = 1000;

/// Who asked, and the clients that are attached from the first byte on.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) client: u32,
    pub(super) sequence: u64,
    pub(super) attach: Attachments,
    /// To be held while the process runs.
    pub(super) kept: Option<OwnedFd>,
}

/// Clients with our ends of their streams.
pub(super) type Attachments = Vec<(AttachOptions, OwnedFd)>;

pub(super) fn failed(step: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Failure {
    |error| Failure::System { step: step(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

impl Supervisor {
    /// Starts a container; the answer comes later, unless this fails at once. While processes of
    /// its last run are still leaving its cgroup, the start waits for them.
    pub(super) fn start(
        &mut self,
        spec: Box<ContainerSpec>,
        asked: Asked,
        attempts: u32,
    ) -> Result<(), Failure> {
        let waits = |(_, timer): &(_, Timer)| matches!(timer, Timer::Start { spec: other, .. } if other.id == spec.id);
        if self.by_id.contains_key(&spec.id) || self.timers.iter().any(waits) {
            return Err(Failure::AlreadyRunning);
        }
        if self.remove_old_cgroup(&spec.id) {
            return self.start_now(&spec, asked);
        }
        if attempts >= BUSY_ATTEMPTS {
            return Err(Failure::Busy);
        }
        self.later(BUSY_PAUSE, Timer::Start { spec, asked, attempts: attempts + 1 });
        Ok(())
    }

    fn start_now(&mut self, spec: &ContainerSpec, asked: Asked) -> Result<(), Failure> {
        let cgroup = Rc::new(self.hierarchies.create(&spec.cgroup)?);
        let saved = self.describe(spec, &cgroup);
        let directory = saved.directory(&self.config.exec_root);
        let result = match &spec.oci_runtime {
            Some(runtime) => self.start_oci(spec, runtime, saved, Rc::clone(&cgroup), asked),
            None => self.launch_container(spec, saved, &cgroup, asked),
        };
        if result.is_err() {
            remove_directory(&directory);
            self.remove_cgroup(spec.id.clone(), cgroup, 0);
        }
        result
    }

    fn describe(&self, spec: &ContainerSpec, cgroup: &Cgroup) -> Saved {
        Saved {
            id: spec.id.clone(),
            container: None,
            generation: spec.generation,
            pid: 0,
            start_ticks: 0,
            boot_id: self.boot_id.clone(),
            started_at_nanos: super::now_nanos(),
            tty: spec.process.tty,
            stdin: StdinMode::of_container(&spec.process),
            log: spec.log.clone(),
            cgroup: spec.cgroup.path.clone(),
            private_pids: spec.namespaces.pid == Namespace::Private,
            own_network: spec.namespaces.net != Namespace::Host,
            network: spec.network.note.clone(),
            paused: false,
            oom_kills: cgroup.oom_kills(),
            oci_runtime: None,
        }
    }

    fn launch_container(
        &mut self,
        spec: &ContainerSpec,
        mut saved: Saved,
        cgroup: &Rc<Cgroup>,
        asked: Asked,
    ) -> Result<(), Failure> {
        let directory = saved.directory(&self.config.exec_root);
        let (ends, stdio) = self.make_stdio(&saved)?;
        let log = Recorder::open(&saved.log, &directory, saved.tty)
            .map_err(failed(|| "open the log".to_owned()))?;
        let private_net = spec.namespaces.net == Namespace::Private;
        let spare = private_net.then(|| self.spares.take()).flatten();
        let joins = self.joins(spec)?;
        let joins = JoinNamespaces { spare_net: spare.as_ref().map(AsFd::as_fd), ..joins };
        let pending = init::spawn_container(spec, &joins, cgroup, stdio)?;
        let mut resolver = None;
        if private_net && !spec.network.interfaces.is_empty() {
            // The child mounts meanwhile; if that failed, it may be gone with its namespace.
            resolver = spare
                .map_or_else(|| pending.network_namespace(), Ok)
                .and_then(|netns| connect(spec, netns.as_fd()))
                .map_err(|failure| told(&pending).unwrap_or(failure))?;
        }
        if let Some(pid) = pending.pid {
            saved.pid = pid;
            saved.start_ticks = state::start_ticks(pid).unwrap_or_default();
        }
        saved.started_at_nanos = super::now_nanos();
        saved.write(&directory).map_err(failed(|| "write state.json".to_owned()))?;
        pending.release().map_err(|failure| told(&pending).unwrap_or(failure))?;
        let streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, log);
        let cgroup = Rc::clone(cgroup);
        let run = starting(saved, streams, cgroup, pending, &asked);
        self.begin(Run { resolver, ..run }, ends, asked);
        Ok(())
    }

    /// Starts a process in a running container; the answer comes later.
    pub(super) fn exec(&mut self, spec: &ExecSpec, asked: Asked) -> Result<(), Failure> {
        if self.by_id.contains_key(&spec.exec_id) {
            return Err(Failure::AlreadyRunning);
        }
        let (_, container) = self.running(&spec.container)?;
        if container.saved.paused {
            return Err(Failure::Invalid { text: "container is paused".to_owned() });
        }
        let cgroup = Rc::clone(&container.cgroup);
        let saved = Saved {
            id: spec.exec_id.clone(),
            container: Some(spec.container.clone()),
            pid: 0,
            start_ticks: 0,
            started_at_nanos: super::now_nanos(),
            tty: spec.process.tty,
            stdin: StdinMode::of_exec(&spec.process),
            log: LogSpec::None,
            network: String::new(),
            ..container.saved.clone()
        };
        let directory = saved.directory(&self.config.exec_root);
        let result = match saved.oci_runtime.clone() {
            Some(runtime) => self.exec_oci(spec, runtime, saved, cgroup, asked),
            None => self.launch_exec(spec, saved, cgroup, asked),
        };
        if result.is_err() {
            remove_directory(&directory);
        }
        result
    }

    fn launch_exec(
        &mut self,
        spec: &ExecSpec,
        saved: Saved,
        cgroup: Rc<Cgroup>,
        asked: Asked,
    ) -> Result<(), Failure> {
        let (ends, stdio) = self.make_stdio(&saved)?;
        let (_, container) = self.running(&spec.container)?;
        let pidfd = container.pidfd.as_ref().ok_or(Failure::NotRunning)?;
        let pending = init::spawn_exec(spec, pidfd.as_fd(), &cgroup, stdio)?;
        let streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, None);
        self.begin(starting(saved, streams, cgroup, pending, &asked), ends, asked);
        Ok(())
    }

    pub(super) fn make_stdio(&self, saved: &Saved) -> Result<(Ends, init::Stdio), Failure> {
        let directory = saved.directory(&self.config.exec_root);
        state::create_directory(&directory)
            .and_then(|()| state::make_stdio(&directory, saved.tty, saved.stdin))
            .map_err(failed(|| format!("make stdio in {}", directory.display())))
    }

    /// The first processes of the containers whose namespaces are joined.
    fn joins(&self, spec: &ContainerSpec) -> Result<JoinNamespaces<'_>, Failure> {
        let find = |namespace: &Namespace| -> Result<Option<BorrowedFd<'_>>, Failure> {
            let Namespace::Container(id) = namespace else { return Ok(None) };
            let (_, run) = self.running(id).map_err(|_none| Failure::NotRunning)?;
            Ok(run.pidfd.as_ref().map(AsFd::as_fd))
        };
        let namespaces = &spec.namespaces;
        Ok(JoinNamespaces {
            pid: find(&namespaces.pid)?,
            ipc: find(&namespaces.ipc)?,
            uts: find(&namespaces.uts)?,
            net: find(&namespaces.net)?,
            cgroup: find(&namespaces.cgroup)?,
            spare_net: None,
        })
    }

    /// Enters the process into the books and waits for what it, or the program that makes it,
    /// reports.
    pub(super) fn begin(&mut self, mut run: Run, ends: Ends, asked: Asked) {
        run.kept = asked.kept;
        for (options, socket) in asked.attach {
            let stdin = options.stdin && run.saved.stdin != StdinMode::Null;
            run.streams.attach(socket, AttachOptions { stdin, ..options }, Vec::new());
        }
        let is_container = run.saved.container.is_none();
        let key = self.insert(run);
        match self.runs.get(&key).map(|run| &run.phase) {
            Some(Phase::Starting(starting)) => {
                let reports = &starting.pending.reports;
                self.poller.watch(reports, Source::Run(key, Part::Reports), EventFlags::IN);
            }
            Some(Phase::Oci(_)) => self.watch_tool(key),
            Some(Phase::Running | Phase::Ended) | None => {}
        }
        self.watch_process(key);
        if is_container {
            self.watch_oom(key);
        }
        // A tty's ends come later; its clients' input waits for them.
        self.with_streams(key, |streams, io| {
            if !streams.tty {
                streams.open(ends, io);
            }
        });
    }

    pub(super) fn watch_process(&mut self, key: u32) {
        if let Some(Run { pidfd: Some(pidfd), .. }) = self.runs.get(&key) {
            self.poller.watch(pidfd, Source::Run(key, Part::Process), EventFlags::IN);
        }
    }

    pub(super) fn watch_oom(&mut self, key: u32) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        match run.cgroup.oom_watch() {
            Ok(watch) => {
                self.poller.watch(&watch, Source::Run(key, Part::Oom), EventFlags::IN);
                run.oom_watch = Some(watch);
            }
            Err(failure) => super::note(format_args!("watch {}: {failure}", run.saved.id)),
        }
    }

    /// The child has something to say.
    pub(super) fn on_reports(&mut self, key: u32) {
        if let Some(Run { phase: Phase::Oci(_), .. }) = self.runs.get(&key) {
            return self.on_tool(key);
        }
        while let Some(Run { phase: Phase::Starting(starting), .. }) = self.runs.get_mut(&key) {
            match starting.pending.report() {
                Ok(None) => return,
                Ok(Some((ReportOrEnd::Report(report), fd))) => {
                    // A helper's last word. The end of file could be kept back by the process it
                    // made, if the container stops that one before it has closed its copy.
                    let last = matches!(report, Report::Pid(_));
                    self.on_report(key, report, fd);
                    if last {
                        return self.reports_ended(key);
                    }
                }
                Ok(Some((ReportOrEnd::End, _))) => return self.reports_ended(key),
                Err(failure) => {
                    starting.failure.get_or_insert(failure);
                    return self.reports_ended(key);
                }
            }
        }
    }

    fn on_report(&mut self, key: u32, report: Report, fd: Option<OwnedFd>) {
        let done = match (report, fd) {
            (Report::Console, Some(master)) => self.on_console(key, master),
            (Report::Console, None) => Err(Failure::Invalid { text: "no console came".to_owned() }),
            (Report::Pid(pid), _) => self.own_child(pid).and_then(|()| self.on_pid(key, pid)),
            (Report::Failed(failure), _) => Err(failure),
        };
        if let (Err(failure), Some(Run { phase: Phase::Starting(starting), .. })) =
            (done, self.runs.get_mut(&key))
        {
            starting.failure.get_or_insert(failure);
        }
    }

    pub(super) fn on_console(&mut self, key: u32, master: OwnedFd) -> Result<(), Failure> {
        let Some(run) = self.runs.get_mut(&key) else { return Ok(()) };
        let size = match &run.phase {
            Phase::Starting(starting) => starting.size,
            Phase::Oci(start) => start.size,
            Phase::Running | Phase::Ended => None,
        };
        if let Some((columns, rows)) = size {
            resize(&master, columns, rows)?;
        }
        let ends = state::tty_ends(master, run.saved.stdin)
            .map_err(failed(|| "set up a terminal".to_owned()))?;
        self.with_streams(key, |streams, io| streams.open(ends, io));
        Ok(())
    }

    /// A pid told by a process that the container may have got hold of must be one of our
    /// children that is in no book yet.
    fn own_child(&self, pid: u32) -> Result<(), Failure> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let is_child = raw.is_some_and(|pid| waitid(WaitId::Pid(pid), look).is_ok());
        if is_child && self.runs.values().all(|run| run.saved.pid != pid) {
            return Ok(());
        }
        Err(Failure::Invalid { text: format!("process {pid} is not the one that was asked for") })
    }

    /// A process that others made for us is there. It is our child, so its pid stays its own until
    /// we reap it.
    pub(super) fn on_pid(&mut self, key: u32, pid: u32) -> Result<(), Failure> {
        let Some(run) = self.runs.get_mut(&key) else { return Ok(()) };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Failure::NotFound)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())
            .map_err(|errno| failed(|| format!("open process {pid}"))(errno.into()))?;
        run.pidfd = Some(pidfd);
        run.saved.pid = pid;
        // A zombie has no start time worth keeping.
        run.saved.start_ticks = state::start_ticks(pid).unwrap_or_default();
        let directory = run.saved.directory(&self.config.exec_root);
        if let Err(error) = run.saved.write(&directory) {
            super::note(format_args!("write {}/state.json: {error}", directory.display()));
        }
        self.watch_process(key);
        Ok(())
    }

    /// The program was executed, or never will be.
    fn reports_ended(&mut self, key: u32) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        let Phase::Starting(starting) = &mut run.phase else { return };
        self.poller.forget(&starting.pending.reports);
        if run.pidfd.is_none() {
            let step = "the helper died before it started the process".to_owned();
            starting.failure.get_or_insert(Failure::System { step, errno: libc::ESRCH });
        }
        match (&starting.failure, &run.pidfd) {
            (None, Some(pidfd)) => {
                let (client, sequence) = (starting.client, starting.sequence);
                let reply = started(run, pidfd);
                run.phase = Phase::Running;
                self.clients.reply(client, sequence, reply, &mut self.poller);
                // It may have been over before we knew that it had begun.
                self.reap(key);
            }
            // It is answered when the process is reaped and what it had is removed.
            (Some(_), Some(pidfd)) => {
                if let Err(errno) = pidfd_send_signal(pidfd, Signal::KILL) {
                    super::note(format_args!("kill {}: {errno}", run.saved.id));
                }
                self.reap(key);
            }
            (Some(_), None) => self.fail_start(key),
            (None, None) => {}
        }
    }

    /// Undoes a start whose process is gone, and answers.
    pub(super) fn fail_start(&mut self, key: u32) {
        self.with_streams(key, Streams::abandon);
        let Some(run) = self.runs.remove(&key) else { return };
        self.by_id.remove(&run.saved.id);
        self.forget_descriptors(&run);
        remove_directory(&run.saved.directory(&self.config.exec_root));
        if run.saved.container.is_none() {
            self.remove_cgroup(run.saved.id, run.cgroup, 0);
        }
        let (client, sequence, failure) = match run.phase {
            Phase::Starting(starting) => {
                self.poller.forget(&starting.pending.reports);
                (starting.client, starting.sequence, starting.failure)
            }
            Phase::Oci(start) => {
                self.forget_tool(&start);
                (start.client, start.sequence, start.failure)
            }
            Phase::Running | Phase::Ended => return,
        };
        let failure = failure.unwrap_or(Failure::NotRunning);
        self.clients.reply(client, sequence, Err(failure), &mut self.poller);
    }

    pub(super) fn forget_descriptors(&mut self, run: &Run) {
        for fd in [&run.pidfd, &run.oom_watch].into_iter().flatten() {
            self.poller.forget(fd);
        }
    }

    /// Removes what the last run's cgroup became a timer for; the new one has the same path.
    /// False when processes are still inside.
    fn remove_old_cgroup(&mut self, started: &spec::Id) -> bool {
        let same = |(_, timer): &mut (_, Timer)| matches!(timer, Timer::RemoveCgroup { id, .. } if id == started);
        let old: Vec<_> = self.timers.extract_if(.., same).collect();
        old.into_iter().all(|(at, timer)| {
            let gone = match &timer {
                Timer::RemoveCgroup { cgroup, .. } => cgroup.remove(),
                _ => Ok(true),
            };
            // An error is told when the timer fires, or by the new cgroup.
            let gone = gone.unwrap_or(false);
            if !gone {
                self.timers.push((at, timer));
            }
            gone
        })
    }
}

/// Why a new process gave up, if it has said so: the cause of what failed on our side.
fn told(pending: &init::Pending) -> Option<Failure> {
    while let Ok(Some((ReportOrEnd::Report(report), _))) = pending.report() {
        if let Report::Failed(failure) = report {
            return Some(failure);
        }
    }
    None
}

/// Connects a new network namespace; returns its resolver's sockets if it is to have one.
pub(super) fn connect(
    spec: &ContainerSpec,
    netns: BorrowedFd<'_>,
) -> Result<Option<Sockets>, Failure> {
    for interface in &spec.network.interfaces {
        crate::interfaces::plug(interface, netns)?;
    }
    spec.network.resolver.then(|| resolver::open(netns)).transpose()
}

fn starting(
    saved: Saved,
    streams: Streams,
    cgroup: Rc<Cgroup>,
    mut pending: Pending,
    asked: &Asked,
) -> Run {
    let pidfd = pending.pidfd.take();
    let Asked { client, sequence, .. } = *asked;
    let phase = Starting { client, sequence, pending, failure: None, size: None };
    Run { pidfd, ..Run::new(saved, streams, cgroup, Phase::Starting(Box::new(phase))) }
}

pub(super) fn started(run: &Run, pidfd: &OwnedFd) -> Result<(Reply, Vec<OwnedFd>), Failure> {
    let pidfd = pidfd.try_clone().map_err(failed(|| "duplicate a pidfd".to_owned()))?;
    let mut descriptors = vec![pidfd];
    if let Some(resolver) = &run.resolver {
        let copies = resolver.try_clone();
        let copies = copies.map_err(failed(|| "duplicate the resolver's sockets".to_owned()))?;
        descriptors.extend(copies.into_descriptors());
    }
    let Saved { pid, started_at_nanos, .. } = run.saved;
    Ok((Reply::Started { pid, started_at_nanos }, descriptors))
}

pub(super) fn resize(master: impl AsFd, columns: u16, rows: u16) -> Result<(), Failure> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size)
        .map_err(|errno| failed(|| "resize the terminal".to_owned())(errno.into()))
}

pub(super) fn remove_directory(directory: &std::path::Path) {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            super::note(format_args!("remove {}: {error}", directory.display()));
        }
        _ => {}
    }
}
