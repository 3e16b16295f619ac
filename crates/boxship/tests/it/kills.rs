//! kill -9 of the daemon in the middle of what writes to the store. Afterwards every image is
//! whole and `system check` finds nothing, and once all is removed nothing remains: no file, no
//! mount, no reference.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Socket};

use crate::daemon;

/// Layers of a second that others share, and one of its own.
fn stacked(name: &str) -> Vec<u8> {
    let mut image = Builder::busybox(name);
    for layer in 0..4 {
        let mut tar = Tar::default();
        for file in 0..40 {
            tar.file(&format!("l{layer}/{file}"), 0o644, &vec![layer; 20_000]);
        }
        image = image.layer(tar.finish());
    }
    let own = Tar::default().file("own", 0o644, name.as_bytes()).finish();
    image.layer(own).archive()
}

type Done = std::io::Result<bool>;

/// One step of the load, over and over: what it makes has the number in its name, what it removes
/// was made by others.
pub(crate) fn step(socket: &Path, kind: usize, number: usize) -> Done {
    let mut api = Socket::connect(socket)?;
    let tar = [("Content-Type", "application/x-tar")];
    let answer = match kind {
        0 => {
            let image = stacked(&format!("load{}:1", number % 3));
            api.request("POST", "/images/load?quiet=1", &tar, &image)
        }
        1 => {
            let layer = Tar::default().file("own", 0o644, &[7; 500_000]).finish();
            let path = format!("/images/create?fromSrc=-&repo=import{}", number % 3);
            api.request("POST", &path, &tar, &layer)
        }
        2 => api
            .post_json(&format!("/commit?container=source&repo=commit{}", number % 3), &json!({})),
        3 => {
            let mut files = Tar::default();
            for file in 0..30 {
                files.file(&format!("copied{file}"), 0o644, &[number.to_le_bytes()[0]; 10_000]);
            }
            let files = files.finish();
            api.request("PUT", "/containers/source/archive?path=/data", &tar, &files)
        }
        4 => api.post("/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D"),
        5 => {
            let name = ["load0:1", "import1", "commit2", "load2:1", "import0"][number % 5];
            api.request("DELETE", &format!("/images/{name}"), &[], b"")
        }
        _ => {
            let body = json!({"Image": "load1:1", "HostConfig": {"Binds": ["/gone"]},
                "Volumes": {"/v": {}}});
            let made = api.post_json(&format!("/containers/create?name=c{}", number % 3), &body)?;
            if made.status != 201 {
                // Its image went, before or meanwhile, or another has the name.
                return Ok(matches!(made.status, 404 | 409));
            }
            api.request("DELETE", &format!("/containers/c{}?v=1", number % 3), &[], b"")
        }
    };
    answer.map(|answer| answer.status < 500)
}

/// What a killed daemon answered last.
fn run_until_killed(socket: &Path, kind: usize, done: &AtomicUsize) {
    for number in 0.. {
        match step(socket, kind, number) {
            Ok(fine) => assert!(fine, "step {kind} number {number}"),
            Err(_killed) => return,
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The container that is committed and copied to.
pub(crate) fn make_source(daemon: &Daemon) {
    daemon.boxship(&["create", "--name", "source", "-v", "kept:/data", "busybox"]).ok();
    let change = Tar::default().file("changed", 0o644, &[1; 100_000]).finish();
    let tar = [("Content-Type", "application/x-tar")];
    let put = daemon.api().request("PUT", "/containers/source/archive?path=/", &tar, &change);
    assert_eq!(put.unwrap().status, 200);
}

/// Everything that is listed can be read to its last byte.
#[track_caller]
fn check_images(daemon: &Daemon) {
    let images = daemon.boxship(&["images", "-q", "--no-trunc"]).ok();
    for id in images.lines() {
        let inspected = daemon.boxship(&["inspect", "-f", "{{.Id}}", id]);
        assert_eq!(inspected.ok(), id);
        let saved = daemon.api().get(&format!("/images/{id}/get")).unwrap();
        assert_eq!(saved.status, 200);
        let mut archive = tar::Archive::new(&saved.body[..]);
        assert!(archive.entries().unwrap().all(|entry| entry.is_ok()), "{id}");
    }
}

/// 20 kills; `cargo xtask torture` sets `BOXSHIP_TORTURE` to more.
#[test]
fn kills_in_the_middle_of_the_stores_work_leave_nothing() {
    let rounds =
        std::env::var("BOXSHIP_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(20_usize);
    let mut daemon = daemon();
    make_source(&daemon);
    let done = AtomicUsize::new(0);
    for round in 0..rounds {
        let socket = daemon.socket_path();
        std::thread::scope(|scope| {
            for kind in 0..7 {
                let (socket, done) = (&socket, &done);
                scope.spawn(move || run_until_killed(socket, kind, done));
            }
            std::thread::sleep(Duration::from_millis(40 + (round as u64 * 67) % 400));
            daemon.kill();
        });
        daemon.launch();
        if round % 5 == 4 {
            check_images(&daemon);
        }
        daemon.boxship(&["system", "check"]).ok();
    }
    assert!(done.load(Ordering::Relaxed) > rounds, "too little happened between the kills");
    let all = daemon.boxship(&["ps", "-aq"]).ok();
    let mut remove = vec!["rm", "-fv"];
    remove.extend(all.lines());
    daemon.boxship(&remove).ok();
    daemon.boxship(&["image", "prune", "-af"]).ok();
    daemon.boxship(&["volume", "prune", "-af"]).ok();
    assert_eq!(daemon.boxship(&["images", "-aq"]).ok(), "");
    assert_eq!(testkit::leaks::stored(&daemon.data_root()), Vec::<String>::new());
    daemon.boxship(&["system", "check"]).ok();
    // And the next one finds nothing to clear away.
    daemon.restart();
    daemon.finish();
}
