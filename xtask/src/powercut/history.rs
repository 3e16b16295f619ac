//! What the daemon acknowledged, and when: the model that crash points are held against.
//!
//! The harness writes marks to the disk beyond the file system, through the same log: one before it
//! asks for something, one after the answer. So the log itself says what was acknowledged before
//! each of its entries.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use testkit::Socket;

use super::log::Log;

/// Something that is there or not, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Image(String),
    Container(String),
    /// How the container's last run ended.
    Exit(String),
    Volume(String),
    /// A file of a volume.
    File(String, String),
    Network(String),
}

/// What is known of a key; null when it is not there.
pub(super) fn look(socket: &std::path::Path, data_root: &std::path::Path, key: &Key) -> Value {
    let (path, members): (_, &[&str]) = match key {
        Key::Image(name) => (format!("/images/{name}/json"), &["/Id", "/RootFS", "/Config"]),
        Key::Container(name) => (
            format!("/containers/{name}/json"),
            &["/Id", "/Image", "/Name", "/Config", "/HostConfig"],
        ),
        Key::Exit(name) => {
            (format!("/containers/{name}/json"), &["/State/Status", "/State/ExitCode"])
        }
        Key::Volume(name) => (format!("/volumes/{name}"), &["/Name", "/Labels", "/CreatedAt"]),
        Key::File(volume, name) => {
            let file = data_root.join("volumes").join(volume).join("_data").join(name);
            return std::fs::read(file)
                .map_or(Value::Null, |bytes| json!(testkit::image::sha256(&bytes)));
        }
        Key::Network(name) => {
            (format!("/networks/{name}"), &["/Id", "/Name", "/Driver", "/IPAM", "/Labels"])
        }
    };
    let answer = Socket::connect(socket).and_then(|mut api| api.get(&path));
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    match answer.status {
        200 => {
            let all = answer.json();
            let member = |name: &&str| all.pointer(name).cloned().unwrap_or_default();
            Value::Array(members.iter().map(member).collect())
        }
        404 => Value::Null,
        status => panic!("{path}: {status} {}", answer.text()),
    }
}

const MARK: &[u8] = b"powercut ";
const MARK_LENGTH: usize = 4096;

/// Writes marks. The place is beyond the file system.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) disk: File,
    pub(super) place: u64,
    pub(super) next: AtomicU64,
}

impl Marks {
    /// Returns the number of the mark.
    pub(super) fn write(&self) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut block = [0; MARK_LENGTH];
        block[..MARK.len()].copy_from_slice(MARK);
        block[MARK.len()..MARK.len() + 8].copy_from_slice(&number.to_le_bytes());
        self.disk.write_all_at(&block, self.place)?;
        Ok(number)
    }
}

/// A key became something. Between the two marks it may be the one or the other.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) now: Value,
    pub(super) begun: u64,
    pub(super) acknowledged: u64,
}

/// What a key may be after a power cut.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    Exactly(Value),
    OneOf(Value, Value),
    Anything,
}

impl Expected {
    pub(super) fn allows(&self, seen: &Value) -> bool {
        match self {
            Self::Exactly(value) => value == seen,
            Self::OneOf(before, after) => before == seen || after == seen,
            Self::Anything => true,
        }
    }
}

/// All that was recorded.
#[derive(Debug)]
pub(super) struct History {
    /// In the order of each key's changes.
    changes: Vec<Change>,
    /// The entry of the log that a mark is.
    places: BTreeMap<u64, usize>,
}

impl History {
    /// Finds the marks in the log.
    pub(super) fn new(changes: Vec<Change>, log: &Log, place: u64) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (index, entry) in log.entries.iter().enumerate() {
            if entry.at != place || entry.is_flush() {
                continue;
            }
            if let Some(rest) = log.data(entry)?.strip_prefix(MARK) {
                let number = rest.first_chunk().copied().unwrap_or_default();
                places.insert(u64::from_le_bytes(number), index);
            }
        }
        let missing = changes.iter().find(|change| !places.contains_key(&change.acknowledged));
        match missing {
            None => Ok(Self { changes, places }),
            Some(change) => Err(std::io::Error::other(format!("{:?} has no mark", change.key))),
        }
    }

    /// The entries that are acknowledgements.
    pub(super) fn acknowledgements(&self) -> Vec<usize> {
        let places = self.changes.iter().map(|change| self.places[&change.acknowledged]);
        let mut places: Vec<usize> = places.collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// What holds after a power cut that the first `cut` entries have reached.
    pub(super) fn after(&self, cut: usize) -> BTreeMap<Key, Expected> {
        let mut expected = BTreeMap::new();
        for change in &self.changes {
            let before = expected.get(&change.key).cloned();
            let before = before.unwrap_or(Expected::Exactly(Value::Null));
            let now = if self.places[&change.acknowledged] < cut {
                Expected::Exactly(change.now.clone())
            } else if self.places[&change.begun] >= cut {
                before
            } else {
                during(&change.key, before, change.now.clone())
            };
            expected.insert(change.key.clone(), now);
        }
        expected
    }
}

/// While it changes.
fn during(key: &Key, before: Expected, after: Value) -> Expected {
    match (key, before) {
        // Half-written, or ended by the cut itself.
        (Key::File(..) | Key::Exit(_), _) => Expected::Anything,
        (_, Expected::Exactly(before)) => Expected::OneOf(before, after),
        // The changes of a key wait for each other.
        (_, other) => other,
    }
}
