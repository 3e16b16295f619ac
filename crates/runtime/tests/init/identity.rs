//! Users, capabilities, limits, sysctls, names.

use runtime::init::{JoinNamespaces, Stdio, spawn_container};
use runtime::protocol::Failure;
use runtime::spec::*;

use crate::harness::{Case, Image, check, check_failure, run_container, strings};

pub(crate) const CASES: &[Case] = &[
    ("users", users),
    ("unusual_passwd", unusual_passwd),
    ("capabilities", capabilities),
    ("ambient_capabilities", ambient_capabilities),
    ("no_new_privileges", no_new_privileges),
    ("seccomp_is_loaded", seccomp_is_loaded),
    ("limits", limits),
    ("sysctls", sysctls),
    ("names", names),
    ("stdio_belongs_to_the_user", stdio_belongs_to_the_user),
    ("environment", environment),
    ("signals_are_default", signals_are_default),
];

fn as_user(image: &Image, user: &str, script: &str) -> ContainerSpec {
    let mut spec = image.shell(script);
    spec.process.user = user.to_owned();
    spec
}

fn users() {
    let image = Image::new();
    let ids = "id -u; id -g; id -G; echo $HOME";
    check(as_user(&image, "", ids), "0\n0\n0\n/root\n");
    check(as_user(&image, "app", ids), "1000\n1001\n1001 33\n/home/app\n");
    check(as_user(&image, "1000:33", ids), "1000\n33\n33\n/home/app\n");
    check(as_user(&image, "77", ids), "77\n0\n0\n/\n");
    let mut spec = as_user(&image, "app", ids);
    spec.process.additional_groups = strings(&["www", "4000"]);
    check(spec, "1000\n1001\n1001 33 4000\n/home/app\n");
    check_failure(
        as_user(&image, "nobody", ids),
        "unable to find user nobody: no matching entries in passwd file",
    );
    check_failure(
        as_user(&image, "4294967296", ids),
        "uids and gids must be in range 0-2147483647",
    );
}

fn unusual_passwd() {
    let image = Image::new();
    std::fs::remove_file(image.path("image/etc/passwd")).unwrap();
    check(as_user(&image, "", "id -u; echo $HOME"), "0\n/\n");
    // Reading the kernel's log would block or steal messages.
    std::os::unix::fs::symlink("/proc/kmsg", image.path("image/etc/passwd")).unwrap();
    check_failure(as_user(&image, "app", "id"), "/etc/passwd of the image is not a regular file");
}

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'";

fn capabilities() {
    let image = Image::new();
    let mut spec = image.shell(STATUS);
    spec.process.seccomp = Seccomp::Unconfined;
    let expect = "\
CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb
CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:0\n";
    check(spec, expect);
    let mut spec = as_user(&image, "app", STATUS);
    spec.process.seccomp = Seccomp::Unconfined;
    let expect = "\
CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000
CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:0\n";
    check(spec, expect);
}

fn ambient_capabilities() {
    let image = Image::new();
    let mut spec =
        as_user(&image, "app", "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2");
    let bind_low_ports = 1 << 10;
    spec.process.capabilities.inheritable = bind_low_ports;
    spec.process.capabilities.ambient = bind_low_ports;
    check(spec, &"0000000000000400\n".repeat(4));
}

fn no_new_privileges() {
    let image = Image::new();
    let mut spec = as_user(&image, "app", "grep NoNewPrivs /proc/self/status | cut -f2");
    spec.process.no_new_privileges = true;
    check(spec, "1\n");
}

fn seccomp_is_loaded() {
    let image = Image::new();
    for user in ["", "app"] {
        check(as_user(&image, user, "grep Seccomp: /proc/self/status | cut -f2"), "2\n");
    }
    let mut spec = image.shell("mkdir /x; echo done");
    spec.process.seccomp = Seccomp::Profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#
            .to_owned(),
    );
    check(spec, "mkdir: can't create directory '/x': Operation not permitted\ndone\n");
    let mut spec = image.shell("true");
    spec.process.seccomp = Seccomp::Profile("{".to_owned());
    assert!(matches!(run_container(spec), Err(Failure::Invalid { .. })));
}

fn limits() {
    let image = Image::new();
    let limit = |name: &str, soft, hard| Rlimit { name: name.to_owned(), soft, hard };
    let mut spec =
        image.shell("ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; umask");
    spec.process.rlimits = vec![limit("nofile", 100, 200), limit("core", 0, 0)];
    spec.process.oom_score_adj = Some(321);
    check(spec, "100\n200\n0\n321\n0022\n");
    let mut spec = image.shell("true");
    spec.process.rlimits = vec![limit("nofiles", 1, 1)];
    check_failure(spec, "invalid ulimit type: nofiles");
}

fn sysctls() {
    let image = Image::new();
    let with = |name: &str, value: &str| {
        let mut spec = image.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
        spec.sysctls.insert(name.to_owned(), value.to_owned());
        spec
    };
    check(with("net.ipv4.ip_unprivileged_port_start", "0"), "0\n");
    check_failure(
        with("kernel.core_pattern", "|/evil"),
        "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace",
    );
    check_failure(
        with("net.ipv4.ip_forward", "zz"),
        "failed to write sysctl net.ipv4.ip_forward = \"zz\": invalid argument",
    );
    check_failure(
        with("net.ipv4.nosuch", "1"),
        "open sysctl net.ipv4.nosuch file: no such file or directory",
    );
}

fn names() {
    let image = Image::new();
    let mut spec =
        image.shell("hostname; cat /proc/sys/kernel/domainname; ifconfig lo | grep -c UP");
    spec.domainname = Some("example".to_owned());
    check(spec, "box\nexample\n1\n");
}

fn stdio_belongs_to_the_user() {
    let image = Image::new();
    check(
        as_user(&image, "app", "echo again > /dev/stdout; stat -L -c %u /dev/stderr"),
        "again\n1000\n",
    );
}

fn environment() {
    let image = Image::new();
    let mut spec = image.spec(&["env"]);
    spec.process.env = strings(&["PATH=/bin", "HOME=", "A=b=c"]);
    check(spec, "PATH=/bin\nA=b=c\nHOME=/root\n");
    let mut spec = image.spec(&["env", "\0"]);
    assert!(matches!(run_container(spec.clone()), Err(Failure::Invalid { .. })));
    spec.process.args.clear();
    check_failure(spec, "no command specified");
    // What is refused before the clone leaves no process.
    let mut spec = image.shell("true");
    spec.namespaces.pid = Namespace::Container(spec.id.clone());
    let cgroup = runtime::cgroup::Hierarchies::detect().unwrap().create(&spec.cgroup).unwrap();
    spawn_container(&spec, &JoinNamespaces::default(), &cgroup, Stdio::Tty).unwrap_err();
    while !cgroup.remove().unwrap() {}
}

fn signals_are_default() {
    let image = Image::new();
    sys::process::ignore_signal(libc::SIGUSR1);
    check(
        image.shell("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2 | sort -u"),
        "0000000000000000\n",
    );
}
