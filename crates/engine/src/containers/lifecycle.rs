//! Signals and what is made of them: kill, stop, restart; pause and unpause; rename and update.

use std::time::Duration;

use api_types::container::{UpdateRequest, UpdateResponse};
use runtime::protocol::Request;
use spec::ContainerName;

use super::options::StopOptions;
use super::record::{DEFINITIONS, Definition, Phase, Progress, STATES};
use super::snapshot::{Container, Snapshot};
use super::task::{ContainerCommand, Intent, Task};
use super::{Containers, resources, validate};
use crate::errors::{ContainerError, Error, Result, SignalError};
use crate::signal;

/// How long the kernel may take to end a process that was sent SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Containers {
    pub async fn start(&self, reference: &str) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        container.ask(|reply| ContainerCommand::Start { reply }).await
    }

    /// Sends a signal; SIGKILL when none is named.
    pub async fn kill(&self, reference: &str, name: Option<String>) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        let failed = |reason| ContainerError::Kill { reference: reference.to_owned(), reason };
        let number = match name.filter(|name| !name.is_empty()) {
            None => signal::KILL,
            Some(name) => known_signal(&name).map_err(failed)?,
        };
        if !container.snapshot().progress.is_running() {
            let id = container.id.clone();
            return Err(failed(SignalError::NotRunning { id }).into());
        }
        // As with dockerd, what was killed has ended when the answer comes.
        if number == signal::KILL {
            return kill_and_wait(&container, Intent::Kill).await;
        }
        send(&container, number, Intent::Kill).await
    }

    /// Returns as soon as the process is gone.
    pub async fn stop(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        if !container.snapshot().progress.is_running() {
            return Err(ContainerError::NotModified { id: container.id.clone() }.into());
        }
        self.stop_container(&container, reference, &options, Intent::Stop).await
    }

    /// Stops what runs, starts it in any case.
    pub async fn restart(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        let failed = |reason| {
            Error::from(ContainerError::Restart {
                reference: reference.to_owned(),
                reason: Box::new(reason),
            })
        };
        if container.snapshot().progress.is_running() {
            let stopped = self.stop_container(&container, reference, &options, Intent::Restart);
            stopped.await.map_err(failed)?;
        }
        match container.ask(|reply| ContainerCommand::Start { reply }).await {
            // Its policy was quicker.
            Ok(()) | Err(Error::Container(ContainerError::NotModified { .. })) => {}
            Err(error) => return Err(failed(error)),
        }
        container.snapshot().emit(&self.shared.events, "restart", []);
        Ok(())
    }

    /// The stop signal, then a wait, then SIGKILL to all.
    pub(super) async fn stop_container(
        &self,
        container: &Container,
        reference: &str,
        options: &StopOptions,
        intent: Intent,
    ) -> Result<()> {
        let snapshot = container.snapshot();
        let config = &snapshot.definition.config;
        let named = options.signal.as_deref().filter(|name| !name.is_empty());
        let number = match named {
            Some(name) => known_signal(name).map_err(|reason| ContainerError::Stop {
                reference: reference.to_owned(),
                reason,
            })?,
            None => stop_signal(&snapshot),
        };
        let seconds = options.timeout.or(config.stop_timeout);
        let seconds = seconds.unwrap_or_else(|| self.shared.config().default_stop_timeout);
        let mut lifecycle = container.lifecycle();
        send_or_gone(container, number, intent).await?;
        let ended = lifecycle.wait_for(|lifecycle| !lifecycle.running || lifecycle.removed);
        let ended = match u64::try_from(seconds) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            // Negative: for as long as it takes.
            Err(_negative) => ended.await.is_ok(),
        };
        if !ended {
            kill_and_wait(container, intent).await?;
        }
        container.snapshot().emit(&self.shared.events, "stop", []);
        Ok(())
    }

    pub async fn pause(&self, reference: &str) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        container.ask(|reply| ContainerCommand::Pause { reply }).await
    }

    pub async fn unpause(&self, reference: &str) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        container.ask(|reply| ContainerCommand::Resume { reply }).await
    }

    pub async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        let name = name.to_owned();
        let container = self.shared.registry.find(reference)?;
        if name.is_empty() {
            return Err(ContainerError::EmptyName.into());
        }
        container.ask(|reply| ContainerCommand::Rename { name, reply }).await
    }

    pub async fn update(&self, reference: &str, request: UpdateRequest) -> Result<UpdateResponse> {
        let container = self.shared.registry.find(reference)?;
        let mut warnings = Vec::new();
        validate::resources::check(&request.resources, &self.shared.sysinfo, &mut warnings)
            .or_else(forgive_swap)?;
        validate::restart_policy(&request.restart_policy)?;
        let request = Box::new(request);
        warnings.extend(container.ask(|reply| ContainerCommand::Update { request, reply }).await?);
        Ok(UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }

    pub async fn resize(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        let snapshot = container.snapshot();
        snapshot.check_alive()?;
        let resize = Request::Resize { id: container.id.clone(), columns: width, rows: height };
        self.shared.supervisor().order(resize).await?;
        let size = [("height", height.to_string()), ("width", width.to_string())];
        snapshot.emit(&self.shared.events, "resize", size);
        Ok(())
    }
}

