//! Class R: escapes through the runtime.

use std::path::Path;

use serde_json::{Value, json};
use testkit::image::{Builder, Tar};
use testkit::{Daemon, wait_until};

use super::{bind, compile, create, race_count};
use crate::{BINARY, daemon, field, run_detached};

fn sha(path: &Path) -> String {
    testkit::image::sha256(&std::fs::read(path).unwrap())
}

/// What the host has mounted of a directory; others may mount what they like meanwhile.
fn host_mounts_of(directory: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directory = directory.to_str().unwrap();
    table.lines().filter(|line| line.contains(directory)).count()
}

#[test]
fn r01_the_engines_binary_cannot_be_overwritten() {
    let daemon = daemon();
    let before = sha(Path::new(BINARY));
    let mut layer = Tar::default();
    layer.symlink("entry", "/proc/self/exe").file("script", 0o755, b"#!/proc/self/exe\n");
    daemon.load(&Builder::busybox("self:1").layer(layer.finish()).archive());
    daemon.boxship(&["run", "--rm", "self:1", "/entry"]);
    daemon.boxship(&["run", "--rm", "self:1", "/script"]);
    daemon.boxship(&[
        "run",
        "--rm",
        "--init",
        "self:1",
        "sh",
        "-c",
        "echo x >/proc/1/exe; cat /dev/null >>/proc/1/exe",
    ]);
    run_detached(
        &daemon,
        "hunts",
        "while :; do for exe in /proc/[0-9]*/exe; do echo evil 2>/dev/null >$exe; done 2>/dev/null; done",
    );
    for _ in 0..100 {
        daemon.boxship(&["exec", "hunts", "/proc/self/exe"]);
    }
    assert_eq!(sha(Path::new(BINARY)), before);
    daemon.finish();
}

