//! Taking over what a dead supervisor left in the exec-root.
//!
//! For each `state.json`: the process is alive, and its pipes still hold what it wrote since; or
//! it is gone, and its exit is recorded without a code, once (the exit log may have it already:
//! the crash may have come between the record and the removal of the directory). A directory
//! without `state.json` is a start that died with the supervisor.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spec::Id;

use super::recorder::Recorder;
use super::start::remove_directory;
use super::state::{self, Saved, StdinMode};
use super::streams::Streams;
use super::{Phase, Run, Supervisor, Unrecorded, oci};
use crate::cgroup::Cgroup;
use crate::protocol::{Exit, Failure};

impl Supervisor {
    pub(super) fn adopt_all(&mut self) -> io::Result<()> {
        for directory in subdirectories(&state::containers_directory(&self.config.exec_root))? {
            self.adopt_directory(&directory);
            let container = Id::parse(&file_name(&directory)).and_then(|id| self.running(&id).ok());
            let alive = container.is_some();
            for exec in subdirectories(&directory.join("execs"))? {
                self.adopt_directory(&exec);
            }
            if !alive && self.unrecorded.is_empty() {
                remove_directory(&directory);
            }
            self.record_exits();
        }
        Ok(())
    }

    fn adopt_directory(&mut self, directory: &Path) {
        let saved = Saved::read(directory);
        let Some(saved) =
            saved.filter(|saved| saved.directory(&self.config.exec_root) == directory)
        else {
            return remove_directory(directory);
        };
        let adopted = if saved.is_alive() {
            self.adopt(saved.clone(), directory)
        } else {
            Err(Failure::NotRunning)
        };
        match adopted {
            Ok(()) | Err(Failure::NotRunning) => {}
            Err(ref failure) => super::note(format_args!("adopt {}: {failure}", saved.id)),
        }
        if adopted.is_err() {
            self.bury(saved, directory);
        }
    }

    fn adopt(&mut self, saved: Saved, directory: &Path) -> Result<(), Failure> {
        let pid = i32::try_from(saved.pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or(Failure::NotRunning)?, PidfdFlags::empty())
            .map_err(|_gone| Failure::NotRunning)?;
        // The pid may have gone to another process between the look and the open.
        if !saved.is_alive() {
            return Err(Failure::NotRunning);
        }
        let cgroup = self.cgroup_of(&saved)?;
        let log = self.recover_log(&saved, directory);
        let ends = state::reopen_stdio(directory, &saved);
        let is_container = saved.container.is_none();
        let streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, log);
        let oom_kills_told = if is_container { cgroup.oom_kills() } else { 0 };
        let run = Run::new(saved, streams, cgroup, Phase::Running);
        let key = self.insert(Run { pidfd: Some(pidfd), is_child: false, oom_kills_told, ..run });
        self.watch_process(key);
        if is_container {
            self.watch_oom(key);
        }
        self.with_streams(key, |streams, io| streams.open(ends, io));
        Ok(())
    }

    /// Opens the log, with what the dead supervisor had on its way to it. The container is worth
    /// more than its log.
    fn recover_log(&mut self, saved: &Saved, directory: &Path) -> Option<Recorder> {
        let log = Recorder::open(&saved.log, directory, saved.tty).unwrap_or_else(|error| {
            super::note(format_args!("open the log of {}: {error}", saved.id));
            None
        });
        log.map(|mut log| {
            log.recover(&mut self.scratch);
            log
        })
    }

    fn cgroup_of(&self, saved: &Saved) -> Result<Rc<Cgroup>, Failure> {
        match &saved.container {
            Some(container) => Ok(Rc::clone(&self.running(container)?.1.cgroup)),
            None => Ok(Rc::new(self.hierarchies.adopt(&saved.cgroup)?)),
        }
    }

    /// Records an exit that nobody saw. Output that was still in the pipes went with the last
    /// process that held them.
    fn bury(&mut self, saved: Saved, directory: &Path) {
        let recorded = self.exit_log.read_from(0).unwrap_or_default();
        let same = |exit: &Exit| exit.id == saved.id && exit.generation == saved.generation;
        let cgroup = self.cgroup_to_bury(&saved);
        if recorded.iter().any(same) {
            remove_directory(directory);
            if let Some(cgroup) = cgroup {
                self.remove_cgroup(saved.id, cgroup, 0);
            }
            return;
        }
        if let Some(mut log) = self.recover_log(&saved, directory) {
            log.finish(&mut self.scratch);
        }
        let runtime = saved.oci_runtime.as_ref().filter(|_| saved.container.is_none());
        let oci = runtime.map(|runtime| oci::Call::new(&self.config, runtime, &saved));
        self.unrecorded.push(Unrecorded {
            exit: Exit {
                id: saved.id,
                container: saved.container,
                generation: saved.generation,
                code: None,
                oom_killed: false,
                at_nanos: super::now_nanos(),
                log_offset: 0,
            },
            directory: directory.to_owned(),
            cgroup,
            oci,
        });
    }

    /// The dead container's group, with whatever still runs in it killed.
    fn cgroup_to_bury(&self, saved: &Saved) -> Option<Rc<Cgroup>> {
        if saved.container.is_some() {
            return None;
        }
        let cgroup = self.hierarchies.adopt(&saved.cgroup).ok()?;
        if let Err(failure) = cgroup.kill_all() {
            super::note(format_args!("kill what is left of {}: {failure}", saved.id));
        }
        Some(Rc::new(cgroup))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// None when there is no such directory.
fn subdirectories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}
