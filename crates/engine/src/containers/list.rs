//! `docker ps`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::container::{Summary, SummaryHostConfig, SummaryNetworkSettings};
use spec::time::human_duration;

use super::filters::Selection;
use super::options::ListOptions;
use super::record::{Definition, Phase, now_nanos};
use super::snapshot::{Container, Snapshot};
use super::{Containers, Shared, run_blocking};
use crate::errors::Result;

/// A container and how it was when the list was asked for.
type Chosen = (Arc<Container>, Arc<Snapshot>);

/// What a row shows that can change while the container's picture stays the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Passing {
    image: String,
    names: Vec<String>,
    status: String,
}

/// A row as it was last sent, and what it was made of.
#[derive(Debug)]
pub(super) struct SentRow {
    snapshot: Arc<Snapshot>,
    passing: Passing,
    json: Box<[u8]>,
}

impl Containers {
    /// Newest first. Waits for nothing but, with `size`, the disk.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Summary>> {
        let size = options.size;
        let chosen = self.chosen(options)?;
        let mut view = View::new(&self.shared);
        let summaries = chosen.iter().map(|(_, snapshot)| {
            let passing = view.passing(snapshot);
            summary(&self.shared, snapshot, passing)
        });
        let list = summaries.collect();
        if size { self.with_sizes(list).await } else { Ok(list) }
    }

    /// The same as JSON. A row that shows what it showed in the list before is not made again: that
    /// is a quarter of the work where most containers do what they did.
    pub async fn list_json(&self, options: ListOptions) -> Result<Vec<u8>> {
        if options.size {
            return Ok(to_json(&self.list(options).await?));
        }
        let mut view = View::new(&self.shared);
        let mut json = b"[".to_vec();
        for (container, snapshot) in self.chosen(options)? {
            if json.len() > 1 {
                json.push(b',');
            }
            let passing = view.passing(&snapshot);
            let sent = container.sent_row.load();
            match sent.as_deref() {
                Some(sent) if sent.shows(&snapshot, &passing) => json.extend(&sent.json),
                _ => {
                    let row = SentRow::new(&self.shared, snapshot, passing);
                    json.extend(&row.json);
                    container.sent_row.store(Some(Arc::new(row)));
                }
            }
        }
        json.push(b']');
        Ok(json)
    }

    fn chosen(&self, options: ListOptions) -> Result<Vec<Chosen>> {
        let selection = Selection::parse(&self.shared, options.filters)?;
        let all = options.all || options.limit.is_some() || selection.implies_all();
        let containers = self.shared.registry.all().into_iter().map(|container| {
            let snapshot = container.snapshot();
            (container, snapshot)
        });
        let mut chosen: Vec<Chosen> = containers
            .filter(|(container, snapshot)| {
                (all || snapshot.progress.is_running()) && selection.accepts(container, snapshot)
            })
            .collect();
        chosen.sort_by_key(|(_, snapshot)| std::cmp::Reverse(snapshot.definition.created_nanos));
        chosen.truncate(options.limit.unwrap_or(usize::MAX));
        Ok(chosen)
    }

    async fn with_sizes(&self, mut list: Vec<Summary>) -> Result<Vec<Summary>> {
        let shared = Arc::clone(&self.shared);
        run_blocking(move || {
            for summary in &mut list {
                let (own, whole) = sizes(&shared, &summary.id, &summary.image_id);
                summary.size_rw = Some(own).filter(|size| *size != 0);
                summary.size_root_fs = Some(whole);
            }
            Ok(list)
        })
        .await
    }
}

impl SentRow {
    fn new(shared: &Shared, snapshot: Arc<Snapshot>, passing: Passing) -> Self {
        let json = to_json(&summary(shared, &snapshot, passing.clone())).into();
        Self { snapshot, passing, json }
    }

    /// The picture is compared by its place: the row keeps it, so no other can have that.
    fn shows(&self, snapshot: &Arc<Snapshot>, passing: &Passing) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot) && self.passing == *passing
    }
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("API types have string keys only")
}

/// How things are at one moment.
struct View<'a> {
    shared: &'a Shared,
    now: i64,
    /// Names by links: whose, and which.
    links: Vec<(spec::Id, String)>,
    /// What image names stand for; each is looked up once a list.
    images: HashMap<String, Option<String>>,
}

impl<'a> View<'a> {
    fn new(shared: &'a Shared) -> Self {
        let links = super::links::names(shared);
        Self { shared, now: now_nanos(), links, images: HashMap::new() }
    }

    fn passing(&mut self, snapshot: &Snapshot) -> Passing {
        let definition = &snapshot.definition;
        let mut names = vec![format!("/{}", definition.name)];
        let linked = self.links.iter().filter(|(target, _)| target == snapshot.id());
        names.extend(linked.map(|(_, name)| name.clone()));
        names.sort();
        let status = status_text(snapshot, self.now);
        Passing { image: self.image(definition), names, status }
    }

    /// The name the container was made with, while it means that image; then the image's id.
    fn image(&mut self, definition: &Definition) -> String {
        let name = &definition.config.image;
        let known = match self.images.get(name) {
            Some(known) => known,
            None => {
                let id = self.shared.images.find_id(name);
                self.images.entry(name.clone()).or_insert(id)
            }
        };
        let same = known.as_ref() == Some(&definition.image_id);
        if same { name.clone() } else { definition.image_id.clone() }
    }
}

