//! Docker's own client against our daemon, unmodified.

use std::io::Write;
use std::process::Stdio;

use testkit::{Daemon, wait_until};

use crate::{daemon, field};

fn docker(daemon: &Daemon, args: &[&str]) -> String {
    daemon.docker(args).ok()
}

#[test]
fn the_daily_commands_work() {
    let daemon = daemon();
    let id = docker(&daemon, &["run", "-d", "--name", "web", "busybox", "sleep", "1000"]);
    assert!(docker(&daemon, &["ps"]).contains("web"));
    assert_eq!(docker(&daemon, &["ps", "-q", "--no-trunc"]), id);
    assert_eq!(docker(&daemon, &["exec", "web", "echo", "inside"]), "inside");
    assert!(docker(&daemon, &["top", "web"]).contains("sleep 1000"));
    assert!(docker(&daemon, &["stats", "--no-stream", "web"]).contains("web"));
    assert!(docker(&daemon, &["inspect", "web"]).contains(&id));
    docker(&daemon, &["update", "--memory", "128m", "--memory-swap", "-1", "web"]);
    docker(&daemon, &["rename", "web", "site"]);
    docker(&daemon, &["pause", "site"]);
    docker(&daemon, &["unpause", "site"]);
    docker(&daemon, &["exec", "site", "touch", "/made"]);
    assert!(docker(&daemon, &["diff", "site"]).contains("A /made"));
    docker(&daemon, &["kill", "-s", "KILL", "site"]);
    assert_eq!(docker(&daemon, &["wait", "site"]), "137");
    docker(&daemon, &["start", "site"]);
    docker(&daemon, &["stop", "-t", "0", "site"]);
    docker(&daemon, &["rm", "site"]);
    assert!(docker(&daemon, &["info"]).contains("Server Version"));
    assert!(docker(&daemon, &["version"]).contains("API version"));
    assert!(
        docker(&daemon, &["events", "--since", "0", "--until", "0s"]).contains("container destroy")
    );
    daemon.finish();
}

#[test]
fn images_come_and_go() {
    let daemon = daemon();
    let saved = daemon.root().join("b.tar").display().to_string();
    docker(&daemon, &["save", "-o", &saved, "busybox"]);
    docker(&daemon, &["tag", "busybox", "other:1"]);
    assert!(docker(&daemon, &["images"]).contains("other"));
    docker(&daemon, &["rmi", "busybox", "other:1"]);
    assert!(docker(&daemon, &["load", "-i", &saved]).contains("Loaded image: busybox:latest"));
    assert_eq!(docker(&daemon, &["history", "-q", "busybox"]).lines().count(), 1);
    let mut tar = testkit::image::Tar::default();
    let rootfs = tar.directory("etc").file("etc/hello", 0o644, b"hi").finish();
    let id = daemon.docker_with(&["import", "-c", "ENV A=b", "-", "imported:1"], &rootfs).ok();
    assert!(id.starts_with("sha256:"));
    assert_eq!(
        docker(&daemon, &["inspect", "-f", "{{json .Config.Env}}", "imported:1"]),
        "[\"A=b\"]"
    );
    assert!(docker(&daemon, &["image", "prune", "-af"]).contains("imported:1"));
    daemon.finish();
}

#[test]
fn run_attaches_and_passes_exit_codes() {
    let daemon = daemon();
    assert_eq!(
        daemon
            .docker_with(&["run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7"], b"piped")
            .code,
        7
    );
    let output = daemon.docker_with(&["run", "--rm", "-i", "busybox", "cat"], &vec![b'z'; 1 << 20]);
    assert_eq!(output.stdout.len(), 1 << 20);
    let output = daemon.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(daemon.docker(&["run", "--rm", "busybox", "nosuch"]).code, 127);
    assert_eq!(daemon.docker(&["run", "--rm", "busybox", "/etc"]).code, 126);
    assert_eq!(daemon.docker(&["run", "--rm", "--memory", "1k", "busybox", "true"]).code, 125);
    assert_eq!(docker(&daemon, &["ps", "-aq"]), "");
    daemon.finish();
}

#[test]
fn logs_follow_to_the_end() {
    let daemon = daemon();
    docker(
        &daemon,
        &[
            "run",
            "-d",
            "--name",
            "l1",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done",
        ],
    );
    assert_eq!(docker(&daemon, &["logs", "-f", "l1"]), "1\n2\n3\n4\n5");
    daemon.finish();
}

/// Runs a client under a terminal of `script(1)` and feeds it input.
fn on_terminal(daemon: &Daemon, program: &str, args: &str, input: &str) -> String {
    let mut command = daemon.client_command("script");
    command.args(["-qec", &format!("{program} {args}"), "/dev/null"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn terminals_are_terminals() {
    let daemon = daemon();
    for program in ["docker", crate::BINARY] {
        let seen = on_terminal(&daemon, program, "run --rm -it busybox sh", "tty; exit 5\r");
        assert!(seen.contains("/dev/pts/0"), "{program}: {seen}");
        docker(&daemon, &["run", "-d", "--name", "t1", "busybox", "sleep", "1000"]);
        let seen = on_terminal(&daemon, program, "exec -it t1 sh", "tty; exit\r");
        assert!(seen.contains("/dev/pts/"), "{program}: {seen}");
        docker(&daemon, &["rm", "-f", "t1"]);
        // ctrl-p ctrl-q leaves the container running.
        on_terminal(&daemon, program, "run -it --name d1 busybox sh", "echo x\r\x10\x11");
        wait_until("the detach", || {
            (field(&daemon, "d1", "{{.State.Running}}") == "true").then_some(())
        });
        docker(&daemon, &["rm", "-f", "d1"]);
    }
    daemon.finish();
}

#[test]
fn both_clients_print_the_same() {
    let daemon = daemon();
    docker(&daemon, &["run", "-d", "--name", "one", "-l", "a=b", "busybox", "sleep", "1000"]);
    daemon.docker(&["run", "--name", "two", "busybox", "sh", "-c", "exit 2"]).fails(2);
    for args in [
        &["ps"][..],
        &["ps", "-a", "--no-trunc"],
        &["ps", "-a", "--format", "{{.Names}} {{.Status}} {{.Labels}}"],
        &["ps", "-a", "--format", "json"],
        &["images"],
        &["images", "--digests", "--no-trunc"],
        &["inspect", "one"],
        &["inspect", "-f", "{{range .Config.Env}}{{.}};{{end}}{{.State.Pid}}", "one"],
        &["inspect", "nosuch"],
        &["logs", "nosuch"],
        &["rm", "one"],
        &["network", "ls"],
        &["version", "--format", "{{.Server.Version}}"],
        &["history", "busybox"],
        &["diff", "one"],
        &["container", "ls", "-aq"],
        &["image", "inspect", "busybox"],
        &["stop", "nosuch"],
    ] {
        let (theirs, ours) = (daemon.docker(args), daemon.boxship(args));
        assert_eq!(ours.stdout, theirs.stdout, "{args:?}");
        assert_eq!(ours.code, theirs.code, "{args:?}: {} / {}", ours.stderr, theirs.stderr);
    }
    daemon.finish();
}
