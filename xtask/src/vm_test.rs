//! `cargo xtask vm-test [--kernel bookworm|trixie] [--package NAME].. [--test NAME]..
//! [--timeout SECONDS] [--disk] [--keep] [--without MODULE].. [FILTER]..`: runs integration tests of
//! crates (all of `runtime` unless told otherwise) on Debian 12's kernel 6.1, or Debian 13's 6.12,
//! with cgroup v2, in QEMU. FILTERs are parts of test names; a MODULE is not there to be loaded.
//!
//! It has to run where there is no KVM, and takes 5 to 20 times as long as on the machine itself:
//! this tests behaviour, not speed. What is in the machine:
//!
//!     kernel      linux-image-cloud-amd64 of the release, unpacked once below target/vm
//!     initramfs   busybox, the test programs, what they start (boxship, the busybox image), the
//!                 libraries they are linked to, kernel modules, and an /init that copies all this
//!                 to a tmpfs (pivot_root does not work on the initramfs itself), runs the programs
//!                 and powers off
//!     console     everything printed; `VM-EXIT program code` after each program
//!
//! With `--disk` the tests' temporary directories are on ext4 (in memory), not on a tmpfs.
//!
//! Nothing waits for ever: a program that takes half of the timeout (600 s) is killed, with a list
//! of processes, and the next one runs; the machine ends at the timeout.
//!
//! Needs qemu-system-x86, busybox-static and apt-get.

mod initramfs;
mod kernel;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use initramfs::Archive;

struct Options {
    packages: Vec<String>,
    /// Integration tests of the packages; all, unless some are named.
    tests: Vec<String>,
    timeout: Duration,
    /// `/tmp` is ext4.
    disk: bool,
    /// Leave the initramfs on disk, to boot it by hand.
    keep: bool,
    /// Kernel modules to leave out.
    without: Vec<String>,
    filters: Vec<String>,
    release: kernel::Release,
}

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let directory = crate::root().join("target/vm");
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let kernel = kernel::fetch(&directory, options.release)?;
    let programs = build(&options)?;
    let image = directory.join(format!("initramfs-{}.cpio", std::process::id()));
    let archive = pack(&kernel, &programs, &options)?;
    std::fs::write(&image, archive.finish()).map_err(|error| error.to_string())?;
    let outcome = boot(&kernel.image, &image, options.release, options.timeout);
    if !options.keep {
        std::fs::remove_file(&image).map_err(|error| error.to_string())?;
    }
    outcome?.report(&programs)
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            packages: Vec::new(),
            tests: Vec::new(),
            timeout: Duration::from_secs(600),
            disk: false,
            keep: false,
            without: Vec::new(),
            filters: Vec::new(),
            release: kernel::Release::Bookworm,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--package" | "-p" => options.packages.push(value()?.clone()),
                "--kernel" => {
                    let name = value()?;
                    options.release = kernel::Release::parse(name)
                        .ok_or_else(|| format!("--kernel: bookworm or trixie, not {name}"))?;
                }
                "--test" => options.tests.push(value()?.clone()),
                "--timeout" => {
                    let seconds =
                        value()?.parse().map_err(|error| format!("--timeout: {error}"))?;
                    options.timeout = Duration::from_secs(seconds);
                }
                "--without" => options.without.push(value()?.clone()),
                "--disk" => options.disk = true,
                "--keep" => options.keep = true,
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        if options.packages.is_empty() {
            options.packages.push("runtime".to_owned());
        }
        if options.tests.is_empty() {
            options.tests.push("*".to_owned());
        }
        Ok(options)
    }
}

/// A test program, `runtime-cgroup`, or one that tests start; and where cargo put it.
struct Program {
    name: String,
    path: PathBuf,
    is_test: bool,
}

/// Builds the integration tests.
fn build(options: &Options) -> Result<Vec<Program>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(crate::root()).stderr(Stdio::inherit());
    command.args(["test", "--no-run", "--message-format", "json"]);
    command.args(options.packages.iter().flat_map(|package| ["--package", package]));
    command.args(options.tests.iter().flat_map(|test| ["--test", test]));
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo test --no-run: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<Program> = text.lines().filter_map(program).collect();
    if programs.iter().any(|program| program.is_test) {
        Ok(programs)
    } else {
        Err("no integration tests found".to_owned())
    }
}

/// Reads one of cargo's messages.
fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    let kind = target.get("kind")?.as_array()?.first()?.as_str()?;
    let is_test = kind == "test";
    let package = Path::new(target.get("src_path")?.as_str()?)
        .ancestors()
        .find(|directory| directory.join("Cargo.toml").exists())?
        .file_name()?
        .to_str()?;
    let name = format!("{package}-{}", target.get("name")?.as_str()?);
    (is_test || kind == "bin").then(|| Program { name, path: PathBuf::from(path), is_test })
}

const BUSYBOX: &str = "/usr/bin/busybox";
const MKFS: &str = "/usr/sbin/mkfs.ext4";

/// Made by `scripts/images`; daemons under test load it.
const BUSYBOX_IMAGE: &str = "target/images/busybox.tar";

const INIT: &str = include_str!("vm_test/init.sh");

/// What containers and their network are made of, where it is not built in.
const MODULES: [&str; 19] = [
    "ext4",
    "overlay",
    "veth",
    "bridge",
    "br_netfilter",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_meta_bridge",
    "nft_nat",
    "erofs",
    "loop",
    "vxlan",
    "macvlan",
    "ipvlan",
    "dummy",
    "8021q",
];

