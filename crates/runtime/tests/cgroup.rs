//! Control groups against the running kernel, v1 or v2: limits bite, frozen things stand still,
//! killed things die. Needs root. Each test has its own group
//! `boxship-test-<name>-<pid>/group`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use runtime::cgroup::{Cgroup, Hierarchies, drain_oom_watch};
use runtime::protocol::{Failure, Stats};
use runtime::spec::{CgroupSpec, DeviceKind, DeviceRule, Resources};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

const MIB: i64 = 1 << 20;

fn unique(name: &str) -> String {
    format!("boxship-test-{name}-{}/group", std::process::id())
}

/// A group that is emptied and removed when the test ends, however it ends.
struct Group(Cgroup);

impl Group {
    /// With every device allowed.
    fn new(name: &str, resources: Resources) -> Self {
        let all = DeviceRule {
            allow: true,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        };
        Self::with_devices(name, resources, vec![all])
    }

    fn with_devices(name: &str, resources: Resources, devices: Vec<DeviceRule>) -> Self {
        let spec = CgroupSpec { path: unique(name), resources, devices };
        Self(Hierarchies::detect().unwrap().create(&spec).unwrap())
    }

    /// The group's directories, one a hierarchy.
    fn dirs(&self) -> Vec<PathBuf> {
        let of = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        match self.0.v2_fd() {
            Some(fd) => vec![of(fd.as_raw_fd())],
            None => self
                .0
                .v1_tasks()
                .iter()
                .map(|fd| of(fd.as_raw_fd()).parent().unwrap().into())
                .collect(),
        }
    }

    fn is_v2(&self) -> bool {
        self.0.v2_fd().is_some()
    }

    /// Reads the named file, v1's or v2's, in whichever hierarchy has it.
    fn read(&self, v1: &str, v2: &str) -> String {
        let name = if self.is_v2() { v2 } else { v1 };
        let file = self.dirs().into_iter().map(|dir| dir.join(name)).find(|file| file.exists());
        std::fs::read_to_string(file.unwrap_or_else(|| panic!("no {name}")))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Runs a shell script inside. It prints a line when it is ready and then may wait for stdin.
    fn spawn(&self, script: &str) -> Process {
        let dirs: Vec<_> = self.dirs().iter().map(|dir| dir.display().to_string()).collect();
        let join = "for dir in $DIRS; do echo 0 > $dir/cgroup.procs || exit 99; done\n";
        let mut child = Command::new("sh")
            .args(["-c", &format!("{join}{script}")])
            .env("DIRS", dirs.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let dirs = self.dirs();
        self.0.kill_all().unwrap();
        remove(&self.0);
        for dir in dirs {
            std::fs::remove_dir(dir.parent().unwrap()).unwrap();
        }
    }
}

/// Waits until the processes have left.
fn remove(group: &Cgroup) {
    while !group.remove().unwrap() {
        std::thread::yield_now();
    }
}

struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn wait(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }
}

fn readable(fd: impl AsFd, millis: i64) -> bool {
    let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).unwrap() == 1
}

/// Only makes a group and removes it.
fn try_limits(resources: &Resources) -> Result<(), Failure> {
    let path = unique(&format!("refused-{:?}", std::thread::current().id()));
    let spec = CgroupSpec { path: path.clone(), resources: resources.clone(), devices: vec![] };
    let all = Hierarchies::detect()?;
    let made = all.create(&spec).map(|group| remove(&group));
    remove(&all.adopt(path.strip_suffix("/group").unwrap())?);
    made
}

