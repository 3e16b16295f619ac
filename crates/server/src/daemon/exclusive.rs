//! What keeps two daemons apart: the pid file, and a lock on the data root.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExclusiveError {
    #[error(
        "failed to start daemon, ensure docker is not running or delete {}: process with PID \
         {pid} is still running",
        path.display()
    )]
    Running { path: PathBuf, pid: u32 },
    #[error("another daemon uses the data root {}", root.display())]
    Locked { root: PathBuf },
    #[error("{attempt} {}", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ExclusiveError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }
}

/// A pid file, removed when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Refuses if the file names a process that lives, unless that is this one: after a crash of
    /// a machine or a container pids come back.
    pub(crate) fn write(path: &Path) -> Result<Self, ExclusiveError> {
        let pid = std::process::id();
        if let Ok(text) = std::fs::read_to_string(path)
            && let Ok(other) = text.trim().parse::<u32>()
            && other != pid
            && Path::new(&format!("/proc/{other}")).exists()
        {
            return Err(ExclusiveError::Running { path: path.to_owned(), pid: other });
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(ExclusiveError::io("create directory", directory))?;
        }
        let temporary = path.with_extension(format!("{pid}.tmp"));
        let write = || {
            File::create(&temporary)?.write_all(pid.to_string().as_bytes())?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(ExclusiveError::io("write pid file", path))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "pid file not removed");
        }
    }
}

/// Locks `<root>/daemon.lock` until the file is dropped. The kernel lets go of it however the
/// daemon ends.
pub(crate) fn lock_data_root(root: &Path) -> Result<File, ExclusiveError> {
    let path = root.join("daemon.lock");
    let open = || {
        std::fs::create_dir_all(root)?;
        OpenOptions::new().create(true).truncate(false).write(true).open(&path)
    };
    let file = open().map_err(ExclusiveError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ExclusiveError::Locked { root: root.to_owned() }),
        Err(errno) => Err(ExclusiveError::io("lock", &path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/d.pid");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "1").unwrap();
        let error = PidFile::write(&path).unwrap_err().to_string();
        assert!(error.ends_with("process with PID 1 is still running"), "{error}");
        // Above the largest pid there can be.
        std::fs::write(&path, "4194305").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());

        let lock = lock_data_root(directory.path()).unwrap();
        let error = lock_data_root(directory.path()).unwrap_err().to_string();
        assert!(error.starts_with("another daemon uses the data root"), "{error}");
        drop(lock);
        lock_data_root(directory.path()).unwrap();
    }
}
