//! Unpacking in a process that can do little else.
//!
//! ```text
//! daemon: Confined                       child: the same program, `unpack_main`
//!   spawn, a JSON request as argument ->   open layer/ and lowers/, take everything away:
//!                                          capabilities but six, network, other files (Landlock)
//!   the stream                        ->   stdin: inflate, parse, write
//!   one line of JSON                  <-   stdout: what came out, or why not
//! ```
//!
//! Should a hostile archive find a hole in the decompressors or the tree code, it is in a process
//! that can write below one directory of the store and nowhere else. What the child leaves there
//! is looked over before it is used (`storage::finish_unpacked`). If the daemon goes away the
//! child reads the end of its stream, fails, and is garbage with its ingest directory.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, UnshareFlags};
use serde::{Deserialize, Serialize};
use spec::{ErrorKind, Kinded};
use sys::caps;
use sys::landlock::{Access, Ruleset};

use crate::error::StorageError;
use crate::unpack::{Directories, Form, Job, Limits, Unpacked, Unpacker};

/// What making files for other users takes.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Unpacks in a child process. `program` with `arguments` must end in [`unpack_main`]; for the
/// daemon that is `/proc/self/exe unpack`.
#[derive(Debug, Clone)]
pub struct Confined {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    layer: PathBuf,
    form: Form,
    lowers: Vec<PathBuf>,
    limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(Unpacked),
    Refused(String),
    Failed(String),
}

impl Unpacker for Confined {
    fn unpack(
        &self,
        job: &Job<'_>,
        stream: &mut (dyn Read + Send),
    ) -> Result<Unpacked, StorageError> {
        let request = Request {
            layer: job.layer.to_owned(),
            form: job.form,
            lowers: job.lowers.to_owned(),
            limits: job.limits,
        };
        let request = serde_json::to_string(&request)
            .map_err(|error| StorageError::Unpacker { reason: error.to_string() })?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(request)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| StorageError::Unpacker { reason: error.to_string() })?;
        let fed = feed(&mut child, stream);
        if fed.is_err() {
            // The rest of the stream will never come; what the child makes of it is of no use.
            drop(child.kill());
        }
        let output = child.wait_with_output().map_err(|error| unpacker(error.to_string()))?;
        fed.map_err(|source| crate::tar::TarError::Read { source })?;
        match serde_json::from_slice(&output.stdout) {
            Ok(Answer::Done(unpacked)) if output.status.success() => Ok(unpacked),
            Ok(Answer::Refused(reason)) => Err(StorageError::RefusedByUnpacker { reason }),
            Ok(Answer::Failed(reason)) => Err(unpacker(reason)),
            _ => Err(unpacker(output.status.to_string())),
        }
    }
}

fn unpacker(reason: String) -> StorageError {
    StorageError::Unpacker { reason }
}

/// Copies the stream to the child. A child that no longer reads has its reason, and says it.
fn feed(child: &mut Child, stream: &mut dyn Read) -> io::Result<()> {
    let mut input = child.stdin.take().expect("piped above");
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match input.write_all(&buffer[..length]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The child. Must be called before the process has a second thread.
pub fn unpack_main(request: &str) -> ExitCode {
    let answer = match unpack_confined(request) {
        Ok(unpacked) => Answer::Done(unpacked),
        Err(error) if error.kind() == ErrorKind::InvalidArgument => Answer::Refused(chain(&error)),
        Err(error) => Answer::Failed(chain(&error)),
    };
    let code =
        if matches!(answer, Answer::Done(_)) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let line = serde_json::to_vec(&answer).expect("strings and numbers always serialize");
    match io::stdout().write_all(&line) {
        Ok(()) => code,
        Err(_nobody_listens) => ExitCode::FAILURE,
    }
}

fn unpack_confined(request: &str) -> Result<Unpacked, StorageError> {
    let request: Request =
        serde_json::from_str(request).map_err(|error| unpacker(error.to_string()))?;
    let directories = Directories::open(&request.layer, &request.lowers)?;
    confine(&directories, request.form)
        .map_err(|errno| unpacker(format!("confine the unpacker: {errno}")))?;
    directories.fill(request.form, &mut io::stdin(), request.limits)
}

/// Gives up everything that unpacking does not need, for good.
fn confine(directories: &Directories, form: Form) -> rustix::io::Result<()> {
    // Without the privilege (rootless) there is nothing of the host's to be kept from either.
    match sys::process::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let needed = match form {
        Form::Directory => KEPT.bits(),
        // Two files of its own.
        Form::Index => 0,
    };
    let kept = needed & caps::permitted()?;
    if caps::permitted()? & CapabilitySet::SETPCAP.bits() != 0 {
        caps::limit_bounding(kept)?;
    }
    caps::set_ambient(0)?;
    caps::set(caps::Sets { effective: kept, permitted: kept, inheritable: 0 })?;
    rustix::thread::set_no_new_privs(true)?;
    match Ruleset::new() {
        Ok(rules) => {
            rules.allow(&directories.layer, Access::Write)?;
            for lower in &directories.lowers {
                rules.allow(lower, Access::Read)?;
            }
            rules.restrict_self()
        }
        // An old kernel: the capabilities above must do.
        Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
