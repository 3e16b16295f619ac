//! A daemon on the disk that a power cut left: it starts, everything acknowledged is there and
//! whole, it works, and once all is removed nothing remains.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::daemon::DiskImage;
use testkit::image::sha256;
use testkit::{Daemon, leaks};

use super::Plan;
use super::history::{Expected, Key, look};
use super::record::released;
use super::workload::{WHOLE, remove_all};

/// One crash point, ready to be mounted.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) number: usize,
    /// The disk.
    pub(super) image: PathBuf,
    /// The same; nobody mounts it.
    pub(super) untouched: PathBuf,
    pub(super) expected: BTreeMap<Key, Expected>,
    /// Where in the log, and what arrived.
    pub(super) place: String,
}

/// How many containers are started at each point.
const STARTED: usize = 2;

/// At one point in so many everything is removed.
const EMPTIED: usize = 4;

/// Panics with what is wrong.
pub(super) fn check(plan: &Plan, point: &Point) {
    let options = plan.file_system.mount_options().to_owned();
    let daemon = plan.start(DiskImage { path: point.image.clone(), options });
    let root = daemon.visible_data_root();
    records(&daemon, &root);
    let mut wrong = Vec::new();
    let mut there = BTreeMap::new();
    for (key, expected) in &point.expected {
        let seen = look(&daemon.socket_path(), &root, key);
        if !expected.allows(&seen) {
            wrong.push(format!("{key:?}: {seen}\n    expected {expected:?}"));
        }
        if *expected == Expected::Exactly(seen.clone()) && !seen.is_null() {
            there.insert(key, seen);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    images_are_whole(&daemon, &there);
    directories_have_records(&daemon, &root);
    let containers = there.keys().filter_map(|key| match key {
        Key::Container(name) => Some(name),
        _ => None,
    });
    for name in containers.skip(point.number % 3).take(STARTED) {
        starts(&daemon, name);
    }
    if point.number.is_multiple_of(EMPTIED) {
        remove_all(&daemon.socket_path());
        assert_eq!(leaks::stored(&root), Vec::<String>::new(), "left after everything was removed");
    }
    daemon.finish();
    released(&point.image);
}

/// No record was lost: a damaged file of records would have been set aside.
fn records(daemon: &Daemon, root: &Path) {
    let names = std::fs::read_dir(root).expect("the data root").flatten();
    let aside: Vec<_> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("damaged"))
        .collect();
    assert!(aside.is_empty(), "records were lost: {aside:?}");
    let log = daemon.log();
    assert!(!log.contains("level=error"), "the daemon's log says:\n{log}");
}

/// Saves all images at once; every blob has the digest it is named by, and each layer of each is
/// among them.
fn images_are_whole(daemon: &Daemon, there: &BTreeMap<&Key, Value>) {
    let images: Vec<(&str, &Value)> = there
        .iter()
        .filter_map(|(key, seen)| match key {
            Key::Image(name) => Some((name.as_str(), seen)),
            _ => None,
        })
        .collect();
    if images.is_empty() {
        return;
    }
    let names: Vec<String> = images.iter().map(|(name, _)| format!("names={name}")).collect();
    let path = format!("/images/get?{}", names.join("&"));
    let saved = daemon.api().get(&path).unwrap_or_else(|error| panic!("save broke off: {error}"));
    assert_eq!(saved.status, 200, "save: {}", saved.text());
    let mut archive = tar::Archive::new(&saved.body[..]);
    let mut blobs = BTreeSet::new();
    for entry in archive.entries().expect("a saved archive") {
        let mut entry = entry.expect("a saved archive is whole");
        let path = entry.path().expect("a plain name").to_string_lossy().into_owned();
        if let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|name| !name.is_empty()) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a saved archive is whole");
            assert_eq!(sha256(&bytes), digest, "a blob has another digest");
            blobs.insert(format!("sha256:{digest}"));
        }
    }
    for (name, seen) in images {
        let layers = seen.pointer("/1/Layers").and_then(Value::as_array).into_iter().flatten();
        let missing: Vec<_> =
            layers.filter(|layer| !blobs.contains(layer.as_str().unwrap_or_default())).collect();
        assert!(missing.is_empty(), "{name} was saved without {missing:?}");
    }
}

/// What start did not clear away belongs to something.
fn directories_have_records(daemon: &Daemon, root: &Path) {
    let get = |path: &str| {
        let answer = daemon.api().get(path).expect("the daemon answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let named = |list: &Value, member: &str| -> BTreeSet<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|item| item[member].as_str().map(str::to_owned)).collect()
    };
    let there = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect()
    };
    let containers = named(&get("/containers/json?all=1"), "Id");
    let volumes = named(&get("/volumes")["Volumes"], "Name");
    // A directory that a power cut took is made again when it is needed.
    let pairs =
        [("storage/containers", &containers), ("containers", &containers), ("volumes", &volumes)];
    for (directory, owners) in pairs {
        let stray: Vec<_> = there(directory).difference(owners).cloned().collect();
        assert!(stray.is_empty(), "{directory} has {stray:?}, which nobody knows");
    }
    assert_eq!(there("storage/ingest"), BTreeSet::new(), "unfinished layers");
}

fn starts(daemon: &Daemon, name: &str) {
    let post = |path: String| -> testkit::Response {
        let answer = daemon.api().post(&path);
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let changes = daemon.api().get(&format!("/containers/{name}/changes"));
    let changes = changes.unwrap_or_else(|error| panic!("changes of {name}: {error}"));
    assert_eq!(changes.status, 200, "changes of {name}: {}", changes.text());
    let started = post(format!("/containers/{name}/start"));
    assert_eq!(started.status, 204, "start of {name}: {}", started.text());
    let ended = post(format!("/containers/{name}/wait")).json();
    assert_eq!(ended["StatusCode"], WHOLE, "{name} found its files changed");
}
