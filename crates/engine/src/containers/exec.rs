//! Commands run in running containers: `docker exec`, and the probes of health checks.
//!
//! An exec is a record in memory; what runs is the supervisor's. A finished one can be asked for
//! its exit code for five minutes and as long as its container lives.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_types::{IdResponse, exec};
use runtime::protocol::{self, Exit, Failure, Reply, Request, Running};
use runtime::spec::{ExecSpec, Process, Seccomp};
use spec::Id;
use tokio::sync::watch;

use super::attach::socket_pair;
use super::detach::{DetachKeys, Notice};
use super::links;
use super::options::{Detached, ExecHandle};
use super::snapshot::{Container, Snapshot};
use super::validate::security::{self, SecurityOptions};
use super::{Containers, Shared, merge, plan};
use crate::errors::{ContainerError, Error, ExecError, Result};
use crate::supervisor::SupervisorError;

/// How long the exit code of a finished exec is kept, and of how many.
const KEEP: Duration = Duration::from_secs(300);
const KEEP_MOST: usize = 512;
/// How long inspect waits for an exec that is ending.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<HashMap<Id, Arc<Exec>>>);

#[derive(Debug)]
pub(crate) struct Exec {
    id: Id,
    container: Arc<Container>,
    request: exec::CreateRequest,
    keys: DetachKeys,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Starting,
    Running { pid: u32 },
    Done { pid: u32, code: i64, at: Instant },
}

impl Execs {
    fn table(&self) -> MutexGuard<'_, HashMap<Id, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Exec>> {
        let found = self.table().get(id).cloned();
        found.ok_or_else(|| ExecError::NotFound { id: id.to_owned() }.into())
    }

    fn insert(&self, exec: Arc<Exec>) {
        let mut table = self.table();
        table.retain(|_, exec| exec.ended().is_none_or(|at| at.elapsed() < KEEP));
        if table.len() >= KEEP_MOST {
            drop_oldest(&mut table);
        }
        table.insert(exec.id.clone(), exec);
    }

    /// What inspect lists: those that have not ended.
    pub(super) fn of_container(&self, container: &Id) -> Option<Vec<String>> {
        let table = self.table();
        let open = table.values().filter(|exec| {
            exec.container.id == *container && !matches!(*exec.state.borrow(), State::Done { .. })
        });
        let ids: Vec<_> = open.map(|exec| exec.id.to_string()).collect();
        (!ids.is_empty()).then_some(ids)
    }

    pub(super) fn forget_container(&self, container: &Id) {
        self.table().retain(|_, exec| exec.container.id != *container);
    }

    /// The container's first process is gone and took all others along.
    pub(super) fn container_exited(&self, container: &Id) {
        for exec in self.table().values().filter(|exec| exec.container.id == *container) {
            exec.state.send_if_modified(|state| match *state {
                State::Created => {
                    *state = State::Done { pid: 0, code: 0, at: Instant::now() };
                    true
                }
                _ => false,
            });
        }
    }

    pub(super) fn exited(&self, shared: &Shared, exit: &Exit) {
        let Some(exec) = self.table().get(&exit.id).cloned() else { return };
        let code = exit.code.map_or(super::exit::UNKNOWN, i64::from);
        if exec.finish(code) {
            let extra = [("execID", exec.id.to_string()), ("exitCode", code.to_string())];
            exec.container.snapshot().emit(&shared.events, "exec_die", extra);
        }
    }

    /// After a gap in the supervisor's life: what it does not know has ended unseen.
    pub(super) fn compare(&self, running: &[Running]) {
        for exec in self.table().values() {
            let lost = matches!(*exec.state.borrow(), State::Running { .. })
                && !running.iter().any(|running| running.id == exec.id);
            if lost {
                exec.finish(super::exit::UNKNOWN);
            }
        }
    }
}

/// Drops the older half of those that have ended.
fn drop_oldest(table: &mut HashMap<Id, Arc<Exec>>) {
    let mut ends: Vec<Instant> = table.values().filter_map(|exec| exec.ended()).collect();
    ends.sort();
    let Some(limit) = ends.get(ends.len() / 2).copied() else { return };
    table.retain(|_, exec| exec.ended().is_none_or(|at| at > limit));
}

impl Exec {
    fn ended(&self) -> Option<Instant> {
        match *self.state.borrow() {
            State::Done { at, .. } => Some(at),
            _ => None,
        }
    }

    fn finish(&self, code: i64) -> bool {
        self.state.send_if_modified(|state| {
            let pid = match *state {
                State::Running { pid } => pid,
                State::Created | State::Starting => 0,
                State::Done { .. } => return false,
            };
            *state = State::Done { pid, code, at: Instant::now() };
            true
        })
    }

