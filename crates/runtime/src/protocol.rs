//! What the daemon and the supervisor say to each other.
//!
//! One SEQPACKET socket at `<exec-root>/supervisor.sock`; one message per packet:
//!
//! ```text
//! u32 length of JSON | JSON of `Envelope<Request>` or of `FromSupervisor`
//! ```
//!
//! A message over [`INLINE_MAX`] bytes travels in a sealed memfd passed with `SCM_RIGHTS` and the
//! packet's JSON is empty. Other descriptors follow in the order the message's comment names.
//! The first message on a connection is [`Request::Hello`]; a version the peer does not speak is
//! refused with [`Failure::Version`], and the daemon then asks the old supervisor to re-exec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spec::Id;

use crate::spec::{ContainerSpec, ExecSpec, Resources};

pub const VERSION: u32 = 3;
pub const INLINE_MAX: usize = 100 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Chosen by the daemon; the reply repeats it.
    pub sequence: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// `exits_seen` is the offset in `exits.log` up to which the daemon has read; later exits are
    /// sent again as events.
    Hello {
        version: u32,
        exits_seen: u64,
    },
    /// Makes everything up to, but not including, the exec of the program; it then runs it.
    /// Answered with `Started` once the exec succeeded, or with why it did not.
    /// The request carries one descriptor per element of `attach`: the supervisor's end of a
    /// stream socketpair that the daemon made (before the start, for `docker run`). Such a stream
    /// sees every byte from the first.
    /// With `keeps` one more descriptor follows, which the supervisor does nothing with but hold
    /// it open as long as the process runs: the sockets of published ports are on their way in it.
    Start {
        spec: Box<ContainerSpec>,
        attach: Vec<AttachOptions>,
        keeps: bool,
    },
    /// Gives a running container the descriptor that it would have got with `Start`; its
    /// supervisor before was killed. Carries it.
    Keep {
        id: Id,
    },
    /// Asks for the sockets of a running container's resolver; answered with `Done` and both,
    /// datagrams first, or with `NotFound`.
    Resolver {
        id: Id,
    },
    /// Gives a running container the sockets of its resolver, in the same order.
    KeepResolver {
        id: Id,
    },
    Exec {
        spec: Box<ExecSpec>,
        attach: Option<AttachOptions>,
    },
    /// To the first process of a container, or to an exec's process.
    Signal {
        id: Id,
        signal: i32,
    },
    /// To every process in the container's cgroup.
    KillAll {
        id: Id,
    },
    Pause {
        id: Id,
    },
    Resume {
        id: Id,
    },
    Update {
        id: Id,
        resources: Box<Resources>,
    },
    Resize {
        id: Id,
        columns: u16,
        rows: u16,
    },
    /// Opens a stream to a running container or exec. Carries one descriptor, as `Start`.
    Attach {
        id: Id,
        options: AttachOptions,
    },
    /// Replaces the daemon's record of a running container's network.
    Note {
        id: Id,
        network: String,
    },
    CloseStdin {
        id: Id,
    },
    Stats {
        id: Id,
    },
    /// The pids in the container's cgroup.
    Pids {
        id: Id,
    },
    /// Everything that runs. Used when a daemon comes back.
    List,
    /// Re-open the log file (after an external rotation).
    ReopenLog {
        id: Id,
    },
    /// Replace the program by the binary at `path`, keeping pid, children and descriptors.
    ReExec {
        path: String,
    },
    /// Exit. Refused while containers run.
    Stop,
}

