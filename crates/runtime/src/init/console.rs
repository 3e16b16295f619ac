//! Descriptors 0, 1 and 2 of the program: FIFOs from the supervisor, or a pty of the container's
//! own devpts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, makedev, openat};
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};
use sys::RootDir;
use sys::pty::{Pty, open_in};

use super::Stdio;
use super::channel::Channel;
use super::mounts::bind_file;
use super::step::Step;
use crate::protocol::Failure;

/// The open ends that become 0, 1 and 2.
#[derive(Debug)]
pub(super) enum Ends {
    Files([OwnedFd; 3]),
    Terminal(OwnedFd),
}

/// Opens a terminal if one is asked for, and sends its master to the supervisor. `devpts` gives
/// the root of the container's devpts; it is only asked for a terminal.
pub(super) fn open<D: AsFd>(
    stdio: Stdio,
    size: Option<(u16, u16)>,
    channel: &Channel,
    devpts: impl FnOnce() -> Result<D, Errno>,
) -> Result<Ends, Failure> {
    match stdio {
        Stdio::Files { stdin, stdout, stderr } => Ok(Ends::Files([stdin, stdout, stderr])),
        Stdio::Tty => {
            let Pty { master, slave } =
                devpts().and_then(open_in).step(|| "open a terminal in /dev/pts".to_owned())?;
            if let Some((columns, rows)) = size {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                tcsetwinsize(&master, size).step(|| "set the terminal's size".to_owned())?;
            }
            channel
                .send_console(master.as_fd())
                .step(|| "send the terminal to the supervisor".to_owned())?;
            Ok(Ends::Terminal(slave))
        }
    }
}

impl Ends {
    /// Makes `/dev/console` of the container's `/dev` the terminal, if there is one. Both ends of
    /// the mount are descriptors of what we made ourselves (CVE-2025-52565).
    pub(super) fn bind_console(&self, dev: &RootDir) -> Result<(), Failure> {
        let Self::Terminal(slave) = self else { return Ok(()) };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let console = openat(dev, "console", flags, Mode::from_raw_mode(0o600))
            .step(|| "make /dev/console".to_owned())?;
        bind_file(slave, console, "/dev/console")
    }

    /// Gives FIFOs and terminal to the user, so that the program may open `/dev/stdout` again.
    /// The group stays: a terminal's is `tty`.
    pub(super) fn give_to(&self, uid: u32) -> Result<(), Failure> {
        let files = match self {
            Self::Files(files) => files.as_slice(),
            Self::Terminal(slave) => std::slice::from_ref(slave),
        };
        for file in files {
            let stat = fstat(file).step(|| "stat stdio".to_owned())?;
            if stat.st_uid == uid || stat.st_rdev == makedev(1, 3) {
                continue;
            }
            match fchown(file, Some(Uid::from_raw(uid)), None::<Gid>) {
                // Sockets and files of read-only filesystems keep their owner.
                Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
                Err(errno) => return Err(errno).step(|| "chown stdio".to_owned()),
            }
        }
        Ok(())
    }

    /// Puts the ends in their places. Answers whether 0 is a terminal that is to control the
    /// session.
    pub(super) fn install(self) -> Result<bool, Failure> {
        let (files, terminal) = match &self {
            Self::Files([stdin, stdout, stderr]) => ([stdin, stdout, stderr], false),
            Self::Terminal(slave) => ([slave, slave, slave], true),
        };
        let [stdin, stdout, stderr] = files;
        rustix::stdio::dup2_stdin(stdin)
            .and_then(|()| rustix::stdio::dup2_stdout(stdout))
            .and_then(|()| rustix::stdio::dup2_stderr(stderr))
            .step(|| "install stdio".to_owned())?;
        Ok(terminal)
    }
}
