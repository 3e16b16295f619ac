//! `cargo xtask fuzz-layers [ROUNDS] [SEED]`: random layers through both forms and through GNU tar,
//! 5,000 unless told otherwise. `make test` runs the same tests with a small count.

use std::process::Command;

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let rounds = args.first().map_or("5000", String::as_str);
    let seed = args.get(1).map_or("1000", String::as_str);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--package", "storage", "--test", "differential", "--", "--nocapture"])
        .env("BOXSHIP_FUZZ", rounds)
        .env("BOXSHIP_FUZZ_SEED", seed)
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("from seed {seed}: {status}")) }
}
