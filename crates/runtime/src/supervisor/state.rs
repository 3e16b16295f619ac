//! What a supervisor writes down about each process, so that the next one can take it over.
//!
//! ```text
//! <exec-root>/containers/<id>/state.json            written before the program runs
//! <exec-root>/containers/<id>/{stdin,stdout,stderr}  FIFOs, not for a tty
//! <exec-root>/containers/<id>/execs/<id>/...         the same for each exec
//! ```
//!
//! A directory without `state.json` is a start that did not come far: its child died with the
//! supervisor. A `state.json` whose process is gone is an exit nobody saw. `state.json` is
//! replaced by rename; it need not be durable, since no process outlives the machine.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat, open};
use rustix::io::fcntl_dupfd_cloexec;
use serde::{Deserialize, Serialize};
use spec::Id;

use super::streams::Ends;
use crate::init::Stdio;
use crate::spec::{LogSpec, Process};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) id: Id,
    /// For an exec.
    pub(super) container: Option<Id>,
    pub(super) generation: u64,
    /// 0 while it is not known yet.
    pub(super) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: with the boot id it tells a process from a later one that
    /// got the same pid.
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
    pub(super) started_at_nanos: i64,
    pub(super) tty: bool,
    pub(super) stdin: StdinMode,
    pub(super) log: LogSpec,
    /// As in the spec; an exec has its container's.
    pub(super) cgroup: String,
    /// Other processes die with the first one.
    pub(super) private_pids: bool,
    /// Interfaces are counted in its stats.
    pub(super) own_network: bool,
    /// The daemon's record of its network.
    #[serde(default)]
    pub(super) network: String,
    pub(super) paused: bool,
    /// Kills for want of memory before this process.
    pub(super) oom_kills: u64,
    /// The external OCI runtime that made it.
    pub(super) oci_runtime: Option<crate::spec::OciRuntime>,
}

/// What becomes of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StdinMode {
    /// `/dev/null`.
    Null,
    /// Ends with the first client that ends its own. The process sees the end of stdin when the
    /// supervisor dies, too: a FIFO has no other way to tell.
    Once,
    /// Never ends; the process holds the FIFO open for writing itself.
    Kept,
}

impl StdinMode {
    pub(super) fn of_container(process: &Process) -> Self {
        match (process.open_stdin, process.stdin_once) {
            (false, _) => Self::Null,
            (true, true) => Self::Once,
            (true, false) => Self::Kept,
        }
    }

    /// An exec has one client, with which its stdin ends.
    pub(super) fn of_exec(process: &Process) -> Self {
        if process.open_stdin { Self::Once } else { Self::Null }
    }
}

impl Saved {
    /// Where it is kept.
    pub(super) fn directory(&self, exec_root: &Path) -> PathBuf {
        match &self.container {
            None => container_directory(exec_root, &self.id),
            Some(container) => exec_directory(exec_root, container, &self.id),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("state.json.new");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, directory.join("state.json"))
    }

    /// `None` when there is no usable record in the directory.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let bytes = std::fs::read(directory.join("state.json")).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                super::note(format_args!("{}/state.json: {error}", directory.display()));
            })
            .ok()
    }

    /// Whether the process that is written down still exists.
    pub(super) fn is_alive(&self) -> bool {
        self.pid != 0
            && self.boot_id == boot_id()
            && start_ticks(self.pid) == Some(self.start_ticks)
    }
}

pub(super) fn containers_directory(exec_root: &Path) -> PathBuf {
    exec_root.join("containers")
}

pub(super) fn container_directory(exec_root: &Path, id: &Id) -> PathBuf {
    containers_directory(exec_root).join(id.as_str())
}

fn exec_directory(exec_root: &Path, container: &Id, id: &Id) -> PathBuf {
    container_directory(exec_root, container).join("execs").join(id.as_str())
}

/// The kernel's name for this boot.
pub(super) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim_end().to_owned()
}

/// When a process started, in clock ticks since boot; `None` when there is no such process or it
/// is a zombie, which has nothing left to take over.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The name before may contain anything, parentheses too.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    // Field 22, counted from 1; the state is field 3.
    let ticks = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ticks)
}