#[test]
fn r02_no_descriptor_of_the_host_leaks() {
    let daemon = daemon();
    std::fs::write(daemon.root().join("canary"), "host").unwrap();
    run_detached(&daemon, "up", "sleep 1000");
    let refused = |output: testkit::Output, at: &str| {
        // Either refused, or inside: never a listing of the host.
        assert!(
            !output.stdout.contains("canary") && !output.stdout.contains("boxship"),
            "{at}: {}",
            output.stdout
        );
    };
    for number in [3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 64] {
        for suffix in ["", "/../../..", "/.."] {
            let path = format!("/proc/self/fd/{number}{suffix}");
            refused(
                daemon.boxship(&[
                    "run",
                    "--rm",
                    "-w",
                    &path,
                    "busybox",
                    "sh",
                    "-c",
                    "pwd; ls; ls ../../..",
                ]),
                &path,
            );
            refused(
                daemon.boxship(&["exec", "-w", &path, "up", "sh", "-c", "pwd; ls; ls ../../.."]),
                &path,
            );
        }
    }
    let open = daemon.boxship(&["run", "--rm", "busybox", "ls", "/proc/self/fd"]).ok();
    // 0, 1, 2 and the directory that ls reads.
    assert_eq!(open, "0\n1\n2\n3");
    assert_eq!(daemon.boxship(&["exec", "up", "ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    daemon.finish();
}

#[test]
fn r04_a_joining_process_cannot_be_caught() {
    let daemon = daemon();
    // Stops every process it gets hold of, looks at what that one has open, and lets it go.
    run_spy(
        &daemon,
        r#"
        for (int pid = 2; pid < 4000; pid++) {
            if (pid == getpid() || ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) continue;
            ptrace(PTRACE_INTERRUPT, pid, 0, 0);
            int status;
            if (waitpid(pid, &status, __WALL) == pid && !WIFEXITED(status)) {
                look(pid);
                ptrace(PTRACE_DETACH, pid, 0, 0);
            }
        }"#,
    );
    for _ in 0..race_count() / 10 {
        daemon.boxship(&["exec", "spy", "true"]);
    }
    assert_eq!(daemon.boxship(&["logs", "spy"]).ok(), "");
    daemon.finish();
}

#[test]
fn r04_a_process_stopped_while_it_joins_can_be_removed() {
    let daemon = daemon();
    run_spy(
        &daemon,
        "for (int pid = 2; pid < 200; pid++) if (pid != getpid()) ptrace(PTRACE_ATTACH, pid, 0, 0);",
    );
    let mut api = daemon.api();
    for _ in 0..20 {
        let body = serde_json::json!({"Cmd": ["sleep", "1000"]});
        let id = api.post_json("/containers/spy/exec", &body).unwrap().json()["Id"].clone();
        let path = format!("/exec/{}/start", id.as_str().unwrap());
        let started = api.post_json(&path, &serde_json::json!({"Detach": true})).unwrap();
        assert_eq!(started.status, 200, "{}", started.text());
    }
    daemon.boxship(&["rm", "-f", "spy"]).ok();
    daemon.finish();
}

/// A container `spy` whose first process, allowed to trace, does `forever` again and again.
fn run_spy(daemon: &Daemon, forever: &str) {
    let source = format!(
        r#"
        #include <limits.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/ptrace.h>
        #include <sys/wait.h>
        #include <unistd.h>
        // Tells of host paths; 0 to 2 are the process's own output.
        static void look(int pid) {{
            char path[64], link[PATH_MAX];
            for (int fd = 3; fd < 256; fd++) {{
                snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
                ssize_t n = readlink(path, link, sizeof link - 1);
                if (n <= 0) continue;
                link[n] = 0;
                if (strstr(link, "/bxt")) {{ printf("caught %s\n", link); fflush(stdout); }}
            }}
        }}
        int main(void) {{ look(1); for (;;) {{ {forever} }} }}"#
    );
    let spy = compile(daemon, "spy", &source);
    let spy = bind(&spy, "/spy");
    let allowed = ["--cap-add", "SYS_PTRACE", "-v", &spy, "busybox", "/spy"];
    daemon.boxship(&[&["run", "-d", "--name", "spy"], &allowed[..]].concat()).ok();
}

#[test]
fn r05_a_dev_that_is_a_link_stays_inside() {
    let daemon = daemon();
    let canary = daemon.root().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let outside = canary.display().to_string();
    for target in [outside.clone(), format!("../../../../../..{outside}"), "/".to_owned()] {
        let mut layer = Tar::default();
        layer.symlink("dev", &target).directory("bin");
        let busybox = testkit::image::busybox_binary();
        layer.file("bin/busybox", 0o755, &busybox).symlink("bin/sh", "busybox");
        daemon.load(&Builder::scratch("dev:1").layer(layer.finish()).archive());
        daemon.boxship(&["run", "--rm", "dev:1", "/bin/sh", "-c", "echo started"]);
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "{target}");
    }
    daemon.finish();
}

/// A container that exchanges `name` with a link to `target` in the shared directory, for ever.
fn swapper(daemon: &Daemon, shared: &Path, name: &str, target: &str) {
    let program = compile(
        daemon,
        "swap",
        r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        #include <sys/stat.h>
        int main(int argc, char **argv) {
            char other[256];
            snprintf(other, sizeof other, "%s.link", argv[1]);
            mkdir(argv[1], 0755);
            if (symlink(argv[2], other)) return 1;
            puts("swapping"); fflush(stdout);
            for (;;) renameat2(AT_FDCWD, argv[1], AT_FDCWD, other, RENAME_EXCHANGE);
        }"#,
    );
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "swapper",
            "-v",
            &bind(&program, "/swap"),
            "-v",
            &bind(shared, "/v"),
            "busybox",
            "/swap",
            &format!("/v/{name}"),
            target,
        ])
        .ok();
    wait_until("the swapper", || {
        daemon.boxship(&["logs", "swapper"]).ok().contains("swapping").then_some(())
    });
}

/// Starts containers through the API as fast as possible; failures to start are fine.
fn start_many(daemon: &Daemon, body: &Value) {
    let mut api = daemon.api();
    for _ in 0..race_count() {
        let created = api.post_json("/v1.51/containers/create", body).unwrap();
        if created.status != 201 {
            continue;
        }
        let id = created.json()["Id"].as_str().unwrap().to_owned();
        api.post(&format!("/containers/{id}/start")).unwrap();
        api.request("DELETE", &format!("/containers/{id}?force=1"), &[], b"").unwrap();
    }
}

