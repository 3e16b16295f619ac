//! `docker ps` filters. Parsed once into what a container is compared with.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use spec::Filters;
use spec::filters::FilterError;

use super::Shared;
use super::snapshot::{Container, Snapshot};
use crate::errors::{ContainerError, Result};

const ACCEPTED: &[&str] = &[
    "ancestor",
    "annotation",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "role",
    "since",
    "status",
    "until",
    "volume",
];

#[derive(Debug)]
pub(super) struct Selection {
    filters: Filters,
    ancestors: Option<Vec<String>>,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
    exited: Vec<i64>,
    publish: Vec<Ports>,
    expose: Vec<Ports>,
    is_task: Option<bool>,
}

/// A filter that names a state other than running ones, or an id or name, looks at all containers.
impl Selection {
    pub(super) fn parse(shared: &Shared, filters: Filters) -> Result<Self> {
        filters.validate(ACCEPTED)?;
        check_words(&filters, "status", STATES, "state")?;
        check_words(&filters, "health", HEALTH, "health")?;
        let mut exited = Vec::new();
        for value in filters.get("exited") {
            let bad = |_bad| ContainerError::FilterExited { value: value.to_owned() };
            exited.push(value.parse().map_err(bad)?);
        }
        let created = |name: &str| -> Result<Option<i64>> {
            let mut bound: Option<i64> = None;
            for reference in filters.get(name) {
                let created = shared.registry.find(reference)?.snapshot().definition.created_nanos;
                bound = Some(match (bound, name) {
                    (None, _) => created,
                    (Some(bound), "before") => bound.min(created),
                    (Some(bound), _) => bound.max(created),
                });
            }
            Ok(bound)
        };
        let ports = |name: &'static str| -> Result<Vec<Ports>> {
            filters.get(name).map(|value| Ports::parse(name, value)).collect()
        };
        Ok(Self {
            ancestors: filters.contains("ancestor").then(|| {
                filters.get("ancestor").filter_map(|name| shared.images.find_id(name)).collect()
            }),
            before: created("before")?,
            since: created("since")?,
            until: until(&filters, SystemTime::now())?,
            exited,
            publish: ports("publish")?,
            expose: ports("expose")?,
            is_task: filters.boolean("is-task")?,
            filters,
        })
    }

    /// Whether stopped containers are looked at though nobody said `all`.
    pub(super) fn implies_all(&self) -> bool {
        ["status", "exited"].iter().any(|name| self.filters.contains(name))
            || self.before.is_some()
            || self.since.is_some()
    }

    pub(super) fn accepts(&self, container: &Arc<Container>, snapshot: &Snapshot) -> bool {
        let definition = &snapshot.definition;
        let filters = &self.filters;
        let labels = &definition.config.labels;
        let label = |key: &str| labels.get(key).map(String::as_str);
        let created = definition.created_nanos;
        filters.any("id", |wanted| container.id.as_str().starts_with(wanted))
            && filters.any("name", |wanted| name_matches(definition.name.as_str(), wanted))
            && filters.matches_labels("label", label)
            && !filters.any_label("label!", label)
            && filters.any("status", |wanted| snapshot.status() == wanted)
            && filters.any("health", |wanted| health_of(snapshot) == wanted)
            && filters.any("network", |wanted| in_network(snapshot, wanted))
            && filters.any("volume", |wanted| has_mount(snapshot, wanted))
            && filters.any("isolation", |wanted| definition.host_config.isolation == wanted)
            && filters.any("annotation", |wanted| has_annotation(snapshot, wanted))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&definition.image_id))
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.until.is_none_or(|until| created <= until)
            && self.exit_code_matches(snapshot)
            && self.ports_match(snapshot)
            // Nothing here belongs to a service.
            && self.is_task != Some(true)
    }

    fn exit_code_matches(&self, snapshot: &Snapshot) -> bool {
        self.exited.is_empty()
            || snapshot.status() == "exited" && self.exited.contains(&snapshot.progress.exit_code)
    }

    fn ports_match(&self, snapshot: &Snapshot) -> bool {
        let bound = snapshot.definition.host_config.port_bindings.iter().flatten();
        let exposed = snapshot.definition.config.exposed_ports.iter().flatten();
        let any = |wanted: &[Ports], mut ports: Box<dyn Iterator<Item = &String> + '_>| {
            wanted.is_empty() || ports.any(|port| wanted.iter().any(|wanted| wanted.has(port)))
        };
        any(&self.publish, Box::new(bound.map(|(port, _)| port)))
            && any(&self.expose, Box::new(exposed.map(|(port, _)| port)))
    }
}

