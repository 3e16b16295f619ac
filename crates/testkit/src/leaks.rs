//! What a daemon and its containers must not leave on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names everything left of a daemon with this root and cgroup parent. Tear-down is allowed two
/// seconds to settle: the kernel frees cgroups and namespaces after the fact.
pub fn after(root: &Path, cgroup_parent: &str) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let problems = now(root, cgroup_parent);
        if problems.is_empty() || Instant::now() > deadline {
            return problems;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same, at once.
pub fn now(root: &Path, cgroup_parent: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let holder = fs::read_to_string(root.join("holder.pid")).unwrap_or_default();
    for pid in processes().filter(|pid| pid != holder.trim()) {
        if mentions(&pid, root, cgroup_parent) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            problems.push(format!("process {pid}: {command}"));
        }
    }
    for group in cgroups(cgroup_parent) {
        let inside = fs::read_dir(&group).into_iter().flatten().flatten();
        for child in inside.filter(|entry| entry.path().is_dir()) {
            problems.push(format!("cgroup {}", child.path().display()));
        }
    }
    let seen = visible(root);
    for directory in ["d/containers", "d/storage/containers", "d/storage/ingest", "r/containers"] {
        for entry in fs::read_dir(seen.join(directory)).into_iter().flatten().flatten() {
            problems.push(format!("directory {}", entry.path().display()));
        }
    }
    if let Some(pid) = holder.trim().parse::<u32>().ok().filter(|_| !holder.is_empty()) {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let disk = format!(" / {} ", root.join("d").display());
        let root = root.to_string_lossy();
        let of_daemon = |line: &&str| line.contains(&*root) && !line.contains(&disk);
        for line in mounts.lines().filter(of_daemon) {
            problems.push(format!("mount {line}"));
        }
    }
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in host.lines().filter(|line| line.contains(&*root.to_string_lossy())) {
        problems.push(format!("host mount {line}"));
    }
    problems
}

/// A daemon's directory as its holder sees it: the data root may be mounted there alone.
pub(crate) fn visible(root: &Path) -> PathBuf {
    match fs::read_to_string(root.join("holder.pid")).unwrap_or_default().trim() {
        "" => root.to_owned(),
        pid => {
            PathBuf::from(format!("/proc/{pid}/root")).join(root.strip_prefix("/").unwrap_or(root))
        }
    }
}

/// What is in a data root once every container, image and volume was removed: nothing. Waits for
/// the threads that delete.
pub fn stored(data_root: &Path) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found: Vec<String> = STORED
            .iter()
            .flat_map(|directory| {
                let entries = fs::read_dir(data_root.join(directory)).into_iter().flatten();
                entries.flatten().map(move |entry| (directory, entry.file_name()))
            })
            .map(|(directory, name)| format!("{directory}/{}", name.display()))
            .filter(|name| !name.starts_with("volumes/."))
            .collect();
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

const STORED: [&str; 9] = [
    "storage/layers",
    "storage/content/sha256",
    "storage/containers",
    "storage/ingest",
    "storage/trash",
    "storage/mounts",
    "containers",
    "volumes",
    "volumes/.trash",
];

/// Ends and removes what was found, so that one failed test does not fail the next.
pub fn clean(root: &Path, cgroup_parent: &str) {
    for pid in processes().filter(|pid| mentions(pid, root, cgroup_parent)) {
        kill(&pid);
    }
    for group in cgroups(cgroup_parent) {
        for child in fs::read_dir(&group).into_iter().flatten().flatten() {
            drop(fs::remove_dir(child.path()));
        }
        drop(fs::remove_dir(&group));
    }
}

pub(crate) fn kill(pid: &str) {
    if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
        // It may be gone already.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

pub(crate) fn processes() -> impl Iterator<Item = String> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// True for processes that run in the daemon's cgroups or were started with its directories.
pub(crate) fn mentions(pid: &str, root: &Path, cgroup_parent: &str) -> bool {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    let root = root.to_string_lossy();
    let holder = command.starts_with("sleep\0infinity") || command.contains("holder.pid");
    cgroup.contains(cgroup_parent) || (command.contains(&*root) && !holder)
}

fn cgroups(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let parent = parent.trim_start_matches('/');
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = std::iter::once(PathBuf::from("/sys/fs/cgroup"))
        .chain(hierarchies.map(|entry| entry.path()));
    for root in roots {
        let group = root.join(parent);
        if group.is_dir() {
            found.push(group);
        }
    }
    found
}
