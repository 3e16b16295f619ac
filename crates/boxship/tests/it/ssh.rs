//! `ssh://` through Debian's OpenSSH server. The other machine is a container: its sshd answers on
//! a port of the daemon's loopback, and its `docker` is ours, with the daemon's socket. What is in
//! the middle (keys, shells, pipes that close) is real; both command lines go the same way.

use std::path::{Path, PathBuf};

use testkit::{Daemon, Output, wait_until};

use crate::idioms::{executable, linked};
use crate::{BINARY, daemon};

const PORT: u16 = 2222;

/// A daemon, an sshd in front of it, and a user with a key.
struct Far {
    daemon: Daemon,
    work: PathBuf,
    /// Docker's own client.
    theirs: PathBuf,
}

impl Far {
    fn start() -> Self {
        let daemon = daemon();
        let work = daemon.root().join("ssh");
        std::fs::create_dir_all(&work).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let theirs = std::env::split_paths(&path).map(|directory| directory.join("docker"));
        let theirs = theirs.into_iter().find(|file| file.is_file()).expect("docker's own client");
        let far = Self { daemon, work, theirs };
        far.make_keys();
        far.start_server();
        far.configure_client();
        far
    }

    fn place(&self, name: &str) -> String {
        self.work.join(name).display().to_string()
    }

    fn make_keys(&self) {
        for name in ["key", "stranger"] {
            let file = self.place(name);
            let mut command = std::process::Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &file]);
            testkit::run::run(&mut command, b"").ok();
        }
    }

    fn start_server(&self) {
        self.daemon.load(&testkit::image::with_packages("sshd", &["openssh-server"]));
        // Our binary needs a C library as new as ours.
        executable(
            &self.work.join("docker"),
            "#!/bin/sh\nexec /host/ld-linux*.so.* --argv0 docker --library-path /host /boxship \
             \"$@\"\n",
        );
        let library = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let mounts = [
            (library, "/host:ro"),
            (BINARY.to_owned(), "/boxship:ro"),
            (self.place("docker"), "/usr/local/bin/docker:ro"),
            (self.place("key.pub"), "/root/.ssh/authorized_keys:ro"),
            (self.daemon.socket_path().display().to_string(), "/var/run/docker.sock"),
        ];
        let mut arguments = vec!["run".to_owned(), "-d".to_owned(), "--name=far".to_owned()];
        arguments.push(format!("--publish=127.0.0.1:{PORT}:22"));
        arguments.extend(mounts.map(|(source, target)| format!("--volume={source}:{target}")));
        let server = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e";
        arguments.extend(["sshd", "sh", "-c", server].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.daemon.boxship(&arguments).ok();
        wait_until("sshd", || {
            let said = self.daemon.boxship(&["logs", "far"]).stderr;
            said.contains("listening on 0.0.0.0").then_some(())
        });
    }

    /// The user's ssh with a configuration of the test's; the server's key is known beforehand.
    fn configure_client(&self) {
        let key = ["exec", "far", "cat", "/etc/ssh/ssh_host_ed25519_key.pub"];
        let key = self.daemon.boxship(&key).ok();
        std::fs::write(self.work.join("known"), format!("[127.0.0.1]:{PORT} {key}\n")).unwrap();
        let host = |name: &str, key: &str| {
            format!(
                "Host {name}\n HostName 127.0.0.1\n Port {PORT}\n User root\n IdentityFile {}\n",
                self.place(key)
            )
        };
        let text = format!(
            "UserKnownHostsFile {}\nIdentitiesOnly yes\nBatchMode yes\n{}{}Host 127.0.0.1\n \
             IdentityFile {}\n",
            self.place("known"),
            host("far", "key"),
            host("closed", "stranger"),
            self.place("key")
        );
        std::fs::write(self.work.join("config"), text).unwrap();
        let wrapper = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", self.place("config"));
        executable(&linked(&self.daemon).join("ssh"), &wrapper);
    }

    /// Runs a script in whose words `docker` is one of the two.
    fn script(&self, program: &Path, text: &str) -> Output {
        let bin = linked(&self.daemon);
        let mut command = self.daemon.inside("bash");
        command
            .args(["-c", &format!("docker() {{ {} \"$@\"; }}; {text}", program.display())])
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env(
                "DOCKER_CONFIG",
                self.work.join(format!("config-{}", program.file_name().unwrap().display())),
            )
            .env("DOCKER_HOST", "ssh://far")
            .env("DOCKER_CLI_HINTS", "false")
            .current_dir(&self.work);
        testkit::run::run(&mut command, b"")
    }

    fn check(&self, text: &str, expect: &str) {
        for program in [Path::new(BINARY), &self.theirs] {
            let output = self.script(program, text);
            let context = format!("{}: {text}\n{}", program.display(), output.stderr);
            assert_eq!(output.stdout.trim_end(), expect, "{context}");
        }
    }
}

