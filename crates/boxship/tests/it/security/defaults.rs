//! Class D: what a container gets unasked.

use serde_json::{Value, json};
use testkit::{Daemon, Options};

use super::{bind, compile};
use crate::{BINARY, daemon, field};

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
