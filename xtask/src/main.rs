//! The project's own chores:
//! `cargo xtask tidy | compat | differential | fuzz-layers | vm-test | torture | churn | powercut |
//! bench`.
//!
//! Each is one module with `pub(crate) fn run(args: &[String]) -> Result<(), String>`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these are command line programs")]

mod bench;
mod churn;
mod compat;
mod differential;
mod fuzz_layers;
mod powercut;
mod tidy;
mod torture;
mod vm_test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = args.split_first().map_or(("", &[][..]), |(name, rest)| (name, rest));
    let result = match name {
        "bench" => bench::run(rest),
        "churn" => churn::run(rest),
        "compat" => compat::run(rest),
        "differential" => differential::run(rest),
        "fuzz-layers" => fuzz_layers::run(rest),
        "powercut" => powercut::run(rest),
        "tidy" => tidy::run(rest),
        "torture" => torture::run(rest),
        "vm-test" => vm_test::run(rest),
        _ => Err(format!(
            "unknown task {name:?}; tasks: bench, churn, compat, differential, fuzz-layers, \
             powercut, tidy, torture, vm-test"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("xtask {name}: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout's root.
pub(crate) fn root() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