const STATES: &[&str] =
    &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

fn check_words(filters: &Filters, name: &str, words: &[&str], what: &'static str) -> Result<()> {
    match filters.get(name).find(|value| !words.contains(value)) {
        None => Ok(()),
        Some(value) => Err(ContainerError::FilterWord {
            filter: name.to_owned(),
            value: value.to_owned(),
            what,
            words: words.join(", "),
        }
        .into()),
    }
}

/// A moment, in nanoseconds: what is newer is left out.
pub(crate) fn until(filters: &Filters, now: SystemTime) -> Result<Option<i64>> {
    let Some(text) = filters.get("until").next() else { return Ok(None) };
    let time = spec::time::parse_since(text, now).map_err(|_bad| FilterError::InvalidValue {
        name: "until".to_owned(),
        value: text.to_owned(),
    })?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Some(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)))
}

/// Docker takes a regular expression here. Understood are the anchors `^` and `$`, the slash that
/// names begin with, and plain text; that is what people and tools write.
pub(crate) fn name_matches(name: &str, wanted: &str) -> bool {
    let (start, wanted) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (end, wanted) = match wanted.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (start, wanted) = match wanted.strip_prefix('/') {
        // Names have a slash in front, and none elsewhere.
        Some(rest) => (true, rest),
        None => (start, wanted),
    };
    match (start, end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

fn health_of(snapshot: &Snapshot) -> &str {
    snapshot.health.as_ref().map_or("none", |health| health.status.as_str())
}

fn in_network(snapshot: &Snapshot, wanted: &str) -> bool {
    let mut endpoints = snapshot.progress.endpoints.iter();
    snapshot.definition.endpoints.contains_key(wanted)
        || endpoints.any(|endpoint| endpoint.network_id.as_str() == wanted)
}

fn has_mount(snapshot: &Snapshot, wanted: &str) -> bool {
    snapshot.definition.mounts.iter().any(|mount| {
        let source = match &mount.source {
            super::mounts::Source::Volume { name, .. } => name == wanted,
            super::mounts::Source::Bind { path, .. } => path == wanted,
            super::mounts::Source::Image { name, .. } => name == wanted,
            super::mounts::Source::Tmpfs { .. } => false,
        };
        source || mount.target == wanted
    })
}

fn has_annotation(snapshot: &Snapshot, wanted: &str) -> bool {
    let annotations = snapshot.definition.host_config.annotations.as_ref();
    annotations.is_some_and(|annotations| match wanted.split_once('=') {
        Some((key, value)) => annotations.get(key).is_some_and(|have| have == value),
        None => annotations.contains_key(wanted),
    })
}

/// `80`, `80/udp`, `8000-8010/tcp`
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    low: u16,
    high: u16,
    protocol: String,
}

impl Ports {
    fn parse(filter: &'static str, text: &str) -> Result<Self> {
        let bad = || ContainerError::PortFilter { filter, value: text.to_owned() };
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_bad| bad());
        let (low, high) = (number(low)?, number(high)?);
        Ok(Self { low, high, protocol: protocol.to_owned() })
    }

    fn has(&self, port: &str) -> bool {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: Option<u16> = number.parse().ok();
        protocol == self.protocol
            && number.is_some_and(|number| (self.low..=self.high).contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_like_simple_expressions() {
        for (wanted, expect) in [
            ("web", true),
            ("we", true),
            ("^we", true),
            ("^eb", false),
            ("^/web-1$", true),
            ("/web", true),
            ("^web-1$", true),
            ("^web$", false),
            ("1$", true),
        ] {
            assert_eq!(name_matches("web-1", wanted), expect, "{wanted}");
        }
    }

    #[test]
    fn ports_are_compared_by_number_and_protocol() {
        let wanted = Ports::parse("publish", "80-82/tcp").unwrap();
        assert!(wanted.has("81/tcp") && wanted.has("80") && !wanted.has("81/udp"));
        assert!(!Ports::parse("publish", "80").unwrap().has("8080/tcp"));
        assert!(Ports::parse("publish", "x").is_err());
    }
}