fn pack(
    kernel: &kernel::Kernel,
    programs: &[Program],
    options: &Options,
) -> Result<Archive, String> {
    let mut archive = Archive::default();
    for directory in
        ["dev", "etc", "modules", "proc", "root", "run", "sys", "tests", "tmp", "usr", "var", "new"]
    {
        archive.directory(directory);
    }
    for directory in ["usr/bin", "usr/lib", "usr/lib64", "usr/sbin"] {
        archive.directory(directory);
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        archive.link(link, &format!("usr/{link}"));
    }
    archive.device("dev/console", (5, 1));
    archive.text("init", 0o755, INIT);
    archive.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
    archive.text("etc/group", 0o644, "root:x:0:\n");
    archive.text("etc/hostname", 0o644, "vm\n");
    archive.text("etc/hosts", 0o644, "127.0.0.1 localhost vm\n");
    archive.text("etc/resolv.conf", 0o644, "nameserver 127.0.0.1\n");
    archive.text("filters", 0o644, &options.filters.join("\n"));
    archive.text("limit", 0o644, &(options.timeout / 2).as_secs().to_string());
    archive.host_file("usr/bin/busybox", Path::new(BUSYBOX))?;
    let wanted = |module: &&str| !options.without.iter().any(|without| without == module);
    let modules: Vec<_> = MODULES.into_iter().filter(|module| wanted(module)).collect();
    for (order, module) in kernel.modules(&modules)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.host_file(&format!("modules/{order:02}-{name}"), module)?;
    }
    let mut libraries = std::collections::BTreeSet::new();
    if options.disk {
        archive.text("with-disk", 0o644, "");
        archive.same_path(Path::new(MKFS))?;
        libraries.extend(libraries_of(Path::new(MKFS))?);
    }
    for program in programs {
        if program.is_test {
            archive.host_file(&format!("tests/{}", program.name), &program.path)?;
        } else {
            // Where tests were told at their build that it is.
            archive.same_path(&program.path)?;
            archive.parents("images/");
            archive.host_file("images/busybox.tar", &crate::root().join(BUSYBOX_IMAGE))?;
        }
        libraries.extend(libraries_of(&program.path)?);
    }
    libraries.iter().try_for_each(|library| archive.same_path(library))?;
    Ok(archive)
}

/// The shared libraries of a program, by the names that its loader looks for.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>, String> {
    let output =
        Command::new("ldd").arg(program).output().map_err(|error| format!("ldd: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

/// What the console said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    failed: Vec<String>,
    /// Programs that came to an end, and how.
    exits: Vec<(String, i32)>,
    finished: bool,
}

impl Outcome {
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("VM-EXIT ") {
            let (name, code) = rest.split_once(' ').unwrap_or((rest, ""));
            let code = code.split(' ').next().unwrap_or_default();
            self.exits.push((name.to_owned(), code.parse().unwrap_or(-1)));
        } else if line == "VM-DONE" {
            self.finished = true;
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            match verdict.split(' ').next() {
                Some("ok") => self.passed += 1,
                Some("FAILED") => self.failed.push(name.to_owned()),
                _ => {}
            }
        }
    }

    fn report(&self, programs: &[Program]) -> Result<(), String> {
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if !self.finished {
            return Err("the machine stopped before the tests were through".to_owned());
        }
        if !self.failed.is_empty() {
            return Err(format!("failed: {}", self.failed.join(", ")));
        }
        match self.exits.iter().find(|(_, code)| *code != 0) {
            Some((name, code)) => Err(format!("{name} exited with {code}")),
            None if self.exits.len()
                < programs.iter().filter(|program| program.is_test).count() =>
            {
                Err("not all programs ran".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// Boots, prints the console and reads it, until power-off or the timeout.
fn boot(
    kernel: &Path,
    initramfs: &Path,
    release: kernel::Release,
    timeout: Duration,
) -> Result<Outcome, String> {
    let mut machine = Command::new("qemu-system-x86_64")
        // Debian 12's QEMU emulates cmpxchg16b with broken flags, which newer kernels stumble over.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-m", "2048"])
        .args(["-smp", release.processors()])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64 (package qemu-system-x86): {error}"))?;
    let lines = console(&mut machine);
    let deadline = Instant::now() + timeout;
    let mut outcome = Outcome::default();
    let ended = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                outcome.read(&line);
                // Whoever sums up results finds one line of them, ours.
                if !line.starts_with("test result: ") {
                    println!("{line}");
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ok(outcome),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                machine.kill().map_err(|error| error.to_string())?;
                break Err(format!("not done after {} s", timeout.as_secs()));
            }
        }
    };
    machine.wait().map_err(|error| error.to_string())?;
    ended
}

/// Lines of the serial console, without what the firmware does to a terminal.
fn console(machine: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let output = machine.stdout.take().expect("it was asked for");
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = plain(&String::from_utf8_lossy(&line));
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Drops carriage returns and escape sequences.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end =
            part.find(|letter: char| letter.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        text.push_str(&part[end..]);
    }
    text.replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_is_read() {
        let mut outcome = Outcome::default();
        for line in [
            "\u{1b}[2J\u{1b}[01;00HSeaBIOS\r",
            "running 3 tests",
            "test a ... ok\r",
            "test b::c ... FAILED (12 ms)",
            "test d ... ok (7 ms)",
            "test result: FAILED. 2 passed",
            "VM-EXIT runtime-cgroup 101 (12.5 s)\r",
            "VM-DONE",
        ] {
            outcome.read(&plain(line));
        }
        let expect = Outcome {
            passed: 2,
            failed: vec!["b::c".to_owned()],
            exits: vec![("runtime-cgroup".to_owned(), 101)],
            finished: true,
        };
        assert_eq!(outcome, expect);
    }
}
