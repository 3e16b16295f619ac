//! Containers of external OCI runtimes (`--runtime`): runc, crun, youki, runsc.
//!
//! The supervisor writes a bundle and calls the runtime's command line; no call blocks the epoll.
//!
//! ```text
//! <exec-root>/containers/<id>/bundle/{config.json,rootfs}
//! <exec-root>/containers/<id>/{oci.log,init.pid}
//! <exec-root>/<short id>.sock                     to which the runtime sends a terminal
//! <exec-root>/oci/                                            the runtime's own state
//! ```
//!
//! ```text
//! create --tool's pidfd--> network, state.json --> start --tool's pidfd--> Running
//! exec --detach --tool's pidfd--> Running
//! ```
//!
//! `create` runs in a mount namespace of its own, in which the root is mounted: the container is
//! born from it, and the host never sees the mount. When the runtime's program exits, the
//! container's first process becomes our child (we are the subreaper), so that its end, its stdio
//! and its log are handled like any other's. `delete` runs when the exit is recorded. A crash
//! before the pid is written to `state.json` leaves a container that nobody started; the next
//! supervisor deletes it.

mod config;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::Deserialize;
use spec::Id;
use sys::RootDir;
use sys::mount::{Change, MountAttrFlags, Propagation, attach, change, clone_tree};
use sys::process::{
    ForkOptions, Forked, Image, Program, UnshareFlags, close_all_but, exec, exit_now, fork,
    reset_signals, unshare,
};

use super::poll::{Part, Source};
use super::recorder::Recorder;
use super::start::{Asked, connect, failed, started};
use super::state::{Saved, StdinMode};
use super::streams::Streams;
use super::{Config, Phase, Run, Supervisor};
use crate::cgroup::Cgroup;
use crate::init::{self, rootfs, user};
use crate::protocol::Failure;
use crate::spec::{ContainerSpec, ExecSpec, MountSource, Namespace, OciRuntime, Process};
use config::Joined;

/// A runtime sends the terminal right after it has connected.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(1);

/// A start or exec that a runtime's program is busy with.
#[derive(Debug)]
pub(super) struct OciStart {
    pub(super) client: u32,
    pub(super) sequence: u64,
    pub(super) failure: Option<Failure>,
    /// A size that was asked for before there was a terminal.
    pub(super) size: Option<(u16, u16)>,
    call: Call,
    /// The program that runs now.
    tool: OwnedFd,
    step: Step,
    console: Option<OwnedFd>,
}

#[derive(Debug)]
enum Step {
    /// With what is to be plugged in between create and start.
    Create(Box<ContainerSpec>),
    Start,
    Exec,
}

