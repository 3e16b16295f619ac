//! From exec to exit of a first process.

use std::os::fd::AsFd;

use runtime::cgroup::Hierarchies;
use runtime::init::{JoinNamespaces, Stdio, spawn_container};
use runtime::protocol::Failure;
use runtime::spec::*;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::harness::{Case, Container, Image, check, check_failure, run_container};

pub(crate) const CASES: &[Case] = &[
    ("exit_codes", exit_codes),
    ("programs_that_cannot_start", programs_that_cannot_start),
    ("programs_that_only_look_executable", programs_that_only_look_executable),
    ("working_directory", working_directory),
    ("working_directory_tricks", working_directory_tricks),
    ("no_descriptor_is_inherited", no_descriptor_is_inherited),
    ("terminal", terminal),
    ("terminal_with_hostile_names", terminal_with_hostile_names),
    ("init_reaps_and_forwards", init_reaps_and_forwards),
    ("init_exit_codes", init_exit_codes),
    ("own_binary_is_out_of_reach", own_binary_is_out_of_reach),
    ("dies_with_the_supervisor", dies_with_the_supervisor),
    ("joined_namespaces", joined_namespaces),
    ("host_namespaces", host_namespaces),
];

fn exit_codes() {
    let image = Image::new();
    assert_eq!(run_container(image.shell("exit 7")).unwrap().code, 7);
    // Signals without a handler do not reach PID 1 from inside.
    assert_eq!(run_container(image.shell("kill -KILL $$; exit 8")).unwrap().code, 8);
    let mut container = Container::start(image.shell("echo up; exec sleep 1000")).unwrap();
    container.wait_for_line("up");
    assert_eq!(container.kill().code, 137);
}