#[test]
fn both_command_lines_work_through_a_real_sshd() {
    let far = Far::start();
    far.check("docker ps --format '{{.Names}}'", "far");
    far.check("docker run --rm busybox echo over ssh", "over ssh");
    far.check(
        "docker run --rm busybox sh -c 'echo out; echo err >&2; exit 5' 2>&1 | sort",
        "err\nout",
    );
    far.check("docker run --rm busybox sh -c 'exit 5'; echo $?", "5");
    // The end of the input goes all the way, and nothing is lost behind it.
    far.check("head -c 3000000 /dev/zero | docker run --rm -i busybox wc -c", "3000000");
    far.check("docker run --rm busybox head -c 3000000 /dev/zero | wc -c", "3000000");
    far.check("echo typed | docker exec -i far cat", "typed");
    far.check("docker save busybox | docker load -q", "Loaded image: busybox:latest");
    far.check("echo content >f; docker cp -q f far:/tmp/f; docker exec far cat /tmp/f", "content");
    far.check("docker exec far yes | head -1", "y");
    far.check("for i in 1 2 3 4 5; do docker ps -q & done | wc -l", "5");
    far.check(&format!("docker -H ssh://root@127.0.0.1:{PORT} ps -q | wc -l"), "1");
    far.check("docker -H ssh://far/var/run/docker.sock ps -q | wc -l", "1");
    // Each has ended its ssh, and that its far side.
    wait_until("the far sides to end", || {
        let processes = far.daemon.boxship(&["top", "far", "-o", "pid,args"]).ok();
        (!processes.contains("dial-stdio")).then_some(())
    });
    far.daemon.boxship(&["rm", "-f", "far"]).ok();
    far.daemon.finish();
}

#[test]
fn contexts_and_refusals_through_a_real_sshd() {
    let far = Far::start();
    let context = "unset DOCKER_HOST; docker context create there --docker host=ssh://far \
                   >/dev/null 2>&1; docker context use there >/dev/null 2>&1";
    far.check(&format!("{context}; docker ps --format '{{{{.Names}}}}'"), "far");
    far.check(
        "unset DOCKER_HOST; docker context inspect there -f '{{.Endpoints.docker.Host}}'",
        "ssh://far",
    );
    far.check("docker -c there run --rm busybox echo again", "again");
    let refused = "2>&1 | grep -o 'exit status .*' | tr '\\n' ' '";
    far.check(
        &format!("docker -H ssh://closed ps {refused}"),
        "exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on \
         the remote host: stderr=root@127.0.0.1: Permission denied (publickey,password).",
    );
    // Docker's client does not say what the far side said here.
    let missing = far.script(Path::new(BINARY), "docker -H ssh://far/nosuch.sock ps");
    assert!(missing.fails(1).contains("unix:///nosuch.sock"));
    far.check("docker -H ssh://closed ps >/dev/null 2>&1; echo $?", "1");
    far.daemon.boxship(&["rm", "-f", "far"]).ok();
    far.daemon.finish();
}
