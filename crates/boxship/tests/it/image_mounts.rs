//! `--mount type=image`: the layers of an image, read-only, in a container of another.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::image::{Builder, Tar};

use crate::{daemon, field};

/// Two layers, of which the second replaces and deletes.
fn load_tools(daemon: &Daemon) {
    let mut first = Tar::default();
    first.directory("bin").file("bin/tool", 0o755, b"old").file("bin/gone", 0o644, b"x");
    let mut second = Tar::default();
    second.file("bin/tool", 0o755, b"new").file("bin/.wh.gone", 0o644, b"");
    second.symlink("out", "/etc/passwd").directory("sub").file("sub/deep", 0o644, b"deep");
    let image = Builder::scratch("tools:1").layer(first.finish()).layer(second.finish());
    daemon.load(&image.archive());
    let single = Tar::default().file("only", 0o644, b"one").finish();
    daemon.load(&Builder::scratch("single:1").layer(single).archive());
}

#[track_caller]
fn run(daemon: &Daemon, mount: &str, script: &str) -> String {
    daemon.boxship(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", script]).ok()
}

#[test]
fn an_image_is_mounted_read_only() {
    let daemon = daemon();
    load_tools(&daemon);
    let whole = "type=image,source=tools:1,target=/x";
    let seen = run(&daemon, whole, "cat /x/bin/tool; echo; ls /x /x/bin; touch /x/y 2>&1; true");
    assert_eq!(
        seen,
        "new\n/x:\nbin\nout\nsub\n\n/x/bin:\ntool\ntouch: /x/y: Read-only file system"
    );
    assert_eq!(run(&daemon, "type=image,source=single:1,target=/x", "cat /x/only"), "one");
    // Not even the owner of the machine's capabilities can write to an image.
    let script = "mount -o remount,rw /x; echo evil >/x/only; cat /x/only";
    let privileged = ["run", "--rm", "--privileged", "--mount"];
    let rest = ["type=image,source=single:1,target=/x", "busybox", "sh", "-c", script];
    let output = daemon.boxship(&[&privileged[..], &rest].concat());
    assert_eq!(output.stdout, "one", "{}", output.stderr);
    let part = "type=image,source=tools:1,target=/x,image-subpath=sub";
    assert_eq!(run(&daemon, part, "ls /x; grep -c ' / overlay' /proc/mounts"), "deep\n1");
    let file = "type=image,source=tools:1,target=/deep,image-subpath=sub/deep";
    assert_eq!(run(&daemon, file, "cat /deep"), "deep");
    // A link in the image leads nowhere outside it.
    let link = ["run", "--rm", "--mount", "type=image,source=tools:1,target=/x,image-subpath=out"];
    assert_ne!(daemon.boxship(&[&link[..], &["busybox", "true"]].concat()).code, 0);
    daemon.docker(&["run", "--rm", "--mount", whole, "busybox", "ls", "/x"]).ok();
    daemon.finish();
}

#[test]
fn a_mounted_image_stays() {
    let daemon = daemon();
    load_tools(&daemon);
    let mount = ["--mount", "type=image,source=tools:1,target=/x"];
    let create = [&["create", "--name", "user"], &mount[..], &["busybox", "cat", "/x/bin/tool"]];
    daemon.boxship(&create.concat()).ok();
    let shown: Value = serde_json::from_str(&field(&daemon, "user", "{{json .Mounts}}")).unwrap();
    let shown = &shown[0];
    assert_eq!((&shown["Type"], &shown["Name"]), (&json!("image"), &json!("tools:1")));
    assert_eq!((&shown["RW"], &shown["Propagation"]), (&json!(false), &json!("rprivate")));
    daemon.boxship(&["create", "--name", "heir", "--volumes-from", "user", "busybox"]).ok();
    let (id, image) = (field(&daemon, "user", "{{.Id}}"), field(&daemon, "user", "{{.Image}}"));
    assert_ne!(image, "");
    let refused = daemon.boxship(&["rmi", "tools:1"]).fails(1);
    let text = "conflict: unable to remove repository reference \"tools:1\" (must force)";
    assert!(
        refused.contains(text) && refused.contains("is using its referenced image"),
        "{refused}"
    );
    // It is found in a container that does not run.
    let copied = daemon.boxship(&["cp", "user:/x/bin/tool", "-"]).ok();
    assert!(copied.contains("new"), "{id}");
    // By force it goes, and what has it keeps it.
    daemon.boxship(&["rmi", "-f", "tools:1"]).ok();
    assert_eq!(daemon.boxship(&["start", "-a", "user"]).ok(), "new");
    daemon.boxship(&["rm", "user"]).ok();
    daemon.boxship(&["rm", "heir"]).ok();
    daemon.boxship(&["rmi", "single:1", "busybox"]).ok();
    assert_eq!(std::fs::read_dir(daemon.data_root().join("storage/layers")).unwrap().count(), 0);
    daemon.finish();
}

#[test]
fn image_mounts_are_refused_as_by_docker() {
    let daemon = daemon();
    let create = |version: &str, mount: Value| {
        let body = json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}});
        let answer = daemon.api().post_json(&format!("/{version}/containers/create"), &body);
        let answer = answer.unwrap();
        (answer.status, answer.message())
    };
    let mount = |source: &str, subpath: &str| {
        json!({"Type": "image", "Source": source, "Target": "/x",
            "ImageOptions": {"Subpath": subpath}})
    };
    let missing = (404, "No such image: nope:1".to_owned());
    assert_eq!(create("v1.51", mount("nope:1", "")), missing);
    let old = (400, "Mount type \"Image\" needs API v1.48 or newer".to_owned());
    assert_eq!(create("v1.47", mount("busybox", "")), old);
    let outside = "invalid mount config for type \"image\": subpath must be a relative path within \
                   the volume";
    assert_eq!(create("v1.51", mount("busybox", "../x")), (400, outside.to_owned()));
    assert_eq!(create("v1.51", mount("busybox", "/bin")), (400, outside.to_owned()));
    let output = daemon.boxship(&[
        "run",
        "--rm",
        "--mount",
        "type=image,source=busybox,target=/x,image-subpath=nope",
        "busybox",
        "true",
    ]);
    assert!(output.stderr.contains("no such file or directory"), "{}", output.stderr);
    daemon.finish();
}
