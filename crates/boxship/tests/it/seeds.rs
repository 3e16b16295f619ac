//! The acceptance checks of the seed articles (inventory/seeds.tsv), one test an id.

use serde_json::{Value, json};
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Options, wait_until};

use crate::{BINARY, daemon, field, run_detached};

#[test]
fn s01_one_application_is_isolated_in_its_container() {
    let daemon = daemon();
    let seen = daemon
        .boxship(&[
            "run",
            "--rm",
            "--hostname",
            "alone",
            "busybox",
            "sh",
            "-c",
            "ps -o pid,args; hostname; ip -o addr; cat /proc/mounts; ls -l /proc/self/ns",
        ])
        .ok();
    let processes = seen.lines().take_while(|line| *line != "alone").count();
    assert!(processes <= 4, "host processes are visible:\n{seen}");
    assert!(seen.contains("eth0") && seen.contains("lo"), "{seen}");
    assert!(!seen.contains("boxship0"), "host interfaces are visible:\n{seen}");
    assert!(
        !seen.contains(&daemon.root().display().to_string()) || seen.contains("overlay"),
        "{seen}"
    );
    for namespace in ["pid", "mnt", "net", "uts", "ipc"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert!(!seen.contains(&*own.to_string_lossy()), "shares {namespace}:\n{seen}");
    }
    daemon.finish();
}

#[test]
fn s02_memory_is_limited_and_the_kill_is_told() {
    let daemon = daemon();
    let mut events = daemon.api();
    events.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(events.response_head().unwrap().status, 200);
    let output = daemon.boxship(&[
        "run",
        "--name",
        "hog",
        "-m",
        "64m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=200M",
        "count=1",
    ]);
    assert_eq!(output.code, 137, "{output:?}");
    assert_eq!(field(&daemon, "hog", "{{.State.OOMKilled}}"), "true");
    let mut seen = Vec::new();
    while !seen.contains(&"oom".to_owned()) {
        let chunk = events.chunk().unwrap().expect("the stream stays open");
        for line in String::from_utf8(chunk).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            seen.push(event["Action"].as_str().unwrap().to_owned());
        }
    }
    run_detached(&daemon, "calm", "while :; do :; done");
    assert!(daemon.boxship(&["top", "calm"]).ok().contains("while :"));
    let stats = daemon
        .boxship(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "calm"])
        .ok();
    assert!(stats.starts_with("calm ") && stats.contains("iB / "), "{stats}");
    daemon.finish();
}

#[test]
fn s03_containers_use_the_hosts_kernel_and_one_process() {
    let daemon = daemon();
    let inside = daemon
        .boxship(&["run", "--rm", "busybox", "sh", "-c", "uname -r; echo $$; ls -d /proc/[0-9]*"])
        .ok();
    let mut lines = inside.lines();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(lines.next(), Some(kernel.trim()));
    assert_eq!(lines.next(), Some("1"));
    // The shell and its ls, nothing else.
    assert!(lines.count() <= 2, "{inside}");
    daemon.finish();
}

#[test]
fn s04_starting_a_container_is_cheap() {
    // The measured comparison with dockerd is `cargo xtask bench` and docs/performance.md. What
    // a test on a noisy machine can hold is what makes it cheap: one process, few system calls.
    let daemon = daemon();
    let before = cpu_of(daemon.pid()) + cpu_of(daemon.supervisor_pid().unwrap());
    for _ in 0..20 {
        daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
    }
    let spent = cpu_of(daemon.pid()) + cpu_of(daemon.supervisor_pid().unwrap()) - before;
    // 20 ticks of 10 ms each run would be 200 ms of CPU; a debug build stays far below.
    assert!(spent < 20 * 20, "{spent} ticks of CPU for 20 runs");
    daemon.finish();
}