#[test]
fn r07_masked_paths_cannot_be_redirected() {
    let daemon = daemon();
    let shared = daemon.root().join("v");
    std::fs::create_dir(&shared).unwrap();
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    swapper(&daemon, &shared, "null", "/proc/sys/kernel/core_pattern");
    start_many(
        &daemon,
        &json!({
            "Image": "busybox", "Cmd": ["sh", "-c", "echo evil >/dev/null; echo evil >/proc/timer_list; echo evil >/proc/kcore"],
            "HostConfig": {"NetworkMode": "none", "Binds": [format!("{}:/dev/v", shared.display())]},
        }),
    );
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    daemon.finish();
}

#[test]
fn r08_the_console_is_a_terminal_of_the_container() {
    let daemon = daemon();
    let shared = daemon.root().join("v");
    std::fs::create_dir(&shared).unwrap();
    swapper(&daemon, &shared, "0", "/proc/sys/kernel/core_pattern");
    let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    start_many(
        &daemon,
        &json!({
            "Image": "busybox", "Tty": true, "Cmd": ["sh", "-c", "echo evil >/dev/console"],
            "HostConfig": {"NetworkMode": "none", "Binds": [format!("{}:/dev/pts/v", shared.display())]},
        }),
    );
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    let seen =
        daemon.boxship(&["run", "--rm", "-t", "busybox", "stat", "-c", "%t", "/dev/console"]).ok();
    // Major 136: a Unix98 pseudo terminal.
    assert_eq!(seen.trim(), "88");
    daemon.finish();
}

#[test]
fn r10_a_swapped_mount_target_never_reaches_the_host() {
    let daemon = daemon();
    let (shared, source) = (daemon.root().join("v"), daemon.root().join("source"));
    std::fs::create_dir(&shared).unwrap();
    std::fs::create_dir(&source).unwrap();
    swapper(&daemon, &shared, "dir", "/");
    start_many(
        &daemon,
        &json!({
            "Image": "busybox", "Cmd": ["true"],
            "HostConfig": {"NetworkMode": "none", "Binds": [format!("{}:/v", shared.display()), format!("{}:/v/dir/tmp", source.display())]},
        }),
    );
    assert_eq!(host_mounts_of(&source), 0);
    daemon.finish();
}

#[test]
fn r11_made_mount_targets_stay_inside() {
    let daemon = daemon();
    let (shared, source, canary) =
        (daemon.root().join("v"), daemon.root().join("source"), daemon.root().join("canary"));
    for directory in [&shared, &source, &canary] {
        std::fs::create_dir(directory).unwrap();
    }
    swapper(&daemon, &shared, "dir", &canary.display().to_string());
    start_many(
        &daemon,
        &json!({
            "Image": "busybox", "Cmd": ["true"],
            "HostConfig": {"NetworkMode": "none", "Binds": [format!("{}:/v", shared.display()), format!("{}:/v/dir/made", source.display())]},
        }),
    );
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    daemon.finish();
}

#[test]
fn r12_nothing_mounts_over_proc_or_sys() {
    let daemon = daemon();
    let source = daemon.root().join("source");
    std::fs::create_dir(&source).unwrap();
    for target in
        ["/proc", "/proc/self", "/proc/1", "/proc/sys", "/proc/self/attr", "/proc/../proc/self"]
    {
        let output =
            daemon.boxship(&["run", "--rm", "-v", &bind(&source, target), "busybox", "true"]);
        assert_eq!(output.code, 125, "{target}: {output:?}");
        let output = daemon.boxship(&["run", "--rm", "--tmpfs", target, "busybox", "true"]);
        assert_eq!(output.code, 125, "{target}: {output:?}");
    }
    let uptime = daemon.root().join("uptime");
    std::fs::write(&uptime, "1 1").unwrap();
    assert_eq!(
        daemon
            .boxship(&[
                "run",
                "--rm",
                "-v",
                &bind(&uptime, "/proc/uptime"),
                "busybox",
                "cat",
                "/proc/uptime"
            ])
            .ok(),
        "1 1"
    );
    daemon.finish();
}

