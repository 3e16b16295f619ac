//! What a container sees of filesystems.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use runtime::cgroup::Hierarchies;
use runtime::spec::*;

use crate::harness::{Case, Container, Image, check, check_failure, run_container, strings};

pub(crate) const CASES: &[Case] = &[
    ("standard_mounts", standard_mounts),
    ("dev_is_complete", dev_is_complete),
    ("masked_and_readonly_paths", masked_and_readonly_paths),
    ("links_in_place_of_standard_directories", links_in_place_of_standard_directories),
    ("binds", binds),
    ("bind_failures", bind_failures),
    ("proc_is_not_a_target", proc_is_not_a_target),
    ("tmpfs", tmpfs),
    ("readonly_root", readonly_root),
    ("volatile_root_starts_twice", volatile_root_starts_twice),
    ("directory_root", directory_root),
    ("devices", devices),
    ("privileged_mounts", privileged_mounts),
    ("cgroup_namespace_of_the_host", cgroup_namespace_of_the_host),
    ("shared_propagation", shared_propagation),
    ("upper_layers_win", upper_layers_win),
    ("many_layers", many_layers),
    ("targets_that_move", targets_that_move),
];

fn is_v2() -> bool {
    Hierarchies::detect().unwrap().is_v2()
}

/// Where a container sees one hierarchy, be it the only one.
fn hierarchy() -> &'static str {
    if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" }
}

/// Without another process that would be counted.
fn count_processes(group: &str) -> String {
    format!("n=0; while read p; do n=$((n+1)); done < {group}/cgroup.procs; echo $n")
}

fn standard_mounts() {
    let image = Image::new();
    let script = r#"awk '{ for (i = 7; $i != "-"; i++); print $5, $6, $(i+1), $(i+2) }' \
        /proc/self/mountinfo | grep -v /sys/fs/cgroup/ | sort"#;
    // Not every kernel has it.
    let kcore =
        if Path::new("/proc/kcore").exists() { "/proc/kcore rw,nosuid tmpfs tmpfs\n" } else { "" };
    let cgroup = if is_v2() { "cgroup2 cgroup" } else { "tmpfs tmpfs" };
    let expect = format!(
        "\
/ rw,relatime overlay overlay
/dev rw,nosuid tmpfs tmpfs
/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue mqueue
/dev/pts rw,nosuid,noexec,relatime devpts devpts
/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs shm
/proc rw,nosuid,nodev,noexec,relatime proc proc
/proc/acpi ro,relatime tmpfs tmpfs
/proc/bus ro,nosuid,nodev,noexec,relatime proc proc
/proc/fs ro,nosuid,nodev,noexec,relatime proc proc
/proc/interrupts rw,nosuid tmpfs tmpfs
/proc/irq ro,nosuid,nodev,noexec,relatime proc proc
{kcore}/proc/keys rw,nosuid tmpfs tmpfs
/proc/sys ro,nosuid,nodev,noexec,relatime proc proc
/proc/timer_list rw,nosuid tmpfs tmpfs
/sys ro,nosuid,nodev,noexec,relatime sysfs sysfs
/sys/firmware ro,relatime tmpfs tmpfs
/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime {cgroup}
"
    );
    check(image.shell(script), &expect);
    // Every hierarchy shows the container's own group as its root, read-only.
    let script = "awk '$(NF-2) ~ \"^cgroup\" { print $4, $6 }' /proc/self/mountinfo | sort -u";
    check(image.shell(script), "/ ro,nosuid,nodev,noexec,relatime\n");
    check(image.shell("cut -d: -f3 /proc/self/cgroup | sort -u"), "/\n");
    check(image.shell(&count_processes(hierarchy())), "1\n");
}