impl Supervisor {
    pub(super) fn start_oci(
        &mut self,
        spec: &ContainerSpec,
        runtime: &OciRuntime,
        mut saved: Saved,
        cgroup: Rc<Cgroup>,
        asked: Asked,
    ) -> Result<(), Failure> {
        if spec.init {
            let text = "an OCI runtime cannot run our init (--init)".to_owned();
            return Err(Failure::Invalid { text });
        }
        saved.oci_runtime = Some(runtime.clone());
        let call = self.call(runtime, &saved);
        let (ends, stdio) = self.make_stdio(&saved)?;
        let log = Recorder::open(&saved.log, &call.directory, saved.tty)
            .map_err(failed(|| "open the log".to_owned()))?;
        let joined = self.joined(spec)?;
        let console = call.listen_for_console(saved.tty)?;
        // Without a pid: the next supervisor would let the runtime delete what it finds.
        saved.write(&call.directory).map_err(failed(|| "write state.json".to_owned()))?;
        let bundle = call.path("bundle");
        let arguments = call.arguments("create", &["--bundle", &bundle], &spec.id, &console);
        let tool = call.run(stdio, &arguments, || make_bundle(&call, spec, &joined))?;
        let streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, log);
        let step = Step::Create(Box::new(spec.clone()));
        let start = OciStart::new(&asked, call, tool, step, console);
        let run = Run::new(saved, streams, cgroup, Phase::Oci(Box::new(start)));
        self.begin(run, ends, asked);
        Ok(())
    }

    pub(super) fn exec_oci(
        &mut self,
        spec: &ExecSpec,
        runtime: OciRuntime,
        saved: Saved,
        cgroup: Rc<Cgroup>,
        asked: Asked,
    ) -> Result<(), Failure> {
        let call = self.call(&runtime, &saved);
        let container = self.running(&spec.container)?.1.saved.pid;
        let (ends, stdio) = self.make_stdio(&saved)?;
        let console = call.listen_for_console(saved.tty)?;
        let document = call.path("process.json");
        let options = ["--detach", "--process", &document];
        let arguments = call.arguments("exec", &options, &spec.container, &console);
        let write = || write_process(&spec.process, container, &document);
        let tool = call.run(stdio, &arguments, write)?;
        let streams = Streams::new(saved.tty, saved.stdin == StdinMode::Once, None);
        let start = OciStart::new(&asked, call, tool, Step::Exec, console);
        let run = Run::new(saved, streams, cgroup, Phase::Oci(Box::new(start)));
        self.begin(run, ends, asked);
        Ok(())
    }

    pub(super) fn call(&self, runtime: &OciRuntime, saved: &Saved) -> Call {
        Call::new(&self.config, runtime, saved)
    }

    fn joined(&self, spec: &ContainerSpec) -> Result<Joined, Failure> {
        let all = &spec.namespaces;
        let mut joined = Joined::new();
        for namespace in [&all.pid, &all.ipc, &all.uts, &all.net, &all.cgroup] {
            if let Namespace::Container(id) = namespace {
                let (_, run) = self.running(id).map_err(|_none| Failure::NotRunning)?;
                joined.insert(id.clone(), run.saved.pid);
            }
        }
        Ok(joined)
    }

    pub(super) fn watch_tool(&mut self, key: u32) {
        let Some(Run { phase: Phase::Oci(start), .. }) = self.runs.get(&key) else { return };
        self.poller.watch(&start.tool, Source::Run(key, Part::Reports), EventFlags::IN);
        if let Some(console) = &start.console {
            self.poller.watch(console, Source::Run(key, Part::Console), EventFlags::IN);
        }
    }

    pub(super) fn forget_tool(&mut self, start: &OciStart) {
        self.poller.forget(&start.tool);
        if let Some(console) = &start.console {
            self.poller.forget(console);
            remove_socket(&start.call.console);
        }
    }

    /// The runtime connected to hand over the terminal.
    pub(super) fn on_console_socket(&mut self, key: u32) {
        let Some(Run { phase: Phase::Oci(start), .. }) = self.runs.get_mut(&key) else { return };
        let Some(console) = start.console.take() else { return };
        self.poller.forget(&console);
        remove_socket(&start.call.console);
        let master = receive_console(&console)
            .map_err(failed(|| "receive the terminal from the OCI runtime".to_owned()));
        if let Err(failure) = master.and_then(|master| self.on_console(key, master)) {
            self.fail_oci(key, failure);
        }
    }

    /// The runtime's program has ended, perhaps.
    pub(super) fn on_tool(&mut self, key: u32) {
        let Some(Run { phase: Phase::Oci(start), .. }) = self.runs.get(&key) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(start.tool.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return,
            Ok(Some(status)) => status.exit_status(),
            Err(errno) => {
                super::note(format_args!("wait for an OCI runtime: {errno}"));
                None
            }
        };
        self.poller.forget(&start.tool);
        // A terminal that came with the program's last breath.
        self.on_console_socket_if_waiting(key);
        let done = if status == Some(0) { self.after_tool(key) } else { self.tool_failure(key) };
        if let Err(failure) = done {
            self.fail_oci(key, failure);
        }
    }

    fn on_console_socket_if_waiting(&mut self, key: u32) {
        if let Some(Run { phase: Phase::Oci(start), .. }) = self.runs.get(&key)
            && start.console.as_ref().is_some_and(sys::descriptors::is_readable)
        {
            self.on_console_socket(key);
        }
    }

    fn tool_failure(&self, key: u32) -> Result<(), Failure> {
        match self.runs.get(&key).map(|run| &run.phase) {
            Some(Phase::Oci(start)) => Err(start.call.failure()),
            _ => Ok(()),
        }
    }

    fn after_tool(&mut self, key: u32) -> Result<(), Failure> {
        let Some(run) = self.runs.get_mut(&key) else { return Ok(()) };
        let Phase::Oci(start) = &mut run.phase else { return Ok(()) };
        let call = start.call.clone();
        match std::mem::replace(&mut start.step, Step::Start) {
            Step::Create(spec) => {
                let pid = call.pid()?;
                run.saved.started_at_nanos = super::now_nanos();
                self.on_pid(key, pid)?;
                if spec.namespaces.net == Namespace::Private && !spec.network.interfaces.is_empty()
                {
                    // Our unreaped child: the number cannot be another's.
                    let netns = File::open(format!("/proc/{pid}/ns/net"))
                        .map_err(failed(|| "open the network namespace".to_owned()))?;
                    let resolver = connect(&spec, netns.as_fd())?;
                    if let Some(run) = self.runs.get_mut(&key) {
                        run.resolver = resolver;
                    }
                }
                let tool = call.run(init::Stdio::Tty, &["start", spec.id.as_str()], || Ok(()))?;
                if let Some(Run { phase: Phase::Oci(start), .. }) = self.runs.get_mut(&key) {
                    start.tool = tool;
                }
                self.watch_tool(key);
                Ok(())
            }
            Step::Exec => {
                self.on_pid(key, call.pid()?)?;
                self.oci_started(key)
            }
            Step::Start => self.oci_started(key),
        }
    }

    fn oci_started(&mut self, key: u32) -> Result<(), Failure> {
        let Some(run) = self.runs.get_mut(&key) else { return Ok(()) };
        let pidfd = run.pidfd.as_ref().ok_or(Failure::NotRunning)?;
        let reply = started(run, pidfd);
        let Phase::Oci(start) = std::mem::replace(&mut run.phase, Phase::Running) else {
            return Ok(());
        };
        self.forget_tool(&start);
        self.clients.reply(start.client, start.sequence, reply, &mut self.poller);
        // It may have ended meanwhile, which was not looked at.
        self.watch_process(key);
        Ok(())
    }

    fn fail_oci(&mut self, key: u32, failure: Failure) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        if let Phase::Oci(start) = &mut run.phase {
            start.failure.get_or_insert(failure);
            if run.saved.container.is_none() {
                // Kills it, too; the supervisor reaps it as a stray.
                start.call.delete(&run.saved.id);
            }
        }
        if let Some(pidfd) = &run.pidfd
            && let Err(errno) = sys::pidfd::send_signal(pidfd, libc::SIGKILL)
        {
            super::note(format_args!("kill {}: {errno}", run.saved.id));
        }
        self.fail_start(key);
    }
}

