//! From root with everything to the user with what it may: limits, groups, ids, capabilities,
//! seccomp, exec. The order of the steps is the security of this file; see the comments.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit as KernelLimit, setrlimit, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid,
};
use sys::RootDir;
use sys::caps::{self, SYS_ADMIN, Sets};
use sys::process::{
    Image, Program, close_all_but, exec, exit_now, fork_sibling, join_session_keyring,
    reset_signals,
};

use super::Report;
use super::channel::Channel;
use super::console::Ends;
use super::program::{self, c_string};
use super::step::{Step, invalid};
use super::user::{Identity, look_up};
use crate::protocol::{Failure, errno_text};
use crate::seccomp::Filter;
use crate::spec::{Capabilities, Process, Rlimit};

/// What is done through the host's `/proc`, and so before it is out of sight.
#[derive(Debug)]
pub(super) struct HostProc {
    apparmor: Option<OwnedFd>,
}

impl HostProc {
    /// Sets the score, which is inherited, and opens the way to the AppArmor profile, which is
    /// to be set last.
    pub(super) fn prepare(process: &Process) -> Result<Self, Failure> {
        if let Some(score) = process.oom_score_adj {
            write_own("oom_score_adj", &score.to_string())
                .step(|| format!("set oom_score_adj to {score}"))?;
        }
        let apparmor = match &process.apparmor_profile {
            Some(profile) => Some(
                open_own("attr/apparmor/exec")
                    .or_else(|_older_kernel| open_own("attr/exec"))
                    .step(|| format!("apply apparmor profile {profile}"))?,
            ),
            None => None,
        };
        Ok(Self { apparmor })
    }
}

fn open_own(name: &str) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/{name}");
    openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write_own(name: &str, value: &str) -> Result<(), Errno> {
    rustix::io::write(open_own(name)?, value.as_bytes()).map(drop)
}

/// What runs as the program.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) process: &'a Process,
    pub(super) filter: Option<&'a Filter>,
    /// The small init that is to run before the program.
    pub(super) init: Option<OwnedFd>,
}

/// A process that has become the user, and keeps one capability more than it will have: the one
/// that loading a seccomp filter takes.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    image: Image,
    filter: Option<&'a Filter>,
    sets: Sets,
    ambient: u64,
    terminal: bool,
}

/// Becomes the user. `root` is the container's root, which is also the process's.
pub(super) fn assume<'a>(
    order: Order<'a>,
    host: HostProc,
    ends: Ends,
    root: &RootDir,
) -> Result<Ready<'a>, Failure> {
    let process = order.process;
    let identity = look_up(root, &process.user, &process.additional_groups)?;
    join_keyring()?;
    ends.give_to(identity.uid)?;
    let terminal = ends.install()?;

    // As root first, as Docker: the directory of another user may be entered. Only where root is
    // squashed (NFS) does the user himself have to try.
    let entered = match program::enter(root, &process.cwd) {
        Err(Failure::Cwd { errno: libc::EACCES | libc::EPERM, .. }) => false,
        other => other.map(|()| true)?,
    };
    set_limits(&process.rlimits)?;
    let wanted = Wanted::new(&process.capabilities, identity.uid)?;
    caps::limit_bounding(process.capabilities.bounding)
        .step(|| "limit the bounding set".to_owned())?;
    set_ids(&identity)?;
    caps::set(Sets { permitted: wanted.sets.permitted | SYS_ADMIN, ..wanted.sets })
        .step(|| "set capabilities".to_owned())?;

    // From here on files are looked at with the user's rights.
    if !entered {
        program::enter(root, &process.cwd)?;
    }
    umask(Mode::from_raw_mode(0o022));
    let image = make_image(process, order.init, &identity)?;
    apply_apparmor(host, process)?;
    if process.no_new_privileges {
        set_no_new_privs(true).step(|| "set no_new_privs".to_owned())?;
    }
    Ok(Ready { image, filter: order.filter, sets: wanted.sets, ambient: wanted.ambient, terminal })
}