/// User and system time of a process, in clock ticks.
fn cpu_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn s05_copy_on_write_keeps_containers_and_image_apart() {
    let daemon = daemon();
    for name in ["one", "two"] {
        run_detached(&daemon, name, "sleep 1000");
    }
    daemon
        .boxship(&[
            "exec",
            "one",
            "sh",
            "-c",
            "echo changed >/etc/passwd; echo new >/root/n; rm /etc/group",
        ])
        .ok();
    assert_ne!(daemon.boxship(&["exec", "two", "cat", "/etc/passwd"]).ok(), "changed");
    assert_ne!(daemon.boxship(&["run", "--rm", "busybox", "cat", "/etc/passwd"]).ok(), "changed");
    let diff = daemon.boxship(&["diff", "one"]).ok();
    let mut lines: Vec<_> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /root/n", "C /etc", "C /etc/passwd", "C /root", "D /etc/group"]);
    assert_eq!(daemon.boxship(&["diff", "two"]).ok(), "");
    daemon.finish();
}

/// Three layers: the second overwrites a file and adds one, the third deletes and hides.
fn layered() -> Builder {
    let mut first = Tar::default();
    first.directory("d").file("d/a", 0o644, b"1").file("d/b", 0o644, b"1").directory("o");
    first.file("o/old", 0o644, b"1");
    let mut second = Tar::default();
    second.file("d/a", 0o644, b"2").file("d/c", 0o644, b"2");
    let mut third = Tar::default();
    third.file("d/.wh.b", 0o644, b"").directory("o").file("o/.wh..wh..opq", 0o644, b"");
    third.file("o/new", 0o644, b"3");
    Builder::busybox("layered:1").layer(first.finish()).layer(second.finish()).layer(third.finish())
}

const SHOW_LAYERED: &str = "cat /d/a; echo; ls /d /o";
const LAYERED: &str = "2\n/d:\na\nc\n\n/o:\nnew";

#[test]
fn s06_upper_layers_win_and_deletions_hide() {
    let daemon = daemon();
    daemon.load(&layered().archive());
    let run = |daemon: &Daemon| {
        daemon.boxship(&["run", "--rm", "layered:1", "sh", "-c", SHOW_LAYERED]).ok()
    };
    assert_eq!(run(&daemon), LAYERED);
    // Whiteouts survive save and load.
    let saved = daemon.root().join("saved.tar").display().to_string();
    daemon.boxship(&["save", "-o", &saved, "layered:1"]).ok();
    daemon.boxship(&["rmi", "layered:1"]).ok();
    daemon.boxship(&["load", "-i", &saved]).ok();
    assert_eq!(run(&daemon), LAYERED);
    daemon.finish();
}