fn programs_that_cannot_start() {
    let image = Image::new();
    let check = |program: &str, expect: &str| check_failure(image.spec(&[program]), expect);
    check("nosuch", r#"exec: "nosuch": executable file not found in $PATH"#);
    check("", r#"exec: "": executable file not found in $PATH"#);
    check("/nosuch", r#"exec: "/nosuch": stat /nosuch: no such file or directory"#);
    check("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#);
    check("/etc", r#"exec: "/etc": is a directory: permission denied"#);
    check("./etc", r#"exec: "./etc": is a directory: permission denied"#);
    let exec = |program: &str| match run_container(image.spec(&[program])) {
        Err(Failure::Exec { errno, in_path, .. }) => (errno, in_path),
        other => panic!("{other:?}"),
    };
    assert_eq!(exec("nosuch"), (libc::ENOENT, true));
    assert_eq!(exec("/nosuch"), (libc::ENOENT, false));
    assert_eq!(exec("/etc"), (libc::EISDIR, false));
    assert_eq!(exec("/etc/passwd"), (libc::EACCES, false));
}

fn programs_that_only_look_executable() {
    let image = Image::new();
    image.script("garbage", "\0\0\0\0");
    image.script("orphan", "#!/nosuch\n");
    let check = |program: &str, expect: &str| {
        let outcome = run_container(image.spec(&[program])).unwrap();
        assert_eq!((outcome.code, outcome.output.as_str()), (255, expect));
    };
    check("/garbage", "exec /garbage: exec format error\n");
    check("/orphan", "exec /orphan: no such file or directory\n");
}

fn at(image: &Image, cwd: &str, script: &str) -> ContainerSpec {
    let mut spec = image.shell(script);
    spec.process.cwd = cwd.to_owned();
    spec
}

fn working_directory() {
    let image = Image::new();
    check(at(&image, "/new/dir", "pwd; stat -c '%u %a' ."), "/new/dir\n0 755\n");
    check(at(&image, "", "pwd"), "/\n");
    check(at(&image, "relative", "pwd"), "/relative\n");
    check_failure(
        at(&image, "/etc/passwd", "pwd"),
        r#"chdir to cwd ("/etc/passwd") set in config.json failed: not a directory"#,
    );
    // A directory that only root may enter is entered for the user, as in Docker.
    let private = image.path("image/private");
    std::fs::create_dir(&private).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(private, mode).unwrap();
    let mut spec = at(&image, "/private", "readlink /proc/self/cwd");
    spec.process.user = "app".to_owned();
    check(spec, "/private\n");
}

/// Ways out by descriptors that the init stage might have left open (CVE-2024-21626).
fn working_directory_tricks() {
    let image = Image::new();
    for descriptor in 3..40 {
        for suffix in ["", "/..", "/../../..", "/../../../../../../.."] {
            let cwd = format!("/proc/self/fd/{descriptor}{suffix}");
            match run_container(at(&image, &cwd, "pwd; ls -d /bin/busybox")) {
                Err(Failure::Cwd { .. }) => {}
                Ok(outcome) => panic!("{cwd} led to {}", outcome.output),
                Err(other) => panic!("{cwd}: {other}"),
            }
            if descriptor > 16 {
                break;
            }
        }
    }
}

fn no_descriptor_is_inherited() {
    let image = Image::new();
    let leaky = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    check(image.shell("ls /proc/1/fd; true"), "0\n1\n2\n");
}

fn terminal() {
    let image = Image::new();
    let mut spec = image.shell(
        "tty; stty size; stat -c '%a %u:%g' /dev/pts/0; readlink /proc/$$/fd/0; readlink /proc/$$/fd/2; \
         awk '$5 == \"/dev/console\" { print $4, $6 }' /proc/self/mountinfo; \
         [ /dev/console -ef /dev/pts/0 ] && echo same; echo by-tty > /dev/tty; \
         awk '{ print $6, $8 }' /proc/1/stat",
    );
    spec.process.tty = true;
    spec.process.console_size = Some((132, 43));
    let outcome = run_container(spec).unwrap();
    let expect = "\
/dev/pts/0\n43 132\n620 0:5\n/dev/pts/0\n/dev/pts/0\n/0 rw,nosuid,noexec,relatime
same\nby-tty\n1 1\n";
    assert_eq!(outcome.output.replace("\r\n", "\n"), expect);

    let mut spec = image.shell("stat -c %u:%g /dev/pts/0; echo mine > /dev/tty");
    spec.process.tty = true;
    spec.process.user = "app".to_owned();
    let outcome = run_container(spec).unwrap();
    assert_eq!(outcome.output.replace("\r\n", "\n"), "1000:5\nmine\n");
}

/// A volume that covers `/dev` or `/dev/pts` cannot choose what becomes the console.
fn terminal_with_hostile_names() {
    let image = Image::new();
    let volume = image.path("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", volume.join("console")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", volume.join("ptmx")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", volume.join("null")).unwrap();
    for target in ["/dev", "/dev/pts"] {
        let mut spec =
            image.shell("tty 0<&2 >/tty; cat /proc/self/mountinfo | grep -c core_pattern");
        spec.process.tty = true;
        spec.mounts = vec![Mount {
            target: target.to_owned(),
            source: MountSource::Bind {
                path: volume.clone(),
                recursive: true,
                propagation: Propagation::RPrivate,
                within: None,
            },
            readonly: false,
            recursive_readonly: RecursiveReadonly::No,
        }];
        assert_eq!(run_container(spec).unwrap().output, "0\r\n");
    }
}

fn init_reaps_and_forwards() {
    let image = Image::new();
    let script = "trap 'echo got; exit 5' TERM; (sleep 0 & exec sleep 0.01) & echo up; \
        while :; do sleep 0.02; done";
    let mut spec = image.shell(script);
    spec.init = true;
    let mut container = Container::start(spec).unwrap();
    container.wait_for_line("up");
    // The orphan of the subshell is left to PID 1; no zombie may stay.
    let zombies = || {
        let outcome = container
            .exec(crate::harness::process(&["sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l; tr '\\0' ' ' < /proc/1/cmdline | cut -c1-24; cat /proc/1/comm"]))
            .unwrap();
        outcome.output
    };
    let mut seen = zombies();
    while !seen.starts_with("0\n") {
        seen = zombies();
    }
    assert_eq!(seen, "0\n/sbin/docker-init -- sh \ndocker-init\n");
    container.signal(libc::SIGTERM);
    let outcome = container.finish();
    assert_eq!((outcome.code, outcome.output.as_str()), (5, "got\n"));
}

fn init_exit_codes() {
    let image = Image::new();
    let with_init = |args: &[&str]| {
        let mut spec = image.spec(args);
        spec.init = true;
        spec
    };
    let code = |args: &[&str]| run_container(with_init(args)).unwrap().code;
    assert_eq!(code(&["true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 9"]), 9);
    assert_eq!(code(&["sh", "-c", "kill -KILL $$"]), 137);
    check_failure(with_init(&["nosuch"]), r#"exec: "nosuch": executable file not found in $PATH"#);

    let mut spec = with_init(&["sh", "-c", "tty; awk '{ print $5 == $8 }' /proc/self/stat"]);
    spec.process.tty = true;
    spec.process.user = "app".to_owned();
    assert_eq!(run_container(spec).unwrap().output, "/dev/pts/0\r\n1\r\n");
}

/// Neither the small init nor our own executable can be written from inside of a container
/// (CVE-2019-5736), be it by the name in `/proc` or by a descriptor.
fn own_binary_is_out_of_reach() {
    let image = Image::new();
    let script = |pid: u32| {
        format!(
            "exec 3</proc/{pid}/exe; echo x > /proc/{pid}/exe; echo x > /proc/self/fd/3; \
             chmod 777 /proc/{pid}/exe 2>/dev/null || echo kept"
        )
    };
    let mut spec = image.shell(&script(1));
    spec.init = true;
    let refused = |pid, why| {
        format!(
            "sh: can't create /proc/{pid}/exe: {why}\nsh: can't create /proc/self/fd/3: {why}\n"
        )
    };
    let outcome = run_container(spec).unwrap();
    assert_eq!(outcome.output, refused(1, "Text file busy"));

    let own = std::process::id();
    let mut spec = image.shell(&script(own));
    spec.namespaces.pid = Namespace::Host;
    spec.process.seccomp = Seccomp::Unconfined;
    let all = !0;
    let capabilities = &mut spec.process.capabilities;
    (capabilities.bounding, capabilities.effective, capabilities.permitted) = (all, all, all);
    let outcome = run_container(spec).unwrap();
    assert_eq!(outcome.output, refused(own, "Read-only file system") + "kept\n");
}

fn dies_with_the_supervisor() {
    let image = Image::new();
    let spec = image.shell("true");
    let cgroup = Hierarchies::detect().unwrap().create(&spec.cgroup).unwrap();
    let mut pending =
        spawn_container(&spec, &JoinNamespaces::default(), &cgroup, Stdio::Tty).unwrap();
    let pidfd = pending.pidfd.take().unwrap();
    // Closes the supervisor's end without a release.
    drop(pending);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(1));
    while !cgroup.remove().unwrap() {}
}

fn joined_namespaces() {
    let image = Image::new();
    let mut first =
        Container::start(image.shell("touch /dev/shm/of-first; echo up; exec sleep 1000")).unwrap();
    first.wait_for_line("up");
    let pidfd = first.pidfd();
    let other = Image::new();
    let joined = |script: &str| {
        let mut spec = other.shell(script);
        let container = Namespace::Container(first.spec.id.clone());
        spec.hostname = Some("ignored".to_owned());
        spec.namespaces = Namespaces {
            pid: container.clone(),
            ipc: container.clone(),
            uts: container.clone(),
            net: container,
            cgroup: Namespace::Private,
        };
        // The helper is in the network that its process will have.
        let join = JoinNamespaces {
            pid: Some(pidfd.as_fd()),
            ipc: Some(pidfd.as_fd()),
            uts: Some(pidfd.as_fd()),
            net: Some(pidfd.as_fd()),
            ..JoinNamespaces::default()
        };
        Container::start_joined(spec, &join).map(Container::finish)
    };
    let script = "ls /dev/shm; hostname; cat /proc/1/comm; for n in ipc uts net pid; do \
        [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done; \
        ls /proc/$$/fd; grep -c ' /proc/sys ro,' /proc/self/mountinfo; awk '{ print ($6 == $1) }' /proc/$$/stat";
    let outcome = joined(script).unwrap();
    assert_eq!(outcome.output, "of-first\nbox\nsleep\nipc\nuts\nnet\npid\n0\n1\n2\n1\n1\n");
    assert_eq!(outcome.code, 0);
    let failure = joined("").map(drop).and_then(|()| {
        let mut spec = other.spec(&["nosuch"]);
        spec.namespaces.pid = Namespace::Container(first.spec.id.clone());
        let join = JoinNamespaces { pid: Some(pidfd.as_fd()), ..Default::default() };
        Container::start_joined(spec, &join).map(drop)
    });
    assert_eq!(
        failure.unwrap_err().to_string(),
        r#"exec: "nosuch": executable file not found in $PATH"#
    );
    first.kill();
}

fn host_namespaces() {
    let image = Image::new();
    let mut spec = image.shell(
        "for n in pid net uts ipc; do readlink /proc/self/ns/$n; done; stat -f -c %T /dev/shm",
    );
    spec.namespaces = Namespaces {
        pid: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        net: Namespace::Host,
        cgroup: Namespace::Private,
    };
    let mut expect = String::new();
    for name in ["pid", "net", "uts", "ipc"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        expect.push_str(&format!("{}\n", link.display()));
    }
    check(spec, &format!("{expect}tmpfs\n"));
}
