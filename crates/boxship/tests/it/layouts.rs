//! Layers as one file each: the same commands, the same results, and changing one's mind.

use testkit::image::Tar;
use testkit::{Daemon, Options, wait_until};

use crate::{BINARY, run_detached};

pub(crate) fn with_layout(name: &str) -> Daemon {
    let args = vec![format!("--storage-opt=layout={name}")];
    Daemon::with(BINARY, Options { args, ..Options::default() })
}

/// Waits until a command in a container succeeds.
fn wait_for(daemon: &Daemon, command: &[&str]) {
    let command = [&["exec"], command].concat();
    wait_until("the container", || (daemon.boxship(&command).code == 0).then_some(()));
}

pub(crate) fn row(daemon: &Daemon) -> String {
    let info = daemon.api().get("/info").unwrap().json();
    let status = info["DriverStatus"].as_array().unwrap();
    let row = status.iter().find(|row| row[0] == "Layers").unwrap();
    row[1].as_str().unwrap().to_owned()
}

#[test]
fn everything_works_on_one_file_layers() {
    let mut daemon = with_layout("erofs");
    assert_eq!(row(&daemon), "EROFS, file-backed");
    // Written over, deleted and renamed in a container; seen by diff, export, cp, commit and save.
    let script = "echo new >/etc/new; rm /etc/group; mv /bin /binaries; touch -d @5 /etc/passwd; \
        /binaries/echo done >/ready; exec /binaries/sleep 1000";
    run_detached(&daemon, "changed", script);
    wait_for(&daemon, &["changed", "/binaries/cat", "/ready"]);
    let changes = daemon.boxship(&["diff", "changed"]).ok();
    for line in ["C /etc", "A /etc/new", "D /etc/group", "C /etc/passwd", "D /bin", "A /binaries"] {
        assert!(changes.lines().any(|change| change == line), "{line}:\n{changes}");
    }
    daemon
        .boxship(&["cp", "changed:/etc/new", &daemon.root().join("out").display().to_string()])
        .ok();
    assert_eq!(std::fs::read_to_string(daemon.root().join("out")).unwrap(), "new\n");
    let names = exported(&daemon, "changed");
    assert!(names.iter().any(|name| name == "binaries/busybox"), "{names:?}");
    assert!(!names.iter().any(|name| name == "etc/group"), "{names:?}");
    daemon.boxship(&["commit", "changed", "committed"]).ok();
    let on_it = ["run", "--rm", "committed", "/binaries/sh", "-c", "cat /etc/new; ls /etc/group"];
    let output = daemon.boxship(&on_it);
    assert_eq!(output.stdout, "new\n");
    assert!(output.stderr.contains("No such file"), "{}", output.stderr);
    let archive = daemon.root().join("saved.tar").display().to_string();
    daemon.boxship(&["save", "-o", &archive, "committed"]).ok();
    // Nobody needs the mounts of images once the containers on them have started.
    run_detached(&daemon, "second", "sleep 1000");
    wait_until("the mounts to go", || mounts(&daemon).is_empty().then_some(()));
    daemon.boxship(&["rmi", "committed"]).ok();
    // Its files go, soon.
    daemon.wait_for_trash();
    // Neither a killed daemon's containers nor those of one that ended miss them.
    daemon.restart();
    assert_eq!(daemon.boxship(&["exec", "changed", "/binaries/cat", "/etc/new"]).ok(), "new");
    daemon.terminate();
    assert_eq!(mounts(&daemon).len(), 0);
    daemon.launch();
    assert_eq!(daemon.boxship(&["exec", "changed", "/binaries/cat", "/etc/new"]).ok(), "new");
    daemon.boxship(&["restart", "-t", "0", "second"]).ok();
    daemon.boxship(&["load", "-i", &archive]).ok();
    assert_eq!(daemon.boxship(&on_it).stdout, "new\n");
    daemon.finish();
}

