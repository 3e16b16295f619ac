//! Times `true` in a container and as an exec, from the spawn to the reaped exit, against a plain
//! fork and exec. Needs root and `/usr/bin/busybox` (static).
//!
//!     cargo run --release -p runtime --example spawn_bench [ROUNDS]

// A report for people, made with the tests' harness.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/init/harness.rs"]
mod harness;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use harness::{Container, Image, process};
use runtime::cgroup::Hierarchies;
use runtime::init::{JoinNamespaces, ReportOrEnd, Stdio, spawn_container};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn main() {
    let rounds = std::env::args().nth(1).map_or(200, |text| text.parse().expect("a number"));
    let image = Image::new();
    report("fork + exec", rounds, || plain(&image));
    report("container, cgroup made before", rounds, || container(&image).0);
    report("  of it until the release", rounds, || container(&image).1);
    report("  of it from release to exec", rounds, || container(&image).2);
    let mut sleeper = Container::start(image.shell("echo up; exec sleep 1000")).expect("starts");
    sleeper.wait_for_line("up");
    report("exec", rounds, || {
        let start = Instant::now();
        sleeper.exec(process(&["true"])).expect("executes");
        start.elapsed()
    });
    sleeper.kill();
}

fn report(name: &str, rounds: usize, mut once: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| once()).collect();
    times.sort_unstable();
    let at = |part: f64| times[(part * (rounds - 1) as f64) as usize].as_secs_f64() * 1e3;
    println!("{name:32} min {:6.2}  median {:6.2}  p90 {:6.2} ms", at(0.0), at(0.5), at(0.9));
}

fn plain(image: &Image) -> Duration {
    let start = Instant::now();
    let status = std::process::Command::new(image.path("image/bin/true")).status();
    assert!(status.expect("busybox runs").success());
    start.elapsed()
}

/// Total, time until the child waits for its release, time from there to the exec.
fn container(image: &Image) -> (Duration, Duration, Duration) {
    let spec = image.spec(&["true"]);
    let cgroup = Hierarchies::detect()
        .and_then(|hierarchies| hierarchies.create(&spec.cgroup))
        .expect("cgroups can be made");
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null");
    let mut ends = std::iter::repeat_with(|| null().expect("it exists").into());
    let mut end = || ends.next().expect("it repeats");
    let stdio = Stdio::Files { stdin: end(), stdout: end(), stderr: end() };
    let start = Instant::now();
    let pending =
        spawn_container(&spec, &JoinNamespaces::default(), &cgroup, stdio).expect("clones");
    let spawned = start.elapsed();
    pending.release().expect("releases");
    while !matches!(pending.report(), Ok(Some((ReportOrEnd::End, _)))) {
        poll(&mut [PollFd::new(&pending.reports, PollFlags::IN)], None).expect("polls");
    }
    let executed = start.elapsed();
    let pidfd = pending.pidfd.as_ref().expect("a container has one");
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let total = start.elapsed();
    assert_eq!(status.expect("waits").expect("exited").exit_status(), Some(0));
    while !cgroup.remove().expect("is removed") {}
    (total, spawned, executed - spawned)
}
