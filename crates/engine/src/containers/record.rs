//! A container on disk: two tables of the metadata store.
//!
//! ```text
//! containers        <id>   Definition   what was asked for; written by create, rename, update
//! container_states  <id>   Progress     what became of it; written behind, see `persist`
//! ```
//!
//! A power cut may take back the newest `Progress`: the supervisor's `exits.log` and list of what
//! runs bring it up to date again, by generation.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::container::{Config, MountPoint};
use api_types::host_config::HostConfig;
use api_types::network::EndpointSettings;
use metadata::Table;
use serde::{Deserialize, Serialize};
use spec::{ContainerName, Id};

use super::links::Link;
use super::mounts::Mount;
use super::validate::modes;

pub(crate) const DEFINITIONS: Table<Definition> = Table::new("containers");
pub(crate) const STATES: Table<Progress> = Table::new("container_states");

/// What was asked for: the merged, defaulted and checked request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub id: Id,
    pub name: ContainerName,
    pub created_nanos: i64,
    /// `sha256:` and 64 digits.
    pub image_id: String,
    /// The operating system of the image.
    pub platform: String,
    pub config: Config,
    pub host_config: HostConfig,
    /// By network name, as requested.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    pub mounts: Vec<Mount>,
    /// To others on the default bridge. Those on user's networks are with their endpoints.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// Counts the starts; the exit of an earlier one is never taken for this one's.
    pub generation: u64,
    pub phase: Phase,
    pub paused: bool,
    pub oom_killed: bool,
    pub pid: u32,
    pub exit_code: i64,
    pub error: String,
    /// Nanoseconds since the epoch; zero is never.
    pub started_nanos: i64,
    pub finished_nanos: i64,
    /// Stopped by a user: `unless-stopped` does not start it at boot.
    pub manually_stopped: bool,
    pub restart_count: u32,
    /// In the order of the interfaces.
    pub endpoints: Vec<network::Endpoint>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    #[default]
    Created,
    Running,
    /// Between an exit and the start that its restart policy asks for.
    Restarting,
    Exited,
    /// Its removal began and did not end.
    Dead,
}

impl Definition {
    /// Program and arguments.
    pub(crate) fn command_line(&self) -> Vec<String> {
        super::merge::command_line(&self.config)
    }

    /// The names that the others of a user's network know the container by, its own first; none
    /// on the default ones.
    pub(crate) fn dns_names(&self, network: &str) -> Vec<String> {
        if modes::is_predefined(network) {
            return Vec::new();
        }
        let mut names = vec![self.name.to_string()];
        let settings = self.endpoints.get(network);
        let aliases = settings.and_then(|settings| settings.aliases.clone()).unwrap_or_default();
        let short = self.id.short().to_owned();
        for name in aliases.into_iter().chain([short, self.config.hostname.clone()]) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Says the names of endpoints that were read from a record.
    pub(crate) fn name_endpoints(&self, endpoints: &mut [network::Endpoint]) {
        for endpoint in endpoints {
            endpoint.names = self.dns_names(&endpoint.network_name);
        }
    }

    /// `Mounts`, as inspect and the list have it.
    pub(crate) fn shown_mounts(&self, volumes: &crate::Volumes) -> Vec<MountPoint> {
        self.mounts.iter().filter_map(|mount| mount.shown(&self.id, volumes)).collect()
    }

    /// The volumes it mounts; one that it mounts twice is there twice.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(Mount::volume)
    }

    /// Each volume it mounts, once.
    pub(crate) fn volume_names(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.volumes().collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

impl Progress {
    /// Docker's meaning: also true while paused or waiting for a restart.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Restarting)
    }

    /// Whether there is a process.
    pub(crate) fn is_alive(&self) -> bool {
        self.phase == Phase::Running
    }
}

pub(crate) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Zero is Go's zero time.
pub(crate) fn time_text(nanos: i64) -> String {
    match u64::try_from(nanos) {
        Ok(0) | Err(_) => spec::time::ZERO.to_owned(),
        Ok(nanos) => spec::time::rfc3339_nano(UNIX_EPOCH + Duration::from_nanos(nanos)),
    }
}