#[test]
fn r13_users_are_numbers_as_written_or_names_that_exist() {
    let daemon = daemon();
    let mut layer = Tar::default();
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\n",
    );
    daemon.load(&Builder::busybox("users:1").layer(layer.finish()).archive());
    let id = |user: &str| daemon.boxship(&["run", "--rm", "-u", user, "users:1", "id", "-u"]);
    assert_eq!(id("0").ok(), "0");
    assert_eq!(id("00").ok(), "0");
    assert_eq!(id("1000").ok(), "1000");
    assert_eq!(id("2147483647").ok(), "2147483647");
    for bad in
        ["4294967296", "-1", "2147483648", "1000 ", "big", "0x0", " 0", "18446744073709551616"]
    {
        let output = id(bad);
        assert_ne!(output.code, 0, "{bad:?} ran as {}", output.stdout);
    }
    daemon.finish();
}

#[test]
fn r14_strange_user_files_are_read_with_care() {
    let daemon = daemon();
    let rss = |daemon: &Daemon| {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", daemon.supervisor_pid().unwrap()))
                .unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let start = |prepare: &str| {
        daemon.boxship(&["rm", "-f", "odd"]);
        daemon.boxship(&["run", "--name", "odd", "busybox", "sh", "-c", prepare]).ok();
        daemon.boxship(&["commit", "odd", "odd:1"]);
        let begun = std::time::Instant::now();
        let output = daemon.boxship(&["run", "--rm", "-u", "someone", "odd:1", "true"]);
        assert_ne!(output.code, 0, "{prepare}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{prepare}");
    };
    let before = rss(&daemon);
    start("rm /etc/passwd; mkfifo /etc/passwd");
    start("rm /etc/passwd; mkdir /etc/passwd");
    start("rm /etc/passwd; ln -s /proc/kmsg /etc/passwd");
    start("rm /etc/passwd; mknod /etc/passwd c 1 5");
    start(
        "rm /etc/group /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1 count=1 seek=2G 2>/dev/null",
    );
    assert!(rss(&daemon) < before + (32 << 10), "the supervisor grew");
    daemon.finish();
}

#[test]
fn r16_no_inheritable_or_ambient_capabilities() {
    let daemon = daemon();
    run_detached(&daemon, "up", "sleep 1000");
    let check = |status: String| {
        for set in ["CapInh", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
        }
        assert!(status.contains("CapBnd:\t00000000a80425fb"), "{status}");
    };
    check(daemon.boxship(&["run", "--rm", "busybox", "cat", "/proc/self/status"]).ok());
    check(daemon.boxship(&["exec", "up", "cat", "/proc/self/status"]).ok());
    let user =
        daemon.boxship(&["run", "--rm", "-u", "1000", "busybox", "cat", "/proc/self/status"]).ok();
    assert!(
        user.contains("CapEff:\t0000000000000000") && user.contains("CapPrm:\t0000000000000000"),
        "{user}"
    );
    daemon.finish();
}

#[test]
fn r17_huge_configurations_do_not_bend_namespaces() {
    let daemon = daemon();
    let binds: Vec<String> =
        (0..10_000).map(|number| format!("/tmp:/m{number}/{}", "x".repeat(60))).collect();
    let response = create(
        &daemon,
        &json!({"Image": "busybox", "Cmd": ["readlink", "/proc/self/ns/net"], "HostConfig": {"Binds": binds}}),
    );
    if response.status == 201 {
        let id = response.json()["Id"].as_str().unwrap().to_owned();
        let started = daemon.api().post(&format!("/containers/{id}/start")).unwrap();
        if started.status == 204 {
            daemon.boxship(&["wait", &id]).ok();
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            assert_ne!(daemon.boxship(&["logs", &id]).ok(), own.to_string_lossy());
        }
    } else {
        assert_eq!(response.status, 400, "{}", response.text());
    }
    daemon.finish();
}

#[test]
fn r19_control_groups_are_read_only_inside() {
    let daemon = daemon();
    let script = "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name release_agent -o -name devices.allow); do echo 1 >$f && echo wrote $f; done 2>/dev/null; \
        unshare -UrC sh -c 'mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c && echo mounted; mount -t cgroup2 c /tmp/c && echo mounted' 2>/dev/null; cat /proc/self/cgroup";
    let seen = daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", script]).ok();
    assert!(!seen.contains("wrote") && !seen.contains("mounted"), "{seen}");
    assert!(
        seen.lines().all(|line| line.ends_with(":/")),
        "the cgroup namespace is private:\n{seen}"
    );
    daemon.finish();
}

#[test]
fn r20_no_abstract_sockets_are_offered() {
    let daemon = daemon();
    run_detached(&daemon, "up", "sleep 1000");
    let sockets = daemon
        .boxship(&["run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix"])
        .ok();
    assert!(!sockets.lines().any(|line| line.contains('@')), "{sockets}");
    daemon.finish();
}

#[test]
fn r21_attaching_and_vanishing_leaks_nothing() {
    let daemon = daemon();
    daemon.boxship(&["run", "-dit", "--name", "t1", "busybox", "cat"]).ok();
    let resize = |height: &str| {
        daemon.api().post(&format!("/containers/t1/resize?h={height}&w=80")).unwrap().status
    };
    for odd in ["-1", "65536", "x", "99999999999999999999"] {
        assert_eq!(resize(odd), 400, "{odd}");
    }
    assert!(resize("0") < 500);
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let count = || descriptors(daemon.pid()) + descriptors(daemon.supervisor_pid().unwrap());
    let attach = || {
        let mut stream = daemon.api();
        stream.send(b"POST /containers/t1/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(stream.response_head().unwrap().status, 101);
    };
    attach();
    let before = wait_until("a quiet start", || Some(count()));
    for _ in 0..race_count() {
        attach();
    }
    wait_until("the descriptors of before", || (count() <= before + 4).then_some(()));
    daemon.finish();
}

#[test]
fn r23_labels_are_data() {
    let daemon = daemon();
    let canary = daemon.root().join("canary");
    let evil = format!("binary://{}", canary.display());
    let image = Builder::busybox("labels:1")
        .set("Labels", json!({"io.containerd.log": evil, "log-driver": evil, "cdi.k8s.io/x": "vendor.com/device=all", "org.systemd.property.ExecStart": "'/bin/sh'", "a\nb": "c\nd"}))
        .set("Env", json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "X=a\nb"]));
    daemon.load(&image.archive());
    let id = daemon
        .boxship(&["run", "-d", "labels:1", "sh", "-c", "ls /dev | sort | tr '\\n' ' '"])
        .ok();
    daemon.boxship(&["wait", &id]).ok();
    let devices = daemon.boxship(&["logs", &id]).ok();
    assert_eq!(
        devices.trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert!(!canary.exists());
    assert_eq!(field(&daemon, &id, "{{.HostConfig.LogConfig.Type}}"), "json-file");
    daemon.finish();
}

#[test]
fn r24_only_namespaced_sysctls_are_set() {
    let daemon = daemon();
    for (name, network) in [
        ("kernel.core_pattern", "bridge"),
        ("kernel.hostname", "bridge"),
        ("kernel.x+", "bridge"),
        ("net.ipv4.ip_forward", "host"),
        ("vm.swappiness", "bridge"),
        ("net.ipv4.../../../kernel/core_pattern", "bridge"),
        ("net/../kernel/core_pattern", "bridge"),
        ("fs.mqueue.../../file-max", "bridge"),
    ] {
        let before = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let output = daemon.boxship(&[
            "run",
            "--rm",
            "--network",
            network,
            "--sysctl",
            &format!("{name}=1"),
            "busybox",
            "true",
        ]);
        assert_eq!(output.code, 125, "{name}: {output:?}");
        assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
    }
    let forward = daemon
        .boxship(&[
            "run",
            "--rm",
            "--sysctl",
            "net.ipv4.ip_unprivileged_port_start=7",
            "busybox",
            "cat",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        ])
        .ok();
    assert_eq!(forward, "7");
    daemon.finish();
}

#[test]
fn r26_checkpoints_make_no_paths() {
    let daemon = daemon();
    run_detached(&daemon, "up", "sleep 1000");
    for id in ["../../x", "a/b", ""] {
        let response = daemon
            .api()
            .post_json("/containers/up/checkpoints", &json!({"CheckpointID": id}))
            .unwrap();
        assert!(matches!(response.status, 400 | 404 | 501), "{}", response.status);
    }
    daemon.finish();
}
