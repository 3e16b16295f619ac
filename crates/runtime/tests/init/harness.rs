//! Runs cases, and containers in them.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use runtime::cgroup::{Cgroup, Hierarchies};
use runtime::init::{
    JoinNamespaces, Pending, Report, ReportOrEnd, Stdio, spawn_container, spawn_exec,
};
use runtime::protocol::Failure;
use runtime::spec::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
use spec::Id;
use tempfile::TempDir;

pub(crate) type Case = (&'static str, fn());

/// Runs the selected cases. Speaks enough of libtest's command line for `cargo test` and nextest.
#[allow(clippy::print_stdout)]
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            cases.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let selected = |name: &str| {
        let hit = |wanted: &&String| if exact { *wanted == name } else { name.contains(*wanted) };
        wanted.is_empty() || wanted.iter().any(hit)
    };
    let mut failed = 0;
    for (name, case) in cases.iter().filter(|(name, _)| selected(name)) {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            case();
            let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert_eq!(before, after, "the host's mounts changed");
        }));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += u8::from(result.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A host directory with an image of busybox.
pub(crate) struct Image {
    pub(crate) directory: TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        let image = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["image/bin", "image/etc", "upper", "work"] {
            fs::create_dir_all(image.path(name)).unwrap();
        }
        fs::copy("/usr/bin/busybox", image.path("image/bin/busybox")).unwrap();
        for applet in [
            "awk", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname",
            "id", "ifconfig", "kill", "ln", "ls", "mkdir", "mount", "ps", "pwd", "readlink", "sh",
            "sleep", "sort", "stat", "stty", "tail", "touch", "tr", "true", "tty", "umask",
            "umount", "wc",
        ] {
            symlink("busybox", image.path(&format!("image/bin/{applet}"))).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        image.write("etc/passwd", passwd);
        image.write("etc/group", "root:x:0:root\napp:x:1001:\nwww:x:33:app\n");
        image
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path("image").join(name), text).unwrap();
    }

    /// A script in the image.
    pub(crate) fn script(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path("image").join(name), mode).unwrap();
    }

    pub(crate) fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay {
            lower: vec![self.path("image")],
            upper: self.path("upper"),
            work: self.path("work"),
            volatile: false,
        }
    }

    pub(crate) fn spec(&self, args: &[&str]) -> ContainerSpec {
        let id = Id::from_random(sys::random::bytes());
        ContainerSpec {
            generation: 1,
            rootfs: self.rootfs(),
            mounts: Vec::new(),
            process: process(args),
            hostname: Some("box".to_owned()),
            domainname: None,
            namespaces: Namespaces {
                pid: Namespace::Private,
                ipc: Namespace::Private,
                uts: Namespace::Private,
                net: Namespace::Private,
                cgroup: Namespace::Private,
            },
            network: NetworkSetup::default(),
            cgroup: CgroupSpec {
                path: format!("boxship-init-test/{id}"),
                resources: Resources::default(),
                devices: device_rules(),
            },
            devices: Vec::new(),
            sysctls: Default::default(),
            masked_paths: strings(&[
                "/proc/acpi",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/nonexistent",
                "/sys/firmware",
            ]),
            readonly_paths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]),
            readonly_rootfs: false,
            privileged: false,
            shm_size: 64 << 20,
            init: false,
            log: LogSpec::None,
            oci_runtime: None,
            id,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> ContainerSpec {
        self.spec(&["sh", "-c", script])
    }
}