/// An update may name the swap alone: the memory limit is already there.
fn forgive_swap(error: crate::errors::ValidationError) -> Result<()> {
    match error {
        crate::errors::ValidationError::SwapWithoutMemory => Ok(()),
        error => Err(error.into()),
    }
}

fn known_signal(name: &str) -> Result<i32, SignalError> {
    let invalid = || SignalError::Invalid { signal: name.to_owned() };
    let number = signal::parse(name).ok_or_else(invalid)?;
    if signal::exists(number) { Ok(number) } else { Err(SignalError::Unsupported { number }) }
}

/// What `docker stop` sends: the image's or user's choice, else SIGTERM.
fn stop_signal(snapshot: &Snapshot) -> i32 {
    let number = signal::parse(&snapshot.definition.config.stop_signal);
    number.filter(|number| signal::exists(*number)).unwrap_or(signal::TERM)
}

async fn send(container: &Container, signal: i32, intent: Intent) -> Result<()> {
    container.ask(|reply| ContainerCommand::Signal { signal, intent, reply }).await
}

/// A process that ended by itself a moment ago is as good as stopped.
async fn send_or_gone(container: &Container, signal: i32, intent: Intent) -> Result<()> {
    match send(container, signal, intent).await {
        Err(Error::Container(ContainerError::NotRunning { .. } | ContainerError::NotFound(_))) => {
            Ok(())
        }
        sent => sent,
    }
}

/// SIGKILL, and a wait for the end.
pub(super) async fn kill_and_wait(container: &Container, intent: Intent) -> Result<()> {
    let mut lifecycle = container.lifecycle();
    send_or_gone(container, signal::KILL, intent).await?;
    let ended = lifecycle.wait_for(|lifecycle| !lifecycle.running || lifecycle.removed);
    match tokio::time::timeout(KILL_PATIENCE, ended).await {
        Ok(_ended) => Ok(()),
        Err(_elapsed) => Err(ContainerError::Unkillable { id: container.id.clone() }.into()),
    }
}

impl Task {
    pub(super) async fn signal(&mut self, number: i32, intent: Intent) -> Result<()> {
        if !self.state.progress.is_running() {
            return Err(ContainerError::NotRunning { id: self.container.id.clone() }.into());
        }
        let ends = intent != Intent::Kill || self.asks_to_end(number);
        if ends {
            self.stay_down = true;
            self.restarting_by_hand = intent == Intent::Restart;
        }
        if ends && matches!(intent, Intent::Kill | Intent::Stop) {
            self.remember_stop().await?;
        }
        if self.state.progress.phase == Phase::Restarting {
            self.give_up_restart(ends).await;
            return Ok(());
        }
        self.deliver(number).await?;
        self.state.emit(&self.shared.events, "kill", [("signal", number.to_string())]);
        if ends && self.state.progress.paused {
            self.thaw_to_end().await?;
        }
        Ok(())
    }

    /// A frozen process takes no signal but SIGKILL, and version 1 cgroups not even that. On
    /// version 2 it may have ended by now.
    async fn thaw_to_end(&mut self) -> Result<()> {
        let id = self.container.id.clone();
        match self.order(Request::Resume { id }).await {
            Ok(()) | Err(Error::Container(ContainerError::NotRunning { .. })) => {}
            Err(error) => return Err(error),
        }
        self.state.progress.paused = false;
        self.publish();
        Ok(())
    }

    /// Signals by which one asks a program to end.
    fn asks_to_end(&self, number: i32) -> bool {
        matches!(number, 2 | 3 | signal::KILL | signal::TERM) || number == stop_signal(&self.state)
    }

