//! A `HostConfig` that comes as late as the start: how clients of the API below 1.15 (fig, Compose
//! 1.0) made containers, and could until 1.23. It takes the place of the one from create.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::container::Config;
use api_types::host_config::HostConfig;
use api_types::network::EndpointSettings;

use super::create;
use super::links::Link;
use super::mounts::{Mount, Source};
use super::record::{DEFINITIONS, Definition};
use super::task::{ContainerCommand, Task};
use super::{Containers, run_blocking};
use crate::errors::{ContainerError, Error, Result};
use crate::volumes::Pending;

/// What a late configuration changes in a definition.
#[derive(Debug)]
pub(crate) struct Late {
    config: Config,
    host_config: HostConfig,
    endpoints: BTreeMap<String, EndpointSettings>,
    mounts: Vec<Mount>,
    links: Vec<Link>,
    volumes: Pending,
}

impl Containers {
    /// Gives a container that does not run another `HostConfig`, checked as at its creation, and
    /// starts it.
    pub async fn start_with(&self, reference: &str, host_config: HostConfig) -> Result<()> {
        let shared = &self.shared;
        let container = shared.registry.find(reference)?;
        let snapshot = container.snapshot();
        if snapshot.progress.is_running() {
            return Err(ContainerError::NotModified { id: container.id.clone() }.into());
        }
        let definition = &snapshot.definition;
        let mut config = definition.config.clone();
        // What it was called for want of a name may not be said beside another's network.
        if config.hostname == definition.id.short() {
            config.hostname.clear();
        }
        let mut host_config = host_config;
        keep_limits(&mut host_config, &definition.host_config);
        let asked = match networks_stay(&host_config, &definition.host_config) {
            true => definition.endpoints.clone(),
            false => BTreeMap::new(),
        };
        let mut draft = create::draft(shared, &definition.id, config, host_config, asked)?;
        for warning in &draft.warnings {
            tracing::warn!(container = %container.id, warning, "a late HostConfig");
        }
        if draft.mounts.iter().any(|mount| mount.image().is_some()) {
            return Err(Error::unsupported("mounting an image at the start"));
        }
        keep_volumes(&mut draft.mounts, &definition.mounts);
        let holds = Arc::new(create::hold_volumes(shared, &mut draft.mounts).await?);
        let image = shared.images.resolve_for_run(&definition.image_id, None).await?;
        let id = definition.id.clone();
        create::fill_volumes(shared, &id, &draft.mounts, image.chain, &holds).await?;
        let late = Box::new(Late {
            config: draft.config,
            host_config: draft.host_config,
            endpoints: draft.endpoints,
            mounts: draft.mounts,
            links: draft.links,
            volumes: holds.pending(),
        });
        container.ask(|reply| ContainerCommand::Reconfigure { late, reply }).await?;
        run_blocking(move || {
            holds.settle();
            Ok(())
        })
        .await?;
        container.ask(|reply| ContainerCommand::Start { reply }).await
    }
}

/// Below 1.18 these stood beside the configuration at create, and are not repeated.
fn keep_limits(new: &mut HostConfig, old: &HostConfig) {
    let (new, old) = (&mut new.resources, &old.resources);
    if new.memory == 0 {
        (new.memory, new.memory_swap) = (old.memory, old.memory_swap);
    }
    if new.cpu_shares == 0 {
        new.cpu_shares = old.cpu_shares;
    }
    if new.cpuset_cpus.is_empty() {
        new.cpuset_cpus.clone_from(&old.cpuset_cpus);
    }
}

fn networks_stay(new: &HostConfig, old: &HostConfig) -> bool {
    let new = match new.network_mode.as_str() {
        "" | "default" => "bridge",
        mode => mode,
    };
    new == old.network_mode
}

/// The anonymous volumes that were made for it are its own already.
fn keep_volumes(new: &mut [Mount], old: &[Mount]) {
    for mount in new {
        let Source::Volume { name, .. } = &mut mount.source else { continue };
        if !name.is_empty() {
            continue;
        }
        let own = old.iter().find(|own| own.target == mount.target);
        if let Some(Source::Volume { name: known, named: false, .. }) = own.map(|own| &own.source) {
            name.clone_from(known);
        }
    }
}

impl Task {
    pub(super) async fn reconfigure(&mut self, late: Late) -> Result<()> {
        if self.state.progress.is_running() {
            return Err(ContainerError::NotModified { id: self.container.id.clone() }.into());
        }
        let Late { config, host_config, endpoints, mounts, links, volumes } = late;
        let mut definition = Definition::clone(&self.state.definition);
        definition.config = config;
        definition.host_config = host_config;
        definition.endpoints = endpoints;
        definition.mounts = mounts;
        definition.links = links;
        let record = definition.clone();
        let written = self.shared.write(move |txn| {
            volumes.put(txn)?;
            DEFINITIONS.put(txn, record.id.as_str(), &record)
        });
        written.await?;
        self.state.definition = Arc::new(definition);
        self.publish();
        self.shared.registry.note_links(&self.container);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_creation_are_kept() {
        let config = |memory, shares| {
            let mut config = HostConfig::default();
            config.resources.memory = memory;
            config.resources.memory_swap = 2 * memory;
            config.resources.cpu_shares = shares;
            config
        };
        let kept = |mut new: HostConfig| {
            keep_limits(&mut new, &config(7, 5));
            (new.resources.memory, new.resources.memory_swap, new.resources.cpu_shares)
        };
        assert_eq!(kept(config(0, 0)), (7, 14, 5));
        assert_eq!(kept(config(8, 6)), (8, 16, 6));
    }
}