/// Bytes of the writable layer, and those with the image.
pub(super) fn sizes(shared: &Shared, id: &str, image: &str) -> (i64, i64) {
    // A container that was removed a moment ago has none.
    let own = shared.storage.size(id).unwrap_or_default();
    let own = i64::try_from(own).unwrap_or(i64::MAX);
    (own, own.saturating_add(shared.images.size(image)))
}

fn summary(shared: &Shared, snapshot: &Snapshot, passing: Passing) -> Summary {
    let definition = &snapshot.definition;
    let (config, host_config) = (&definition.config, &definition.host_config);
    Summary {
        id: definition.id.to_string(),
        names: passing.names,
        image: passing.image,
        image_id: definition.image_id.clone(),
        command: command_text(&definition.command_line()),
        created: definition.created_nanos / 1_000_000_000,
        ports: super::ports::list(snapshot),
        size_rw: None,
        size_root_fs: None,
        labels: config.labels.clone(),
        state: snapshot.status().to_owned(),
        status: passing.status,
        host_config: SummaryHostConfig {
            network_mode: host_config.network_mode.clone(),
            annotations: host_config.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: super::inspect::networks(snapshot) },
        mounts: definition.shown_mounts(&shared.volumes),
    }
}

/// The program and its arguments; words with spaces are quoted, as in Docker.
fn command_text(words: &[String]) -> String {
    let quoted = words.iter().enumerate().map(|(at, word)| {
        if at > 0 && (word.contains(' ') || word.is_empty()) {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
fn status_text(snapshot: &Snapshot, now: i64) -> String {
    let progress = &snapshot.progress;
    let since = |nanos: i64| human_duration(Duration::from_nanos((now - nanos).max(0) as u64));
    match progress.phase {
        _ if snapshot.removing => "Removal In Progress".to_owned(),
        Phase::Created => "Created".to_owned(),
        Phase::Dead => "Dead".to_owned(),
        Phase::Restarting => {
            format!("Restarting ({}) {} ago", progress.exit_code, since(progress.finished_nanos))
        }
        Phase::Exited => {
            format!("Exited ({}) {} ago", progress.exit_code, since(progress.finished_nanos))
        }
        Phase::Running if progress.paused => {
            format!("Up {} (Paused)", since(progress.started_nanos))
        }
        Phase::Running => match snapshot.health.as_ref().map(|health| health.status.as_str()) {
            None | Some("none") => format!("Up {}", since(progress.started_nanos)),
            Some("starting") => {
                format!("Up {} (health: starting)", since(progress.started_nanos))
            }
            Some(health) => format!("Up {} ({health})", since(progress.started_nanos)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Progress;
    use super::*;
    use api_types::container::{Config, Health};

    const NOW: i64 = 1_800_000_000_000_000_000;

    fn snapshot(change: impl FnOnce(&mut Progress)) -> Snapshot {
        let mut progress = Progress::default();
        change(&mut progress);
        let definition = Definition {
            id: spec::Id::from_random([1; 32]),
            name: spec::ContainerName::parse("web").unwrap(),
            created_nanos: NOW,
            image_id: String::new(),
            platform: "linux".to_owned(),
            config: Config::default(),
            host_config: Default::default(),
            endpoints: Default::default(),
            mounts: Vec::new(),
            links: Vec::new(),
        };
        Snapshot { definition: Arc::new(definition), progress, health: None, removing: false }
    }

    fn check(change: impl FnOnce(&mut Progress), expect: &str) {
        assert_eq!(status_text(&snapshot(change), NOW), expect);
    }

    #[test]
    fn statuses_read_as_in_docker() {
        let ago = |seconds: i64| NOW - seconds * 1_000_000_000;
        check(|_| {}, "Created");
        let up = |seconds| {
            move |progress: &mut Progress| {
                progress.phase = Phase::Running;
                progress.started_nanos = ago(seconds);
            }
        };
        check(up(0), "Up Less than a second");
        check(up(180), "Up 3 minutes");
        check(
            |progress| {
                up(7200)(progress);
                progress.paused = true;
            },
            "Up 2 hours (Paused)",
        );
        check(
            |progress| {
                progress.phase = Phase::Exited;
                progress.exit_code = 3;
                progress.finished_nanos = ago(7200);
            },
            "Exited (3) 2 hours ago",
        );
        check(
            |progress| {
                progress.phase = Phase::Restarting;
                progress.exit_code = 1;
                progress.finished_nanos = ago(1);
            },
            "Restarting (1) 1 second ago",
        );
        let health = |status: &str| {
            let mut snapshot = snapshot(up(60));
            let status = status.to_owned();
            snapshot.health = Some(Arc::new(Health { status, ..Health::default() }));
            status_text(&snapshot, NOW)
        };
        assert_eq!(health("healthy"), "Up About a minute (healthy)");
        assert_eq!(health("starting"), "Up About a minute (health: starting)");
    }

    #[test]
    fn commands_are_quoted_where_words_have_spaces() {
        let words: Vec<_> = ["sh", "-c", "echo hi", ""].map(str::to_owned).into();
        assert_eq!(command_text(&words), "sh -c 'echo hi' ''");
    }
}