fn dev_is_complete() {
    let image = Image::new();
    let expect = "\
crw-rw-rw- 1,7 full\ncrw-rw-rw- 1,3 null\ncrw-rw-rw- 1,8 random\ncrw-rw-rw- 5,0 tty
crw-rw-rw- 1,9 urandom\ncrw-rw-rw- 1,5 zero\n";
    let script =
        "cd /dev; for f in *; do [ -c $f ] && [ ! -L $f ] && stat -c '%A %t,%T %n' $f; done";
    check(image.shell(script), expect);
    let script = "cd /dev; for f in fd stdin stdout stderr ptmx; do echo $f $(readlink $f); done";
    let expect = "\
fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2
ptmx pts/ptmx\n";
    check(image.shell(script), expect);
    check(
        image.shell("stat -c '%a %n' /dev /dev/shm /dev/mqueue /dev/pts/ptmx"),
        "755 /dev\n1777 /dev/shm\n1777 /dev/mqueue\n666 /dev/pts/ptmx\n",
    );
    check(image.shell("echo through > /dev/stdout"), "through\n");
    let mut spec = image.shell("stat -c %F /dev/shm; grep -c shm /proc/self/mountinfo");
    spec.shm_size = 0;
    check(spec, "directory\n0\n");
}

fn masked_and_readonly_paths() {
    let image = Image::new();
    check(
        image.shell("cat /proc/interrupts /proc/keys | wc -c; ls /sys/firmware | wc -l"),
        "0\n0\n",
    );
    let script = "echo x > /proc/sys/kernel/hostname; echo x > /proc/interrupts; \
        echo x > /sys/kernel/mm/ksm/run; touch /sys/firmware/x";
    let refused = "\
sh: can't create /proc/sys/kernel/hostname: Read-only file system
sh: can't create /sys/kernel/mm/ksm/run: Read-only file system
touch: /sys/firmware/x: Read-only file system
";
    check(image.shell(script), refused);
    // The way around by another name of the same file.
    check(
        image.shell("echo x > /proc/self/root/proc/sys/kernel/hostname"),
        "sh: can't create /proc/self/root/proc/sys/kernel/hostname: Read-only file system\n",
    );
}

fn links_in_place_of_standard_directories() {
    for name in ["dev", "proc", "sys"] {
        for target in ["canary", "../canary", "/../../canary", "/etc"] {
            let image = Image::new();
            let canary = image.path("canary");
            fs::create_dir(&canary).unwrap();
            symlink(target, image.path("image").join(name)).unwrap();
            let expect = format!("/{name} of the image is not an ordinary directory");
            check_failure(image.shell("true"), &expect);
            assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
        }
    }
}

fn bind(path: PathBuf, target: &str) -> Mount {
    Mount {
        target: target.to_owned(),
        source: MountSource::Bind {
            path,
            recursive: true,
            propagation: Propagation::RPrivate,
            within: None,
        },
        readonly: false,
        recursive_readonly: RecursiveReadonly::IfPossible,
    }
}

