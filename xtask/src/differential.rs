//! The differential suite of crate `cli`, with a daemon of ours to talk to.
//!
//! `cargo xtask differential [HOST]`: HOST is another daemon's address, for one that is not ours.

use std::path::PathBuf;
use std::process::Command;

use testkit::Daemon;

/// The suite takes longer than a test may.
const LIMIT: &str = "BOXSHIP_TEST_LIMIT";

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if let [host] = args {
        return suite(host);
    }
    if std::env::var_os(LIMIT).is_none() {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        return succeed(Command::new(own).arg("differential").env(LIMIT, "1800"));
    }
    succeed(Command::new("cargo").args(["build", "--quiet", "--package", "boxship"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::root().join("target"), PathBuf::from);
    let binary = target.join("debug/boxship").canonicalize().map_err(|error| error.to_string())?;
    let daemon = Daemon::start(&binary.to_string_lossy());
    let outcome = suite(&daemon.host());
    daemon.finish();
    outcome
}

fn suite(host: &str) -> Result<(), String> {
    succeed(
        Command::new("cargo")
            // The whole workspace is named so that nothing is built with other features.
            .args(["test", "--quiet", "--workspace", "--test", "differential"])
            .env("BOXSHIP_DIFF_HOST", host),
    )
}

fn succeed(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
