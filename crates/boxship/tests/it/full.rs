//! A full disk: the data root is a small file system of its own. What does not fit is refused with
//! a clear text and leaves nothing behind; what frees room works.

use std::process::Command;

use serde_json::json;
use testkit::daemon::Disk;
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Options, Output, Response, run::run, wait_until};

use crate::layouts::row;
use crate::{BINARY, field, run_detached};

const FULL: &str = "no space left on device";

fn on_disk(disk: Disk) -> Daemon {
    Daemon::with(BINARY, Options { disk: Some(disk), ..Options::default() })
}

/// Runs a script where the disk is mounted, in the data root.
#[track_caller]
fn inside(daemon: &Daemon, script: &str) -> String {
    let mut command: Command = daemon.inside("sh");
    command.args(["-c", &format!("cd '{}' && {script}", daemon.data_root().display())]);
    run(&mut command, b"").ok()
}

/// Everything that there is, by what is told and by what is on the disk.
fn state(daemon: &Daemon) -> [String; 4] {
    [
        daemon.boxship(&["images", "-a", "--digests"]).ok(),
        daemon.boxship(&["ps", "-a", "--format", "{{.ID}} {{.State}}"]).ok(),
        daemon.boxship(&["volume", "ls"]).ok(),
        inside(daemon, "find . -path ./fill -prune -o -not -name 'metadata.redb*' -print | sort"),
    ]
}

/// An image with some files, of which each has this many bytes.
fn large(name: &str, files: usize, size: usize) -> Vec<u8> {
    let mut layer = Tar::default();
    for number in 0..files {
        layer.file(&format!("file{number}"), 0o644, &[name.as_bytes(), &vec![0; size]].concat());
    }
    Builder::busybox(name).layer(layer.finish()).archive()
}

/// What a client reads of a failure, wherever it stands.
#[track_caller]
fn refused(answer: &str) {
    assert!(answer.to_lowercase().contains(FULL), "{answer}");
    // Rust's own way to say it is nobody's business.
    assert!(!answer.contains("os error"), "{answer}");
}

#[track_caller]
fn refused_command(output: &Output) {
    assert_ne!(output.code, 0, "{output:?}");
    refused(&output.stderr);
}

#[track_caller]
fn refused_request(answer: &Response) {
    assert_eq!(answer.status, 500, "{}", answer.text());
    refused(&answer.message());
}

/// Tries everything that needs room. `fill` takes all that is left.
fn check(disk: Disk, fill: &str, room: (usize, usize)) {
    let daemon = on_disk(disk);
    let (files, size) = room;
    daemon.load(&large("goes:1", files, size));
    run_detached(&daemon, "runs", "sleep 1000");
    let write = format!("for i in $(seq {files}); do head -c {size} /dev/zero >/f$i; done");
    daemon.boxship(&["run", "--name", "wrote", "busybox", "sh", "-c", &write]).ok();
    for name in ["idle", "goes"] {
        daemon.boxship(&["create", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    daemon.boxship(&["volume", "create", "goes"]).ok();
    // What goes later would make room.
    daemon.wait_for_trash();
    inside(&daemon, &format!("mkdir fill; {fill}"));
    let before = state(&daemon);

    let archive = large("new:1", files / 4, size);
    let file = daemon.root().join("new.tar");
    std::fs::write(&file, &archive).unwrap();
    let file = file.display().to_string();
    refused_command(&daemon.boxship(&["load", "-i", &file]));
    refused_command(&daemon.boxship(&["import", &file, "new:2"]));
    refused_command(&daemon.boxship(&["commit", "wrote", "new:3"]));
    refused_command(&daemon.boxship(&["cp", &file, "runs:/new"]));
    refused_command(&daemon.boxship(&["volume", "create", "new"]));
    refused_command(&daemon.boxship(&["create", "-v", "/x", "busybox"]));
    let body = json!({"Image": "busybox"});
    refused_request(&daemon.api().post_json("/containers/create", &body).unwrap());
    refused_request(&daemon.api().post("/containers/idle/start").unwrap());
    daemon.boxship(&["exec", "runs", "rm", "-f", "/new"]).ok();
    wait_until("nothing left of it", || {
        let after = state(&daemon);
        // The container that did not start has its directory's files now, as far as they went.
        (after[..3] == before[..3] && new_files(&before[3], &after[3]).is_empty()).then_some(())
    });

    // What runs goes on; what goes, goes, and gives its room back.
    daemon.boxship(&["exec", "runs", "true"]).ok();
    daemon.boxship(&["rm", "goes", "wrote"]).ok();
    daemon.boxship(&["rmi", "goes:1"]).ok();
    daemon.boxship(&["volume", "prune", "-af"]).ok();
    daemon.boxship(&["system", "prune", "-af"]).ok();
    assert_eq!(daemon.boxship(&["volume", "ls", "-q"]).ok(), "");
    wait_until("room for another", || {
        let loaded = daemon.boxship(&["load", "-i", &file]);
        (loaded.code == 0).then_some(())
    });
    wait_until("room for its container", || {
        let ran = daemon.boxship(&["run", "--rm", "new:1", "cat", "/file0"]);
        (ran.code == 0).then_some(())
    });
    assert_eq!(field(&daemon, "runs", "{{.State.Status}}"), "running");
    daemon.finish();
}

fn new_files<'a>(before: &str, after: &'a str) -> Vec<&'a str> {
    let known: Vec<&str> = before.lines().collect();
    let own = |line: &&str| {
        ["/hosts", "/hostname", "/resolv.conf"].iter().any(|name| line.ends_with(name))
    };
    after.lines().filter(|line| !known.contains(line) && !own(line)).collect()
}

#[test]
fn a_full_disk_refuses_and_can_be_emptied() {
    let disk = Disk { megabytes: 64, inodes: 4096 };
    let fill = "head -c 1G /dev/zero >fill/a 2>/dev/null; \
                for i in $(seq 64); do head -c 1K /dev/zero >fill/b$i 2>/dev/null; done; sync; \
                for i in $(seq 64); do head -c 1K /dev/zero >fill/c$i 2>/dev/null; done; true";
    check(disk, fill, (8, 1 << 20));
}

#[test]
fn a_disk_without_inodes_refuses_and_can_be_emptied() {
    let disk = Disk { megabytes: 64, inodes: 512 };
    let fill = "(cd fill && touch $(seq 600) 2>/dev/null); true";
    check(disk, fill, (64, 16));
}

/// It also starts on a full disk, to be emptied, and knows as before what the kernel can mount.
#[test]
fn a_daemon_starts_on_a_full_disk() {
    for layout in ["dirs", "erofs", "auto"] {
        let disk = Some(Disk { megabytes: 64, inodes: 1024 });
        let args = vec![format!("--storage-opt=layout={layout}")];
        let mut daemon = Daemon::with(BINARY, Options { disk, args, ..Options::default() });
        daemon.load(&large("goes:1", 8, 1 << 20));
        let layers = row(&daemon);
        let fill = "mkdir fill; head -c 1G /dev/zero >fill/a 2>/dev/null; \
            (cd fill && touch $(seq 1100) 2>/dev/null); sync; true";
        inside(&daemon, fill);
        daemon.restart();
        assert_eq!(row(&daemon), layers);
        daemon.boxship(&["system", "check"]).ok();
        daemon.boxship(&["rmi", "goes:1"]).ok();
        inside(&daemon, "rm fill/1*");
        wait_until("room", || {
            let made = daemon.boxship(&["run", "--rm", "busybox", "true"]);
            (made.code == 0).then_some(())
        });
        daemon.finish();
    }
}
