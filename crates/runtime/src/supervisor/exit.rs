//! The end of a process: its exit code, its last output, the record, and what it leaves behind.
//!
//! The exits of one round are recorded with one append and one `fdatasync`, however many they
//! are. A round with exits of execs only is not synced: a machine that crashes takes the exec's
//! container and whoever waited for the exec along.

use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, waitid, waitpid};
use spec::Id;

use super::poll::{Part, Source};
use super::start::remove_directory;
use super::streams::Streams;
use super::{Phase, Run, Supervisor, Timer, Unrecorded, oci};
use crate::cgroup::Cgroup;
use crate::protocol::{Event, Exit};

/// How long output of a process that outlived the first one is waited for, as dockerd does.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
const BUSY_CGROUP: Duration = Duration::from_millis(10);
/// About a minute, as the pauses grow.
const REMOVE_ATTEMPTS: u32 = 100;
const ASK_EXIT: Duration = Duration::from_millis(5);
const ASK_ATTEMPTS: u32 = 200;
/// The kernel kills within this after telling of out-of-memory.
const RECOUNT_OOM: Duration = Duration::from_millis(50);

impl Supervisor {
    /// A process's pidfd says that it has ended.
    pub(super) fn on_process(&mut self, key: u32) {
        // What it reported before it ended comes first.
        self.on_reports(key);
        let Some(Run { pidfd: Some(pidfd), is_child, phase, .. }) = self.runs.get(&key) else {
            return;
        };
        match phase {
            Phase::Ended => return,
            // Its exit is looked at when the program that started it has come to its end.
            Phase::Oci(_) => return self.poller.forget(pidfd),
            // A short program can be over before the helper that made it has closed the reports;
            // their end says whether it was executed, and looks here again.
            Phase::Starting(starting) if starting.failure.is_none() => {
                return self.poller.forget(pidfd);
            }
            Phase::Starting(_) | Phase::Running => {}
        }
        if !is_child {
            return self.ask_exit(key, 0);
        }
        self.reap(key);
    }

