//! The security cases of the runtime (R), the defaults (D), the API (A) and the kernel (X), each
//! a test named after its id. Hostile archives (U, L) have theirs in the crates `storage` and
//! `image`. What cannot run here is listed with its reason in docs/security.md.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Options, wait_until};

use crate::{BINARY, daemon, field, run_detached};

/// Compiles a static C program for use inside containers.
fn compile(daemon: &Daemon, name: &str, source: &str) -> PathBuf {
    let (file, program) = (daemon.root().join(format!("{name}.c")), daemon.root().join(name));
    std::fs::write(&file, source).unwrap();
    let output = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn bind(path: &Path, target: &str) -> String {
    format!("{}:{target}", path.display())
}

fn sha(path: &Path) -> String {
    testkit::image::sha256(&std::fs::read(path).unwrap())
}

fn create(daemon: &Daemon, body: &Value) -> testkit::Response {
    daemon.api().post_json("/v1.51/containers/create", body).unwrap()
}

fn host_mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
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

fn race_count() -> usize {
    std::env::var("BOXSHIP_RACES").ok().and_then(|count| count.parse().ok()).unwrap_or(1000)
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
    let before = host_mounts();
    start_many(
        &daemon,
        &json!({
            "Image": "busybox", "Cmd": ["true"],
            "HostConfig": {"NetworkMode": "none", "Binds": [format!("{}:/v", shared.display()), format!("{}:/v/dir/tmp", source.display())]},
        }),
    );
    assert_eq!(host_mounts(), before);
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

const PROBE: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <stdio.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static void call(const char *name, long number) {
        errno = 0;
        long result = syscall(number, -1, -1, -1, -1, -1, -1);
        printf("%s %s\n", name, result == -1 && errno == EPERM ? "EPERM" : result == -1 && errno == ENOSYS ? "ENOSYS" : "passed");
    }
    static void family(const char *name, int number) {
        errno = 0;
        printf("%s %s\n", name, socket(number, SOCK_DGRAM, 0) < 0 && errno == EPERM ? "EPERM" : "passed");
    }
    int main(void) {
        call("keyctl", SYS_keyctl); call("add_key", SYS_add_key); call("bpf", SYS_bpf);
        call("userfaultfd", SYS_userfaultfd); call("io_uring_setup", 425); call("kexec_load", SYS_kexec_load);
        call("open_by_handle_at", SYS_open_by_handle_at); call("perf_event_open", SYS_perf_event_open);
        call("mount", SYS_mount); call("umount2", SYS_umount2); call("pivot_root", SYS_pivot_root);
        call("setns", SYS_setns); call("unshare", SYS_unshare); call("init_module", SYS_init_module);
        call("reboot", SYS_reboot); call("swapon", SYS_swapon); call("quotactl", SYS_quotactl);
        call("acct", SYS_acct); call("move_pages", SYS_move_pages); call("clone3", 435);
        call("getpid", SYS_getpid); call("read", SYS_read); call("ptrace", SYS_ptrace);
        family("AF_ALG", 38); family("AF_VSOCK", 40); family("AF_INET", AF_INET); family("AF_UNIX", AF_UNIX);
    }"#;

#[test]
fn d01_the_default_seccomp_profile_is_dockers() {
    let daemon = daemon();
    let probe = compile(&daemon, "probe", PROBE);
    let run = |args: &[&str]| {
        daemon
            .boxship(
                &[&["run", "--rm", "-v", &bind(&probe, "/probe")], args, &["busybox", "/probe"]]
                    .concat(),
            )
            .ok()
    };
    let seen = run(&[]);
    for line in seen.lines() {
        let (name, result) = line.split_once(' ').unwrap();
        let expect = match name {
            "clone3" => "ENOSYS",
            "getpid" | "read" | "ptrace" | "AF_INET" | "AF_UNIX" => "passed",
            _ => "EPERM",
        };
        assert_eq!(result, expect, "{name}");
    }
    assert!(run(&["--security-opt", "seccomp=unconfined"]).contains("userfaultfd passed"));
    assert!(run(&["--cap-add", "SYS_ADMIN"]).contains("unshare passed"));
    let profile = daemon.root().join("profile.json");
    std::fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#).unwrap();
    assert!(
        run(&["--security-opt", &format!("seccomp={}", profile.display())])
            .contains("getpid ENOSYS")
    );
    daemon.finish();
}

#[test]
fn d03_masked_and_read_only_paths() {
    let daemon = daemon();
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/latency_stats /proc/timer_stats; do [ -e $f ] && wc -c <$f; done; \
        for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ -d $d ] && ls -A $d; done; \
        for f in /proc/sys/kernel/hostname /proc/self/root/proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/bus/x /proc/fs/x; do echo evil 2>/dev/null >$f && echo wrote $f; done; \
        unshare -Urpf --mount-proc sh -c 'echo new proc' 2>/dev/null; mount -t proc p /tmp 2>/dev/null && echo mounted; true";
    let seen = daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", script]).ok();
    assert!(seen.lines().all(|line| line == "0"), "{seen}");
    daemon.finish();
}

#[test]
fn d04_keyrings_are_not_shared() {
    let daemon = daemon();
    let seen = daemon.boxship(&[
        "run",
        "--rm",
        "--security-opt",
        "seccomp=unconfined",
        "busybox",
        "cat",
        "/proc/keys",
    ]);
    assert_eq!(seen.stdout, "");
    daemon.finish();
}

#[test]
fn d06_no_new_privileges_is_kept() {
    let daemon = daemon();
    let status = |args: &[&str]| {
        daemon
            .boxship(
                &[&["run", "--rm"], args, &["busybox", "grep", "NoNewPrivs", "/proc/self/status"]]
                    .concat(),
            )
            .ok()
    };
    assert_eq!(status(&[]), "NoNewPrivs:\t0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"]), "NoNewPrivs:\t1");
    assert_eq!(status(&["--security-opt", "no-new-privileges:false"]), "NoNewPrivs:\t0");
    daemon.finish();
    let hardened = Daemon::with(
        BINARY,
        Options { args: vec!["--no-new-privileges".to_owned()], ..Options::default() },
    );
    assert_eq!(
        hardened
            .boxship(&["run", "--rm", "busybox", "grep", "NoNewPrivs", "/proc/self/status"])
            .ok(),
        "NoNewPrivs:\t1"
    );
    hardened.finish();
}

