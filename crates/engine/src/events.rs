//! What happened, for those who watch: `docker events`.
//!
//! One ring keeps the newest events for `since`; one broadcast channel feeds the watchers. A
//! watcher that falls 1,024 events behind loses the oldest of them, never slows anyone down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::event::{Actor, Event};
use spec::Filters;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::errors::Result;

/// How many past events `since` can reach back to.
const RING: usize = 256;
const CHANNEL: usize = 1024;

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

/// One watcher's view: past events first, then new ones as they come.
#[derive(Debug)]
pub struct Subscription {
    past: VecDeque<Arc<Event>>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    filters: Filters,
    deadline: Option<Instant>,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(CHANNEL);
        Self { ring: Mutex::new(VecDeque::with_capacity(RING)), sender }
    }
}

impl Events {
    /// Tells everyone. `kind` is the type of the object (`container`, `image`, ...).
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            scope: "local".to_owned(),
            time: now.as_secs() as i64,
            time_nano: now.as_nanos() as i64,
            ..Event::default()
        };
        if kind == "container" || kind == "image" {
            event.status = action.to_owned();
            event.id = id.to_owned();
            if let Some(image) = attributes.get("image") {
                event.from = image.clone();
            }
        }
        event.actor = Actor { id: id.to_owned(), attributes };
        let event = Arc::new(event);
        // Under the lock, so that a new watcher misses none and sees none twice.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        // An error means that nobody watches.
        drop(self.sender.send(event));
    }

    /// Opens a view: past events when `since` or `until` is given, new ones until `until`.
    pub fn subscribe(
        &self,
        filters: Filters,
        since: Option<SystemTime>,
        until: Option<SystemTime>,
    ) -> Result<Subscription> {
        filters.validate(FILTERS)?;
        let now = SystemTime::now();
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut past = VecDeque::new();
        if since.is_some() || until.is_some() {
            let (from, to) = (since.map_or(i64::MIN, nanos), until.map_or(i64::MAX, end_nanos));
            let wanted = |event: &&Arc<Event>| {
                (from..=to).contains(&event.time_nano) && matches(&filters, event)
            };
            past.extend(ring.iter().filter(wanted).cloned());
        }
        let over = until.is_some_and(|until| until <= now);
        let live = (!over).then(|| self.sender.subscribe());
        drop(ring);
        let left = |until: SystemTime| until.duration_since(now).unwrap_or(Duration::ZERO);
        let deadline = until.map(|until| Instant::now() + left(until));
        Ok(Subscription { past, live, filters, deadline })
    }

    /// How many watch now.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }
}

impl Subscription {
    /// The next event; `None` after the last one before `until`, or when the daemon stops.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        let live = self.live.as_mut()?;
        loop {
            let received = match self.deadline {
                None => live.recv().await,
                Some(deadline) => tokio::time::timeout_at(deadline, live.recv()).await.ok()?,
            };
            match received {
                Ok(event) if matches(&self.filters, &event) => return Some(event),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(_before) => i64::MIN,
    }
}

/// Clients say "until now" in whole seconds and mean what happened until now.
fn end_nanos(until: SystemTime) -> i64 {
    let end = nanos(until);
    if end % 1_000_000_000 == 0 { end.saturating_add(999_999_999) } else { end }
}

fn matches(filters: &Filters, event: &Event) -> bool {
    if filters.is_empty() {
        return true;
    }
    let attributes = &event.actor.attributes;
    let named = |kind: &str| {
        filters.any(kind, |wanted| {
            event.kind == kind
                && (event.actor.id.starts_with(wanted)
                    || attributes.get("name").is_some_and(|name| name == wanted))
        })
    };
    let image = filters.any("image", |wanted| {
        let is = |text: &str| text == wanted || without_tag(text) == wanted;
        match event.kind.as_str() {
            "image" => is(&event.actor.id) || attributes.get("name").is_some_and(|name| is(name)),
            _ => attributes.get("image").is_some_and(|name| is(name)),
        }
    });
    // `exec_create: sh -c ...` is asked for as `exec_create`.
    let action = filters.any("event", |wanted| {
        event.action == wanted || event.action.split(':').next() == Some(wanted)
    });
    action
        && image
        && filters.any("type", |wanted| event.kind == wanted)
        && filters.any("scope", |wanted| event.scope == wanted)
        && filters.matches_labels("label", |key| attributes.get(key).map(String::as_str))
        && [
            "container",
            "volume",
            "network",
            "plugin",
            "daemon",
            "service",
            "node",
            "secret",
            "config",
        ]
        .into_iter()
        .all(named)
}

fn without_tag(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(events: &Events, action: &str, id: &str) {
        let attributes = [("image", "busybox:latest"), ("name", "web"), ("tier", "front")];
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        events.emit("container", action, id, attributes.collect());
    }

    async fn check(filters: &str, expect: &[&str]) {
        let events = Events::default();
        emit(&events, "create", "aa11");
        emit(&events, "exec_create: sh", "aa11");
        emit(&events, "die", "bb22");
        let filters = Filters::parse(filters).unwrap();
        let mut all = events.subscribe(filters, Some(UNIX_EPOCH), Some(SystemTime::now())).unwrap();
        let mut seen = Vec::new();
        while let Some(event) = all.next().await {
            seen.push(event.action.clone());
        }
        assert_eq!(seen, expect);
    }

    #[tokio::test]
    async fn filters_select() {
        check("", &["create", "exec_create: sh", "die"]).await;
        check(r#"{"event":["exec_create"]}"#, &["exec_create: sh"]).await;
        check(r#"{"container":["bb"]}"#, &["die"]).await;
        check(r#"{"container":["web"],"event":["die","create"]}"#, &["create", "die"]).await;
        check(r#"{"image":["busybox"]}"#, &["create", "exec_create: sh", "die"]).await;
        check(r#"{"image":["debian"]}"#, &[]).await;
        check(r#"{"label":["tier=front"]}"#, &["create", "exec_create: sh", "die"]).await;
        check(r#"{"type":["network"]}"#, &[]).await;
    }

    #[tokio::test]
    async fn new_events_follow_past_ones() {
        let events = Events::default();
        emit(&events, "create", "aa11");
        let mut all = events.subscribe(Filters::default(), Some(UNIX_EPOCH), None).unwrap();
        emit(&events, "start", "aa11");
        assert_eq!(all.next().await.unwrap().action, "create");
        let start = all.next().await.unwrap();
        assert_eq!((start.action.as_str(), start.from.as_str()), ("start", "busybox:latest"));
    }

    #[test]
    fn unknown_filters_are_refused() {
        let filters = Filters::parse(r#"{"foo":["x"]}"#).unwrap();
        let error = Events::default().subscribe(filters, None, None).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'foo'");
    }
}