    /// Fetches the exit of a child of ours, if it has ended.
    pub(super) fn reap(&mut self, key: u32) {
        let Some(Run { pidfd: Some(pidfd), .. }) = self.runs.get(&key) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(pidfd)), options) {
            Ok(Some(status)) => self.reaped(key, code(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => {
                super::note(format_args!("wait for a process: {errno}"));
                self.reaped(key, None);
            }
        }
    }

    fn reaped(&mut self, key: u32, code: Option<u8>) {
        match self.runs.get(&key).map(|run| &run.phase) {
            Some(Phase::Starting(_)) => self.fail_start(key),
            Some(Phase::Running) => self.end(key, code),
            Some(Phase::Oci(_) | Phase::Ended) | None => {}
        }
    }

    /// The exit code of a process that another parent reaps. It can be asked for as soon as that
    /// has happened; a parent that never does leaves the code unknown.
    pub(super) fn ask_exit(&mut self, key: u32, attempts: u32) {
        let Some(Run { pidfd: Some(pidfd), phase: Phase::Running, .. }) = self.runs.get(&key)
        else {
            return;
        };
        // Its zombie stays readable: from here on a timer asks.
        self.poller.forget(pidfd);
        match sys::pidfd::exit_status(pidfd) {
            Ok(Some(status)) => self.end(key, Some(sys::pidfd::code_of_status(status))),
            Ok(None) if attempts < ASK_ATTEMPTS => {
                self.later(ASK_EXIT, Timer::AskExit { key, attempts: attempts + 1 });
            }
            // Before Linux 6.15 the kernel does not tell.
            Ok(None) | Err(_) => self.end(key, None),
        }
    }

    /// Reaps children that are in no book: orphans of containers in the host's pid namespace, and
    /// helpers, and what a helper made and did not live to report. A pid namespace does not end
    /// before they are reaped. Not while a start is under way: the pid may be that of a process
    /// whose pid or whose exec is still to be reported.
    pub(super) fn reap_strays(&mut self) {
        if !self.strays || self.runs.values().any(Run::is_starting) {
            return;
        }
        self.strays = false;
        while let Ok(Some((pid, status))) = waitpid(None, WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get() as u32;
            // The pid of one that has ended may be in use again.
            let lives = |run: &Run| run.is_child && !matches!(run.phase, Phase::Ended);
            let found = self.runs.iter().find(|(_, run)| lives(run) && run.saved.pid == pid);
            if let Some(key) = found.map(|(key, _)| *key) {
                self.on_reports(key);
                self.reaped(key, Some(sys::pidfd::code_of_status(status.as_raw())));
            }
        }
    }

    /// Books a process as ended. `None` when nobody saw its exit code.
    pub(super) fn end(&mut self, key: u32, code: Option<u8>) {
        self.count_oom(key);
        let Some(run) = self.runs.get_mut(&key) else { return };
        run.phase = Phase::Ended;
        // Before anybody hears of the end: its ports are free again.
        run.kept = None;
        run.resolver = None;
        self.by_id.remove(&run.saved.id);
        let is_container = run.saved.container.is_none();
        if is_container
            && !run.saved.private_pids
            && let Err(failure) = run.cgroup.kill_all()
        {
            super::note(format_args!("kill what is left of {}: {failure}", run.saved.id));
        }
        let exit = Exit {
            id: run.saved.id.clone(),
            container: run.saved.container.clone(),
            generation: run.saved.generation,
            code,
            oom_killed: is_container && run.oom_kills_told > run.saved.oom_kills,
            at_nanos: super::now_nanos(),
            log_offset: 0,
        };
        let runtime = run.saved.oci_runtime.as_ref().filter(|_| is_container);
        let oci = runtime.map(|runtime| oci::Call::new(&self.config, runtime, &run.saved));
        self.unrecorded.push(Unrecorded {
            exit,
            directory: run.saved.directory(&self.config.exec_root),
            cgroup: is_container.then(|| Rc::clone(&run.cgroup)),
            oci,
        });
        for fd in [run.pidfd.take(), run.oom_watch.take()].into_iter().flatten() {
            self.poller.forget(fd);
        }
        self.with_streams(key, Streams::drain);
        self.linger(key);
    }

    /// Keeps an ended process in the books until its output is at its end and its clients have
    /// read it.
    pub(super) fn linger(&mut self, key: u32) {
        self.ended.push(key);
        match self.runs.get(&key).map(|run| run.streams.has_output()) {
            Some(true) => self.later(LAST_OUTPUT, Timer::EndStreams { key }),
            // The log has to be whole before the exit is told.
            Some(false) => drop(self.with_streams(key, Streams::finish)),
            None => {}
        }
    }

    /// Records the exits of this round, tells them, and removes what is left of the processes.
    pub(super) fn record_exits(&mut self) {
        if self.unrecorded.is_empty() {
            return;
        }
        let unrecorded = std::mem::take(&mut self.unrecorded);
        let mut exits: Vec<Exit> = unrecorded.iter().map(|entry| entry.exit.clone()).collect();
        let durable = exits.iter().any(|exit| exit.container.is_none());
        // A full disk: the daemon hears of it nevertheless and keeps its own record.
        if let Err(error) = self.exit_log.append(&mut exits, durable) {
            super::note(format_args!("record exits: {error}"));
        }
        for exit in exits {
            self.clients.tell(Event::Exited(exit), &mut self.poller);
        }
        for entry in unrecorded {
            if let Some(call) = entry.oci {
                call.delete(&entry.exit.id);
            }
            remove_directory(&entry.directory);
            // Later: others wait for answers, and the last processes are still leaving.
            if let (id, Some(cgroup)) = (entry.exit.id, entry.cgroup) {
                self.later(BUSY_CGROUP, Timer::RemoveCgroup { id, cgroup, attempts: 0 });
            }
        }
    }

    /// Removes a cgroup now or, while processes are leaving it, later.
    pub(super) fn remove_cgroup(&mut self, id: Id, cgroup: Rc<Cgroup>, attempts: u32) {
        match cgroup.remove() {
            Ok(true) => {}
            Ok(false) if attempts < REMOVE_ATTEMPTS => {
                let attempts = attempts + 1;
                self.later(BUSY_CGROUP * attempts, Timer::RemoveCgroup { id, cgroup, attempts });
            }
            Ok(false) => super::note(format_args!("cgroup of {id} stays busy, left behind")),
            Err(failure) => super::note(format_args!("remove cgroup of {id}: {failure}")),
        }
    }

    /// The kernel says that memory is short.
    pub(super) fn on_oom(&mut self, key: u32) {
        let Some(Run { oom_watch: Some(watch), saved, .. }) = self.runs.get(&key) else { return };
        if let Err(failure) = crate::cgroup::drain_oom_watch(watch) {
            super::note(format_args!("{}: {failure}", saved.id));
            self.poller.watch(watch, Source::Run(key, Part::Oom), EventFlags::empty());
        }
        self.count_oom(key);
        self.later(RECOUNT_OOM, Timer::RecountOom { key });
    }

    /// Tells of kills that were not told yet.
    pub(super) fn count_oom(&mut self, key: u32) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        if run.saved.container.is_some() || matches!(run.phase, Phase::Ended) {
            return;
        }
        let kills = run.cgroup.oom_kills();
        if kills > run.oom_kills_told {
            run.oom_kills_told = kills;
            let event = Event::Oom { id: run.saved.id.clone() };
            self.clients.tell(event, &mut self.poller);
        }
    }
}

fn code(status: &WaitIdStatus) -> Option<u8> {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    signal.or_else(|| status.exit_status()).map(|code| code as u8)
}