#[test]
fn s10_an_image_is_layers_and_metadata_and_never_changes() {
    let daemon = daemon();
    let id = || daemon.boxship(&["images", "-q", "--no-trunc", "busybox"]).ok();
    let before = id();
    daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", "echo x >/x; rm /etc/passwd"]).ok();
    assert_eq!(id(), before);
    let inspect: Value =
        serde_json::from_str(&daemon.boxship(&["inspect", "busybox"]).ok()).unwrap();
    assert_eq!(inspect[0]["Id"], before);
    assert_eq!(inspect[0]["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(inspect[0]["Config"]["Cmd"], json!(["sh"]));
    daemon.finish();
}

#[test]
fn s11_images_move_between_hosts_unchanged() {
    let (first, second) =
        (daemon(), Daemon::with(BINARY, Options { without_images: true, ..Options::default() }));
    first.load(&layered().archive());
    let saved = first.root().join("moved.tar").display().to_string();
    first.boxship(&["save", "-o", &saved, "layered:1"]).ok();
    second.boxship(&["load", "-i", &saved]).ok();
    let id = |daemon: &Daemon| daemon.boxship(&["images", "-q", "--no-trunc", "layered"]).ok();
    assert_eq!(id(&first), id(&second));
    assert_eq!(
        second.boxship(&["run", "--rm", "layered:1", "sh", "-c", SHOW_LAYERED]).ok(),
        LAYERED
    );
    first.finish();
    second.finish();
}

#[test]
fn s12_a_running_container_can_be_entered_and_changed() {
    let daemon = daemon();
    run_detached(&daemon, "box", "sleep 1000");
    daemon
        .boxship_with(&["exec", "-i", "box", "sh"], b"echo installed >/root/package\nexit\n")
        .ok();
    assert_eq!(daemon.boxship(&["exec", "box", "cat", "/root/package"]).ok(), "installed");
    daemon.boxship(&["restart", "-t", "0", "box"]).ok();
    assert_eq!(daemon.boxship(&["exec", "box", "cat", "/root/package"]).ok(), "installed");
    daemon.boxship(&["rm", "-f", "box"]).ok();
    assert!(daemon.boxship(&["run", "--rm", "busybox", "cat", "/root/package"]).code != 0);
    daemon.finish();
}

#[test]
fn s13_a_container_is_exported_and_imported() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo changed >/root/f; rm /etc/group",
        ])
        .ok();
    let file = daemon.root().join("c.tar").display().to_string();
    daemon.boxship(&["export", "-o", &file, "cc"]).ok();
    let id = daemon.boxship(&["import", "-c", "CMD [\"cat\",\"/root/f\"]", &file, "new:1"]).ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(daemon.boxship(&["run", "--rm", "new:1"]).ok(), "changed");
    assert_eq!(
        daemon
            .boxship(&["run", "--rm", "new:1", "sh", "-c", "ls /etc/group 2>/dev/null; echo gone"])
            .ok(),
        "gone"
    );
    daemon.finish();
}

#[test]
fn s14_a_container_is_committed_to_an_image() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo changed >/root/f; rm /etc/group",
        ])
        .ok();
    let id = daemon
        .boxship(&[
            "commit",
            "-m",
            "why",
            "-a",
            "who",
            "-c",
            "CMD [\"cat\",\"/root/f\"]",
            "cc",
            "repo:tag",
        ])
        .ok();
    let inspect: Value =
        serde_json::from_str(&daemon.boxship(&["inspect", "repo:tag"]).ok()).unwrap();
    assert_eq!(inspect[0]["Id"], id);
    assert_eq!((&inspect[0]["Comment"], &inspect[0]["Author"]), (&json!("why"), &json!("who")));
    assert!(daemon.boxship(&["history", "repo:tag"]).ok().contains("why"));
    assert_eq!(daemon.boxship(&["run", "--rm", "repo:tag"]).ok(), "changed");
    assert_eq!(
        daemon
            .boxship(&[
                "run",
                "--rm",
                "repo:tag",
                "sh",
                "-c",
                "ls /etc/group 2>/dev/null; echo gone"
            ])
            .ok(),
        "gone"
    );
    daemon.finish();
}

#[test]
fn s15_images_are_named_like_commits() {
    let daemon = daemon();
    daemon.boxship(&["tag", "busybox", "mine/app:1"]).ok();
    daemon.boxship(&["tag", "mine/app:1", "localhost:5000/app:2"]).ok();
    let images = daemon.boxship(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut lines: Vec<_> = images.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["busybox:latest", "localhost:5000/app:2", "mine/app:1"]);
    let id = daemon.boxship(&["images", "-q", "--no-trunc", "busybox"]).ok();
    assert!(daemon.boxship(&["history", "-q", "--no-trunc", "mine/app:1"]).ok().starts_with(&id));
    assert_eq!(daemon.boxship(&["rmi", "mine/app:1"]).ok(), "Untagged: mine/app:1");
    assert!(daemon.boxship(&["rmi", &id]).fails(1).contains("must be forced"));
    assert!(daemon.boxship(&["rmi", "-f", &id]).ok().contains(&format!("Deleted: {id}")));
    assert_eq!(daemon.boxship(&["images", "-q"]).ok(), "");
    daemon.finish();
}

