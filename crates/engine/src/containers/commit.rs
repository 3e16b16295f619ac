//! `docker commit` and `docker export`: a container's root to an image or to a tar.

use std::io::Write;

use api_types::IdResponse;
use api_types::container::Config;
use spec::oci::RunConfig;

use super::Containers;
use super::snapshot::Snapshot;
use crate::errors::{ContainerError, Error, Result};
use crate::run_blocking;

/// `POST /commit`
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    pub container: String,
    pub repository: String,
    pub tag: String,
    pub comment: String,
    pub author: String,
    /// Stand still while the root is read.
    pub pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// What is set here goes before the container's own configuration.
    pub config: Option<Config>,
}

impl Containers {
    /// Makes an image of what the container changed.
    pub async fn commit(&self, request: CommitRequest) -> Result<IdResponse> {
        let container = self.shared.registry.find(&request.container)?;
        let snapshot = container.snapshot();
        let reference = image::parse_target(&request.repository, &request.tag)?;
        let name = reference.as_ref().map(spec::Reference::familiar);
        let progress = &snapshot.progress;
        let pause = request.pause && progress.is_running() && !progress.paused;
        let options = options(&snapshot, request, reference);
        let id = container.id.as_str();
        let paused = pause && unless_ended(self.pause(id).await)?;
        let made = self.shared.images.commit(id, options).await;
        if paused {
            unless_ended(self.unpause(id).await)?;
        }
        let made = made?;
        let mut attributes = vec![("imageID", made.clone()), ("comment", String::new())];
        attributes.extend(name.map(|name| ("imageRef", name)));
        snapshot.emit(&self.shared.events, "commit", attributes);
        Ok(IdResponse { id: made })
    }

    /// Fails as `export` would, before a byte of the answer is sent.
    pub fn check_export(&self, reference: &str) -> Result<()> {
        self.shared.registry.find(reference).map(drop)
    }

    /// Writes the container's whole root as a tar.
    pub async fn export(&self, reference: &str, mut output: Box<dyn Write + Send>) -> Result<()> {
        let container = self.shared.registry.find(reference)?;
        let (storage, id) = (self.shared.storage.clone(), container.id.clone());
        run_blocking(move || Ok(storage.export(id.as_str(), &mut *output)?)).await?;
        container.snapshot().emit(&self.shared.events, "export", []);
        Ok(())
    }
}

/// Whether it was done. A container that ended meanwhile stands still by itself.
fn unless_ended(done: Result<()>) -> Result<bool> {
    use ContainerError::{NotFound, NotPaused, NotRunning, Restarting};
    match done {
        Ok(()) => Ok(true),
        Err(Error::Container(
            NotRunning { .. } | Restarting { .. } | NotPaused { .. } | NotFound(_),
        )) => Ok(false),
        Err(error) => Err(error),
    }
}

fn options(
    snapshot: &Snapshot,
    request: CommitRequest,
    reference: Option<spec::Reference>,
) -> image::CommitOptions {
    let definition = &snapshot.definition;
    let own = run_config(&definition.config);
    let run = match &request.config {
        Some(config) => layered(run_config(config), own),
        None => own,
    };
    let config = &definition.config;
    let words = config.entrypoint.iter().chain(&config.cmd).flatten();
    image::CommitOptions {
        reference,
        parent: definition.image_id.parse().ok(),
        run,
        author: request.author,
        message: request.comment,
        changes: request.changes,
        created_by: words.map(String::as_str).collect::<Vec<_>>().join(" "),
    }
}

/// The members of a container's configuration that an image has too.
fn run_config(config: &Config) -> RunConfig {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    RunConfig {
        user: text(&config.user),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone(),
        working_dir: text(&config.working_dir),
        labels: Some(config.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: text(&config.stop_signal),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
        args_escaped: Some(config.args_escaped).filter(|escaped| *escaped),
    }
}

/// `upper` where it says something, else `lower`.
fn layered(upper: RunConfig, lower: RunConfig) -> RunConfig {
    RunConfig {
        user: upper.user.or(lower.user),
        exposed_ports: upper.exposed_ports.or(lower.exposed_ports),
        env: upper.env.or(lower.env),
        entrypoint: upper.entrypoint.or(lower.entrypoint),
        cmd: upper.cmd.or(lower.cmd),
        volumes: upper.volumes.or(lower.volumes),
        working_dir: upper.working_dir.or(lower.working_dir),
        labels: upper.labels.or(lower.labels),
        stop_signal: upper.stop_signal.or(lower.stop_signal),
        stop_timeout: upper.stop_timeout.or(lower.stop_timeout),
        healthcheck: upper.healthcheck.or(lower.healthcheck),
        on_build: upper.on_build.or(lower.on_build),
        shell: upper.shell.or(lower.shell),
        args_escaped: upper.args_escaped.or(lower.args_escaped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_request_sets_goes_first() {
        let cmd =
            |word: &str| RunConfig { cmd: Some(vec![word.to_owned()]), ..RunConfig::default() };
        let lower = RunConfig { user: Some("u".to_owned()), ..cmd("lower") };
        let merged = layered(cmd("upper"), lower);
        assert_eq!((merged.cmd, merged.user), (cmd("upper").cmd, Some("u".to_owned())));
    }
}
