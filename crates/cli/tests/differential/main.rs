//! Compares this command line with the real `docker`: the requests it sends, the texts it prints,
//! its exit codes.
//!
//! The cases are text files beside this one. `create.txt` runs against a recorder that only notes
//! requests, `refused.txt` against no daemon at all, `contexts.txt` and `accounts.txt` in directories that both command
//! lines share (see [`session`]), `daemon.txt`, `help.txt`, `mistakes.txt` and `changes.txt` against the
//! daemon named by `BOXSHIP_DIFF_HOST`. What is missing (docker, the daemon) skips its part and says so.
//! `cargo xtask differential` runs it all with a daemon of ours.
//!
//! A line `% reason` says why the next command line may differ; docs/compatibility.md lists those.
//!
//! There is no harness: called as `docker` or `boxship`, this program is the command line, so that
//! the test needs no binary but itself. Numbers that differ from run to run are replaced first, see
//! [`normal`].

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, without the harness")]

mod changes;
mod normal;
mod recorder;
mod session;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use recorder::Recorder;
use world::World;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = arguments.first().map(PathBuf::from).unwrap_or_default();
    if let Some("docker" | "boxship") = name.file_name().and_then(|name| name.to_str()) {
        return cli::main(arguments);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("differential: test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(docker) = find_docker() else {
        println!("differential: skipped, there is no docker command line in PATH");
        return ExitCode::SUCCESS;
    };
    let pair = Pair::new(docker);
    let mut failed = pair.compare_requests();
    failed += pair.compare_refusals();
    failed += session::compare(&pair, "contexts", include_str!("contexts.txt"), None);
    failed += pair.compare_accounts();
    failed += pair.complete_in_bash();
    match std::env::var("BOXSHIP_DIFF_HOST") {
        Ok(host) => {
            failed += pair.compare_with_daemon(&host, "help", include_str!("help.txt"));
            failed += pair.compare_with_daemon(&host, "daemon", include_str!("daemon.txt"));
            let mistakes = include_str!("mistakes.txt");
            failed += pair.compare_with_daemon(&host, "mistakes", mistakes);
            failed += changes::compare(&pair, &host, include_str!("changes.txt"));
        }
        Err(_unset) => println!("daemon: skipped, BOXSHIP_DIFF_HOST names no daemon"),
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn find_docker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("docker"))
        .find(|file| file.is_file())
}

/// Both command lines, and a directory for them to work in.
struct Pair {
    docker: PathBuf,
    ours: PathBuf,
    directory: tempfile::TempDir,
}

/// What a command line did.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Pair {
    fn new(docker: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("bin");
        std::fs::create_dir(&ours).unwrap();
        let ours = ours.join("docker");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &ours).unwrap();
        let work = directory.path().join("work");
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join("env1"), "# c\nA=1\nHOME\nNOPE_ZZ\n B = 2\n").unwrap();
        std::fs::write(work.join("lab1"), "x=y\nz\n").unwrap();
        std::fs::write(
            work.join("seccomp.json"),
            "{ \"defaultAction\" : \"X\",\n \"x\": \"a b\" }",
        )
        .unwrap();
        Self { docker, ours, directory }
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn run(&self, program: &Path, host: &str, arguments: &[String]) -> Outcome {
        let (arguments, stdin) = match arguments {
            [rest @ .., arrow, file] if arrow == "<" => {
                (rest, std::fs::File::open(self.work().join(file)).unwrap().into())
            }
            all => (all, Stdio::null()),
        };
        let output = Command::new(program)
            .args(arguments)
            .env("DOCKER_HOST", host)
            // Both speak the version that the older of them knows.
            .env("DOCKER_API_VERSION", "1.50")
            .env("DOCKER_CONFIG", self.directory.path().join("config"))
            .current_dir(self.work())
            .stdin(stdin)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Both create the same container at a daemon that only takes notes.
    fn compare_requests(&self) -> usize {
        let socket = self.directory.path().join("recorder.sock");
        let recorder = Recorder::start(&socket);
        let host = format!("unix://{}", socket.display());
        let mut report = Report::new("create");
        for line in lines(include_str!("create.txt")) {
            let mut arguments = vec!["create".to_owned()];
            arguments.extend(words(line));
            arguments.extend(["nosuch-zz:x", "cmd", "--arg"].map(str::to_owned));
            let request = |program: &Path| {
                let outcome = self.run(program, &host, &arguments);
                (recorder.take(), outcome.stderr)
            };
            let (theirs, ours) = (request(&self.docker), request(&self.ours));
            report.compare(line, &format!("{theirs:#?}"), &format!("{ours:#?}"));
        }
        report.finish()
    }

    /// Both are given flags with no daemon to send them to.
    fn compare_refusals(&self) -> usize {
        let mut report = Report::new("refused");
        for line in lines(include_str!("refused.txt")) {
            let mut arguments = vec!["create".to_owned()];
            arguments.extend(words(line));
            arguments.push("image".to_owned());
            let run = |program: &Path| self.run(program, "unix:///nonexistent", &arguments);
            let (theirs, ours) = (run(&self.docker), run(&self.ours));
            report.compare(line, &format!("{theirs:#?}"), &format!("{ours:#?}"));
        }
        report.finish()
    }

    /// Both log in at a daemon that knows one password.
    fn compare_accounts(&self) -> usize {
        let socket = self.directory.path().join("accounts.sock");
        let recorder = Recorder::start(&socket);
        let host = format!("unix://{}", socket.display());
        let failed = session::compare(self, "accounts", include_str!("accounts.txt"), Some(&host));
        // Four runs asked for the same things.
        let requests = recorder.take();
        let runs: Vec<_> = requests.chunks(requests.len() / 4).collect();
        let mut report = Report::new("requests");
        for (number, run) in runs.iter().enumerate() {
            for (theirs, ours) in runs[0].iter().zip(*run) {
                report.compare(
                    &format!("run {number}"),
                    &format!("{theirs:?}"),
                    &format!("{ours:?}"),
                );
            }
        }
        failed + report.finish()
    }

    /// What bash offers with our completion script loaded: no comparison, docker's script wants
    /// another package.
    fn complete_in_bash(&self) -> usize {
        let socket = self.directory.path().join("completion.sock");
        let _recorder = Recorder::start(&socket);
        let host = format!("unix://{}", socket.display());
        let mut report = Report::new("completion");
        // The line, its last word as bash breaks it, and what is offered for that.
        let cases = [
            ("docker context sh", "sh", "show"),
            ("docker rm -f w", "w", "web"),
            ("docker logs --fol", "--fol", "--follow"),
            ("docker run --rm busybox:la", "la", "lab latest"),
            ("docker run --rm busybox:", ":", "lab latest"),
            ("docker run --restart un", "un", "unless-stopped"),
            ("docker load -i ", "", ""),
            ("docker nonsense ", "", ""),
        ];
        for (line, word, expected) in cases {
            let script = format!(
                "source <(docker completion bash) && COMP_LINE='{line}' COMP_POINT={} \
                 COMP_CWORD=0 COMP_WORDS=('{word}') && _docker_complete && echo \"${{COMPREPLY[*]}}\"",
                line.len()
            );
            let path = format!("{}:/usr/bin:/bin", self.ours.parent().unwrap().display());
            let output = Command::new("bash")
                .args(["-c", &script])
                .env("PATH", path)
                .env("DOCKER_HOST", &host)
                .env("DOCKER_CONFIG", self.directory.path().join("config"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            report.compare(line, expected, &text);
        }
        report.finish()
    }

    fn compare_with_daemon(&self, host: &str, part: &'static str, text: &str) -> usize {
        let run = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
            self.run(&self.docker, host, &arguments)
        };
        let world = match World::build(&run) {
            Ok(world) => world,
            Err(reason) => {
                println!("{part}: skipped, {reason}");
                return 0;
            }
        };
        let mut report = Report::new(part);
        for case in cases(text) {
            let arguments = words(&world.fill_in(case.line, &self.work()));
            let run = |program: &Path| {
                let outcome = self.run(program, host, &arguments);
                Outcome {
                    stdout: case.ordered(normal::text(&outcome.stdout)),
                    stderr: normal::text(&outcome.stderr),
                    ..outcome
                }
            };
            let (theirs, ours) = (run(&self.docker), run(&self.ours));
            report.compare_case(&case, &theirs, &ours);
        }
        report.finish()
    }
}

/// One line of a file, with what was said about it.
struct Case<'a> {
    line: &'a str,
    order: Order,
    /// Why the two may differ.
    reason: Option<&'a str>,
}