fn binds() {
    let image = Image::new();
    let volume = image.path("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("file"), "of the host\n").unwrap();
    symlink("/run/none/stub", image.path("image/etc/resolv.conf")).unwrap();

    let with = |script: &str, mounts: Vec<Mount>| {
        let mut spec = image.shell(script);
        spec.mounts = mounts;
        spec
    };
    let directory = || bind(volume.clone(), "/deep/er/volume");
    check(with("cat /deep/er/volume/file", vec![directory()]), "of the host\n");
    let readonly = Mount { readonly: true, ..directory() };
    check(
        with("touch /deep/er/volume/x", vec![readonly]),
        "touch: /deep/er/volume/x: Read-only file system\n",
    );
    // A file onto a new file, onto an existing one, and where a dangling link leads.
    let file = |target: &str| bind(volume.join("file"), target);
    let targets = ["/etc/hosts", "/etc/group", "/etc/resolv.conf"];
    let script = "cat /etc/hosts /etc/group /etc/resolv.conf /run/none/stub";
    check(with(script, targets.map(file).to_vec()), &"of the host\n".repeat(4));
    // Below another mount, through a link inside of it that points to the top.
    symlink("/", volume.join("top")).unwrap();
    let nested = bind(volume.join("file"), "/deep/er/volume/top/etc/motd");
    check(with("cat /etc/motd", vec![directory(), nested]), "of the host\n");
    // A part of a volume; a link out of the volume stays in.
    symlink("/etc", volume.join("sub/out")).unwrap();
    let part = |path: &str| {
        let mut mount = bind(path.into(), "/part");
        if let MountSource::Bind { within, .. } = &mut mount.source {
            *within = Some(volume.clone());
        }
        mount
    };
    check(with("ls /part", vec![part("sub")]), "out\n");
    let outside = run_container(with("ls /part", vec![part("sub/out")])).unwrap_err();
    assert_eq!(
        outside.to_string(),
        r#"error mounting "sub/out" to rootfs at "/part": no such file or directory"#
    );
}

fn bind_failures() {
    let image = Image::new();
    let with = |mount: Mount| {
        let mut spec = image.shell("true");
        spec.mounts = vec![mount];
        spec
    };
    check_failure(
        with(bind("/nosuch/thing".into(), "/x")),
        r#"error mounting "/nosuch/thing" to rootfs at "/x": no such file or directory"#,
    );
    check_failure(
        with(bind("/etc/hostname".into(), "/etc")),
        r#"error mounting "/etc/hostname" to rootfs at "/etc": not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"#,
    );
    check_failure(
        with(bind("/etc".into(), "/etc/passwd")),
        r#"error mounting "/etc" to rootfs at "/etc/passwd": not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"#,
    );
}

fn proc_is_not_a_target() {
    let image = Image::new();
    symlink("proc", image.path("image/alias")).unwrap();
    let refused = |target: &str, source: MountSource, text: &str| {
        let mut spec = image.shell("true");
        spec.mounts = vec![Mount {
            target: target.to_owned(),
            source,
            readonly: false,
            recursive_readonly: RecursiveReadonly::No,
        }];
        let failure = run_container(spec).unwrap_err().to_string();
        assert!(failure.ends_with(text), "{target}: {failure}");
    };
    let inside = "cannot be mounted because it is inside /proc";
    for target in ["/proc", "/proc/self", "/proc/sys", "/proc/../proc/1", "/alias", "/alias/self"] {
        refused(target, bind("/tmp".into(), "").source, inside);
        refused(target, MountSource::Tmpfs { options: Vec::new() }, inside);
    }
    let exe = bind("/etc/hostname".into(), "").source;
    refused("/proc/self/exe", exe, "too many levels of symbolic links");
    refused("/proc/x", MountSource::Tmpfs { options: Vec::new() }, "no such file or directory");

    let mut spec = image.shell("cat /proc/uptime");
    fs::write(image.path("uptime"), "1 1\n").unwrap();
    spec.mounts = vec![bind(image.path("uptime"), "/proc/uptime")];
    check(spec, "1 1\n");
}

fn tmpfs() {
    let image = Image::new();
    fs::create_dir(image.path("image/kept")).unwrap();
    let mount = |target: &str, options: &[&str]| Mount {
        target: target.to_owned(),
        source: MountSource::Tmpfs { options: strings(options) },
        readonly: false,
        recursive_readonly: RecursiveReadonly::No,
    };
    // Some kernels say how wide their inode numbers are.
    let mut spec = image.shell(
        "stat -c %a /new /kept /sized; awk '$5 == \"/sized\" \
         { sub(/,inode(32|64)$/, \"\", $NF); print $6, $NF }' /proc/self/mountinfo",
    );
    spec.mounts = vec![
        mount("/new", &[]),
        mount("/kept", &[]),
        mount("/sized", &["size=1m,exec", "mode=700", "ro"]),
    ];
    check(spec, "1777\n755\n700\nro,nosuid,nodev,relatime rw,size=1024k,mode=700\n");
}

fn readonly_root() {
    let image = Image::new();
    let mut spec = image.shell("touch /x; touch /dev/shm/y && pwd");
    spec.readonly_rootfs = true;
    spec.process.cwd = "/made/here".to_owned();
    check(spec, "touch: /x: Read-only file system\n/made/here\n");
}

fn volatile_root_starts_twice() {
    let image = Image::new();
    for expect in ["", "first\n"] {
        let mut spec = image.shell("cat /mark 2>/dev/null; echo first > /mark");
        if let Rootfs::Overlay { volatile, .. } = &mut spec.rootfs {
            *volatile = true;
        }
        check(spec, expect);
    }
}

fn directory_root() {
    let image = Image::new();
    let mut spec = image.shell("echo here > /made; cat /made");
    spec.rootfs = Rootfs::Directory { path: image.path("image") };
    check(spec, "here\n");
    assert_eq!(fs::read_to_string(image.path("image/made")).unwrap(), "here\n");
}

fn devices() {
    let image = Image::new();
    let node = |path: &str, major, minor| DeviceNode {
        path: path.to_owned(),
        kind: DeviceKind::Char,
        major,
        minor,
        mode: 0o640,
        uid: 3,
        gid: 4,
    };
    for _start in 0..2 {
        let mut spec = image.shell("stat -c '%A %u:%g %t,%T %n' /dev/net/tun /dev/null /odd");
        spec.devices =
            vec![node("/dev/net/tun", 10, 200), node("/dev/null", 1, 3), node("/odd", 1, 5)];
        check(
            spec,
            "crw-r----- 3:4 a,c8 /dev/net/tun\ncrw-rw-rw- 3:4 1,3 /dev/null\ncrw-r----- 3:4 1,5 /odd\n",
        );
    }
    let mut spec = image.shell("true");
    spec.devices = vec![node("/etc/passwd", 1, 3)];
    check_failure(spec, "make device /etc/passwd: file exists");
}

fn privileged_mounts() {
    let image = Image::new();
    let inner = format!("{}/inner", hierarchy());
    let mut spec = image.shell(&format!(
        "awk '$5 ~ \"^/sys\" {{ print $6 }}' /proc/self/mountinfo | sort -u; \
         mkdir {inner} && ls -d {inner}"
    ));
    spec.privileged = true;
    spec.masked_paths.clear();
    spec.readonly_paths.clear();
    let mut container = Container::start(spec).unwrap();
    container.wait_for_line("rw,nosuid,nodev,noexec,relatime");
    let cgroup = container.spec.cgroup.path.clone();
    assert_eq!(container.process.finish().output, format!("{inner}\n"));
    fs::remove_dir(Path::new(hierarchy()).join(cgroup).join("inner")).unwrap();
}

/// The container sees its path below the host's root. What is mounted is its own group on v1, the
/// whole tree on v2, as in Docker.
fn cgroup_namespace_of_the_host() {
    let image = Image::new();
    let hierarchy = hierarchy();
    let mut spec = image.shell("");
    let path = format!("/{}", spec.cgroup.path);
    let (root, own, line) = if is_v2() {
        ("/", format!("{hierarchy}{path}"), "^0::")
    } else {
        (&*path, hierarchy.to_owned(), ":pids:")
    };
    spec.process.args[2] = format!(
        "awk '$5 == \"{hierarchy}\" {{ print $4, $6 }}' /proc/self/mountinfo; \
         grep {line} /proc/self/cgroup | cut -d: -f3; {}",
        count_processes(&own)
    );
    spec.namespaces.cgroup = Namespace::Host;
    check(spec, &format!("{root} ro,nosuid,nodev,noexec,relatime\n{path}\n1\n"));
}

/// A mount made inside a shared volume reaches the volume's peer on the host, and no other does.
fn shared_propagation() {
    let image = Image::new();
    let volume = image.path("volume");
    fs::create_dir_all(volume.join("inner")).unwrap();
    // A mount namespace of our own stands for the host.
    let here = rustix::fs::open(
        "/proc/self/ns/mnt",
        rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    sys::process::unshare(sys::process::UnshareFlags::NEWNS).unwrap();
    use rustix::mount::{MountPropagationFlags as Flags, mount_bind, mount_change};
    mount_change("/", Flags::PRIVATE | Flags::REC).unwrap();
    mount_bind(&volume, &volume).unwrap();
    let outcome = |asked: Propagation| {
        mount_change(&volume, Flags::SHARED).unwrap();
        let mut mount = bind(volume.clone(), "/volume");
        if let MountSource::Bind { propagation, .. } = &mut mount.source {
            *propagation = asked;
        }
        let mut spec = image.shell("mount -t tmpfs none /volume/inner && touch /volume/inner/x");
        spec.mounts = vec![mount];
        let all = !0;
        spec.process.capabilities = Capabilities {
            bounding: all,
            effective: all,
            permitted: all,
            inheritable: 0,
            ambient: 0,
        };
        let outcome = run_container(spec).unwrap();
        assert_eq!((outcome.code, outcome.output.as_str()), (0, ""));
        let seen = volume.join("inner/x").exists();
        if seen {
            rustix::mount::unmount(volume.join("inner"), rustix::mount::UnmountFlags::DETACH)
                .unwrap();
        }
        seen
    };
    assert!(outcome(Propagation::RShared));
    assert!(!outcome(Propagation::RSlave));
    assert!(!outcome(Propagation::RPrivate));
    use std::os::fd::AsFd;
    rustix::thread::move_into_link_name_space(here.as_fd(), None).unwrap();
}

fn upper_layers_win() {
    let image = Image::new();
    for (layer, text) in [("top:most", "top"), ("middle", "middle")] {
        fs::create_dir(image.path(layer)).unwrap();
        fs::write(image.path(layer).join("who"), format!("{text}\n")).unwrap();
    }
    fs::write(image.path("middle/also"), "middle\n").unwrap();
    let mut spec = image.shell("cat /who /also");
    if let Rootfs::Overlay { lower, .. } = &mut spec.rootfs {
        lower.insert(0, image.path("top:most"));
        lower.insert(1, image.path("middle"));
    }
    check(spec, "top\nmiddle\n");
}

/// Kernels before 6.8 take all layers in one option of at most 255 bytes.
fn many_layers() {
    let image = Image::new();
    let mut spec = image.shell("cat /who; ls /etc/layers | wc -l");
    let Rootfs::Overlay { lower, .. } = &mut spec.rootfs else { unreachable!() };
    for number in 0..100 {
        let layer = image.path(&format!("layer:{number}{}", "-long".repeat(20)));
        fs::create_dir_all(layer.join("etc/layers")).unwrap();
        fs::write(layer.join("who"), format!("{number}\n")).unwrap();
        fs::write(layer.join(format!("etc/layers/{number}")), "").unwrap();
        lower.insert(0, layer);
    }
    check(spec, "99\n100\n");
}

/// Somebody exchanges a directory of a shared volume with a link to a directory of the host while
/// containers mount and make things below it (CVE-2021-30465, CVE-2024-45310).
fn targets_that_move() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use sys::process::{ForkOptions, Forked, fork};
    let image = Image::new();
    let volume = image.path("volume");
    let canary = image.path("canary");
    fs::create_dir_all(volume.join("moving")).unwrap();
    fs::create_dir(&canary).unwrap();
    symlink(&canary, volume.join("link")).unwrap();
    let (one, other) = (volume.join("moving"), volume.join("link"));
    let Forked::Parent { pid, pidfd } = fork(&ForkOptions::default()).unwrap() else {
        loop {
            renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).ok();
        }
    };
    for round in 0..100 {
        let mut spec = image.shell("true");
        spec.mounts = vec![
            bind(volume.clone(), "/volume"),
            bind("/etc".into(), &format!("/volume/moving/directory-{round}")),
            bind("/etc/hostname".into(), &format!("/volume/moving/file-{round}")),
        ];
        // Whether it starts is up to the race.
        drop(run_container(spec));
    }
    sys::process::kill(pid, libc::SIGKILL).unwrap();
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}