fn join_keyring() -> Result<(), Failure> {
    match join_session_keyring() {
        // A kernel without keyrings has none to protect.
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno).step(|| "join a new session keyring".to_owned()),
    }
}

fn apply_apparmor(host: HostProc, process: &Process) -> Result<(), Failure> {
    let (Some(file), Some(profile)) = (host.apparmor, &process.apparmor_profile) else {
        return Ok(());
    };
    rustix::io::write(file, format!("exec {profile}").as_bytes())
        .map(drop)
        .step(|| format!("apply apparmor profile {profile}"))
}

/// The capability sets of a user.
struct Wanted {
    sets: Sets,
    ambient: u64,
}

impl Wanted {
    /// Users other than root get only the ambient ones; an exec would take the others anyway.
    /// What the supervisor itself lacks cannot be given, and is not an error (`--privileged`
    /// asks for all there are).
    fn new(asked: &Capabilities, uid: u32) -> Result<Self, Failure> {
        let available = caps::permitted().step(|| "read capabilities".to_owned())?;
        let limit = if uid == 0 { available } else { available & asked.ambient };
        let permitted = asked.permitted & limit;
        let sets = Sets {
            effective: asked.effective & permitted,
            permitted,
            inheritable: asked.inheritable & available & asked.bounding,
        };
        Ok(Self { sets, ambient: asked.ambient & permitted & sets.inheritable })
    }
}

/// Groups first, as a user may not set them; permitted capabilities survive the change of user.
fn set_ids(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let set = || {
        set_keep_capabilities(true)?;
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(identity.gid))?;
        set_thread_uid(Uid::from_raw(identity.uid))?;
        set_keep_capabilities(false)
    };
    set().step(|| format!("become user {}:{}", identity.uid, identity.gid))
}