impl OciStart {
    fn new(asked: &Asked, call: Call, tool: OwnedFd, step: Step, console: Option<OwnedFd>) -> Self {
        let Asked { client, sequence, .. } = *asked;
        Self { client, sequence, failure: None, size: None, call, tool, step, console }
    }
}

/// How a runtime is called for one container or exec.
#[derive(Debug, Clone)]
pub(super) struct Call {
    runtime: OciRuntime,
    /// The runtime's own state.
    root: PathBuf,
    /// Where the program runs.
    directory: PathBuf,
    /// A socket's path has at most 107 bytes, so this is not in the directory.
    console: PathBuf,
}

impl Call {
    pub(super) fn new(config: &Config, runtime: &OciRuntime, saved: &Saved) -> Self {
        Self {
            runtime: runtime.clone(),
            root: config.exec_root.join("oci"),
            directory: saved.directory(&config.exec_root),
            console: config.exec_root.join(format!("{}.sock", saved.id.short())),
        }
    }

    /// Runtimes change their working directory, so all paths are whole.
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn arguments(
        &self,
        verb: &str,
        options: &[&str],
        id: &Id,
        console: &Option<OwnedFd>,
    ) -> Vec<String> {
        let mut arguments = vec![verb.to_owned(), "--pid-file".to_owned(), self.path("init.pid")];
        arguments.extend(options.iter().copied().map(str::to_owned));
        if console.is_some() {
            arguments.extend(["--console-socket".to_owned(), self.console.display().to_string()]);
        }
        arguments.push(id.to_string());
        arguments
    }

