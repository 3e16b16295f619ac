//! The security cases of the runtime (R), the defaults (D), the API (A), the network (N) and the
//! kernel (X), each a test named after its id. Hostile archives (U, L) have theirs in the crates
//! `storage` and `image`. What cannot run here is listed with its reason in docs/security.md.

mod api;
mod defaults;
pub(crate) mod network;
mod runtime;
mod tricks;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::Daemon;

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

fn create(daemon: &Daemon, body: &Value) -> testkit::Response {
    daemon.api().post_json("/v1.51/containers/create", body).unwrap()
}

/// How often a race is tried.
pub(crate) fn race_count() -> usize {
    std::env::var("BOXSHIP_RACES").ok().and_then(|count| count.parse().ok()).unwrap_or(1000)
}
