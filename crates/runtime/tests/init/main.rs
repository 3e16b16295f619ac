//! The init stage with real namespaces, mounts and cgroups. Needs root and a static busybox.
//!
//! Not under libtest: the process that clones must have one thread. Cases run one after the other;
//! arguments select them by name.

// Without libtest nothing here is marked as a test.
#![allow(clippy::unwrap_used)]

mod exec;
mod harness;
mod identity;
mod mounts;
mod process;

use std::process::ExitCode;

use harness::Case;

fn main() -> ExitCode {
    runtime::init::protect_own_binary().unwrap();
    let cases: Vec<Case> = [mounts::CASES, identity::CASES, process::CASES, exec::CASES].concat();
    harness::run(&cases)
}