    /// Starts the runtime's program. `prepare` runs before it in the same process and may change
    /// that process's namespaces.
    fn run(
        &self,
        stdio: init::Stdio,
        arguments: &[impl AsRef<str>],
        prepare: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<OwnedFd, Failure> {
        let forked = fork(&ForkOptions::default())
            .map_err(|errno| failed(|| "fork for an OCI runtime".to_owned())(errno.into()))?;
        match forked {
            Forked::Parent { pidfd, .. } => Ok(pidfd),
            Forked::Child => {
                let failure = self.become_tool(stdio, arguments, prepare);
                // Read by `failure` below; when it cannot be written, its absence says enough.
                let path = self.directory.join("failure");
                if let Ok(text) = serde_json::to_vec(&failure) {
                    std::fs::write(path, text).unwrap_or_default();
                }
                exit_now(127)
            }
        }
    }

    /// Returns only to say why not.
    fn become_tool(
        &self,
        stdio: init::Stdio,
        arguments: &[impl AsRef<str>],
        prepare: impl FnOnce() -> Result<(), Failure>,
    ) -> Failure {
        let prepared = set_stdio(stdio)
            .and_then(|()| std::env::set_current_dir(&self.directory))
            .map_err(failed(|| "set up an OCI runtime's process".to_owned()))
            .and_then(|()| prepare());
        if let Err(failure) = prepared {
            return failure;
        }
        reset_signals();
        let image = match self.image(arguments) {
            Ok(image) => image,
            Err(error) => return failed(|| "call an OCI runtime".to_owned())(error),
        };
        let errno = exec(&image);
        let program = self.runtime.path.display().to_string();
        Failure::Exec { program, errno: errno.raw_os_error(), in_path: false }
    }

    fn image(&self, arguments: &[impl AsRef<str>]) -> io::Result<Image> {
        let c_string = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
        let mut all = vec![c_string(self.runtime.path.as_os_str().as_bytes())?];
        for argument in &self.runtime.args {
            all.push(c_string(argument.as_bytes())?);
        }
        all.push(c_string(b"--root")?);
        all.push(c_string(self.root.as_os_str().as_bytes())?);
        for argument in ["--log", &self.path("oci.log"), "--log-format", "json"] {
            all.push(c_string(argument.as_bytes())?);
        }
        for argument in arguments {
            all.push(c_string(argument.as_ref().as_bytes())?);
        }
        let environment = std::env::vars_os().filter(|(name, _)| name == "PATH");
        let environment = environment.map(|(_, path)| [b"PATH=", path.as_bytes()].concat());
        Ok(Image {
            program: Program::Path(all[0].clone()),
            arguments: all,
            environment: environment.map(|text| c_string(&text)).collect::<Result<_, _>>()?,
        })
    }

    fn listen_for_console(&self, tty: bool) -> Result<Option<OwnedFd>, Failure> {
        tty.then(|| sys::socket::listen_stream(&self.console))
            .transpose()
            .map_err(failed(|| "listen for a terminal".to_owned()))
    }

    fn pid(&self) -> Result<u32, Failure> {
        let path = self.directory.join("init.pid");
        let text = std::fs::read_to_string(&path)
            .map_err(failed(|| format!("read {}", path.display())))?;
        text.trim().parse().map_err(|_not_a_pid| Failure::Invalid {
            text: format!("{} holds no pid: {text:?}", path.display()),
        })
    }

    /// Why the program failed: our own reason, or the last error in its log.
    fn failure(&self) -> Failure {
        #[derive(Deserialize)]
        struct Line {
            #[serde(default)]
            level: String,
            msg: String,
        }
        let own = std::fs::read(self.directory.join("failure")).ok();
        if let Some(failure) = own.and_then(|json| serde_json::from_slice(&json).ok()) {
            return failure;
        }
        let log = std::fs::read_to_string(self.directory.join("oci.log")).unwrap_or_default();
        let mut lines =
            log.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let message = lines.find(|line| line.level != "warning" && line.level != "info");
        let message = message.map_or_else(|| "no reason given".to_owned(), |line| line.msg);
        let name = self.runtime.path.file_name().unwrap_or_default().to_string_lossy();
        Failure::Invalid { text: format!("{name} failed: {message}") }
    }

    /// Sends a signal the runtime's way: the first process may be a sandbox.
    pub(super) fn kill(&self, id: &Id, signal: i32) -> Result<(), Failure> {
        let signal = signal.to_string();
        self.run(init::Stdio::Tty, &["kill", id.as_str(), &signal], || Ok(())).map(drop)
    }

    /// Lets the runtime forget the container, in the background.
    pub(super) fn delete(&self, id: &Id) {
        let mut call = self.clone();
        // Its own directory goes away meanwhile.
        call.directory.clone_from(&self.root);
        if let Err(failure) =
            call.run(init::Stdio::Tty, &["delete", "--force", id.as_str()], || Ok(()))
        {
            super::note(format_args!("delete {id}: {failure}"));
        }
    }

    /// Removes what an earlier container of the same id left, which a runtime refuses to replace.
    fn delete_leftover(&self, id: &Id) -> io::Result<()> {
        if self.root.join(id.as_str()).exists() {
            Command::new(&self.runtime.path)
                .args(&self.runtime.args)
                .arg("--root")
                .arg(&self.root)
                .args(["delete", "--force", id.as_str()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
        }
        Ok(())
    }
}

/// Makes the child's descriptors 0, 1 and 2, and closes all others. For a terminal, which goes
/// another way, and for calls without a container: nothing to read, nowhere to write.
fn set_stdio(stdio: init::Stdio) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let (stdin, stdout, stderr): (BorrowedFd<'_>, BorrowedFd<'_>, BorrowedFd<'_>) = match &stdio {
        init::Stdio::Files { stdin, stdout, stderr } => {
            (stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
        }
        init::Stdio::Tty => (null.as_fd(), null.as_fd(), null.as_fd()),
    };
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    // They are closed next, and this process never returns to where they are owned.
    std::mem::forget((null, stdio));
    Ok(close_all_but(&[])?)
}

/// Mounts the root where only this process and its children see it, and writes `config.json`.
/// Runs in the process that becomes `create`, in the container's directory.
fn make_bundle(call: &Call, spec: &ContainerSpec, joined: &Joined) -> Result<(), Failure> {
    let step = |name: &'static str| failed(move || format!("{name} for an OCI bundle"));
    call.delete_leftover(&spec.id).map_err(step("delete the container before"))?;
    std::fs::create_dir_all(&call.root).map_err(step("make the runtime's root"))?;
    let bundle = call.directory.join("bundle");
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root).map_err(step("make a directory"))?;
    unshare(UnshareFlags::NEWNS).map_err(io::Error::from).map_err(step("unshare mounts"))?;
    make_slave().map_err(io::Error::from).map_err(step("detach mounts from the host's"))?;
    let mount = rootfs::mount(&spec.rootfs)?;
    let target = RootDir::open(&root).map_err(io::Error::from).map_err(step("open the root"))?;
    attach(mount, target).map_err(io::Error::from).map_err(step("mount the root"))?;
    let inside = RootDir::open(&root).map_err(io::Error::from).map_err(step("open the root"))?;
    let identity = user::look_up(&inside, &spec.process.user, &spec.process.additional_groups)?;
    let sources = bind_sources(spec, &bundle)?;
    let config = config::config(spec, &identity, joined, &root, &sources)?;
    std::fs::write(bundle.join("config.json"), config.to_string()).map_err(step("write config"))
}

/// Later mounts of the host still arrive; none of ours leaves.
fn make_slave() -> Result<(), Errno> {
    let host = openat(rustix::fs::CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let slave = Change {
        set: MountAttrFlags::empty(),
        propagation: Some(Propagation::Slave),
        recursive: true,
    };
    change(host, &slave)
}

/// The source path of each bind. One that must not leave a directory (a volume's subpath) is
/// opened below it once and mounted beside the bundle, so that nobody looks its path up again.
fn bind_sources(spec: &ContainerSpec, bundle: &Path) -> Result<Vec<Option<String>>, Failure> {
    let sources = spec.mounts.iter().enumerate().map(|(number, mount)| match &mount.source {
        MountSource::Bind { path, within: None, .. } => Ok(Some(path.display().to_string())),
        MountSource::Bind { path, within: Some(within), recursive, .. } => {
            let place = bundle.join(format!("mount-{number}"));
            pin(within, path, *recursive, &place)
                .map_err(failed(|| format!("bind {}", path.display())))?;
            Ok(Some(place.display().to_string()))
        }
        _ => Ok(None),
    });
    sources.collect()
}

fn pin(within: &Path, path: &Path, recursive: bool, place: &Path) -> io::Result<()> {
    let source = RootDir::open(within)?.open_in(path, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        std::fs::create_dir(place)?;
    } else {
        File::create(place)?;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = openat(rustix::fs::CWD, place, flags, Mode::empty())?;
    Ok(attach(clone_tree(source, recursive)?, target)?)
}

/// Writes `process.json` for an exec, in its directory. Users are looked up in the container.
fn write_process(process: &Process, container: u32, path: &str) -> Result<(), Failure> {
    let step = || "look into the container".to_owned();
    let root = RootDir::open(format!("/proc/{container}/root"))
        .map_err(|errno| failed(step)(errno.into()))?;
    let identity = user::look_up(&root, &process.user, &process.additional_groups)?;
    std::fs::write(path, config::process(process, &identity).to_string())
        .map_err(failed(|| "write process.json".to_owned()))
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        super::note(format_args!("remove {}: {error}", path.display()));
    }
}

fn receive_console(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let socket = sys::socket::accept(listener)?;
    sys::descriptors::wait_readable_for(&socket, CONSOLE_PATIENCE)?;
    let mut name = Vec::new();
    let fds = sys::socket::receive(&socket, &mut name, 4096)?;
    fds.and_then(|mut fds| fds.pop()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