#[test]
fn limits_are_written() {
    let resources = Resources {
        memory: Some(64 * MIB),
        memory_swap: Some(96 * MIB),
        memory_reservation: Some(32 * MIB),
        cpu_shares: Some(2048),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0".to_owned()),
        pids_limit: Some(17),
        ..Resources::default()
    };
    let group = Group::new("limits", resources);
    let mib = |count: i64| (count * MIB).to_string();
    assert_eq!(group.read("memory.limit_in_bytes", "memory.max"), mib(64));
    assert_eq!(group.read("memory.soft_limit_in_bytes", "memory.low"), mib(32));
    assert_eq!(group.read("cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(group.read("pids.max", "pids.max"), "17");
    if group.is_v2() {
        assert_eq!(group.read("", "memory.swap.max"), mib(32));
        assert_eq!(group.read("", "cpu.weight"), "174");
        assert_eq!(group.read("", "cpu.max"), "25000 50000");
    } else {
        assert_eq!(group.read("memory.memsw.limit_in_bytes", ""), mib(96));
        assert_eq!(group.read("cpu.shares", ""), "2048");
        assert_eq!(group.read("cpu.cfs_quota_us", ""), "25000");
        assert_eq!(group.read("cpu.cfs_period_us", ""), "50000");
        assert!(!group.read("cpuset.mems", "").is_empty(), "inherited");
    }
}

#[test]
fn update_raises_and_lowers() {
    let both = |memory: i64, swap: i64| Resources {
        memory: Some(memory * MIB),
        memory_swap: Some(swap * MIB),
        ..Resources::default()
    };
    let group = Group::new("update", both(64, 64));
    for (memory, swap) in [(128, 256), (32, 64), (32, 32), (200, 200)] {
        group.0.update(&both(memory, swap)).unwrap();
        let limit = group.read("memory.limit_in_bytes", "memory.max");
        assert_eq!(limit, (memory * MIB).to_string());
    }
    let unlimited = Resources { memory: Some(-1), memory_swap: Some(-1), ..Resources::default() };
    group.0.update(&unlimited).unwrap();
    assert_eq!(
        group.read("memory.swappiness", "memory.max"),
        if group.is_v2() { "max" } else { "60" }
    );
    for (quota, period) in [(1_000_000, 1_000_000), (1_000, 1_000), (50_000, 100_000)] {
        let cpu =
            Resources { cpu_quota: Some(quota), cpu_period: Some(period), ..Resources::default() };
        group.0.update(&cpu).unwrap();
    }
}

#[test]
fn limits_the_machine_refuses_are_named() {
    let cpus = Resources { cpuset_cpus: Some("9999".to_owned()), ..Resources::default() };
    let text = try_limits(&cpus).unwrap_err().to_string();
    assert!(text.starts_with("set cpuset CPUs limit: write \"9999\" to cpuset.cpus: "), "{text}");
    let device = Resources { blkio_read_bps: vec![(4000, 7, 1)], ..Resources::default() };
    let text = try_limits(&device).unwrap_err().to_string();
    assert!(text.starts_with("set block IO read rate limit: "), "{text}");
    assert!(text.ends_with(": no such device"), "{text}");
    let gone = Hierarchies::detect().unwrap().adopt("boxship-test/never-made").unwrap_err();
    assert_eq!(gone, Failure::NotFound);
}

#[test]
fn oom_kill_is_counted_and_told() {
    let resources =
        Resources { memory: Some(64 * MIB), memory_swap: Some(128 * MIB), ..Resources::default() };
    let group = Group::new("oom", resources);
    let watch = group.0.oom_watch().unwrap();
    assert!(!readable(&watch, 0));
    let process = group.spawn("exec dd if=/dev/zero of=/dev/null bs=209715200 count=1");
    let status = process.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    assert!(readable(&watch, 5_000));
    drain_oom_watch(&watch).unwrap();
    assert!(!readable(&watch, 0), "drained");
    assert_eq!(group.0.oom_kills(), 1);
    assert!(group.0.stats().unwrap().memory_failcnt > 0);
}

#[test]
fn pids_limit_stops_forks() {
    let resources = Resources { pids_limit: Some(5), ..Resources::default() };
    let group = Group::new("pids", resources);
    let mut process =
        group.spawn("for n in 1 2 3 4; do sleep 1000 >&2 & done; echo full; read line");
    assert_eq!(process.line(), "full");
    let stats = group.0.stats().unwrap();
    assert_eq!((stats.pids_current, stats.pids_limit), (5, 5));
    // Joining is not limited, forking is; the shell gives up when it cannot.
    let mut second = group.spawn("(true) 2>/dev/null; echo done");
    assert_eq!(second.line(), "");
    assert!(!second.wait().success());
    process.wait();
}

#[test]
fn freeze_thaw_and_kill() {
    let group = Group::new("freeze", Resources::default());
    let mut process = group.spawn("while read line; do echo $line; done; sleep 1000 & sleep 1000");
    let mut stdin = process.child.stdin.take().unwrap();
    let mut say = |text: &str| writeln!(stdin, "{text}").unwrap();
    say("one");
    assert_eq!(process.line(), "one");

    group.0.freeze().unwrap();
    say("two");
    assert!(!readable(process.output.get_ref(), 100), "frozen processes do not answer");
    assert_eq!(group.0.pids().unwrap(), [process.child.id()]);
    group.0.thaw().unwrap();
    assert_eq!(process.line(), "two");

    group.0.freeze().unwrap();
    group.0.kill_all().unwrap();
    let status = process.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert_eq!(group.0.pids().unwrap(), [0; 0]);
}

#[test]
fn kill_all_outruns_a_fork_bomb() {
    let resources = Resources { pids_limit: Some(60), ..Resources::default() };
    let group = Group::new("bomb", resources);
    let mut process =
        group.spawn("bomb() { bomb 2>/dev/null & bomb 2>/dev/null; }; echo go; bomb 2>/dev/null");
    assert_eq!(process.line(), "go");
    group.0.kill_all().unwrap();
    process.wait();
    while !group.0.pids().unwrap().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn groups_made_inside_are_seen_killed_and_removed() {
    let group = Group::new("nested", Resources::default());
    let dirs = group.dirs();
    for dir in &dirs {
        for below in ["a/b/c", "a/d", "e"] {
            std::fs::create_dir_all(dir.join(below)).unwrap();
        }
    }
    assert!(group.0.pids().unwrap().is_empty());
    let mut process = group.spawn("echo ready; sleep 1000");
    assert_eq!(process.line(), "ready");
    let pid = process.child.id();
    for dir in &dirs {
        let inner = dir.join("a/b/c");
        // A v1 cpuset made by hand is empty and takes nobody.
        if !inner.join("cpuset.mems").exists() || group.is_v2() {
            std::fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
    assert!(group.0.pids().unwrap().contains(&pid));
    assert!(!group.0.remove().unwrap(), "not while someone is inside");
    group.0.kill_all().unwrap();
    process.wait();
    remove(&group.0);
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// On v2 a group with processes of its own cannot pass controllers on: they move to a leaf.
#[test]
fn a_group_below_one_in_use() {
    let parent = Group::new("parent", Resources::default());
    let mut process = parent.spawn("echo ready; read line");
    assert_eq!(process.line(), "ready");
    let resources = Resources { memory: Some(64 * MIB), ..Resources::default() };
    let path = format!("{}/child", unique("parent"));
    let spec = CgroupSpec { path, resources, devices: vec![] };
    let child = Hierarchies::detect().unwrap().create(&spec).unwrap();
    assert_eq!(child.stats().unwrap().memory_limit, 64 << 20);
    assert_eq!(parent.0.pids().unwrap(), [process.child.id()]);
    remove(&child);
    process.wait();
}

#[test]
fn device_rules() {
    let rule = |major, minor, access: &str| DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major,
        minor,
        access: access.to_owned(),
    };
    let rules =
        vec![rule(None, None, "m"), rule(Some(1), Some(3), "rwm"), rule(Some(1), Some(5), "r")];
    let group = Group::with_devices("devices", Resources::default(), rules);
    let dir = Path::new("/dev").join(unique("nodes").replace('/', "-"));
    std::fs::create_dir(&dir).unwrap();
    let node = |name: &str, minor| {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, dir.join(name), FileType::CharacterDevice, mode, makedev(1, minor)).unwrap();
    };
    node("null", 3);
    node("zero", 5);
    node("kmsg", 11);
    let script = "cd $NODES
        try() { if (eval \"$1\") 2>/dev/null; then echo yes; else echo no; fi; }
        try ': < null'; try ': > null'; try ': < zero'; try ': > zero'; try ': < kmsg'
        try 'mknod made c 1 11'; try 'mknod made2 b 7 200'";
    let script = script.replace("$NODES", &dir.display().to_string());
    let mut process = group.spawn(&script);
    let answers: Vec<_> = (0..7).map(|_| process.line()).collect();
    process.wait();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(answers, ["yes", "yes", "yes", "no", "no", "yes", "no"]);
}

/// Reads statistics until they show what they must in the end.
fn stats_until(group: &Group, reached: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = group.0.stats().unwrap();
        if reached(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn stats_count() {
    let group = Group::new("stats", Resources::default());
    let mut process = group.spawn("echo go; while :; do :; done");
    assert_eq!(process.line(), "go");
    let stats = stats_until(&group, |stats| stats.cpu_usage > 30_000_000 && stats.cpu_user > 0);
    assert_eq!(stats.cgroup_v2, group.is_v2());
    assert!(stats.cpu_usage < 60_000_000_000, "{}", stats.cpu_usage);
    assert!(stats.memory_usage > 0);
    assert!(stats.memory_limit > 1 << 50, "unlimited");
    let key = if group.is_v2() { "anon" } else { "total_rss" };
    assert!(stats.memory_stat.contains_key(key), "{:?}", stats.memory_stat);
    assert_eq!(stats.pids_current, 1);
    assert_eq!(stats.pids_limit, 0);
    assert_eq!(stats.cpu_per_cpu.is_empty(), group.is_v2());
    process.child.kill().unwrap();
    process.wait();
}

#[test]
fn a_quota_throttles() {
    let resources =
        Resources { cpu_quota: Some(5_000), cpu_period: Some(20_000), ..Resources::default() };
    let group = Group::new("quota", resources);
    let mut process = group.spawn("while :; do :; done");
    let stats = stats_until(&group, |stats| stats.throttled_time > 0);
    assert!(stats.throttled_periods > 0 && stats.throttling_periods > 0, "{stats:?}");
    process.child.kill().unwrap();
    process.wait();
}

#[test]
fn adopts_and_replaces() {
    let all = Hierarchies::detect().unwrap();
    let spec = CgroupSpec { path: unique("again"), ..CgroupSpec::default() };
    let first = Group(all.create(&spec).unwrap());
    let mut process = first.spawn("echo ready; read line");
    assert_eq!(process.line(), "ready");
    let adopted = all.adopt(&spec.path).unwrap();
    assert_eq!(adopted.pids().unwrap(), [process.child.id()]);
    let busy = all.create(&spec).unwrap_err();
    assert!(matches!(busy, Failure::System { errno: libc::EEXIST, .. }), "{busy}");
    process.wait();
    // What a crash left empty is made anew, without its limits.
    adopted.update(&Resources { pids_limit: Some(3), ..Resources::default() }).unwrap();
    let second = all.create(&spec).unwrap();
    assert_eq!(second.stats().unwrap().pids_limit, 0);
    drop(first);
}

#[test]
fn features_match_what_works() {
    let all = Hierarchies::detect().unwrap();
    let features = all.features();
    let must = [
        features.memory_limit,
        features.memory_reservation,
        features.cpu_shares,
        features.cpu_cfs_quota,
        features.cpuset,
        features.pids_limit,
        features.devices,
        features.freezer,
    ];
    assert_eq!(must, [true; 8], "{features:?}");
    assert_eq!(features.oom_kill_disable, !all.is_v2());
    let disable = Resources { oom_kill_disable: true, ..Resources::default() };
    assert_eq!(try_limits(&disable).is_ok(), features.oom_kill_disable);
}