#[test]
fn d07_what_widens_is_shown() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "create",
            "--name",
            "wide",
            "--privileged",
            "--pid",
            "host",
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "-v",
            "/:/host:ro",
            "busybox",
            "true",
        ])
        .ok();
    let host: Value =
        serde_json::from_str(&field(&daemon, "wide", "{{json .HostConfig}}")).unwrap();
    assert_eq!(host["Privileged"], true);
    assert_eq!(host["PidMode"], "host");
    assert!(host["CapAdd"].to_string().contains("SYS_ADMIN"));
    assert!(host["SecurityOpt"].to_string().contains("unconfined"));
    assert_eq!(host["Binds"], json!(["/:/host:ro"]));
    daemon.finish();
}

#[test]
fn d09_the_supervisor_and_the_daemon_hold_no_more_than_they_need() {
    let daemon = daemon();
    let supervisor = daemon.supervisor_pid().unwrap();
    // One thread, so that ordinary code may run after fork.
    assert_eq!(std::fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().count(), 1);
    // The daemon has no children: it never forks.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid()))
        .unwrap_or_default();
    for child in children.split_whitespace() {
        assert_eq!(child, supervisor.to_string(), "the daemon has a child");
    }
    daemon.finish();
}

#[test]
fn d11_no_world_writable_directory_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = daemon();
    for directory in [daemon.data_root(), daemon.exec_root()] {
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o066, 0, "{} is {mode:o}", directory.display());
    }
    daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
    for pid in [daemon.pid(), daemon.supervisor_pid().unwrap()] {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            let outside = target.starts_with("/tmp") && !target.starts_with(daemon.root());
            assert!(!outside, "{}", target.display());
        }
    }
    daemon.finish();
}

