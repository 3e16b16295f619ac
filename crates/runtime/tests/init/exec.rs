//! Processes added to a running container.

use runtime::protocol::Failure;
use runtime::spec::Process;

use crate::harness::{Case, Container, DEFAULT_CAPABILITIES, Image, process};

pub(crate) const CASES: &[Case] = &[
    ("exec_is_inside", exec_is_inside),
    ("exec_has_no_descriptors", exec_has_no_descriptors),
    ("exec_identity", exec_identity),
    ("exec_failures", exec_failures),
    ("exec_working_directory_tricks", exec_working_directory_tricks),
    ("exec_terminal", exec_terminal),
    ("exec_of_own_binary", exec_of_own_binary),
    ("exec_after_the_end", exec_after_the_end),
    ("exec_is_not_to_be_traced", exec_is_not_to_be_traced),
];

fn sleeper(image: &Image) -> Container {
    let mut container = Container::start(image.shell("echo up; exec sleep 1000")).unwrap();
    container.wait_for_line("up");
    container
}

fn shell(script: &str) -> Process {
    process(&["sh", "-c", script])
}

#[track_caller]
fn check(container: &Container, process: Process, expect: &str) {
    let outcome = container.exec(process).unwrap();
    assert_eq!(outcome.output, expect, "exit code {}", outcome.code);
}

fn exec_is_inside() {
    let image = Image::new();
    let container = sleeper(&image);
    let script = "for n in mnt ipc uts net pid cgroup; do \
        [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done; \
        cut -d: -f3 /proc/self/cgroup | sort -u; cat /proc/1/comm; hostname; pwd; \
        awk '{ print $4, ($6 == $1) }' /proc/$$/stat; exit 3";
    let outcome = container.exec(shell(script)).unwrap();
    assert_eq!(outcome.output, "mnt\nipc\nuts\nnet\npid\ncgroup\n/\nsleep\nbox\n/\n0 1\n");
    assert_eq!(outcome.code, 3);
    let outcome = container.exec(shell("kill -KILL $$")).unwrap();
    assert_eq!(outcome.code, 137);
    container.kill();
}

fn exec_has_no_descriptors() {
    let image = Image::new();
    let container = sleeper(&image);
    let leaky = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    check(&container, shell("ls /proc/$$/fd; true"), "0\n1\n2\n");
    container.kill();
}

fn exec_identity() {
    let image = Image::new();
    let container = sleeper(&image);
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'; id -G";
    let caps = format!("{DEFAULT_CAPABILITIES:016x}");
    let none = format!("{:016x}", 0);
    check(
        &container,
        shell(status),
        &format!(
            "CapInh:{none}\nCapPrm:{caps}\nCapEff:{caps}\nCapBnd:{caps}\nCapAmb:{none}\n\
             NoNewPrivs:0\nSeccomp:2\n0\n"
        ),
    );
    let mut user = shell(status);
    user.user = "app".to_owned();
    user.no_new_privileges = true;
    check(
        &container,
        user,
        &format!(
            "CapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nCapBnd:{caps}\nCapAmb:{none}\n\
             NoNewPrivs:1\nSeccomp:2\n1001 33\n"
        ),
    );
    container.kill();
}

