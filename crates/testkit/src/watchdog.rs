//! A test that hangs says where, and fails, instead of holding up the whole run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::leaks;

/// Ends everything that belongs to a daemon's directory when the test takes too long: the
/// connections break, the clients end, and the test fails with what is printed here.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Closed when the test is over.
    _over: Sender<()>,
}

impl Watchdog {
    /// Patience is 240 s, or what `BOXSHIP_TEST_LIMIT` says in seconds.
    pub(crate) fn start(root: &Path, cgroup_parent: &str) -> Self {
        let limit = std::env::var("BOXSHIP_TEST_LIMIT").ok().and_then(|n| n.parse().ok());
        let limit = Duration::from_secs(limit.unwrap_or(240));
        let (over, wait) = channel();
        let (root, cgroup_parent) = (root.to_owned(), cgroup_parent.to_owned());
        std::thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                bark(limit, &root, &cgroup_parent);
            }
        });
        Self { _over: over }
    }
}

#[allow(clippy::print_stderr)] // The runner shows it with the failed test.
fn bark(limit: Duration, root: &Path, cgroup_parent: &str) {
    eprintln!("the test takes over {} s; its processes were:", limit.as_secs());
    let found: Vec<_> = leaks::processes()
        .filter(|pid| leaks::mentions(pid, root, cgroup_parent) || is_client(pid, root))
        .collect();
    for pid in &found {
        eprintln!("{}", describe(pid));
    }
    for pid in found {
        leaks::kill(&pid);
    }
}

/// Clients have the daemon's socket in their environment.
fn is_client(pid: &str, root: &Path) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environment).contains(&*root.to_string_lossy())
}

/// The command and where each of its threads sleeps.
fn describe(pid: &str) -> String {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let process = PathBuf::from("/proc").join(pid);
    let mut text = format!("process {pid}: {}", read(process.join("cmdline")).replace('\0', " "));
    for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
        let task = task.path();
        let (name, at) = (read(task.join("comm")), read(task.join("wchan")));
        text.push_str(&format!("\n  {}: {at} {}", name.trim(), read(task.join("syscall")).trim()));
    }
    text
}