fn set_limits(limits: &[Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let resource = resource(&limit.name)
            .ok_or_else(|| invalid(format!("invalid ulimit type: {}", limit.name)))?;
        let bound = |value: u64| (value != u64::MAX).then_some(value);
        let value = KernelLimit { current: bound(limit.soft), maximum: bound(limit.hard) };
        setrlimit(resource, value).step(|| {
            let kind = resource as u32;
            format!("error setting rlimits for ready process: error setting rlimit type {kind}")
        })?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

fn make_image(
    process: &Process,
    init: Option<OwnedFd>,
    identity: &Identity,
) -> Result<Image, Failure> {
    let Some(name) = process.args.first() else {
        return Err(invalid("no command specified"));
    };
    // Looked for even if an init will look again: its failure would be an exit, not an error.
    let path = program::find(name, &process.env)?;
    let mut arguments: Vec<&str> = process.args.iter().map(String::as_str).collect();
    let program = match init {
        Some(file) => {
            arguments.splice(0..0, [sys::docker_init::PATH, "--"]);
            Program::File(file)
        }
        None => Program::Path(path),
    };
    let home = format!("HOME={}", identity.home);
    Ok(Image {
        program,
        arguments: c_strings(&arguments)?,
        environment: c_strings(&environment(&process.env, &home))?,
    })
}

fn c_strings(texts: &[&str]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| c_string(text)).collect()
}

/// Adds the user's home unless the environment has one; an empty one does not count.
fn environment<'a>(variables: &'a [String], home: &'a str) -> Vec<&'a str> {
    let has_home =
        variables.iter().any(|it| it.strip_prefix("HOME=").is_some_and(|v| !v.is_empty()));
    let mut environment: Vec<&str> = variables.iter().map(String::as_str).collect();
    if !has_home {
        environment.retain(|variable| *variable != "HOME=");
        environment.push(home);
    }
    environment
}

impl Ready<'_> {
    /// Becomes the program.
    pub(super) fn execute(self) -> Result<Infallible, Failure> {
        self.make_session()?;
        self.lock_down()?;
        let errno = exec(&self.image);
        if let Program::File(_) = self.image.program {
            return Err(errno).step(|| "execute the container's init".to_owned());
        }
        self.complain(errno);
        exit_now(255)
    }

    /// Starts the program as a child of the supervisor in the pid namespace that was joined, says
    /// its pid, and exits.
    ///
    /// From the clone on, a process of the container that may trace others can take the new one
    /// over. It shares no memory with us, who are in the host's pid namespace, and closes our
    /// socket first thing; the supervisor believes nothing that comes through it.
    pub(super) fn execute_as_sibling(self, channel: &Channel) -> Result<Infallible, Failure> {
        self.lock_down()?;
        let sibling = fork_sibling().step(|| "enter the container's pid namespace".to_owned())?;
        if let Some(pid) = sibling {
            channel.report(&Report::Pid(pid)).step(|| "report a pid".to_owned())?;
            exit_now(0)
        }
        // A profile that forbids this leaves it to the exec.
        close_all_but(&[]).ok();
        self.make_session()?;
        self.complain(exec(&self.image));
        exit_now(255)
    }

    /// The first process of a namespace, or of an exec, has no session yet.
    fn make_session(&self) -> Result<(), Failure> {
        rustix::process::setsid().step(|| "make a session".to_owned())?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .step(|| "make the terminal the session's".to_owned())?;
        }
        Ok(())
    }

    /// Loads the filter and gives up what that took. Nothing but the exec follows, so a profile
    /// has to allow no more than `capset`, `prctl`, the exec itself and, for an exec into a
    /// container, `clone` and `setsid`.
    fn lock_down(&self) -> Result<(), Failure> {
        reset_signals();
        if let Some(filter) = self.filter {
            let needed = Sets {
                effective: self.sets.effective | SYS_ADMIN,
                permitted: self.sets.permitted | SYS_ADMIN,
                inheritable: self.sets.inheritable,
            };
            caps::set(needed).step(|| "set capabilities".to_owned())?;
            sys::seccomp::load(&filter.instructions, filter.flags)
                .step(|| "load the seccomp filter".to_owned())?;
        }
        caps::set(self.sets).step(|| "set capabilities".to_owned())?;
        caps::set_ambient(self.ambient).step(|| "set ambient capabilities".to_owned())
    }

    /// A file that looked executable and is not (no known format, no interpreter) is the
    /// program's failure, told where its messages go, as runc does.
    fn complain(&self, errno: Errno) {
        if let Program::Path(path) = &self.image.program {
            let text = errno_text(errno.raw_os_error());
            let message = format!("exec {}: {text}\n", path.to_string_lossy());
            // There is nobody else to tell if this fails.
            rustix::io::write(rustix::stdio::stderr(), message.as_bytes()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_added_once() {
        let check = |variables: &[&str], expect: &[&str]| {
            let variables: Vec<String> = variables.iter().map(ToString::to_string).collect();
            assert_eq!(environment(&variables, "HOME=/root"), expect);
        };
        check(&["A=1"], &["A=1", "HOME=/root"]);
        check(&["HOME=/x", "A=1"], &["HOME=/x", "A=1"]);
        check(&["HOME=", "A=1"], &["A=1", "HOME=/root"]);
    }

    #[test]
    fn capabilities_of_users() {
        let asked = Capabilities {
            bounding: 0b111,
            effective: 0b111,
            permitted: 0b111,
            inheritable: 0,
            ambient: 0,
        };
        let root = Wanted::new(&asked, 0).unwrap();
        assert_eq!(root.sets.permitted & !0b111, 0);
        assert_eq!(root.sets.inheritable, 0);
        let user = Wanted::new(&asked, 1000).unwrap();
        assert_eq!(user.sets, Sets { effective: 0, permitted: 0, inheritable: 0 });
        let ambient = Capabilities { inheritable: 0b1, ambient: 0b1, ..asked };
        let user = Wanted::new(&ambient, 1000).unwrap();
        assert_eq!(user.sets.permitted & !0b1, 0);
    }
}
