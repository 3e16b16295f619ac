//! Small answers that scripts look at, as Docker Engine 28.5.2 gave them to the same command lines.

use testkit::Daemon;
use testkit::image::Tar;

use crate::daemon;

/// The first line of the error of a command that must fail with this code.
#[track_caller]
fn fails(daemon: &Daemon, code: i32, args: &[&str], text: &str) {
    let output = daemon.docker(args);
    let line = output.stderr.lines().next().unwrap_or_default();
    let line =
        line.trim_start_matches("docker: ").trim_start_matches("Error response from daemon: ");
    assert_eq!((line, output.code), (text, code), "{args:?}");
}

#[test]
fn mounts_that_cannot_be_are_named_as_by_docker() {
    let daemon = daemon();
    let (file, link) = (daemon.root().join("file"), daemon.root().join("broken"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let run = |code: i32, options: &[&str], text: &str| {
        let args = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        fails(&daemon, code, &args, text);
    };
    let link = link.display().to_string();
    run(
        125,
        &["-v", &format!("{link}:/x")],
        &format!("error while creating mount source path '{link}': mkdir {link}: file exists"),
    );
    let over = daemon.docker(&[
        "run",
        "--rm",
        "-v",
        &format!("{}:/etc", file.display()),
        "busybox",
        "true",
    ]);
    let hint = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? \
                Check if the specified host path exists and is the expected type";
    assert!(over.stderr.lines().next().unwrap().ends_with(hint), "{}", over.stderr);
    run(125, &["--tmpfs", "/x:bogus"], "invalid tmpfs option \"bogus\"");
    daemon.docker(&["volume", "create", "vol"]).ok();
    let data = daemon.data_root().join("volumes/vol/_data").display().to_string();
    run(
        127,
        &["--mount", "type=volume,src=vol,dst=/x,volume-subpath=no/such"],
        &format!("cannot access path {data}/no/such: lstat {data}/no: no such file or directory"),
    );
    run(
        125,
        &[
            "-v",
            "vol:/x",
            "--mount",
            "type=volume,src=remote,dst=/y,volume-opt=type=nfs,\
          volume-opt=device=:/y,volume-opt=o=addr=no.such.host.invalid",
        ],
        &format!(
            "error while mounting volume '{}': error resolving passed in network volume address: \
             lookup no.such.host.invalid: no such host",
            data.replace("/vol/", "/remote/")
        ),
    );
    daemon.finish();
}

#[test]
fn images_that_cannot_be_are_named_as_by_docker() {
    let daemon = daemon();
    daemon.docker(&["create", "--name", "cc", "--mount", "type=tmpfs,dst=/x", "busybox"]).ok();
    let inspect = daemon.docker(&["inspect", "-f", "{{json .HostConfig.Tmpfs}}", "cc"]);
    assert_eq!(inspect.ok(), "null");
    for change in ["", "# a comment"] {
        let args = ["commit", "-c", change, "cc", "made"];
        fails(&daemon, 1, &args, "file with no instructions");
    }
    let archive = daemon.root().join("root.tar").display().to_string();
    std::fs::write(&archive, Tar::default().file("f", 0o644, b"x").finish()).unwrap();
    let import =
        |platform: &str| daemon.docker(&["import", "--platform", platform, &archive, "im"]);
    import("linux/arm/v7").ok();
    let shown = ["inspect", "-f", "{{.Os}}/{{.Architecture}}/{{.Variant}}", "im"];
    assert_eq!(daemon.docker(&shown).ok(), "linux/arm/v7");
    let bad = |platform: &str, text: &str| {
        fails(&daemon, 1, &["import", "--platform", platform, &archive, "im"], text);
    };
    bad("foo", "\"foo\": unknown operating system or architecture: invalid argument");
    bad("windows", "operating system is not supported");

    let out = daemon.root().join("out.tar").display().to_string();
    let save = |platform: &'static str| {
        ["save", "-o", &out, "--platform", platform, "busybox"].map(str::to_owned)
    };
    let machine = match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    };
    let args = save(machine);
    daemon.docker(&args.each_ref().map(String::as_str)).ok();
    let args = save("linux/s390x");
    fails(
        &daemon,
        1,
        &args.each_ref().map(String::as_str),
        "no suitable export target found for platform linux/s390x",
    );
    fails(&daemon, 1, &["save", "-o", &out, "none:1"], "reference does not exist");
    fails(&daemon, 1, &["save", "-o", &out, "none"], "No such image: none");
    fails(
        &daemon,
        1,
        &["history", "--platform", "linux/s390x", "busybox"],
        &format!(
            "image with reference busybox was found but its platform ({machine}) does not match \
             the specified platform (linux/s390x)"
        ),
    );
    assert!(!daemon.docker(&["history", "-q", "--platform", machine, "busybox"]).ok().is_empty());
    daemon.finish();
}
