//! One daemon of the real binary, alone in its namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::http::Socket;
use crate::run::{Output, run};
use crate::{image, leaks};

/// How a test's daemon differs from the usual one.
#[derive(Debug, Default)]
pub struct Options {
    pub args: Vec<String>,
    /// Written as `daemon.json`.
    pub config: Option<String>,
    /// Do not load the busybox image.
    pub without_images: bool,
    /// The data root is a file system of its own.
    pub disk: Option<Disk>,
    /// The data root is one that is there already.
    pub image: Option<DiskImage>,
}

/// A small ext4, mounted in the daemon's mount namespace alone: outside it the data root looks
/// empty. It goes with the namespace.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    pub megabytes: u64,
    pub inodes: u64,
}

/// A file with a file system, mounted like a [`Disk`].
#[derive(Debug, Clone)]
pub struct DiskImage {
    pub path: PathBuf,
    /// For mount, besides `loop`.
    pub options: String,
}

#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    root: tempfile::TempDir,
    cgroup_parent: String,
    options: Options,
    child: Option<Child>,
    finished: bool,
    _watchdog: crate::watchdog::Watchdog,
}

impl Daemon {
    /// Starts a daemon and loads busybox. `binary` is `env!("CARGO_BIN_EXE_boxship")`.
    pub fn start(binary: &str) -> Self {
        Self::with(binary, Options::default())
    }

    pub fn with(binary: &str, options: Options) -> Self {
        // Short: a unix socket's path has 108 bytes.
        let root = tempfile::Builder::new().prefix("bxt").tempdir().expect("temporary directory");
        let unique = root.path().file_name().and_then(|name| name.to_str()).expect("ASCII name");
        let cgroup_parent = format!("/boxship-test-{unique}");
        if let Some(config) = &options.config {
            std::fs::write(root.path().join("daemon.json"), config).expect("daemon.json");
        }
        let without_images = options.without_images;
        let watchdog = crate::watchdog::Watchdog::start(root.path(), &cgroup_parent);
        let mut daemon = Self {
            binary: binary.into(),
            root,
            cgroup_parent,
            options,
            child: None,
            finished: false,
            _watchdog: watchdog,
        };
        daemon.launch();
        if !without_images {
            daemon.load(&image::busybox());
        }
        daemon
    }

