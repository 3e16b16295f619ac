//! The end of a run: what is told to whom, and whether the container is started again or removed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use network::Endpoint;
use runtime::protocol::Running;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::time::Instant;

use super::options::RemoveOptions;
use super::record::{Phase, now_nanos};
use super::task::Task;
use crate::errors::Error;
use crate::watched::watch;

/// Docker's exit code for a process whose end nobody saw.
pub(super) const UNKNOWN: i64 = 255;

impl Task {
    /// Takes note of the end of the present run.
    pub(super) async fn exited(&mut self, code: i64, oom_killed: bool, at_nanos: i64) {
        self.forget_process();
        self.resolver = None;
        let progress = &mut self.state.progress;
        // Never started, as far as we know: the record of the start was lost.
        let started = if progress.started_nanos == 0 { at_nanos } else { progress.started_nanos };
        let ran_for = Duration::from_nanos((at_nanos - started).max(0) as u64);
        progress.exit_code = code;
        progress.oom_killed |= oom_killed;
        progress.finished_nanos = at_nanos;
        progress.pid = 0;
        progress.paused = false;
        let again = self.next_start(code, ran_for);
        self.state.progress.phase = if again.is_some() { Phase::Restarting } else { Phase::Exited };
        let mut endpoints = std::mem::take(&mut self.state.progress.endpoints);
        for endpoint in &endpoints {
            self.emit_network("disconnect", endpoint);
        }
        // Whoever waits for this end may want these ports next, or remove the network.
        let asked = |endpoint: &mut Endpoint| {
            !endpoint.published.is_empty() || endpoint.network_name != "bridge"
        };
        self.detach_networks(endpoints.extract_if(.., asked));
        let extra =
            [("exitCode", code.to_string()), ("execDuration", ran_for.as_secs().to_string())];
        self.show();
        self.shared.follow_links(&self.container.id);
        self.state.emit(&self.shared.events, "die", extra);
        self.shared.execs.container_exited(&self.container.id);
        self.unmount_plugins().await;
        self.container.tell_waiters(|lifecycle| {
            lifecycle.running = again.is_some();
            lifecycle.exits += 1;
            lifecycle.exit_code = code;
            lifecycle.error.clear();
        });
        // Whoever waited goes on; what follows is nobody's hot path.
        self.detach_networks(endpoints);
        self.detach_volumes();
        self.restart_at = again.map(|wait| Instant::now() + wait);
        if again.is_none() {
            self.remove_if_asked().await;
        }
    }

    fn next_start(&mut self, code: i64, ran_for: Duration) -> Option<Duration> {
        if self.is_retired() {
            return None;
        }
        let policy = &self.state.definition.host_config.restart_policy;
        self.backoff.after_exit(policy, code, self.stay_down, ran_for)
    }

    /// A restart by the policy failed to start the program: it counts as one more exit.
    pub(super) async fn failed_restart(&mut self, error: &Error) {
        let again = self.next_start(self.state.progress.exit_code.max(1), Duration::ZERO);
        if again.is_none() {
            self.state.progress.phase = Phase::Exited;
        }
        self.show();
        let (code, text) = (self.state.progress.exit_code, error.to_string());
        self.container.tell_waiters(|lifecycle| {
            lifecycle.running = again.is_some();
            lifecycle.exits += 1;
            lifecycle.exit_code = code;
            lifecycle.error = text;
        });
        self.restart_at = again.map(|wait| Instant::now() + wait);
        if again.is_none() {
            self.remove_if_asked().await;
        }
    }

    /// `--rm`, unless this exit is the first half of `docker restart`.
    pub(super) async fn remove_if_asked(&mut self) {
        if std::mem::take(&mut self.restarting_by_hand)
            || !self.state.definition.host_config.auto_remove
        {
            return;
        }
        let options = RemoveOptions { volumes: true, ..RemoveOptions::default() };
        if let Err(error) = Box::pin(self.remove(options)).await {
            tracing::error!(container = %self.container.id, %error, "remove after exit");
        }
    }