#[test]
fn s16_the_commands_end_is_the_containers_end() {
    let daemon = daemon();
    let output = daemon.boxship(&["run", "--name", "seven", "busybox", "sh", "-c", "exit 7"]);
    assert_eq!(output.code, 7);
    assert_eq!(field(&daemon, "seven", "{{.State.ExitCode}} {{.State.Status}}"), "7 exited");
    assert_eq!(daemon.boxship(&["wait", "seven"]).ok(), "7");
    assert_eq!(daemon.boxship(&["start", "-a", "seven"]).code, 7);
    assert_eq!(daemon.docker(&["start", "-a", "seven"]).code, 7);
    assert_eq!(daemon.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]).code, 7);
    run_detached(&daemon, "other", "sleep 1000");
    assert_eq!(daemon.boxship(&["exec", "other", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(daemon.docker(&["exec", "other", "sh", "-c", "exit 7"]).code, 7);
    daemon.finish();
}

/// The actions of a container's events, in order.
fn actions(daemon: &Daemon, name: &str) -> Vec<String> {
    let events = daemon
        .boxship(&[
            "events",
            "--since",
            "0",
            "--until",
            "0s",
            "--filter",
            &format!("container={name}"),
            "--format",
            "{{.Action}}",
        ])
        .ok();
    events.lines().filter(|action| *action != "attach").map(str::to_owned).collect()
}

#[test]
fn s17_run_is_create_and_start() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "both", "busybox", "sleep", "1000"]).ok();
    assert_eq!(field(&daemon, "both", "{{.State.Status}}"), "created");
    daemon.boxship(&["start", "both"]).ok();
    daemon.boxship(&["run", "-d", "--name", "once", "busybox", "sleep", "1000"]).ok();
    let shape = |name| {
        let text = daemon.boxship(&["inspect", name]).ok();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        for key in [
            "Id",
            "Created",
            "Name",
            "State",
            "NetworkSettings",
            "GraphDriver",
            "HostnamePath",
            "HostsPath",
            "LogPath",
            "ResolvConfPath",
        ] {
            value[0].as_object_mut().unwrap().remove(key);
        }
        for key in ["Hostname", "AttachStdout", "AttachStderr"] {
            value[0]["Config"].as_object_mut().unwrap().remove(key);
        }
        value
    };
    assert_eq!(shape("both"), shape("once"));
    assert_eq!(actions(&daemon, "both"), ["create", "start"]);
    assert_eq!(actions(&daemon, "once"), ["create", "start"]);
    daemon.finish();
}

