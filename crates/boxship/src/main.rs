//! One program, several roles: the daemon, its helpers (the supervisor of containers and the
//! unpacker of layers), and the command line.
//!
//! The role is chosen here, while the process has one thread: the supervisor never gets another,
//! and the daemon binds its sockets before it makes any.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::supervisor;

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Daemon,
    Supervisor,
    /// A confined child that unpacks one layer.
    Unpacker,
    CommandLine,
}

/// The name it is called by, or the first argument. Returns how many arguments that used up.
fn role(program: &OsStr, first: Option<&OsStr>) -> (Role, usize) {
    // A copy named `dockerd` starts its supervisor under that name.
    if first == Some(OsStr::new("supervisor")) {
        return (Role::Supervisor, 2);
    }
    if first == Some(OsStr::new("unpack")) {
        return (Role::Unpacker, 2);
    }
    let name = Path::new(program).file_name().unwrap_or_default();
    if name == "dockerd" || name == "boxshipd" {
        return (Role::Daemon, 1);
    }
    if first == Some(OsStr::new("daemon")) {
        return (Role::Daemon, 2);
    }
    (Role::CommandLine, 0)
}

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().cloned().unwrap_or_default();
    let (role, used) = role(&program, arguments.get(1).map(OsString::as_os_str));
    arguments.drain(..used.min(arguments.len()));
    match role {
        Role::Daemon => server::daemon::main(arguments),
        Role::Supervisor => supervise(arguments),
        Role::Unpacker => {
            let first = arguments.into_iter().next().unwrap_or_default();
            storage::unpack_main(&first.to_string_lossy())
        }
        Role::CommandLine => cli::main(arguments),
    }
}

/// Called by the daemon only, so its complaints are for the daemon's log.
#[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
fn supervise(arguments: Vec<OsString>) -> ExitCode {
    let Some(config) = supervisor_config(arguments) else {
        eprintln!("usage: boxship supervisor --exec-root DIR --exits-log FILE");
        return ExitCode::from(2);
    };
    match supervisor::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("boxship supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervisor_config(arguments: Vec<OsString>) -> Option<supervisor::Config> {
    let (mut exec_root, mut exits_log) = (None, None);
    let mut arguments = arguments.into_iter();
    while let Some(flag) = arguments.next() {
        let value = PathBuf::from(arguments.next()?);
        match flag.to_str()? {
            "--exec-root" => exec_root = Some(value),
            "--exits-log" => exits_log = Some(value),
            _ => return None,
        }
    }
    Some(supervisor::Config { exec_root: exec_root?, exits_log: exits_log? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_name_and_first_argument() {
        let check = |program: &str, first: Option<&str>, expect| {
            assert_eq!(
                role(program.as_ref(), first.map(OsStr::new)),
                expect,
                "{program} {first:?}"
            );
        };
        check("/usr/bin/dockerd", None, (Role::Daemon, 1));
        check("boxshipd", Some("-D"), (Role::Daemon, 1));
        check("boxship", Some("daemon"), (Role::Daemon, 2));
        check("./boxship", Some("supervisor"), (Role::Supervisor, 2));
        check("dockerd", Some("supervisor"), (Role::Supervisor, 2));
        check("/proc/self/exe", Some("unpack"), (Role::Unpacker, 2));
        check("boxship", Some("run"), (Role::CommandLine, 0));
        check("docker", Some("ps"), (Role::CommandLine, 0));
        check("boxship", None, (Role::CommandLine, 0));
    }

    #[test]
    fn the_supervisor_needs_both_places() {
        let parse = |list: &[&str]| supervisor_config(list.iter().map(Into::into).collect());
        assert!(parse(&["--exec-root", "/r", "--exits-log", "/l"]).is_some());
        assert!(parse(&["--exec-root", "/r"]).is_none());
        assert!(parse(&["--exec-root"]).is_none());
        assert!(parse(&["--other", "x"]).is_none());
    }
}