/// What of the output comes in the order of a Go map, which is none.
#[derive(Clone, Copy)]
enum Order {
    Kept,
    /// `~`: lines.
    Lines,
    /// `~~`: what is between spaces, commas and quotes.
    Words,
}

impl Case<'_> {
    fn ordered(&self, text: String) -> String {
        let mut parts: Vec<&str> = match self.order {
            Order::Kept => return text,
            Order::Lines => text.lines().collect(),
            Order::Words => text.split([' ', ',', '"', '\n']).collect(),
        };
        parts.sort_unstable();
        parts.join("\n")
    }
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    let mut reason = None;
    for line in lines(text) {
        if let Some(text) = line.strip_prefix("% ") {
            reason = Some(text);
            continue;
        }
        let marks = [("~~ ", Order::Words), ("~ ", Order::Lines), ("", Order::Kept)];
        let mut marked =
            marks.into_iter().filter_map(|(mark, order)| Some((line.strip_prefix(mark)?, order)));
        let (line, order) = marked.next().expect("every line begins with nothing");
        cases.push(Case { line, order, reason: reason.take() });
    }
    cases
}

/// Counts and prints differences.
struct Report {
    part: &'static str,
    cases: usize,
    different: usize,
    /// Differences with a reason.
    known: usize,
}

impl Report {
    fn new(part: &'static str) -> Self {
        Self { part, cases: 0, different: 0, known: 0 }
    }

    fn compare_case(&mut self, case: &Case<'_>, theirs: &Outcome, ours: &Outcome) {
        if case.reason.is_some() && theirs != ours {
            self.cases += 1;
            self.known += 1;
            return;
        }
        self.compare(case.line, &format!("{theirs:#?}"), &format!("{ours:#?}"));
    }

    fn compare(&mut self, line: &str, theirs: &str, ours: &str) {
        self.cases += 1;
        if theirs == ours {
            return;
        }
        self.different += 1;
        println!("{}: {line}", self.part);
        let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.lines().collect(), ours.lines().collect());
        // The lines between what begins and what ends alike.
        let same = |a: &&str, b: &&str| a == b;
        let start = theirs.iter().zip(&ours).take_while(|(a, b)| same(a, b)).count();
        let most = theirs.len().min(ours.len()) - start;
        let ends = theirs.iter().rev().zip(ours.iter().rev()).take(most);
        let end = ends.take_while(|(a, b)| same(a, b)).count();
        for (name, lines) in [("docker", &theirs), ("ours", &ours)] {
            for line in &lines[start..lines.len() - end] {
                println!("  {name:7} {}", line.trim());
            }
        }
    }

    fn finish(self) -> usize {
        let known = match self.known {
            0 => String::new(),
            known => format!(", {known} as documented"),
        };
        println!("{}: {} lines, {} differ{known}", self.part, self.cases, self.different);
        self.different
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Splits at spaces; quotes of both kinds keep what is in them together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