#[test]
fn s18_detached_containers_outlive_their_client() {
    let daemon = daemon();
    let id = daemon
        .boxship(&["run", "-d", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.1; done"])
        .ok();
    assert_eq!(id.len(), 64);
    wait_until("two ticks", || {
        (daemon.boxship(&["logs", &id]).ok().lines().count() > 2).then_some(())
    });
    assert_eq!(field(&daemon, &id, "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn s19_a_program_that_daemonises_itself_ends_the_container() {
    let daemon = daemon();
    assert_eq!(
        daemon
            .boxship(&["run", "--name", "forks", "busybox", "sh", "-c", "(sleep 1000 &) ; exit 0"])
            .code,
        0
    );
    assert_eq!(field(&daemon, "forks", "{{.State.Status}}"), "exited");
    run_detached(&daemon, "foreground", "exec sleep 1000");
    assert_eq!(field(&daemon, "foreground", "{{.State.Status}}"), "running");
    daemon.finish();
}

#[test]
fn s20_parameters_belong_to_one_container() {
    let daemon = daemon();
    let directory = daemon.root().join("shared");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("f"), "bound").unwrap();
    let bind = format!("{}:/data:ro", directory.display());
    let run = |args: &[&str]| daemon.boxship(&[&["run", "--rm"], args].concat()).ok();
    assert_eq!(
        run(&[
            "-e",
            "K=V",
            "-v",
            &bind,
            "--name",
            "given",
            "busybox",
            "sh",
            "-c",
            "echo $K $0 $1; cat /data/f",
            "zero",
            "one"
        ]),
        "V zero one\nbound"
    );
    assert_eq!(
        run(&["busybox", "sh", "-c", "echo K=$K; ls /data 2>&1; true"]),
        "K=\nls: /data: No such file or directory"
    );
    daemon.finish();
}

#[test]
fn s21_names_are_unique_and_can_change() {
    let daemon = daemon();
    let id = run_detached(&daemon, "first", "sleep 1000");
    let conflict = daemon.boxship(&["run", "--name", "first", "busybox", "true"]).fails(125);
    assert!(
        conflict.contains(&format!(
            "Conflict. The container name \"/first\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        )),
        "{conflict}"
    );
    daemon.boxship(&["rename", "first", "second"]).ok();
    assert_eq!(field(&daemon, "second", "{{.Id}} {{.Name}}"), format!("{id} /second"));
    assert!(
        daemon
            .boxship(&["inspect", "first"])
            .fails(1)
            .to_lowercase()
            .contains("no such object: first")
    );
    daemon.boxship(&["run", "--rm", "--name", "first", "busybox", "true"]).ok();
    daemon.finish();
}

#[test]
fn s22_an_entrypoint_script_gets_the_arguments() {
    let daemon = daemon();
    let mut layer = Tar::default();
    layer.directory("usr/local/bin");
    layer.file("usr/local/bin/run.sh", 0o755, b"#!/bin/sh\necho \"allow $1 ($#)\"\n");
    let image = Builder::busybox("postgres_image:latest")
        .layer(layer.finish())
        .set("Entrypoint", json!(["/usr/local/bin/run.sh"]))
        .set("Cmd", json!(null));
    daemon.load(&image.archive());
    daemon.boxship(&["create", "--name", "db", "postgres_image", "192.168.0.0/24"]).ok();
    assert_eq!(daemon.boxship(&["start", "-a", "db"]).ok(), "allow 192.168.0.0/24 (1)");
    assert_eq!(
        daemon.boxship(&["run", "--rm", "--entrypoint", "echo", "postgres_image", "instead"]).ok(),
        "instead"
    );
    daemon.finish();
}

#[test]
fn s23_configuration_by_environment() {
    let daemon = daemon();
    let file = daemon.root().join("env");
    std::fs::write(&file, "# comment\nFROM_FILE=1\nHOST_VALUE\n\nSPACED=a b\n").unwrap();
    let mut command = daemon.client_command(BINARY);
    command.env("HOST_VALUE", "taken").env("NAMED", "passed");
    command.args([
        "run",
        "--name",
        "env",
        "-e",
        "K=V=W",
        "-e",
        "NAMED",
        "-e",
        "UNSET_ON_HOST",
        "--env-file",
    ]);
    command.arg(&file).args([
        "busybox",
        "sh",
        "-c",
        "echo \"$K|$FROM_FILE|$HOST_VALUE|$SPACED|$NAMED|${UNSET_ON_HOST-unset}\"",
    ]);
    assert_eq!(testkit::run::run(&mut command, b"").ok(), "V=W|1|taken|a b|passed|unset");
    let env = field(&daemon, "env", "{{json .Config.Env}}");
    let env: Vec<String> = serde_json::from_str(&env).unwrap();
    assert!(env.contains(&"K=V=W".to_owned()) && env.contains(&"SPACED=a b".to_owned()), "{env:?}");
    daemon.finish();
}

#[test]
fn s24_supervisord_runs_several_programs() {
    let daemon = Daemon::with(BINARY, Options { without_images: true, ..Options::default() });
    daemon.load(&testkit::image::with_packages("supervisor", &["supervisor", "procps"]));
    let conf = "[supervisord]\nnodaemon=true\nuser=root\n\
        [program:one]\ncommand=/bin/sh -c 'echo one starts; exec sleep 1000'\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n\
        [program:two]\ncommand=/bin/sh -c 'echo two starts; exec sleep 2000'\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n";
    let file = daemon.root().join("supervisord.conf");
    std::fs::write(&file, conf).unwrap();
    let bind = format!("{}:/etc/supervisor/supervisord.conf:ro", file.display());
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "super",
            "-v",
            &bind,
            "supervisor",
            "/usr/bin/supervisord",
            "-c",
            "/etc/supervisor/supervisord.conf",
        ])
        .ok();
    let pid = |seconds: &str| {
        let output =
            daemon.boxship(&["exec", "super", "pgrep", "-f", &format!("^sleep {seconds}")]);
        (output.code == 0).then(|| output.stdout.trim().to_owned())
    };
    // Supervisord counts a program as running after a second, and starts it again only then.
    wait_until("both programs", || {
        let logs = daemon.boxship(&["logs", "super"]).ok();
        (logs.matches("entered RUNNING state").count() == 2).then_some(())
    });
    let first = pid("1000").expect("it runs");
    daemon.boxship(&["exec", "super", "kill", "-9", &first]).ok();
    wait_until("a restart by supervisord", || pid("1000").filter(|now| *now != first));
    wait_until("both starts in the log", || {
        let logs = daemon.boxship(&["logs", "super"]).ok();
        (logs.matches("one starts").count() >= 2 && logs.contains("two starts")).then_some(())
    });
    assert_eq!(
        daemon.boxship(&["exec", "super", "sh", "-c", "ps -eo stat | grep -c ^Z; true"]).ok(),
        "0"
    );
    daemon.boxship(&["stop", "super"]).ok();
    assert!(daemon.boxship(&["logs", "super"]).ok().contains("SIGTERM"));
    daemon.finish();
}

#[test]
fn s25_no_services_start_by_themselves() {
    let daemon = Daemon::with(BINARY, Options { without_images: true, ..Options::default() });
    daemon.load(&testkit::image::debian());
    let pids = daemon
        .boxship(&[
            "run",
            "--rm",
            "debian:bookworm",
            "sh",
            "-c",
            "echo /proc/[0-9]*/comm; cat /proc/[0-9]*/comm",
        ])
        .ok();
    let names: Vec<_> = pids.lines().skip(1).collect();
    assert!(names.iter().all(|name| ["sh", "cat"].contains(name)), "{pids}");
    daemon.finish();
}

#[test]
fn s26_logs_hold_both_streams() {
    let daemon = daemon();
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done; sleep 0.2; echo last";
    daemon.boxship(&["run", "--name", "talks", "busybox", "sh", "-c", script]).ok();
    let logs = daemon.boxship(&["logs", "talks"]);
    assert_eq!(logs.stdout, "out1\nout2\nout3\nlast\n");
    assert_eq!(logs.stderr, "err1\nerr2\nerr3\n");
    assert_eq!(daemon.docker(&["logs", "talks"]), logs);
    assert_eq!(daemon.boxship(&["logs", "--tail", "1", "talks"]).ok(), "last");
    let stamped = daemon.boxship(&["logs", "-t", "--tail", "1", "talks"]).ok();
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "last"));
    assert_eq!(daemon.boxship(&["logs", "--since", time, "talks"]).ok(), "last");
    assert_eq!(daemon.boxship(&["logs", "--until", "2000-01-01T00:00:00Z", "talks"]).ok(), "");
    run_detached(&daemon, "goes_on", "echo first; read line <&0; sleep 0.3; echo second");
    assert_eq!(daemon.boxship(&["logs", "-f", "goes_on"]).ok(), "first\nsecond");
    daemon.finish();
}

#[test]
fn s43_every_command_is_a_rest_call() {
    let daemon = daemon();
    let by_hand = daemon.api().get("/version").unwrap().json();
    let by_client = daemon.docker(&["version", "--format", "{{json .Server}}"]).ok();
    let by_client: Value = serde_json::from_str(&by_client).unwrap();
    for key in ["Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion"] {
        assert_eq!(by_hand[key], by_client[key], "{key}");
    }
    assert_eq!(
        daemon.boxship(&["version", "--format", "{{.Server.Version}}"]).ok(),
        by_hand["Version"]
    );
    daemon.finish();
}

#[test]
fn s44_the_socket_belongs_to_root_and_the_group_docker() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    let daemon = daemon();
    let metadata = std::fs::metadata(daemon.socket_path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(metadata.uid(), 0);
    let group = std::fs::read_to_string("/etc/group").unwrap();
    let docker = group
        .lines()
        .find_map(|line| line.strip_prefix("docker:x:")?.split(':').next()?.parse().ok());
    assert_eq!(metadata.gid(), docker.unwrap_or(0));
    daemon.finish();
}

#[test]
fn s47_events_tell_the_life_of_a_container() {
    let daemon = daemon();
    run_detached(&daemon, "lives", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    wait_until("the trap", || {
        daemon.boxship(&["logs", "lives"]).stdout.contains("ready").then_some(())
    });
    daemon.boxship(&["stop", "lives"]).ok();
    let id = field(&daemon, "lives", "{{.Id}}");
    daemon.boxship(&["rm", "lives"]).ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The stream ends by itself when the clock reaches `until`.
    let path = format!("/v1.51/events?since=0&until={}", now + 1);
    let body = daemon.api().get(&path).unwrap().text();
    let events: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_container: Vec<_> = events.iter().filter(|event| event["Type"] == "container").collect();
    let actions: Vec<_> =
        of_container.iter().map(|event| event["Action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["create", "start", "kill", "die", "stop", "destroy"]);
    for event in of_container {
        assert_eq!(event["id"], id);
        assert_eq!(event["status"], event["Action"]);
        assert_eq!(event["from"], "busybox");
        assert_eq!(event["Actor"]["Attributes"]["image"], "busybox");
        assert_eq!(event["Actor"]["Attributes"]["name"], "lives");
        assert!(
            event["timeNano"].as_i64().unwrap() / 1_000_000_000 == event["time"].as_i64().unwrap()
        );
    }
    daemon.finish();
}

#[test]
fn s79_restart_policies_survive_daemon_and_host_restarts() {
    let mut daemon = daemon();
    let run = |daemon: &Daemon, name: &str, policy: &str, script: &str| {
        daemon
            .boxship(&[
                "run",
                "-d",
                "--name",
                name,
                "--restart",
                policy,
                "busybox",
                "sh",
                "-c",
                script,
            ])
            .ok()
    };
    run(&daemon, "always", "always", "sleep 1000");
    run(&daemon, "stopped", "unless-stopped", "sleep 1000");
    run(&daemon, "never", "no", "sleep 1000");
    run(&daemon, "fails", "on-failure:2", "exit 3");
    daemon.boxship(&["stop", "-t", "0", "stopped"]).ok();
    wait_until("two restarts", || {
        (field(&daemon, "fails", "{{.RestartCount}} {{.State.Status}}") == "2 exited").then_some(())
    });
    // A killed process is started again.
    let pid = field(&daemon, "always", "{{.State.Pid}}");
    daemon.boxship(&["exec", "always", "kill", "-9", "1"]);
    testkit::run::run(std::process::Command::new("kill").args(["-9", &pid]), b"").ok();
    wait_until("a new process", || {
        let now = field(&daemon, "always", "{{.State.Pid}} {{.State.Running}}");
        (now.ends_with("true") && !now.starts_with(&format!("{pid} "))).then_some(())
    });
    // A host restart as the daemon sees it: everything is dead, the boot has another time.
    daemon.kill();
    daemon.kill_supervisor();
    kill_all_containers(&daemon);
    std::fs::remove_dir_all(daemon.exec_root()).unwrap();
    daemon.launch();
    wait_until("the policy", || {
        (field(&daemon, "always", "{{.State.Status}}") == "running").then_some(())
    });
    assert_eq!(field(&daemon, "stopped", "{{.State.Status}}"), "exited");
    assert_eq!(field(&daemon, "never", "{{.State.Status}}"), "exited");
    daemon.finish();
}

/// Kills every process in the test's cgroups and waits until they are gone.
fn kill_all_containers(daemon: &Daemon) {
    wait_until("an empty cgroup", || {
        let mut alive = false;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if cgroup.contains(daemon.cgroup_parent()) {
                alive = true;
                testkit::run::run(std::process::Command::new("kill").args(["-9", &pid]), b"");
            }
        }
        (!alive).then_some(())
    });
    // A reboot takes the groups along.
    testkit::leaks::clean(daemon.root(), daemon.cgroup_parent());
}

#[test]
fn s80_little_memory_is_used() {
    let daemon = daemon();
    let pss = |pid: u32, kind: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let engine = |kind| pss(daemon.pid(), kind) + pss(daemon.supervisor_pid().unwrap(), kind);
    daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
    // The program's own pages count the more, the fewer other daemons share them at the moment.
    let (before, own_before) = (engine("Pss:"), engine("Pss_Anon:"));
    for number in 0..20 {
        run_detached(&daemon, &format!("idle{number}"), "exec sleep 1000");
    }
    let each = engine("Pss_Anon:").saturating_sub(own_before) / 20;
    // A debug build's limits; docs/performance.md has the release build's figures.
    assert!(each < 200, "{each} KiB for each container");
    assert!(before < 60 << 10, "{before} KiB for the idle engine");
    daemon.finish();
}

#[test]
fn s81_missing_kernel_features_are_told() {
    let daemon = daemon();
    let info = daemon.api().get("/info").unwrap().json();
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(info["CgroupVersion"], if v2 { "2" } else { "1" });
    for (flag, file) in [
        ("MemoryLimit", "memory/memory.limit_in_bytes"),
        ("PidsLimit", "pids/pids.max"),
        ("SwapLimit", "memory/memory.memsw.limit_in_bytes"),
    ] {
        if !v2 {
            let there = std::path::Path::new("/sys/fs/cgroup").join(file).exists()
                || std::path::Path::new("/sys/fs/cgroup")
                    .join(file.replace("pids.max", "init"))
                    .exists();
            if there {
                assert_eq!(info[flag], true, "{flag}");
            }
        }
    }
    // A limit that cannot be kept is told about, never dropped silently.
    let body = json!({"Image": "busybox", "HostConfig": {"BlkioWeight": 300}});
    let answer = daemon.api().post_json("/v1.51/containers/create", &body).unwrap().json();
    let kept = ["blkio/blkio.weight", "blkio/blkio.bfq.weight"]
        .iter()
        .any(|file| std::path::Path::new("/sys/fs/cgroup").join(file).exists());
    if !v2 && !kept {
        let warning = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
        assert_eq!(answer["Warnings"], json!([warning]));
        assert!(info["Warnings"].to_string().contains("blkio weight"), "{}", info["Warnings"]);
    }
    daemon.finish();
}

#[test]
fn s82_no_external_runtime_is_needed() {
    let daemon = daemon();
    let info = daemon.api().get("/info").unwrap().json();
    let default = info["DefaultRuntime"].as_str().unwrap();
    assert!(info["Runtimes"].get(default).is_some(), "{info}");
    let mut command = daemon.client_command(BINARY);
    command.env("PATH", "/nonexistent").args(["run", "--rm", "busybox", "echo", "own runtime"]);
    assert_eq!(testkit::run::run(&mut command, b"").ok(), "own runtime");
    let unknown =
        daemon.boxship(&["run", "--rm", "--runtime", "nosuch", "busybox", "true"]).fails(125);
    assert!(unknown.contains("nosuch"), "{unknown}");
    daemon.finish();
}
