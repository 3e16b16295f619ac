//! The docker command line: `boxship run`, `boxship ps`, and all the others, over the Engine API.
//!
//! [`main`] is the whole interface. Reading order: [`commands`] has the table of every command and
//! flag, [`dispatch`] goes from arguments to one of them, and each family of commands has a module
//! of its own (`container`, `image`, `network`, ...). Texts, layouts and exit codes are docker's;
//! the program's own name (`boxship`, or `docker` when called so) replaces `docker` in them.
//!
//! Everything runs on the calling thread, on a current-thread runtime that is built only once a
//! command needs the daemon.

mod account;
mod app;
mod attach;
mod commands;
mod completion;
mod container;
mod context;
mod dispatch;
mod failure;
mod flags;
mod help;
mod hint;
mod image;
mod inspect;
mod json;
mod manual;
mod network;
mod options;
mod output;
mod progress;
#[cfg(test)]
mod random;
mod run;
mod system;
mod template;
mod terminal;
mod volume;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line in `args`, whose first element is the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter().map(|argument| argument.to_string_lossy().into_owned());
    let program = program_name(&args.next().unwrap_or_default());
    let arguments: Vec<String> = args.collect();
    match dispatch::run(program, &arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(failure.report()),
    }
}

/// `docker` when called by that name, so that scripts see the texts they know.
fn program_name(path: &str) -> &'static str {
    match path.rsplit('/').next() {
        Some("docker") => "docker",
        _ => "boxship",
    }
}
