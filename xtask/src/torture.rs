//! `cargo xtask torture [KILLS]`: kills the daemon at random moments under load, 500 times unless
//! told otherwise. The test is the one `make test` runs with a small count.

use std::process::Command;

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let kills = args.first().map_or("500", String::as_str);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--package", "boxship", "--test", "it", "--"])
        .args(["survival::random_kills_under_load_lose_and_leak_nothing", "--exact", "--nocapture"])
        .env("BOXSHIP_TORTURE", kills)
        .env("BOXSHIP_TEST_LIMIT", "7200")
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("after {kills} kills: {status}")) }
}