    /// Clients ask for the exit code as soon as the output has ended, which is a moment before the
    /// process is reaped: they are answered when its end is known.
    async fn settle(&self) {
        let State::Running { pid } = *self.state.borrow() else { return };
        if is_ending(pid) && tokio::time::timeout(SETTLE, self.wait()).await.is_err() {
            tracing::debug!(exec = %self.id, pid, "an exec does not come to its end");
        }
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> i64 {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| matches!(state, State::Done { .. })).await.as_deref() {
            Ok(State::Done { code, .. }) => *code,
            _ => super::exit::UNKNOWN,
        }
    }

    pub(super) fn id(&self) -> &Id {
        &self.id
    }
}

impl Containers {
    pub async fn exec_create(
        &self,
        reference: &str,
        request: exec::CreateRequest,
    ) -> Result<IdResponse> {
        let container = self.shared.registry.find(reference)?;
        let exec = create(&self.shared, container, request)?;
        Ok(IdResponse { id: exec.id.to_string() })
    }

    /// Starts it; with a stream unless it was asked to run detached.
    pub async fn exec_start(&self, id: &str, request: exec::StartRequest) -> Result<ExecHandle> {
        let exec = self.shared.execs.find(id)?;
        let (ours, attach) = if request.detach {
            (None, None)
        } else {
            let (ours, theirs) = socket_pair()?;
            (Some(ours), Some(theirs))
        };
        start(&self.shared, &exec, attach, request.console_size).await?;
        let detached = Detached(Notice {
            events: Arc::clone(&self.shared.events),
            action: "exec_detach",
            container: Arc::clone(&exec.container),
            exec: Some(exec.id.clone()),
        });
        Ok(ExecHandle { tty: exec.request.tty, stream: ours, keys: exec.keys.clone(), detached })
    }

    pub async fn exec_inspect(&self, id: &str) -> Result<exec::Inspect> {
        let exec = self.shared.execs.find(id)?;
        exec.settle().await;
        let (running, exit_code, pid) = match *exec.state.borrow() {
            State::Created | State::Starting => (false, None, 0),
            State::Running { pid } => (true, None, pid),
            State::Done { pid, code, .. } => (false, Some(code), pid),
        };
        let request = &exec.request;
        let mut command = request.cmd.iter().flatten().cloned();
        Ok(exec::Inspect {
            id: exec.id.to_string(),
            running,
            exit_code,
            process_config: exec::ProcessConfig {
                tty: request.tty,
                entrypoint: command.next().unwrap_or_default(),
                arguments: command.collect(),
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: exec.container.id.to_string(),
            detach_keys: request.detach_keys.clone(),
            pid,
        })
    }

    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.shared.execs.find(id)?;
        if !matches!(*exec.state.borrow(), State::Running { .. }) {
            return Err(ExecError::NotStarted.into());
        }
        let resize = Request::Resize { id: exec.id.clone(), columns: width, rows: height };
        Ok(self.shared.supervisor().order(resize).await?)
    }
}

/// Whether a process is past its last instruction, or gone. The kernel sets `PF_EXITING` before it
/// closes the descriptors.
fn is_ending(pid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let after = stat.rfind(')').and_then(|at| stat.get(at + 1..)).unwrap_or_default();
    let mut fields = after.split_whitespace();
    let zombie = matches!(fields.next(), Some("Z" | "X"));
    let flags: u64 = fields.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or_default();
    zombie || flags & PF_EXITING != 0
}

/// Writes down what is to be run; nothing runs yet.
pub(super) fn create(
    shared: &Shared,
    container: Arc<Container>,
    request: exec::CreateRequest,
) -> Result<Arc<Exec>> {
    if request.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ExecError::NoCommand.into());
    }
    let snapshot = container.snapshot();
    check(&snapshot)?;
    let keys = Some(request.detach_keys.as_str()).filter(|keys| !keys.is_empty());
    let exec = Arc::new(Exec {
        id: Id::from_random(sys::random::bytes()),
        container,
        keys: DetachKeys::parse(keys)
            .map_err(|_other_words| ExecError::EscapeKeys { keys: request.detach_keys.clone() })?,
        request,
        state: watch::Sender::new(State::Created),
    });
    shared.execs.insert(Arc::clone(&exec));
    emit(shared, &snapshot, "exec_create", &exec);
    Ok(exec)
}

/// Runs it. `attach` is the supervisor's end of a stream.
pub(super) async fn start(
    shared: &Shared,
    exec: &Exec,
    attach: Option<OwnedFd>,
    console_size: Option<[u16; 2]>,
) -> Result<()> {
    let snapshot = exec.container.snapshot();
    check(&snapshot)?;
    let mut before = State::Starting;
    exec.state.send_if_modified(|state| {
        before = *state;
        let fresh = before == State::Created;
        if fresh {
            *state = State::Starting;
        }
        fresh
    });
    let id = exec.id.clone();
    match before {
        State::Created => {}
        State::Starting | State::Running { .. } => {
            return Err(ExecError::AlreadyRunning { id }.into());
        }
        State::Done { .. } => return Err(ExecError::AlreadyRun { id }.into()),
    }
    emit(shared, &snapshot, "exec_start", exec);
    let result = run(shared, exec, &snapshot, attach, console_size).await;
    if let Err(error) = &result {
        let code = match error {
            Error::Exec(ExecError::Failed { exit_code, .. }) => i64::from(*exit_code),
            _ => 128,
        };
        exec.finish(code);
    }
    result
}