/// Makes the directory of a new process, empty.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Makes the FIFOs in `directory` and opens both sides: ours, and the process's. The pty of a
/// tty is made by the init stage; its master comes with a report.
pub(super) fn make_stdio(
    directory: &Path,
    tty: bool,
    stdin: StdinMode,
) -> io::Result<(Ends, Stdio)> {
    if tty {
        return Ok((Ends::default(), Stdio::Tty));
    }
    let (our_stdin, stdin) = make_stdin(directory, stdin)?;
    let (our_stdout, stdout) = make_output(&directory.join("stdout"))?;
    let (our_stderr, stderr) = make_output(&directory.join("stderr"))?;
    let ends = Ends { stdin: our_stdin, stdout: Some(our_stdout), stderr: Some(our_stderr) };
    Ok((ends, Stdio::Files { stdin, stdout, stderr }))
}

fn make_stdin(directory: &Path, mode: StdinMode) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    let path = directory.join("stdin");
    let theirs = match mode {
        StdinMode::Null => return Ok((None, open_end(Path::new("/dev/null"), OFlags::RDONLY)?)),
        StdinMode::Once => {
            make_fifo(&path)?;
            // A FIFO's reader does not wait for a writer only if it is non-blocking.
            let reader = open_end(&path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            fcntl_setfl(&reader, OFlags::empty())?;
            reader
        }
        StdinMode::Kept => {
            make_fifo(&path)?;
            open_end(&path, OFlags::RDWR)?
        }
    };
    Ok((Some(open_end(&path, OFlags::WRONLY | OFlags::NONBLOCK)?), theirs))
}

/// The process's end is open for reading too: so it never writes into a pipe without a reader,
/// and what it wrote stays, when the supervisor dies.
fn make_output(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    make_fifo(path)?;
    let ours = open_end(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    Ok((ours, open_end(path, OFlags::RDWR)?))
}

fn make_fifo(path: &Path) -> io::Result<()> {
    Ok(mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?)
}

fn open_end(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?)
}

/// Opens our ends again after another supervisor's death. A tty's master died with it.
pub(super) fn reopen_stdio(directory: &Path, saved: &Saved) -> Ends {
    if saved.tty {
        return Ends::default();
    }
    let open = |name: &str, flags: OFlags| {
        open_end(&directory.join(name), flags | OFlags::NONBLOCK)
            .inspect_err(|error| {
                super::note(format_args!("reopen {}/{name}: {error}", directory.display()));
            })
            .ok()
    };
    Ends {
        // Only when the process reads it (Once: it has seen the end already).
        stdin: (saved.stdin == StdinMode::Kept).then(|| open("stdin", OFlags::WRONLY)).flatten(),
        stdout: open("stdout", OFlags::RDONLY),
        stderr: open("stderr", OFlags::RDONLY),
    }
}

/// Our ends of a pty.
pub(super) fn tty_ends(master: OwnedFd, stdin: StdinMode) -> io::Result<Ends> {
    rustix::io::ioctl_fionbio(&master, true)?;
    let input = match stdin {
        StdinMode::Null => None,
        StdinMode::Once | StdinMode::Kept => Some(fcntl_dupfd_cloexec(&master, 3)?),
    };
    Ok(Ends { stdin: input, stdout: Some(master), stderr: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times() {
        let fields = "R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        let check = |stat: String, expect| assert_eq!(parse_start_ticks(&stat), expect);
        check(format!("12 (sh) {fields}"), Some(4711));
        check(format!("12 (a) Z 9 (b) {fields}"), Some(4711));
        check(format!("12 (sh) {}", fields.replacen('R', "Z", 1)), None);
        check("12 (sh) R 1".to_owned(), None);
        assert!(start_ticks(std::process::id()).is_some());
    }

    #[test]
    fn output_waits_in_the_pipe_for_the_next_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let (ends, stdio) = make_stdio(dir.path(), false, StdinMode::Kept).unwrap();
        let Stdio::Files { stdin, stdout, stderr: _ } = stdio else { panic!() };
        rustix::io::write(&stdout, b"before").unwrap();
        drop(ends);
        rustix::io::write(&stdout, b" after").unwrap();
        let reader = open_end(&dir.path().join("stdout"), OFlags::RDONLY).unwrap();
        let mut buffer = [0; 32];
        let read = rustix::io::read(&reader, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"before after");
        let writer = open_end(&dir.path().join("stdin"), OFlags::WRONLY).unwrap();
        rustix::io::write(&writer, b"in").unwrap();
        let read = rustix::io::read(&stdin, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"in");
    }
}
