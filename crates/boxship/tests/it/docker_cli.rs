//! Docker's own client against our daemon, unmodified.

use std::io::{Read, Write};

use testkit::Daemon;

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
    // The client cuts `--until` to whole seconds.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (now.as_secs() + 1).to_string();
    let events = docker(&daemon, &["events", "--since", "0", "--until", &until]);
    assert!(events.contains("container destroy"), "{events}");
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

/// A client with a terminal of its own.
struct Terminal {
    master: std::fs::File,
    client: std::process::Child,
    seen: String,
}

impl Terminal {
    fn run(daemon: &Daemon, program: &str, args: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = std::fs::File::options().read(true).write(true).open(name).unwrap();
        let mut command = daemon.client_command("setsid");
        command.args(["--ctty", "--wait", program]).args(args);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        let client = command.stderr(slave).spawn().unwrap();
        Self { master: master.into(), client, seen: String::new() }
    }

    /// Reads until `text` was shown since the last call.
    fn expect(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut buffer = [0; 4096];
            // The last reader of a terminal gets EIO when the client is gone.
            let length = self.master.read(&mut buffer).unwrap_or(0);
            assert_ne!(length, 0, "no {text:?} in {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        self.seen.clear();
    }

    fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        // What is left to read must not hold the client up.
        let mut rest = Vec::new();
        self.master.read_to_end(&mut rest).ok();
        self.client.wait().unwrap().code()
    }
}

#[test]
fn terminals_are_terminals() {
    let daemon = daemon();
    for program in ["docker", crate::BINARY] {
        let mut shell = Terminal::run(&daemon, program, &["run", "--rm", "-it", "busybox", "sh"]);
        shell.expect("#");
        shell.send("tty; stty size; exit 5\r");
        shell.expect("/dev/pts/0");
        assert_eq!(shell.end(), Some(5), "{program}");
        docker(&daemon, &["run", "-d", "--name", "t1", "busybox", "sleep", "1000"]);
        let mut shell = Terminal::run(&daemon, program, &["exec", "-it", "t1", "sh"]);
        shell.expect("#");
        shell.send("tty; exit 6\r");
        shell.expect("/dev/pts/");
        assert_eq!(shell.end(), Some(6), "{program}");
        docker(&daemon, &["rm", "-f", "t1"]);
        // ctrl-p ctrl-q leaves the container running.
        let args = ["run", "-it", "--name", "d1", "busybox", "sh"];
        let mut shell = Terminal::run(&daemon, program, &args);
        shell.expect("#");
        shell.send("\x10\x11");
        assert_eq!(shell.end(), Some(0), "{program}");
        assert_eq!(field(&daemon, "d1", "{{.State.Running}}"), "true");
        docker(&daemon, &["rm", "-f", "d1"]);
    }
    daemon.finish();
}

/// Takes out what moves with the clock: ages, and the width of their columns.
fn ageless(text: &str) -> String {
    let words: Vec<_> = text
        .replace("Less than a second", "1 second")
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let mut out = Vec::new();
    for word in words {
        if word.starts_with("second") {
            out.pop();
        }
        out.push(word.replace("seconds", "second"));
    }
    out.join(" ")
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
        assert_eq!(ageless(&ours.stdout), ageless(&theirs.stdout), "{args:?}");
        assert_eq!(ours.code, theirs.code, "{args:?}: {} / {}", ours.stderr, theirs.stderr);
    }
    daemon.finish();
}