    /// Starts the daemon process (with `BOXSHIP_TEST_LAYOUT` for all tests' form of layers), in the namespaces of an earlier one if there was one.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon already runs");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log");
        let mut command = self.in_namespaces(&self.binary.clone());
        command
            .arg("daemon")
            .args(["-H", &self.host()])
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.root.path().join("pid"))
            .args(["--cgroup-parent", &self.cgroup_parent])
            .args(["--config-file"])
            .arg(self.root.path().join("daemon.json"))
            .args(
                std::env::var("BOXSHIP_TEST_LAYOUT")
                    .map(|name| format!("--storage-opt=layout={name}")),
            )
            .args(&self.options.args)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        if self.options.config.is_none() {
            std::fs::write(self.root.path().join("daemon.json"), "{}").expect("daemon.json");
        }
        self.child = Some(command.spawn().expect("unshare starts"));
        self.wait_ready();
    }

    /// The namespaces are held by a sleeping process, so that a second daemon, or a test's own
    /// program, can enter those of the first.
    fn in_namespaces(&self, program: &Path) -> Command {
        let holder = self.root.path().join("holder.pid");
        if !holder.exists() {
            let script =
                "ip link set lo up 2>/dev/null || true; echo $$ >\"$1\"; exec sleep infinity";
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "--net", "--propagation", "slave", "sh", "-c", script, "holder"])
                .arg(&holder)
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            let child = command.spawn().expect("unshare starts");
            // Reaped in `finish`, through its pid.
            drop(child);
            crate::wait_until("the namespace holder", || {
                std::fs::read_to_string(&holder).ok().filter(|text| text.ends_with('\n'))
            });
            if let Some(disk) = self.options.disk {
                self.mount(disk);
            }
            if let Some(image) = &self.options.image {
                std::fs::create_dir(self.data_root()).expect("mount point");
                let mut command = self.inside("mount");
                command.arg("-o").arg(format!("loop,{}", image.options));
                run(command.arg(&image.path).arg(self.data_root()), b"").ok();
            }
        }
        let pid = std::fs::read_to_string(&holder).expect("holder.pid");
        let mut command = Command::new("nsenter");
        command.args(["--target", pid.trim(), "--mount", "--net", "--"]).arg(program);
        command
    }

    fn mount(&self, disk: Disk) {
        let script = "truncate -s \"$2M\" \"$1.img\" && mkdir -p \"$1\" && \
            mkfs.ext4 -q -m 0 -N \"$3\" -E lazy_itable_init=0 \"$1.img\" && \
            mount -o loop \"$1.img\" \"$1\" && rmdir \"$1/lost+found\"";
        let mut command = self.inside("sh");
        command.args(["-c", script, "disk"]).arg(self.data_root());
        command.args([disk.megabytes.to_string(), disk.inodes.to_string()]);
        run(&mut command, b"").ok();
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut socket) = Socket::connect(&self.socket_path())
                && socket.get("/_ping").is_ok_and(|response| response.status == 200)
            {
                return;
            }
            let child = self.child.as_mut().expect("launch set it");
            if let Some(status) = child.try_wait().expect("own child") {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the daemon does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn data_root(&self) -> PathBuf {
        self.root.path().join("d")
    }

    /// The data root as it can be reached from outside the daemon's namespaces.
    pub fn visible_data_root(&self) -> PathBuf {
        leaks::visible(self.root.path()).join("d")
    }

    /// Waits until the files of what was removed are gone.
    #[track_caller]
    pub fn wait_for_trash(&self) {
        let trash = self.visible_data_root().join("storage/trash");
        crate::wait_until("an empty trash", || {
            let mut entries = std::fs::read_dir(&trash).expect("trash");
            entries.next().is_none().then_some(())
        });
    }

    pub fn exec_root(&self) -> PathBuf {
        self.root.path().join("r")
    }

    pub fn socket_path(&self) -> PathBuf {
        self.root.path().join("s")
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket_path().display())
    }

    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("daemon.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        // nsenter executes the daemon in its own place.
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// The supervisor's pid, as it tells in its pidfile.
    pub fn supervisor_pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.exec_root().join("supervisor.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// A fresh connection to the API.
    pub fn api(&self) -> Socket {
        Socket::connect(&self.socket_path()).expect("the daemon listens")
    }

    /// Runs `boxship` with these arguments.
    pub fn boxship(&self, args: &[&str]) -> Output {
        self.boxship_with(args, b"")
    }

    pub fn boxship_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.client_command(&self.binary.to_string_lossy());
        run(command.args(args), input)
    }

    /// Runs Docker's own client with these arguments.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_with(args, b"")
    }

    pub fn docker_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.client_command("docker");
        run(command.args(args), input)
    }

    /// A client program with this daemon in its environment.
    pub fn client_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.root.path().join("docker-config"))
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .env("DOCKER_CLI_HINTS", "false");
        command
    }

    /// A program in the daemon's namespaces.
    pub fn inside(&self, program: &str) -> Command {
        self.in_namespaces(Path::new(program))
    }

    #[track_caller]
    pub fn load(&self, archive: &[u8]) {
        let response = self
            .api()
            .request(
                "POST",
                "/images/load?quiet=1",
                &[("Content-Type", "application/x-tar")],
                archive,
            )
            .expect("load answers");
        let body = response.text();
        assert!(response.status == 200 && !body.contains("errorDetail"), "load: {body}");
    }

    /// kill -9; containers must not notice.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("own child");
        child.wait().expect("own child");
    }

    /// kill -9 of the supervisor.
    pub fn kill_supervisor(&self) {
        if let Some(pid) = self.supervisor_pid() {
            signal(pid, Signal::KILL);
            crate::wait_until("the supervisor's end", || (!runs(pid)).then_some(()));
        }
    }

    /// SIGTERM and the exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        signal(child.id(), Signal::TERM);
        child.wait().expect("own child")
    }

    /// The arguments of the next start.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.options.args = args;
    }

    /// Kills and starts again.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Removes every container, ends the daemon and its supervisor, and fails on anything left.
    pub fn finish(mut self) {
        let problems = self.end();
        assert!(problems.is_empty(), "left behind:\n{}\n{}", problems.join("\n"), self.log());
    }

    fn end(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.finished, true) {
            return Vec::new();
        }
        if self.child.is_some() {
            self.remove_containers();
            self.terminate();
        }
        let problems = leaks::after(self.root.path(), &self.cgroup_parent);
        leaks::clean(self.root.path(), &self.cgroup_parent);
        if let Ok(pid) = std::fs::read_to_string(self.root.path().join("holder.pid"))
            && let Ok(pid) = pid.trim().parse()
        {
            signal(pid, Signal::KILL);
        }
        problems
    }

    fn remove_containers(&self) {
        // No panic here: this runs for a daemon that never answered, too. What cannot be removed
        // shows up in the leak check.
        let connect = || Socket::connect(&self.socket_path());
        let listed = connect().and_then(|mut api| api.get("/containers/json?all=1"));
        let Ok(response) = listed else { return };
        for container in response.json().as_array().into_iter().flatten() {
            let id = container["Id"].as_str().unwrap_or_default();
            let path = format!("/containers/{id}?force=1&v=1");
            drop(connect().and_then(|mut api| api.request("DELETE", &path, &[], b"")));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let problems = self.end();
        if std::thread::panicking() {
            eprintln_log(&self.log());
        } else {
            assert!(problems.is_empty(), "left behind:\n{}", problems.join("\n"));
        }
    }
}

#[allow(clippy::print_stderr)] // A failed test shows the daemon's last words.
fn eprintln_log(log: &str) {
    let tail: Vec<_> = log.lines().rev().take(30).collect();
    for line in tail.iter().rev() {
        eprintln!("daemon: {line}");
    }
}

/// False for a process that is gone or a zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may be gone already.
        kill_process(pid, signal).ok();
    }
}