#[test]
fn layers_of_either_form_outlive_a_change_of_layout() {
    let mut daemon = with_layout("dirs");
    assert_eq!(row(&daemon), "directories");
    for (number, layout) in ["erofs", "dirs", "erofs-file"].into_iter().enumerate() {
        let mut layer = Tar::default();
        layer.file(&format!("layer-{number}"), 0o644, layout.as_bytes());
        daemon.boxship_with(&["import", "-", &format!("only:{number}")], &layer.finish()).ok();
        let name = format!("c{number}");
        run_detached(&daemon, &name, &format!("echo {number} >/made-{number}; sleep 1000"));
        wait_for(&daemon, &[&name, "cat", &format!("/made-{number}")]);
        daemon.boxship(&["commit", &name, "busybox:latest"]).ok();
        daemon.terminate();
        daemon.set_args(vec![format!("--storage-opt=layout={layout}")]);
        daemon.launch();
    }
    let listed = daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", "cat /made-*"]).ok();
    assert_eq!(listed, "0\n1\n2");
    for number in 0..3 {
        let layer = daemon.root().join("only.tar").display().to_string();
        daemon.boxship(&["save", "-o", &layer, &format!("only:{number}")]).ok();
        daemon.boxship(&["rmi", &format!("only:{number}")]).ok();
        daemon.boxship(&["load", "-i", &layer]).ok();
    }
    daemon.finish();
}

/// Mounts of images keep the host from running what is in them, and containers from nothing.
#[test]
fn setuid_works_in_containers_and_not_on_the_host() {
    let daemon = with_layout("erofs");
    // Busybox gives such a right up by itself.
    daemon.load(&testkit::image::debian());
    let script = "cp /usr/bin/id /usr/bin/root-id && chmod 4755 /usr/bin/root-id";
    daemon.boxship(&["run", "--name", "maker", "debian:bookworm", "sh", "-c", script]).ok();
    daemon.boxship(&["commit", "maker", "setuid"]).ok();
    let as_user = ["run", "--rm", "-u", "1000", "setuid", "root-id", "-u"];
    let images = || -> Vec<String> {
        let mut command = daemon.inside("cat");
        let table = testkit::run::run(command.arg("/proc/self/mountinfo"), b"").ok();
        table.lines().filter(|line| line.contains(" - erofs ")).map(str::to_owned).collect()
    };
    // They are there for a moment after a start.
    let seen = wait_until("the mount of an image", || {
        assert_eq!(daemon.boxship(&as_user).ok(), "0");
        Some(images()).filter(|images| !images.is_empty())
    });
    for line in seen {
        assert!(line.contains("ro,nosuid,nodev"), "{line}");
    }
    wait_until("it to go", || images().is_empty().then_some(()));
    daemon.finish();
}

#[test]
fn wishes_that_cannot_be_granted_are_refused() {
    let daemon = crate::daemon();
    for (option, reason) in [
        ("layout=zip", "must be dirs, erofs, erofs-file, erofs-loop or auto"),
        ("overlay2.size=1G", "only layout is known"),
    ] {
        let mut command = daemon.inside(BINARY);
        let output =
            testkit::run::run(command.args(["daemon", "--validate", "--storage-opt", option]), b"");
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains(reason), "{}", output.stderr);
    }
    daemon.finish();
}

fn mounts(daemon: &Daemon) -> Vec<String> {
    let mut command = daemon.inside("cat");
    let table = testkit::run::run(command.arg("/proc/self/mountinfo"), b"").ok();
    let place = daemon.data_root().join("storage/mounts/").display().to_string();
    let found = table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
    found.filter(|target| target.starts_with(&place)).collect()
}

fn exported(daemon: &Daemon, container: &str) -> Vec<String> {
    let answer = daemon.api().get(&format!("/containers/{container}/export")).unwrap();
    let mut archive = tar::Archive::new(answer.body.as_slice());
    let names = archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned());
    names.collect()
}