fn exec_failures() {
    let image = Image::new();
    image.script("garbage", "\0\0\0\0");
    let container = sleeper(&image);
    let failure = |process: Process| container.exec(process).unwrap_err().to_string();
    assert_eq!(
        failure(process(&["nosuch"])),
        r#"exec: "nosuch": executable file not found in $PATH"#
    );
    assert_eq!(failure(process(&["/etc"])), r#"exec: "/etc": is a directory: permission denied"#);
    let at = |cwd: &str| Process { cwd: cwd.to_owned(), ..shell("pwd") };
    assert_eq!(
        failure(at("/nosuch")),
        r#"chdir to cwd ("/nosuch") set in config.json failed: no such file or directory"#
    );
    let user = Process { user: "nobody".to_owned(), ..shell("id") };
    assert_eq!(failure(user), "unable to find user nobody: no matching entries in passwd file");
    let outcome = container.exec(process(&["/garbage"])).unwrap();
    let expect = "exec /garbage: exec format error\n";
    assert_eq!((outcome.code, outcome.output.as_str()), (255, expect));
    container.kill();
}

fn exec_working_directory_tricks() {
    let image = Image::new();
    let container = sleeper(&image);
    for descriptor in 3..24 {
        for proc in ["self", "thread-self", "1"] {
            let cwd = format!("/proc/{proc}/fd/{descriptor}");
            match container.exec(Process { cwd: cwd.clone(), ..shell("pwd") }) {
                Err(Failure::Cwd { .. }) => {}
                other => panic!("{cwd}: {other:?}"),
            }
        }
    }
    container.kill();
}

fn exec_terminal() {
    let image = Image::new();
    let container = sleeper(&image);
    let mut process = shell("tty; echo by-tty > /dev/tty; stty size; stat -c %u:%g /dev/pts/0");
    process.tty = true;
    process.user = "app".to_owned();
    process.console_size = Some((80, 24));
    let outcome = container.exec(process).unwrap();
    assert_eq!(outcome.output, "/dev/pts/0\r\nby-tty\r\n24 80\r\n1000:5\r\n");

    // The terminal's interrupt reaches the foreground process.
    let mut process = shell("trap 'echo int; exit 4' INT; echo up; while :; do sleep 0.02; done");
    process.tty = true;
    let mut running = container.exec_started(process).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"up\r\n") {
        let mut byte = [0u8];
        rustix::io::read(running.master(), &mut byte).unwrap();
        seen.extend(byte);
    }
    rustix::io::write(running.master(), b"\x03").unwrap();
    let outcome = running.finish();
    assert_eq!((outcome.code, outcome.output.as_str()), (4, "^Cint\r\n"));
    container.kill();
}

/// `/proc/self/exe` of a process that is not in the container yet names nothing there.
fn exec_of_own_binary() {
    let image = Image::new();
    let container = sleeper(&image);
    match container.exec(process(&["/proc/self/exe"])) {
        Err(Failure::Exec { errno: libc::ENOENT, .. }) => {}
        other => panic!("{other:?}"),
    }
    container.kill();
}

fn exec_after_the_end() {
    let image = Image::new();
    let container = sleeper(&image);
    container.signal(libc::SIGKILL);
    // Not reaped yet: the pid still exists, its namespaces do not.
    let pidfd = container.pidfd();
    rustix::event::poll(
        &mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)],
        None,
    )
    .unwrap();
    assert_eq!(container.exec(shell("true")).unwrap_err(), Failure::NotRunning);
    container.finish();
}

/// A payload with CAP_SYS_PTRACE looks at every process that appears while execs are made: it
/// finds no descriptor but stdio, and no capability it lacks itself (CVE-2016-9962).
fn exec_is_not_to_be_traced() {
    let image = Image::new();
    let script = "echo up; while :; do for p in /proc/[0-9]*; do \
        ls -l $p/fd 2>/dev/null | grep -vE ' -> (/dev/null|pipe:|/proc|socket:)|^total' | grep -- '->'; \
        grep CapPrm: $p/status 2>/dev/null | grep -v 00000000a80c25fb; done; done";
    let mut spec = image.shell(script);
    let ptrace = 1 << 19;
    let all = DEFAULT_CAPABILITIES | ptrace;
    spec.process.capabilities.bounding = all;
    spec.process.capabilities.effective = all;
    spec.process.capabilities.permitted = all;
    let capabilities = spec.process.capabilities;
    let mut container = Container::start(spec).unwrap();
    container.wait_for_line("up");
    for _ in 0..100 {
        let process = Process { capabilities, ..process(&["true"]) };
        assert_eq!(container.exec(process).unwrap().code, 0);
    }
    assert_eq!(container.kill().output, "");
}
