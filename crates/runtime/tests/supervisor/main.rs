//! The supervisor for real: as root, with namespaces, cgroups and a busybox root.
//!
//! This program is its own supervisor (`supervisor --exec-root ..`), which must have one thread;
//! therefore it brings its own `main` and runs one test after the other. Arguments are parts of
//! test names to run.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod fixture;
mod lifecycle;
mod oci;
mod streams;
mod survival;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use runtime::supervisor::{self, Config};

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|role| role == "supervisor") {
        return supervise(&arguments);
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return ExitCode::SUCCESS;
    }
    let tests = [lifecycle::TESTS, streams::TESTS, survival::TESTS, oci::TESTS].concat();
    let names = arguments.iter().filter(|argument| !argument.starts_with('-')).collect::<Vec<_>>();
    let chosen = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(*part));
    let mut failures = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| chosen(name)) {
        let started = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        failures += u32::from(!passed);
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", started.elapsed().as_millis());
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn supervise(arguments: &[String]) -> ExitCode {
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name).unwrap();
        PathBuf::from(&arguments[at + 1])
    };
    let config = Config { exec_root: value("--exec-root"), exits_log: value("--exits-log") };
    match supervisor::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}