pub(crate) fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Docker's default: nothing but the standard devices, though any node may be made.
fn device_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access: &str| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let char = DeviceKind::Char;
    let mut rules = vec![rule(char, None, None, "m"), rule(DeviceKind::Block, None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(char, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(char, Some(136), None, "rwm"));
    rules
}

pub(crate) const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

pub(crate) fn process(args: &[&str]) -> Process {
    let capabilities = Capabilities {
        bounding: DEFAULT_CAPABILITIES,
        effective: DEFAULT_CAPABILITIES,
        permitted: DEFAULT_CAPABILITIES,
        inheritable: 0,
        ambient: 0,
    };
    Process {
        args: strings(args),
        env: strings(&["PATH=/bin"]),
        cwd: "/".to_owned(),
        user: String::new(),
        additional_groups: Vec::new(),
        tty: false,
        console_size: None,
        open_stdin: false,
        stdin_once: false,
        capabilities,
        no_new_privileges: false,
        seccomp: Seccomp::Default,
        rlimits: Vec::new(),
        oom_score_adj: None,
        apparmor_profile: None,
    }
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// A container that was spawned.
pub(crate) struct Container {
    pub(crate) spec: ContainerSpec,
    pub(crate) cgroup: Cgroup,
    pub(crate) process: Running,
}

/// A process that executes its program.
pub(crate) struct Running {
    pub(crate) pid: u32,
    /// The read end of stdout and stderr.
    output: OwnedFd,
    master: Option<OwnedFd>,
    reaped: bool,
}

impl Container {
    pub(crate) fn start(spec: ContainerSpec) -> Result<Self, Failure> {
        Self::start_joined(spec, &JoinNamespaces::default())
    }

    pub(crate) fn start_joined(
        spec: ContainerSpec,
        join: &JoinNamespaces<'_>,
    ) -> Result<Self, Failure> {
        let cgroup = Hierarchies::detect().unwrap().create(&spec.cgroup).unwrap();
        let (output, stdio) = stdio(spec.process.tty);
        let started = spawn_container(&spec, join, &cgroup, stdio).and_then(|pending| {
            pending.release()?;
            run_to_program(&pending, output)
        });
        match started {
            Ok(process) => Ok(Self { spec, cgroup, process }),
            Err(failure) => {
                remove(&cgroup);
                Err(failure)
            }
        }
    }

    pub(crate) fn exec(&self, process: Process) -> Result<Outcome, Failure> {
        self.exec_started(process).map(|mut running| running.finish())
    }

    pub(crate) fn exec_started(&self, process: Process) -> Result<Running, Failure> {
        let (output, stdio) = stdio(process.tty);
        let exec_id = Id::from_random(sys::random::bytes());
        let spec = ExecSpec { exec_id, container: self.spec.id.clone(), process };
        let pidfd = self.pidfd();
        let pending = spawn_exec(&spec, pidfd.as_fd(), &self.cgroup, stdio)?;
        run_to_program(&pending, output)
    }

    pub(crate) fn pidfd(&self) -> OwnedFd {
        let pid = rustix::process::Pid::from_raw(self.process.pid as i32).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        sys::process::kill(self.process.pid, signal).unwrap();
    }

    pub(crate) fn kill(self) -> Outcome {
        self.signal(libc::SIGKILL);
        self.finish()
    }

    pub(crate) fn finish(mut self) -> Outcome {
        self.process.finish()
    }

    /// Reads output up to and including a line.
    pub(crate) fn wait_for_line(&mut self, line: &str) {
        let mut text = String::new();
        let mut byte = [0u8];
        while !text.ends_with(&format!("{line}\n")) {
            let read = rustix::io::read(&self.process.output, &mut byte).unwrap();
            assert_eq!(read, 1, "the output ended with {text:?}");
            text.push(byte[0] as char);
        }
    }
}

/// Also after a failed assertion nothing stays behind.
impl Drop for Container {
    fn drop(&mut self) {
        if !self.process.reaped {
            self.signal(libc::SIGKILL);
            let pid = rustix::process::Pid::from_raw(self.process.pid as i32);
            waitpid(pid, WaitOptions::empty()).unwrap();
        }
        remove(&self.cgroup);
    }
}

fn remove(cgroup: &Cgroup) {
    while !cgroup.remove().unwrap() {
        std::thread::yield_now();
    }
}

impl Running {
    pub(crate) fn master(&self) -> &OwnedFd {
        self.master.as_ref().unwrap()
    }

    /// Waits for the exit and reads the output.
    pub(crate) fn finish(&mut self) -> Outcome {
        let mut output = String::new();
        match self.master.take() {
            // A master answers EIO when the last slave is closed.
            Some(master) => drop(File::from(master).read_to_string(&mut output)),
            None => {
                let mut file = File::from(self.output.try_clone().unwrap());
                file.read_to_string(&mut output).unwrap();
            }
        }
        let pid = rustix::process::Pid::from_raw(self.pid as i32);
        let (_, status) = waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
        self.reaped = true;
        let killed = || 128 + status.terminating_signal().unwrap();
        Outcome { code: status.exit_status().unwrap_or_else(killed), output }
    }
}

/// The read end of the output, and what the program gets.
fn stdio(tty: bool) -> (OwnedFd, Stdio) {
    let (output, input) = rustix::pipe::pipe().unwrap();
    if tty {
        return (output, Stdio::Tty);
    }
    let stdin = File::open("/dev/null").unwrap().into();
    let stderr = input.try_clone().unwrap();
    (output, Stdio::Files { stdin, stdout: input, stderr })
}

/// Follows the reports up to the exec.
pub(crate) fn run_to_program(pending: &Pending, output: OwnedFd) -> Result<Running, Failure> {
    let mut pid = pending.pid;
    let mut master = None;
    let mut failed = None;
    loop {
        match next_report(pending) {
            (ReportOrEnd::End, _) => break,
            (ReportOrEnd::Report(Report::Console), descriptor) => master = descriptor,
            (ReportOrEnd::Report(Report::Pid(reported)), _) => pid = Some(reported),
            (ReportOrEnd::Report(Report::Failed(failure)), _) => failed = Some(failure),
        }
    }
    match failed {
        Some(failure) => {
            if let Some(pidfd) = &pending.pidfd {
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
            }
            Err(failure)
        }
        None => {
            Ok(Running { pid: pid.expect("a pid was reported"), output, master, reaped: false })
        }
    }
}

fn next_report(pending: &Pending) -> (ReportOrEnd, Option<OwnedFd>) {
    loop {
        if let Some(report) = pending.report().unwrap() {
            return report;
        }
        poll(&mut [PollFd::new(&pending.reports, PollFlags::IN)], None).unwrap();
    }
}

/// Runs a container to its end.
pub(crate) fn run_container(spec: ContainerSpec) -> Result<Outcome, Failure> {
    Container::start(spec).map(Container::finish)
}

/// Runs a script as root and compares its output.
#[track_caller]
pub(crate) fn check(spec: ContainerSpec, expect: &str) {
    let outcome = run_container(spec).unwrap();
    assert_eq!(outcome.output, expect, "exit code {}", outcome.code);
}

#[track_caller]
pub(crate) fn check_failure(spec: ContainerSpec, expect: &str) {
    let failure = run_container(spec).unwrap_err();
    assert_eq!(failure.to_string(), expect);
}
