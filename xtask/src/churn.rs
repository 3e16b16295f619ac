//! `cargo xtask churn [ROUNDS]`: starts and removes a container with published ports, 10,000 times
//! unless told otherwise, and fails on anything left behind: addresses, ports, elements of the
//! firewall, links, descriptors. The test is the one `make test` runs 200 times.

use std::process::Command;

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let rounds = args.first().map_or("10000", String::as_str);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--package", "boxship", "--test", "it", "--"])
        .args(["reach::publishing_again_and_again_leaks_nothing", "--exact", "--nocapture"])
        .env("BOXSHIP_CHURN", rounds)
        .env("BOXSHIP_TEST_LIMIT", "7200")
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{rounds} rounds: {status}")) }
}