/// One attached client, at the other end of a stream socket: the supervisor writes what the
/// container says to it (8-byte stdcopy frames, or raw bytes for a tty) and reads stdin from it.
/// Half-close by the client ends stdin according to `stdin_once`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromSupervisor {
    Reply { sequence: u64, result: Result<Reply, Failure> },
    Event(Event),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Hello {
        version: u32,
        pid: u32,
    },
    /// Descriptors: pidfd; the two sockets of the resolver, if the network setup asks for one.
    Started {
        pid: u32,
        started_at_nanos: i64,
    },
    Done,
    Attached,
    Stats(Box<Stats>),
    Pids(Vec<u32>),
    List(Vec<Running>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    pub id: Id,
    /// Set for an exec: the container it runs in.
    pub container: Option<Id>,
    pub generation: u64,
    pub pid: u32,
    pub started_at_nanos: i64,
    pub paused: bool,
    /// Of [`crate::spec::NetworkSetup`].
    pub network: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// Recorded in `exits.log` (fdatasync) before it is sent.
    Exited(Exit),
    Oom {
        id: Id,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    pub id: Id,
    pub container: Option<Id>,
    pub generation: u64,
    /// 0-255; 128 + signal for a killed process; `None` when nobody was there to see.
    pub code: Option<u8>,
    pub oom_killed: bool,
    pub at_nanos: i64,
    /// Offset in `exits.log` just after this record.
    pub log_offset: u64,
}

/// Why a request was not carried out. The texts are ours; `engine` puts Docker's around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    #[error("the supervisor speaks protocol version {ours}, not {theirs}")]
    Version { ours: u32, theirs: u32 },
    #[error("no such process")]
    NotFound,
    #[error("already running")]
    AlreadyRunning,
    #[error("container is not running")]
    NotRunning,
    #[error("containers are running")]
    Busy,
    /// The program of the container was not found (ENOENT, exit code 127; `in_path` when no
    /// directory of PATH has it) or may not be executed (EACCES, EISDIR, exit code 126).
    /// A file that only execve itself refuses starts and exits with 255, as in Docker.
    #[error("exec: {program:?}: {}", exec_text(.program, *.errno, *.in_path))]
    Exec { program: String, errno: i32, in_path: bool },
    #[error("chdir to cwd ({path:?}) set in config.json failed: {}", errno_text(*.errno))]
    Cwd { path: String, errno: i32 },
    /// `unable to find user x: no matching entries in passwd file` and the like.
    #[error("{text}")]
    User { text: String },
    /// A request that can never work: a mount over `/proc`, an unknown rlimit, a bad profile.
    #[error("{text}")]
    Invalid { text: String },
    /// A step failed; `step` names it with its object.
    #[error("{step}: {}", errno_text(*.errno))]
    System { step: String, errno: i32 },
}

/// Docker's words, by which its users tell 127 from 126.
fn exec_text(program: &str, errno: i32, in_path: bool) -> String {
    match errno {
        libc::ENOENT if in_path => "executable file not found in $PATH".to_owned(),
        libc::ENOENT => format!("stat {program}: no such file or directory"),
        libc::EISDIR => "is a directory: permission denied".to_owned(),
        errno => errno_text(errno),
    }
}

/// The kernel's words in Go's spelling: lower case.
pub fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Cgroup figures, the same for v1 and v2; nanoseconds and bytes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    pub cgroup_v2: bool,
    pub cpu_usage: u64,
    pub cpu_user: u64,
    pub cpu_kernel: u64,
    /// v1 only.
    pub cpu_per_cpu: Vec<u64>,
    pub throttling_periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    pub memory_usage: u64,
    /// v1 only.
    pub memory_max_usage: Option<u64>,
    pub memory_limit: u64,
    pub memory_failcnt: u64,
    pub memory_stat: BTreeMap<String, u64>,
    pub pids_current: u64,
    /// 0 is unlimited.
    pub pids_limit: u64,
    /// `(major, minor, operation, value)`
    pub io_service_bytes: Vec<(u64, u64, String, u64)>,
    pub io_serviced: Vec<(u64, u64, String, u64)>,
    /// Interface name, then receive and transmit: bytes, packets, errors, dropped.
    pub networks: Vec<(String, [u64; 4], [u64; 4])>,
}
