//! Scripts of command lines that share one configuration directory: contexts and credentials.
//!
//! A script runs four times, each in a directory of its own: by docker, by ours, and twice by the
//! two in turns. What each line prints, and the files that are there in the end, must be the same
//! all four times. So each reads what the other wrote.
//!
//! A line is `[NAME=value ...] argument ... [< file]`, or `write FILE CONTENT`, or `rm FILE`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, Pair, Report, lines, words};

/// A credential helper that keeps one file a server and notes what it was asked.
const HELPER: &str = r#"#!/bin/sh
input=$(cat)
echo "$1 $input" >> "$DOCKER_CONFIG/helper.log"
server=$(printf %s "$input" | sed -e 's/.*"ServerURL":"\([^"]*\)".*/\1/' -e 's#[/:]#_#g')
case $1 in
store) printf %s "$input" > "$DOCKER_CONFIG/secret-$server" ;;
get) cat "$DOCKER_CONFIG/secret-$server" 2> /dev/null ||
    { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f "$DOCKER_CONFIG/secret-$server" ;;
esac
"#;

/// Who runs the line with this number.
type Turn = fn(usize) -> bool;

const TURNS: [(&str, Turn); 4] = [
    ("docker", |_line| false),
    ("ours", |_line| true),
    ("docker, ours", |line| line % 2 == 1),
    ("ours, docker", |line| line % 2 == 0),
];

pub(crate) fn compare(pair: &Pair, part: &'static str, script: &str, host: Option<&str>) -> usize {
    let mut runs = TURNS.iter().map(|(name, ours)| Run::of(pair, part, name, script, host, *ours));
    let first = runs.next().unwrap();
    let mut report = Report::new(part);
    for run in runs {
        for ((line, expected), got) in lines(script).zip(&first.outcomes).zip(&run.outcomes) {
            let title = format!("{} ({line})", run.name);
            report.compare(&title, &format!("{expected:#?}"), &format!("{got:#?}"));
        }
        let names: BTreeSet<&PathBuf> = first.files.keys().chain(run.files.keys()).collect();
        for name in names {
            let title = format!("{} ({})", run.name, name.display());
            let file = |files: &BTreeMap<PathBuf, (u32, String)>| format!("{:?}", files.get(name));
            report.compare(&title, &file(&first.files), &file(&run.files));
        }
    }
    report.finish()
}

struct Run {
    name: &'static str,
    outcomes: Vec<Option<Outcome>>,
    files: BTreeMap<PathBuf, (u32, String)>,
}

impl Run {
    fn of(
        pair: &Pair,
        part: &str,
        name: &'static str,
        script: &str,
        host: Option<&str>,
        ours: Turn,
    ) -> Self {
        // All of one length, since tables are as wide as what is in them.
        let place = TURNS.iter().position(|(other, _)| *other == name).unwrap();
        let root = pair.directory.path().join(format!("{part}-{place}"));
        let work = root.join("work");
        std::fs::create_dir_all(work.join("bin")).unwrap();
        let helper = work.join("bin/docker-credential-test");
        std::fs::write(&helper, HELPER).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(work.join("good"), "good\n").unwrap();
        let zip = include_bytes!("../../src/context/sample.zip");
        std::fs::write(work.join("sample.zip"), zip).unwrap();
        std::fs::write(work.join("broken.zip"), &zip[..zip.len() / 2]).unwrap();
        std::fs::write(work.join("crlf"), "good\r\n").unwrap();
        std::fs::write(work.join("cert.pem"), include_str!("cert.pem")).unwrap();
        std::fs::write(work.join("key.pem"), include_str!("key.pem")).unwrap();
        let mut outcomes = Vec::new();
        for (number, line) in lines(script).enumerate() {
            let program = if ours(number) { &pair.ours } else { &pair.docker };
            outcomes.push(run_line(program, &root, line, host));
        }
        Self { name, outcomes, files: tree(&root) }
    }
}

fn run_line(program: &Path, root: &Path, line: &str, host: Option<&str>) -> Option<Outcome> {
    let words = words(line);
    match words.as_slice() {
        [write, file, content] if write == "write" => {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            return None;
        }
        [rm, file] if rm == "rm" => {
            std::fs::remove_file(root.join(file)).unwrap();
            return None;
        }
        _ => {}
    }
    let path = format!("{}:/usr/bin:/bin", root.join("work/bin").display());
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", root)
        .env("DOCKER_CONFIG", root.join("config"))
        .env("DOCKER_API_VERSION", "1.50")
        .envs(host.map(|host| ("DOCKER_HOST", host)))
        .stdin(Stdio::null())
        .current_dir(root.join("work"));
    let mut rest = words.as_slice();
    while let [first, others @ ..] = rest
        && let Some((name, value)) = first.split_once('=')
    {
        command.env(name, value);
        rest = others;
    }
    if let [others @ .., arrow, file] = rest
        && arrow == "<"
    {
        command.stdin(std::fs::File::open(root.join("work").join(file)).unwrap());
        rest = others;
    }
    let output = command.args(rest).output().unwrap();
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&root.display().to_string(), "ROOT");
    Some(Outcome {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// Mode and content of every file, but for archives, whose padding differs.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let status = entry.metadata().unwrap();
            let path = entry.path();
            let content = if status.is_dir() {
                directories.push(path.clone());
                String::new()
            } else if path.extension().is_some_and(|end| end == "tar" || end == "dockercontext") {
                "archive".to_owned()
            } else {
                String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()
            };
            let name = path.strip_prefix(root).unwrap().to_owned();
            files.insert(name, (status.permissions().mode(), content));
        }
    }
    files
}
