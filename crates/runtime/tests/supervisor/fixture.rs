//! A supervisor with a directory of its own, and specs of small containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::connection::{Connection, socket_path, spawn_detached};
use runtime::log::decode_json_line;
use runtime::protocol::{
    AttachOptions, Envelope, Event, Exit, Failure, FromSupervisor, Reply, Request, Running, VERSION,
};
use runtime::spec::{
    Capabilities, CgroupSpec, ContainerSpec, DeviceKind, DeviceRule, ExecSpec, LogFile, LogSpec,
    Namespace, Namespaces, NetworkSetup, Process, Resources, Rootfs, Seccomp,
};
use runtime::supervisor::Config;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use spec::Id;

const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const OUTPUT: AttachOptions = AttachOptions { stdin: false, stdout: true, stderr: true };
pub(crate) const ALL: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    connection: Connection,
    sequence: u64,
    pub(crate) supervisor: u32,
    events: Vec<Event>,
    cgroup_parent: String,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        for name in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "sleep", "true", "seq", "stty", "head", "yes", "kill", "dd", "tr", "wc",
            "ls",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let config = config(directory.path());
        spawn_detached(&std::env::current_exe().unwrap(), &config).unwrap();
        let connection = Connection::connect(&socket_path(&config.exec_root)).unwrap();
        let cgroup_parent = format!("boxship-test-{}", &random_id().as_str()[..12]);
        let mut fixture = Self {
            directory,
            connection,
            sequence: 0,
            supervisor: 0,
            events: Vec::new(),
            cgroup_parent,
        };
        fixture.hello(0);
        fixture
    }

    pub(crate) fn config(&self) -> Config {
        config(self.directory.path())
    }

    pub(crate) fn log_path(&self, id: &Id) -> PathBuf {
        self.directory.path().join(format!("{id}-json.log"))
    }

    /// The text of a container's log with its rotated files, without time stamps.
    pub(crate) fn log(&self, id: &Id) -> String {
        let path = self.log_path(id);
        let numbers = (1..).map(|number| path.with_added_extension(number.to_string()));
        let mut files: Vec<_> = numbers.take_while(|path| path.exists()).collect();
        files.reverse();
        files.push(path);
        let mut text = Vec::new();
        for file in files {
            for line in std::fs::read(file).unwrap().split_inclusive(|byte| *byte == b'\n') {
                let entry = decode_json_line(line).expect("every record is whole");
                text.extend_from_slice(&entry.line);
                if !entry.partial {
                    text.push(b'\n');
                }
            }
        }
        String::from_utf8(text).unwrap()
    }

    pub(crate) fn hello(&mut self, exits_seen: u64) {
        let reply = self.call(Request::Hello { version: VERSION, exits_seen }).unwrap();
        let Reply::Hello { pid, .. } = reply else { panic!("{reply:?}") };
        self.supervisor = pid;
    }

    /// Another daemon, which has read exits up to `exits_seen`.
    pub(crate) fn reconnect(&mut self, exits_seen: u64) {
        self.connection = Connection::connect(&socket_path(&self.config().exec_root)).unwrap();
        self.hello(exits_seen);
    }

    /// Kills the supervisor and starts another.
    pub(crate) fn replace_killed(&mut self) {
        self.kill_supervisor();
        self.replace_dead();
    }

    pub(crate) fn replace_dead(&mut self) {
        spawn_detached(&std::env::current_exe().unwrap(), &self.config()).unwrap();
        self.reconnect(0);
    }

    pub(crate) fn kill_supervisor(&self) {
        let pid = Pid::from_raw(self.supervisor as i32).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        wait_for(&pidfd);
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Reply, Failure> {
        self.call_with(request, Vec::new()).map(|(reply, _fds)| reply)
    }

    pub(crate) fn call_with(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let sequence = self.send(request, fds);
        self.reply(sequence)
    }

    pub(crate) fn send(&mut self, request: Request, fds: Vec<OwnedFd>) -> u64 {
        self.sequence += 1;
        let envelope = Envelope { sequence: self.sequence, request };
        loop {
            let copies = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
            match self.connection.send(&envelope, copies) {
                // A supervisor with much to do has not read the requests before this one.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                sent => {
                    sent.unwrap();
                    return self.sequence;
                }
            }
        }
    }

    pub(crate) fn reply(&mut self, wanted: u64) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        loop {
            match self.receive() {
                (FromSupervisor::Reply { sequence, result }, fds) if sequence == wanted => {
                    return result.map(|reply| (reply, fds));
                }
                (FromSupervisor::Event(event), _) => self.events.push(event),
                (FromSupervisor::Reply { .. }, _) => panic!("a reply out of turn"),
            }
        }
    }

    /// The next reply to any of these requests.
    pub(crate) fn any_reply(&mut self, sequences: &[u64]) -> Result<Reply, Failure> {
        loop {
            match self.receive() {
                (FromSupervisor::Reply { sequence, result }, _) => {
                    assert!(sequences.contains(&sequence));
                    return result;
                }
                (FromSupervisor::Event(event), _) => self.events.push(event),
            }
        }
    }

    fn receive(&self) -> (FromSupervisor, Vec<OwnedFd>) {
        loop {
            match self.connection.recv() {
                Ok(Some(message)) => return message,
                Ok(None) => panic!("the supervisor is gone: {}", self.supervisor_log()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait_for(&self.connection);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn supervisor_log(&self) -> String {
        std::fs::read_to_string(self.config().exec_root.join("supervisor.log")).unwrap_or_default()
    }

    /// Waits for the next event that `choose` takes.
    pub(crate) fn event<T>(&mut self, choose: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let mut events = self.events.iter().enumerate();
            let found = events.find_map(|(at, event)| choose(event).map(|value| (at, value)));
            if let Some((at, value)) = found {
                self.events.remove(at);
                return value;
            }
            match self.receive() {
                (FromSupervisor::Event(event), _) => self.events.push(event),
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn exit(&mut self, id: &Id) -> Exit {
        self.event(|event| match event {
            Event::Exited(exit) if exit.id == *id => Some(exit.clone()),
            _ => None,
        })
    }

    pub(crate) fn has_exit(&self, id: &Id) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Exited(exit) if exit.id == *id))
    }

    /// A container that runs a shell script.
    pub(crate) fn spec(&self, script: &str) -> ContainerSpec {
        let id = random_id();
        let log = LogFile {
            path: self.log_path(&id),
            max_size: None,
            max_files: 1,
            compress: false,
            attrs: BTreeMap::new(),
        };
        ContainerSpec {
            cgroup: CgroupSpec {
                path: format!("{}/{id}", self.cgroup_parent),
                resources: Resources::default(),
                devices: vec![all_devices()],
            },
            id,
            generation: 1,
            rootfs: Rootfs::Directory { path: self.directory.path().join("root") },
            mounts: Vec::new(),
            process: process(script),
            hostname: Some("box".to_owned()),
            domainname: None,
            namespaces: Namespaces {
                pid: Namespace::Private,
                ipc: Namespace::Private,
                uts: Namespace::Private,
                net: Namespace::Private,
                cgroup: Namespace::Private,
            },
            network: NetworkSetup::default(),
            devices: Vec::new(),
            sysctls: BTreeMap::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            readonly_rootfs: false,
            privileged: false,
            shm_size: 1 << 20,
            init: false,
            log: LogSpec::JsonFile(log),
            oci_runtime: None,
        }
    }

    pub(crate) fn start(&mut self, spec: &ContainerSpec) -> u32 {
        started(self.call(start(spec)))
    }

    /// Starts with one attached client; returns the client's end.
    pub(crate) fn start_attached(
        &mut self,
        spec: &ContainerSpec,
        options: AttachOptions,
    ) -> UnixStream {
        let (theirs, ours) = stream_pair();
        let request =
            Request::Start { spec: Box::new(spec.clone()), attach: vec![options], keeps: false };
        let (reply, _) = self.call_with(request, vec![theirs]).unwrap();
        assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
        ours
    }

    pub(crate) fn exec_attached(
        &mut self,
        container: &Id,
        process: Process,
        options: AttachOptions,
    ) -> Result<(Id, UnixStream), Failure> {
        let exec_id = random_id();
        let spec = ExecSpec { exec_id: exec_id.clone(), container: container.clone(), process };
        let (theirs, ours) = stream_pair();
        let request = Request::Exec { spec: Box::new(spec), attach: Some(options) };
        self.call_with(request, vec![theirs])?;
        Ok((exec_id, ours))
    }

    pub(crate) fn list(&mut self) -> Vec<Running> {
        match self.call(Request::List) {
            Ok(Reply::List(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kill(&mut self, id: &Id) {
        self.call(Request::Signal { id: id.clone(), signal: libc::SIGKILL }).unwrap();
    }

    /// Asserts that nothing is left of ended containers.
    pub(crate) fn assert_clean(&mut self) {
        assert!(self.list().is_empty());
        let containers = self.config().exec_root.join("containers");
        assert_eq!(std::fs::read_dir(containers).unwrap().count(), 0);
        let deadline = Instant::now() + PATIENCE;
        while !self.cgroups().is_empty() {
            assert!(Instant::now() < deadline, "cgroups are left: {:?}", self.cgroups());
            // The supervisor retries by a timer, of which nobody is told.
            std::thread::yield_now();
        }
    }

    fn cgroup_parents(&self) -> Vec<PathBuf> {
        let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
        let mounts = std::fs::read_dir("/sys/fs/cgroup").unwrap();
        hierarchies.extend(mounts.map(|entry| entry.unwrap().path()));
        let parents = hierarchies.into_iter().map(|mount| mount.join(&self.cgroup_parent));
        parents.filter(|path| path.is_dir()).collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let entries = self.cgroup_parents().into_iter().filter_map(|path| path.read_dir().ok());
        let paths = entries.flatten().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("supervisor's log:\n{}", self.supervisor_log());
            for cgroup in self.cgroups() {
                let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
                for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap_or_default();
                }
            }
            kill_process(Pid::from_raw(self.supervisor as i32).unwrap(), Signal::KILL)
                .unwrap_or_default();
            return;
        }
        self.call(Request::Stop).unwrap();
        for parent in self.cgroup_parents() {
            std::fs::remove_dir(parent).unwrap();
        }
    }
}

fn config(directory: &Path) -> Config {
    Config { exec_root: directory.join("run"), exits_log: directory.join("exits.log") }
}

fn all_devices() -> DeviceRule {
    let access = "rwm".to_owned();
    DeviceRule { allow: true, kind: DeviceKind::All, major: None, minor: None, access }
}

pub(crate) fn random_id() -> Id {
    Id::from_random(sys::random::bytes())
}

pub(crate) fn stream_pair() -> (OwnedFd, UnixStream) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (theirs.into(), ours)
}

pub(crate) fn start(spec: &ContainerSpec) -> Request {
    Request::Start { spec: Box::new(spec.clone()), attach: Vec::new(), keeps: false }
}

pub(crate) fn started(result: Result<Reply, Failure>) -> u32 {
    match result {
        Ok(Reply::Started { pid, .. }) => pid,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn process(script: &str) -> Process {
    let mask = 0xa80425fb;
    Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned(), "HOME=/".to_owned()],
        cwd: "/".to_owned(),
        user: String::new(),
        additional_groups: Vec::new(),
        tty: false,
        console_size: None,
        open_stdin: false,
        stdin_once: false,
        capabilities: Capabilities {
            bounding: mask,
            effective: mask,
            permitted: mask,
            inheritable: 0,
            ambient: 0,
        },
        no_new_privileges: false,
        seccomp: Seccomp::Default,
        rlimits: Vec::new(),
        oom_score_adj: None,
        apparmor_profile: None,
    }
}

/// Waits until a descriptor is readable.
pub(crate) fn wait_for(fd: impl std::os::fd::AsFd) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout))).unwrap();
    assert!(ready > 0, "nothing came for {PATIENCE:?}");
}

/// What stdcopy frames say: stdout, stderr.
pub(crate) fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let mut outputs = [Vec::new(), Vec::new()];
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        assert_eq!(header[1..4], [0; 3]);
        let length = u32::from_be_bytes(*header.last_chunk().unwrap()) as usize;
        outputs[usize::from(header[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    let [stdout, stderr] = outputs.map(|output| String::from_utf8(output).unwrap());
    (stdout, stderr)
}
