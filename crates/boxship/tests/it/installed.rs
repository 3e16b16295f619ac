//! `make install` into a directory, and what it put there at work: completion in the real shells,
//! manual pages, the systemd unit.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Daemon, Terminal};

use crate::{BINARY, daemon, run_detached};

/// Installs below `root`; the program is the one under test.
fn install(root: &Path) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("make")
        .args(["--old-file=build", "install", "PREFIX=/usr"])
        .arg(format!("BINARY={BINARY}"))
        .arg(format!("DESTDIR={}", root.display()))
        .current_dir(repository)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    root.join("usr")
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|place| place.join(program).is_file());
    if !there {
        skipped(&format!("{program} is not installed"));
    }
    there
}

#[allow(clippy::print_stderr, reason = "whoever reads the log is to know")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// A program with the installed one in its PATH.
fn client(daemon: &Daemon, prefix: &Path, program: &str) -> Command {
    let mut command = daemon.client_command(program);
    command
        .env("PATH", format!("{}:/usr/bin:/bin", prefix.join("bin").display()))
        .env("HOME", daemon.root())
        .env("TERM", "dumb");
    command
}

#[test]
fn everything_is_in_its_place() {
    let root = tempfile::tempdir().unwrap();
    let prefix = install(root.path());
    let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
    assert!(read("etc/systemd/system/boxship.service").contains("/usr/bin/boxship daemon"));
    assert!(read("usr/share/man/man1/boxship-container-run.1").contains(".SH OPTIONS"));
    assert!(read("usr/share/man/man1/boxship.1").contains("boxship"));
    let pages = std::fs::read_dir(prefix.join("share/man/man1")).unwrap().count();
    assert!(pages > 60, "{pages} pages");
    let version = Command::new(prefix.join("bin/boxship")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("Boxship version"));
    // Every page is one that the formatter takes without a complaint.
    if is_there("groff") {
        let page = prefix.join("share/man/man1/boxship-container-run.1");
        let groff = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(page).output();
        assert_eq!(String::from_utf8_lossy(&groff.unwrap().stderr), "");
    }
}

#[test]
fn fish_completes() {
    if !is_there("fish") {
        return;
    }
    let daemon = daemon();
    let prefix = install(&daemon.root().join("root"));
    run_detached(&daemon, "web", "sleep 1000");
    let complete = |line: &str| {
        let mut command = client(&daemon, &prefix, "fish");
        command
            .args(["--no-config", "-c"])
            .arg(format!(
                "source {}; complete -C '{line}'",
                prefix.join("share/fish/vendor_completions.d/boxship.fish").display()
            ))
            .env("XDG_CONFIG_HOME", daemon.root());
        testkit::run::run(&mut command, b"").stdout
    };
    let check = |line: &str, expect: &str| {
        let offered = complete(line);
        let found = offered.lines().any(|one| one.split('\t').next() == Some(expect));
        assert!(found, "{line}: {offered}");
    };
    check("boxship net", "network");
    check("boxship network ", "inspect");
    check("boxship logs --fo", "--follow");
    check("boxship logs ", "web");
    check("boxship rmi bus", "busybox:latest");
    daemon.finish();
}

#[test]
fn zsh_completes() {
    if !is_there("zsh") {
        return;
    }
    let daemon = daemon();
    let prefix = install(&daemon.root().join("root"));
    run_detached(&daemon, "web-server", "sleep 1000");
    let mut command = client(&daemon, &prefix, "zsh");
    command.args(["-f", "-i"]).env("PS1", "ready> ");
    let mut shell = Terminal::run(&command);
    shell.expect("ready> ");
    let functions = prefix.join("share/zsh/site-functions");
    shell.send(&format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; echo lo''aded\r",
        functions.display()
    ));
    shell.expect("loaded");
    shell.expect("ready> ");
    for (typed, completed) in [
        ("boxship netw\t", "network"),
        ("boxship logs --fol\t", "--follow"),
        ("boxship logs web\t", "web-server"),
        ("boxship run --restart unl\t", "unless-stopped"),
    ] {
        shell.send(typed);
        shell.expect(completed);
        // The line is given up.
        shell.send("\u{15}");
    }
    shell.send("exit\r");
    shell.end();
    daemon.finish();
}