    /// The process descriptor says that the process is gone, while no supervisor does.
    pub(super) async fn found_dead(&mut self, code: Option<i64>) {
        let seen = code.is_some();
        tracing::warn!(container = %self.container.id, seen, "ended while nobody watched over it");
        Box::pin(self.exited(code.unwrap_or(UNKNOWN), false, now_nanos())).await;
    }

    /// Compares what we believe with what a new supervisor (or an old one, after a gap) runs.
    pub(super) async fn compare(&mut self, present: Option<Running>) {
        match present {
            Some(running) if running.generation >= self.state.progress.generation => {
                self.adopt(&running);
                self.keep_ports_again().await;
                self.serve_names_again().await;
            }
            _ if !self.state.progress.is_alive() => {}
            // Not the supervisor's, yet alive: it dies with its descriptor telling.
            _ if self.watch_process().is_ok() => {
                self.orphaned = true;
                tracing::warn!(container = %self.container.id, "watched by its descriptor only");
            }
            _ => self.found_dead(None).await,
        }
    }

    fn adopt(&mut self, running: &Running) {
        let progress = &mut self.state.progress;
        progress.generation = running.generation;
        progress.phase = Phase::Running;
        progress.pid = running.pid;
        progress.started_nanos = running.started_at_nanos;
        progress.paused = running.paused;
        if let Some(endpoints) = super::start::noted_endpoints(running) {
            progress.endpoints = endpoints;
            self.state.definition.name_endpoints(&mut progress.endpoints);
        }
        self.orphaned = false;
        if let Err(error) = self.watch_process() {
            tracing::debug!(container = %self.container.id, %error, "open the process");
        }
        self.publish();
        self.start_health_checks();
    }

    /// Opens a descriptor of the first process, if it is still that one.
    fn watch_process(&mut self) -> std::io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let pid =
            i32::try_from(self.state.progress.pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or(std::io::ErrorKind::NotFound)?;
        let flags = rustix::process::PidfdFlags::empty();
        let process = rustix::process::pidfd_open(pid, flags)?;
        // Opened first, looked at second: the pid cannot be another's by now.
        if !is_same_process(self.state.progress.pid, self.state.progress.started_nanos) {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        self.keep_process(process);
        Ok(())
    }

    pub(super) fn keep_process(&mut self, process: OwnedFd) {
        crate::reaper::reserve(self.state.progress.pid);
        match watch(process, Interest::READABLE) {
            Ok(process) => self.process = Some(process),
            Err(error) => tracing::warn!(container = %self.container.id, %error, "watch a process"),
        }
    }

    fn forget_process(&mut self) {
        if self.process.take().is_some() {
            crate::reaper::release(self.state.progress.pid);
        }
        self.orphaned = false;
        self.stop_health_checks();
    }
}

/// The exit code of a process that is gone: by waiting for it when it became our child, else from
/// the kernel's memory of it (6.15 and later).
pub(super) fn reap(process: impl AsFd) -> Option<i64> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Ok(Some(status)) = waitid(WaitId::PidFd(process.as_fd()), options) {
        let code = status.exit_status().map(i64::from);
        return code.or_else(|| status.terminating_signal().map(|signal| 128 + i64::from(signal)));
    }
    let status = sys::pidfd::exit_status(&process).ok()??;
    Some(i64::from(sys::pidfd::code_of_status(status)))
}

/// Whether the process of this number began about when ours did. Clock ticks since boot are
/// compared with the wall clock, so a set clock may deceive it by as much as it was set.
fn is_same_process(pid: u32, started_nanos: i64) -> bool {
    let Some(ticks) = start_ticks(pid) else { return false };
    let Ok(stat) = std::fs::read_to_string("/proc/stat") else { return false };
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<i64>().ok());
    let per_second = rustix::param::clock_ticks_per_second() as i64;
    let Some(boot) = boot else { return false };
    let began = boot + ticks / per_second;
    (began - started_nanos / 1_000_000_000).abs() <= 5
}

/// Field 22 of `/proc/<pid>/stat`.
fn start_ticks(pid: u32) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let after = &stat[stat.rfind(')')? + 1..];
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = std::process::id();
        assert!(is_same_process(own, now_nanos()));
        assert!(!is_same_process(own, now_nanos() - 3_600_000_000_000));
        assert!(!is_same_process(0, now_nanos()));
    }
}
