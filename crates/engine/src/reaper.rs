//! Orphans. The daemon is a subreaper: when the supervisor dies, its containers become the
//! daemon's children, and so does every stray process of theirs. Those that the containers' tasks
//! do not wait for are reaped here, so that no zombie stays.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock};

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Read-locked while the daemon runs a program of its own and waits for it by itself.
static OWN_CHILDREN: RwLock<()> = RwLock::new(());
/// First processes of containers, whose exit codes their tasks fetch.
static CONTAINERS: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

/// Runs a program: start, wait, done. The reaper keeps out of it.
pub(crate) fn shielded<T>(run: impl FnOnce() -> T) -> T {
    let guard = OWN_CHILDREN.read().unwrap_or_else(PoisonError::into_inner);
    let result = run();
    drop(guard);
    // Orphans that ended meanwhile were passed over.
    reap();
    result
}

/// Leaves the process to its container's task.
pub(crate) fn reserve(pid: u32) {
    let mut containers = CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner);
    containers.get_or_insert_default().insert(pid);
}

pub(crate) fn release(pid: u32) {
    let mut containers = CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner);
    containers.get_or_insert_default().remove(&pid);
}

/// Becomes a subreaper and reaps for as long as the runtime lives.
pub(crate) fn start() -> std::io::Result<()> {
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            reap();
        }
    });
    Ok(())
}

fn reap() {
    // While a program of our own runs, its end makes up for this.
    let Ok(_guard) = OWN_CHILDREN.try_write() else { return };
    let reserved = CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for pid in children() {
        if reserved.as_ref().is_some_and(|pids| pids.contains(&pid)) {
            continue;
        }
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        if let Err(errno) = waitpid(Some(pid), WaitOptions::NOHANG) {
            tracing::debug!(?pid, %errno, "reap an orphan");
        }
    }
}

/// Our children, by the lists of all our threads.
fn children() -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = threads.flatten().map(|thread| thread.path().join("children"));
    let texts = lists.filter_map(|path| std::fs::read_to_string(path).ok());
    let pids = texts.flat_map(|text| {
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
    });
    pids.collect()
}