    async fn deliver(&self, number: i32) -> Result<()> {
        use crate::supervisor::SupervisorError as S;
        use runtime::protocol::Failure;
        let id = self.container.id.clone();
        let request = if number == signal::KILL {
            Request::KillAll { id }
        } else {
            Request::Signal { id, signal: number }
        };
        let failure = match self.shared.supervisor().order(request).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match (&self.process, &failure) {
            // The supervisor does not have it, or there is none: the process has a descriptor.
            (Some(process), S::Failed(Failure::NotFound) | S::Unreachable { .. } | S::Lost) => {
                match sys::pidfd::send_signal(process.get_ref(), number) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                    Err(_) => Err(failure.into()),
                }
            }
            (_, S::Failed(Failure::NotRunning | Failure::NotFound)) => {
                Err(ContainerError::NotRunning { id: self.container.id.clone() }.into())
            }
            _ => Err(failure.into()),
        }
    }

    /// Waiting for its next start, it has no process: the wait is over.
    async fn give_up_restart(&mut self, ends: bool) {
        if !ends {
            return;
        }
        self.restart_at = None;
        self.state.progress.phase = Phase::Exited;
        self.publish();
        self.remove_if_asked().await;
    }

    /// Writes down a user's stop where it decides what happens at boot.
    async fn remember_stop(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.state.progress.manually_stopped, true) {
            return Ok(());
        }
        self.publish();
        if self.state.definition.host_config.restart_policy.name == "unless-stopped" {
            self.shared.write_state(&self.container.id, &self.state.progress).await?;
        }
        Ok(())
    }

    pub(super) async fn pause(&mut self) -> Result<()> {
        self.state.check_alive()?;
        let id = self.container.id.clone();
        if self.state.progress.paused {
            return Err(ContainerError::AlreadyPaused { id }.into());
        }
        self.order(Request::Pause { id }).await?;
        self.state.progress.paused = true;
        self.publish();
        self.stop_health_checks();
        self.state.emit(&self.shared.events, "pause", []);
        Ok(())
    }

    pub(super) async fn resume(&mut self) -> Result<()> {
        let id = self.container.id.clone();
        if !self.state.progress.paused {
            return Err(ContainerError::NotPaused { id }.into());
        }
        self.order(Request::Resume { id }).await?;
        self.state.progress.paused = false;
        self.publish();
        self.start_health_checks();
        self.state.emit(&self.shared.events, "unpause", []);
        Ok(())
    }

    pub(super) async fn rename(&mut self, name: &str) -> Result<()> {
        let wrap = |error| match error {
            Error::Container(error) => ContainerError::Rename(Box::new(error)).into(),
            error => error,
        };
        let old = self.state.definition.name.clone();
        if name.strip_prefix('/').unwrap_or(name) == old.as_str() {
            return Err(ContainerError::SameName.into());
        }
        let parsed = ContainerName::parse(name).map_err(|_bad| {
            let name = format!("/{}", name.strip_prefix('/').unwrap_or(name));
            wrap(ContainerError::InvalidName { name }.into())
        })?;
        let shared = std::sync::Arc::clone(&self.shared);
        let reservation = shared.registry.reserve(parsed.clone(), &self.container.id);
        let reservation = reservation.map_err(wrap)?;
        let mut definition = Definition::clone(&self.state.definition);
        definition.name = parsed;
        self.redefine(definition).await?;
        reservation.keep();
        shared.registry.release_name(&old);
        let definition = std::sync::Arc::clone(&self.state.definition);
        definition.name_endpoints(&mut self.state.progress.endpoints);
        self.state.progress.endpoints.iter().for_each(|endpoint| shared.networks.name(endpoint));
        let was = [("oldName", format!("/{old}"))];
        self.state.emit(&shared.events, "rename", was);
        Ok(())
    }

    /// Writes a changed definition and shows it.
    pub(super) async fn redefine(&mut self, definition: Definition) -> Result<()> {
        let record = definition.clone();
        self.shared.write(move |txn| DEFINITIONS.put(txn, record.id.as_str(), &record)).await?;
        self.state.definition = std::sync::Arc::new(definition);
        self.publish();
        Ok(())
    }

    /// Sets new limits, on the running processes first: what the kernel refuses is not written.
    pub(super) async fn update(&mut self, request: UpdateRequest) -> Result<Vec<String>> {
        let id = || self.container.id.clone();
        let mut definition = Definition::clone(&self.state.definition);
        let host_config = &mut definition.host_config;
        resources::apply(&mut host_config.resources, &request.resources)
            .map_err(|reason| ContainerError::Update { id: id(), reason })?;
        let policy = request.restart_policy;
        if !policy.name.is_empty() {
            if host_config.auto_remove && validate::is_restarting(&policy) {
                return Err(ContainerError::UpdateAutoRemove { id: id() }.into());
            }
            host_config.restart_policy = policy;
        }
        if self.state.progress.is_alive() {
            let resources = resources::to_runtime(&host_config.resources)?;
            self.order(Request::Update { id: id(), resources: Box::new(resources) }).await?;
        }
        self.redefine(definition).await?;
        self.state.emit(&self.shared.events, "update", []);
        Ok(Vec::new())
    }
}

impl super::Shared {
    /// Writes a state at once, durably.
    pub(super) async fn write_state(&self, id: &spec::Id, progress: &Progress) -> Result<()> {
        let (id, progress) = (id.clone(), progress.clone());
        self.write(move |txn| STATES.put(txn, id.as_str(), &progress)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_or_refused_in_dockers_words() {
        assert_eq!(known_signal("HUP"), Ok(1));
        assert_eq!(known_signal("foo").unwrap_err().to_string(), "invalid signal: foo");
        assert_eq!(known_signal("0").unwrap_err().to_string(), "invalid signal: 0");
        assert_eq!(
            known_signal("99").unwrap_err().to_string(),
            "the linux daemon does not support signal 99"
        );
    }
}
