//! The real binary, its own client, and Docker's clients, each test with a daemon of its own.
//!
//! `seeds` holds the acceptance checks of the two articles Boxship started from, by id;
//! `security` the cases of the security list, by id; the rest is by subject.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the message")]

mod archive;
mod bad_input;
mod check;
mod compose;
mod data;
mod dns;
mod docker_cli;
mod full;
mod idioms;
mod image_mounts;
mod installed;
mod kills;
mod layouts;
mod lifecycle;
mod links;
mod network;
mod plugins;
mod reach;
mod security;
mod seeds;
mod ssh;
mod stack;
mod survival;
mod terminal;
mod upkeep;
mod volumes;
mod wording;

use testkit::Daemon;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_boxship");

pub(crate) fn daemon() -> Daemon {
    Daemon::start(BINARY)
}

/// Starts `sh -c script` detached and returns the container's id.
#[track_caller]
pub(crate) fn run_detached(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.boxship(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok()
}

/// One field of a container's inspect, by a template.
#[track_caller]
pub(crate) fn field(daemon: &Daemon, container: &str, template: &str) -> String {
    daemon.boxship(&["inspect", "-f", template, container]).ok()
}
