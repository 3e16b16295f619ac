//! Removal: of one container by request or after its exit, and of all that are stopped (prune).
//!
//! One synced commit takes the records away; from then on the container does not exist. Its
//! directories go after that: what a crash leaves of them has no record and is swept at the next
//! start. The anonymous volumes that go with the container go in the same commit.

use std::sync::Arc;
use std::time::SystemTime;

use api_types::container::PruneResponse;
use spec::Filters;

use super::mounts::Source;
use super::options::RemoveOptions;
use super::record::{DEFINITIONS, Phase, STATES};
use super::snapshot::{Container, Snapshot};
use super::task::{ContainerCommand, Intent, Task};
use super::{Containers, Shared};
use crate::errors::{ContainerError, Error, Result};
use crate::volumes::Volumes;

impl Containers {
    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(reference).await;
        }
        let container = self.shared.registry.find(reference)?;
        self.remove_container(&container, reference, options).await
    }

    async fn remove_container(
        &self,
        container: &Container,
        reference: &str,
        options: RemoveOptions,
    ) -> Result<()> {
        let snapshot = container.snapshot();
        if snapshot.removing {
            let reference = reference.to_owned();
            return Err(ContainerError::RemovalInProgress { reference }.into());
        }
        if snapshot.progress.is_running() {
            if !options.force {
                return Err(refuse(&snapshot, reference).into());
            }
            super::lifecycle::kill_and_wait(container, Intent::Stop).await?;
        }
        let removed = container.ask(|reply| ContainerCommand::Remove { options, reply }).await;
        match removed {
            // It went by itself (`--rm`) as soon as it was killed.
            Err(Error::Container(ContainerError::NotFound(_)))
                if container.lifecycle().borrow().removed =>
            {
                Ok(())
            }
            removed => removed,
        }
    }

    /// Removes what is not running: `docker container prune`.
    pub async fn prune(&self, filters: Filters) -> Result<PruneResponse> {
        filters.validate(&["label", "label!", "until"])?;
        let now = SystemTime::now();
        let until = super::filters::until(&filters, now)?;
        let mut response = PruneResponse { containers_deleted: None, space_reclaimed: 0 };
        for container in self.shared.registry.all() {
            let snapshot = container.snapshot();
            let labels = &snapshot.definition.config.labels;
            let get = |key: &str| labels.get(key).map(String::as_str);
            if snapshot.progress.is_running()
                || snapshot.removing
                || until.is_some_and(|until| snapshot.definition.created_nanos > until)
                || !filters.matches_labels("label", get)
                || filters.any_label("label!", get)
            {
                continue;
            }
            let size = self.shared.storage.size(container.id.as_str()).unwrap_or_default();
            let options = RemoveOptions::default();
            match self.remove_container(&container, container.id.as_str(), options).await {
                Ok(()) => {
                    response.space_reclaimed += size;
                    let deleted = response.containers_deleted.get_or_insert_default();
                    deleted.push(container.id.to_string());
                }
                // Started or removed by somebody else in the meantime.
                Err(error) => tracing::debug!(container = %container.id, %error, "prune"),
            }
        }
        let attributes = [("reclaimed".to_owned(), response.space_reclaimed.to_string())];
        self.shared.events.emit("container", "prune", "", attributes.into());
        Ok(response)
    }
}

fn refuse(snapshot: &Snapshot, reference: &str) -> ContainerError {
    let reference = reference.to_owned();
    match snapshot.status() {
        "paused" => ContainerError::RemovePaused { reference },
        state => ContainerError::RemoveLive {
            reference,
            state,
            hint: "stop the container before removing or force remove",
        },
    }
}

impl Task {
    /// Ends the container's existence, and with it this task.
    pub(super) async fn remove(&mut self, options: RemoveOptions) -> Result<()> {
        if self.state.progress.is_running() {
            // It was started again between the kill and this command.
            let reference = self.container.id.to_string();
            return Err(refuse(&self.state, &reference).into());
        }
        self.state.removing = true;
        self.container.publish(&self.state);
        // Whoever copies from or to its files comes to an end first.
        let files = Arc::clone(&self.container.files).write_owned().await;
        let shared = Arc::clone(&self.shared);
        let _claim = shared.storage.claim_container(self.container.id.as_str());
        let volumes = match options.volumes {
            true => doom_volumes(&shared, &self.state).await,
            false => Vec::new(),
        };
        let erased = erase(&shared, &self.state, volumes.clone()).await;
        if let Err(error) = erased {
            shared.volumes.spare(&volumes);
            self.state.removing = false;
            self.state.progress.phase = Phase::Dead;
            self.publish();
            let text = error.to_string();
            self.container.tell_waiters(|lifecycle| lifecycle.stuck = Some(text));
            return Err(error);
        }
        drop(files);
        shared.registry.remove(&self.container);
        shared.execs.forget_container(&self.container.id);
        self.removed = true;
        self.state.emit(&shared.events, "destroy", []);
        shared.volumes.bury(&volumes);
        self.container.tell_waiters(|lifecycle| lifecycle.removed = true);
        discard(&shared, &self.state);
        Ok(())
    }
}

/// The one commit that counts, and the container's layer.
async fn erase(shared: &Shared, state: &Snapshot, volumes: Vec<String>) -> Result<()> {
    let id = state.id().clone();
    shared.persist.forget(&id);
    let leases = shared.storage.leases().clone();
    let name = id.clone();
    let freed = shared
        .write(move |txn| {
            DEFINITIONS.remove(txn, name.as_str());
            STATES.remove(txn, name.as_str());
            Volumes::drop_records(txn, &volumes);
            storage::drop_container(txn, name.as_str(), &leases)
        })
        .await?;
    // A rename; the files go later.
    if let Err(error) = shared.storage.discard_container(id.as_str(), &freed) {
        tracing::error!(container = %id, %error, "discard the writable layer");
    }
    Ok(())
}

/// Files that nothing refers to any more.
fn discard(shared: &Shared, state: &Snapshot) {
    let directory = shared.directory(state.id());
    if let Err(error) = std::fs::remove_dir_all(&directory) {
        tracing::warn!(container = %state.id(), %error, "remove {}", directory.display());
    }
}

/// The anonymous volumes that only this container has: a volume that it got by `--volumes-from`
/// goes with the last one that has it.
async fn doom_volumes(shared: &Arc<Shared>, state: &Snapshot) -> Vec<String> {
    let anonymous = state.definition.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Volume { name, named: false, .. } => Some(name.clone()),
        _ => None,
    });
    let mut names: Vec<_> = anonymous.collect();
    if names.is_empty() {
        return names;
    }
    let (volumes, id) = (Arc::clone(&shared.volumes), state.id().clone());
    let doomed = super::run_blocking(move || {
        names.retain(|name| match volumes.doom(name, Some(&id)) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(container = %id, %error, "keep a volume");
                false
            }
        });
        Ok(names)
    });
    doomed.await.unwrap_or_default()
}