#[test]
fn a02_a_body_has_one_meaning() {
    let daemon = daemon();
    let send = |body: &str| {
        daemon
            .api()
            .request(
                "POST",
                "/v1.51/containers/create",
                &[("Content-Type", "application/json")],
                body.as_bytes(),
            )
            .unwrap()
    };
    // As in Go: the last of two equal keys wins, and so the image is absent.
    assert_eq!(send(r#"{"Image":"busybox","Image":"absent"}"#).status, 404);
    assert_eq!(send("{\"Image\":\"busybox\"} trailing").status, 400);
    assert_eq!(send("\u{feff}{\"Image\":\"busybox\"}").status, 400);
    assert_eq!(send(&format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000))).status, 400);
    assert_eq!(
        send(r#"{"Image":"busybox","HostConfig":{"Memory":99999999999999999999}}"#).status,
        400
    );
    // A key in another case means the same as in Docker, or is refused: never dropped.
    let response = send(r#"{"Image":"busybox","hostconfig":{"Privileged":true}}"#);
    if response.status == 201 {
        let id = response.json()["Id"].as_str().unwrap().to_owned();
        assert_eq!(field(&daemon, &id, "{{.HostConfig.Privileged}}"), "true");
    } else {
        assert_eq!(response.status, 400);
    }
    daemon.finish();
}

#[test]
fn a04_browsers_cannot_reach_a_tcp_listener() {
    let daemon = Daemon::with(
        BINARY,
        Options {
            args: ["-H", "tcp://127.0.0.1:2375", "--tls=false"].map(str::to_owned).to_vec(),
            ..Options::default()
        },
    );
    let ask = |headers: &str| {
        let mut command = daemon.inside("sh");
        let script = format!(
            "printf 'POST /containers/create HTTP/1.1\\r\\n{headers}Content-Type: text/plain\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{{}}' | busybox nc 127.0.0.1 2375 | head -1"
        );
        testkit::run::run(command.args(["-c", &script]), b"").ok()
    };
    for headers in
        ["Host: evil.example\\r\\n", "Host: 127.0.0.1:2375\\r\\nOrigin: http://evil.example\\r\\n"]
    {
        let status = ask(headers);
        assert!(status.contains("403") || status.contains("400"), "{headers}: {status}");
    }
    // Websocket libraries send the daemon's own address.
    let status = ask("Host: 127.0.0.1:2375\\r\\nOrigin: http://127.0.0.1:2375\\r\\n");
    assert!(!status.contains("403"), "{status}");
    let mut version = daemon.inside(BINARY);
    version.args(["-H", "tcp://127.0.0.1:2375", "version", "--format", "{{.Server.APIVersion}}"]);
    assert_eq!(testkit::run::run(&mut version, b"").ok(), "1.51");
    daemon.finish();
}

#[test]
fn a05_tcp_wants_mutual_tls() {
    // Plain TCP without an explicit word is refused.
    let root = std::env::temp_dir().join(format!("bxt-plain-{}", std::process::id()));
    let output = Command::new(BINARY)
        .args(["daemon", "-H", "tcp://127.0.0.1:1", "--data-root"])
        .arg(root.join("d"))
        .arg("--exec-root")
        .arg(root.join("r"))
        .arg("--pidfile")
        .arg(root.join("p"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("tls"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(std::fs::remove_dir_all(&root));

    let certificates = tempdir();
    let script = "set -e; cd \"$1\"; q='-batch -nodes -newkey rsa:2048 -sha256'
        ca() { openssl req -x509 $q -days 1 -subj /CN=$1 -keyout $1-key.pem -out $1.pem; }
        leaf() { openssl req $q -subj /CN=$1 -keyout $1-key.pem -out $1.csr; openssl x509 -req -days $4 -in $1.csr -CA $2.pem -CAkey $2-key.pem -CAcreateserial -extfile $3 -out $1.pem; }
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' >server.ext; echo 'extendedKeyUsage=serverAuth' >>server.ext
        echo 'extendedKeyUsage=clientAuth' >client.ext
        ca good; ca other; leaf server good server.ext 1; leaf client good client.ext 1; leaf stranger other client.ext 1; leaf swapped good server.ext 1";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(&certificates).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| certificates.join(name).display().to_string();
    let daemon = Daemon::with(
        BINARY,
        Options {
            args: vec![
                "-H".into(),
                "tcp://127.0.0.1:2376".into(),
                "--tlsverify".into(),
                "--tlscacert".into(),
                file("good.pem"),
                "--tlscert".into(),
                file("server.pem"),
                "--tlskey".into(),
                file("server-key.pem"),
            ],
            ..Options::default()
        },
    );
    let version = |certificate: Option<&str>| {
        let mut command = daemon.inside("docker");
        command.env_remove("DOCKER_HOST").args([
            "-H",
            "tcp://127.0.0.1:2376",
            "--tls",
            "--tlscacert",
            &file("good.pem"),
            "--tlsverify",
        ]);
        match certificate {
            Some(name) => command.args([
                "--tlscert",
                &file(&format!("{name}.pem")),
                "--tlskey",
                &file(&format!("{name}-key.pem")),
            ]),
            None => command.args(["--tlscert", "/nonexistent", "--tlskey", "/nonexistent"]),
        };
        testkit::run::run(command.args(["version", "--format", "{{.Server.Version}}"]), b"")
    };
    version(Some("client")).ok();
    for bad in [None, Some("stranger"), Some("swapped")] {
        assert_ne!(version(bad).code, 0, "{bad:?}");
    }
    daemon.finish();
    std::fs::remove_dir_all(certificates).unwrap();
}

fn tempdir() -> PathBuf {
    let path = std::env::temp_dir().join(format!("bxt-tls-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a07_idle_and_slow_connections_hurt_nobody() {
    let daemon = daemon();
    let mut idle: Vec<_> = (0..1000).map(|_| daemon.api()).collect();
    for (number, socket) in idle.iter_mut().enumerate() {
        if number % 2 == 0 {
            socket.send(b"GET /info HT").unwrap();
        } else {
            socket.send(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").unwrap();
        }
    }
    for _ in 0..20 {
        assert_eq!(daemon.api().get("/_ping").unwrap().status, 200);
    }
    daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
    drop(idle);
    daemon.finish();
}

#[test]
fn a08_hijacked_connections_end_in_any_order() {
    let daemon = daemon();
    daemon.boxship(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let attach = || {
        let mut stream = daemon.api();
        stream.send(b"POST /containers/c1/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(stream.response_head().unwrap().status, 101);
        stream
    };
    let mut garbage = attach();
    garbage.stream().get_mut().write_all(&[0xff; 4096]).unwrap();
    drop(garbage);
    let half = attach();
    half.finish_writing().unwrap();
    drop(half);
    let mut last = attach();
    last.stream().get_mut().write_all(b"still here\n").unwrap();
    drop(last);
    wait_until("the container's answer", || {
        daemon.boxship(&["logs", "c1"]).stdout.contains("still here").then_some(())
    });
    assert_eq!(field(&daemon, "c1", "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn a09_noise_is_answered_and_survived() {
    let daemon = daemon();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words = [
        "/containers/",
        "json",
        "?all=",
        "%00",
        "%zz",
        "busybox",
        "/../",
        "start",
        "{",
        "[]",
        "null",
        "-1",
        "1e999",
        "\u{fffd}",
        "/v1.51",
        "images",
        "?filters={\"a\":",
        "exec",
        " ",
    ];
    let methods = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"];
    for _ in 0..2000 {
        let mut path = String::from("/");
        for _ in 0..random() % 5 {
            path.push_str(words[random() as usize % words.len()]);
        }
        let path = path.replace([' ', '\u{fffd}'], "+");
        if path.contains("events") || path.contains("stats") {
            continue;
        }
        let body = words[random() as usize % words.len()];
        let method = methods[random() as usize % methods.len()];
        let response = daemon.api().request(
            method,
            &path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        let Ok(response) = response else { continue };
        assert!(
            response.status < 500 || response.status == 501 || response.status == 503,
            "{method} {path} {body}: {} {}",
            response.status,
            response.text()
        );
    }
    for _ in 0..500 {
        let noise: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let mut socket = daemon.api();
        // The daemon may have hung up by now; that is an answer too.
        drop(socket.send(&noise));
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert_eq!(daemon.api().get("/_ping").unwrap().status, 200);
    daemon.finish();
}

#[test]
fn a11_versions_are_negotiated_or_refused() {
    let daemon = daemon();
    let get = |path: &str| daemon.api().get(path).unwrap();
    for path in ["/v1.1/info", "/v9.99/info", "/v1.999/version"] {
        let response = get(path);
        assert_eq!(response.status, 400, "{path}");
        assert!(response.message().contains("client version"), "{}", response.text());
    }
    for path in ["/v1.44.5/info", "/vx/info", "/v/info", "/v1./info", "/v-1.2/info"] {
        assert!(matches!(get(path).status, 400 | 404), "{path}");
    }
    for path in ["/v1.12/info", "/v1.24/info", "/v1.44/info", "/v1.51/info", "/info"] {
        let response = get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("api-version"), Some("1.51"));
    }
    daemon.finish();
}

#[test]
fn a12_absurd_numbers_are_refused_at_once() {
    let daemon = daemon();
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = rss();
    for host in [
        json!({"CpusetCpus": "0-9223372036854775807"}),
        json!({"CpusetCpus": "0-99999999999999999999999"}),
        json!({"Memory": -5}),
        json!({"MemorySwap": 1, "Memory": 0}),
        json!({"ShmSize": -1}),
        json!({"PortBindings": {"1-65535/tcp": [{"HostPort": "1-3"}]}}),
        json!({"PortBindings": {"70000/tcp": null}}),
        json!({"OomScoreAdj": 5000}),
    ] {
        let response = create(&daemon, &json!({"Image": "busybox", "HostConfig": host}));
        assert_eq!(response.status, 400, "{host}: {}", response.text());
    }
    let env: Vec<String> = (0..1_000_000).map(|number| format!("A{number}=")).collect();
    let response = create(&daemon, &json!({"Image": "busybox", "Env": env}));
    assert!(matches!(response.status, 400 | 413), "{} {}", response.status, response.text());
    wait_until("memory to come back", || (rss() < before + (32 << 10)).then_some(()));
    daemon.finish();
}

#[test]
fn x01_overlay_tricks_are_off() {
    let daemon = daemon();
    let mounts = daemon.boxship(&["run", "--rm", "busybox", "cat", "/proc/mounts"]).ok();
    let root = mounts
        .lines()
        .find(|line| line.contains(" / overlay "))
        .expect("an overlay root")
        .to_owned();
    for option in ["metacopy=on", "redirect_dir=on", "redirect_dir=follow", "userxattr"] {
        assert!(!root.contains(option), "{root}");
    }
    daemon.finish();
}

#[test]
fn x02_side_channels_are_masked() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "c1", "busybox", "true"]).ok();
    let masked = field(&daemon, "c1", "{{json .HostConfig.MaskedPaths}}");
    for path in [
        "/proc/interrupts",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/kcore",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ] {
        assert!(masked.contains(path), "{masked}");
    }
    let thermal = daemon.boxship(&["run", "--rm", "busybox", "sh", "-c", "cat /sys/devices/system/cpu/cpu*/thermal_throttle/* 2>/dev/null | wc -c; wc -c </proc/interrupts"]).ok();
    assert_eq!(thermal, "0\n0");
    daemon.finish();
}