async fn run(
    shared: &Shared,
    exec: &Exec,
    snapshot: &Snapshot,
    attach: Option<OwnedFd>,
    console_size: Option<[u16; 2]>,
) -> Result<()> {
    let request = &exec.request;
    let options = attach.as_ref().map(|_| protocol::AttachOptions {
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
    });
    let process = process(shared, request, snapshot, console_size, options.is_some())?;
    let spec = ExecSpec { exec_id: exec.id.clone(), container: exec.container.id.clone(), process };
    let order = Request::Exec { spec: Box::new(spec), attach: options };
    let answer = shared.supervisor().request(order, attach.into_iter().collect()).await;
    match answer {
        Ok((Reply::Started { pid, .. }, _)) => {
            exec.state.send_if_modified(|state| {
                // A short one may have ended already.
                let starting = *state == State::Starting;
                if starting {
                    *state = State::Running { pid };
                }
                starting
            });
            Ok(())
        }
        Ok(_) => Err(SupervisorError::Confused.into()),
        Err(SupervisorError::Failed(Failure::NotRunning | Failure::NotFound)) => {
            Err(ContainerError::NotRunning { id: exec.container.id.clone() }.into())
        }
        Err(SupervisorError::Failed(failure)) => Err(ExecError::from_failure(&failure).into()),
        Err(error) => Err(error.into()),
    }
}

fn check(snapshot: &Snapshot) -> Result<()> {
    snapshot.check_alive()?;
    if snapshot.progress.paused {
        return Err(ContainerError::ExecPaused { id: snapshot.id().clone() }.into());
    }
    Ok(())
}

/// `exec_start: sh -c ls`; a command without arguments ends in a space, in Docker too.
fn emit(shared: &Shared, snapshot: &Snapshot, action: &str, exec: &Exec) {
    let mut command = exec.request.cmd.iter().flatten();
    let program = command.next().map_or("", String::as_str);
    let arguments: Vec<_> = command.map(String::as_str).collect();
    let action = format!("{action}: {program} {}", arguments.join(" "));
    snapshot.emit(&shared.events, &action, [("execID", exec.id.to_string())]);
}

/// The container's own surroundings, with what the request changes.
fn process(
    shared: &Shared,
    request: &exec::CreateRequest,
    snapshot: &Snapshot,
    console_size: Option<[u16; 2]>,
    attached: bool,
) -> Result<Process> {
    let (config, host_config) = (&snapshot.definition.config, &snapshot.definition.host_config);
    let options = SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?;
    let daemon = shared.config();
    let linked = links::environment(&links::present(shared, &snapshot.definition));
    let mut env = merge::environment(config, &config.hostname, linked);
    env.retain(|variable| config.tty == request.tty || variable != "TERM=xterm");
    if request.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    merge::replace_variables(&mut env, request.env.as_deref().unwrap_or_default());
    let first = |texts: [&String; 2]| {
        let chosen = texts.into_iter().find(|text| !text.is_empty());
        chosen.cloned().unwrap_or_default()
    };
    let cwd = first([&request.working_dir, &config.working_dir]);
    if !cwd.is_empty() && !cwd.starts_with('/') {
        return Err(ExecError::RelativeCwd.into());
    }
    if env.iter().any(|variable| variable.starts_with('=')) {
        return Err(ExecError::UnnamedVariable.into());
    }
    let size = console_size.or(request.console_size);
    Ok(Process {
        args: request.cmd.clone().unwrap_or_default(),
        env,
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user: first([&request.user, &config.user]),
        additional_groups: host_config.group_add.clone().unwrap_or_default(),
        tty: request.tty,
        console_size: size.map(|[rows, columns]| (columns, rows)),
        open_stdin: request.attach_stdin && attached,
        stdin_once: true,
        capabilities: if request.privileged {
            security::full()
        } else {
            security::capabilities(host_config)?
        },
        no_new_privileges: options.no_new_privileges.unwrap_or(daemon.no_new_privileges),
        seccomp: if request.privileged {
            Seccomp::Unconfined
        } else {
            options.seccomp(host_config.privileged, &daemon.seccomp_profile)
        },
        rlimits: plan::rlimits(host_config, &daemon),
        oom_score_adj: i32::try_from(host_config.oom_score_adj).ok(),
        apparmor_profile: options
            .apparmor
            .clone()
            .filter(|name| !matches!(name.as_str(), "" | "unconfined")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_lives_is_not_ending() {
        assert!(!is_ending(std::process::id()));
        assert!(is_ending(u32::MAX));
    }
}
