//! Volume plugins: a real one, in the daemon's namespaces, that does what Docker's plugins do, or
//! refuses, or hangs, or is gone.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Daemon, wait_until};

use crate::{daemon, field};

/// A plugin process that listens where the daemon looks. `/run` is the daemon's own, so that tests
/// do not see each other's plugins.
struct Plugin<'a> {
    daemon: &'a Daemon,
    name: &'static str,
    process: Option<Child>,
}

impl<'a> Plugin<'a> {
    fn start(daemon: &'a Daemon, name: &'static str) -> Self {
        let mut mount = daemon.inside("mount");
        assert!(mount.args(["-t", "tmpfs", "tmpfs", "/run"]).status().unwrap().success());
        let mut plugin = Self { daemon, name, process: None };
        std::fs::create_dir_all(plugin.root()).unwrap();
        plugin.launch();
        plugin
    }

    fn launch(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/volume_plugin.py");
        let socket = format!("/run/docker/plugins/{}.sock", self.name);
        let mut command = self.daemon.inside("python3");
        command.arg(script).arg(&socket).arg(self.root()).arg(self.log_path());
        self.process = Some(command.spawn().unwrap());
        wait_until("the plugin's socket", || {
            let listens = self.daemon.inside("test").args(["-S", &socket]).status();
            listens.unwrap().success().then_some(())
        });
    }

    fn root(&self) -> PathBuf {
        self.daemon.root().join("plugin")
    }

    fn log_path(&self) -> PathBuf {
        self.daemon.root().join("plugin.log")
    }

    /// What it was asked since the last look, as `Method name`.
    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        std::fs::write(self.log_path(), "").unwrap();
        let first_two = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        text.lines().map(first_two).filter(|line| !line.starts_with("Get ")).collect()
    }

    /// The ids of `Mount` or `Unmount`, all since the start.
    fn ids(&self, method: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[0] == method).map(|words| words[2].to_owned()).collect()
    }

    fn control(&self, control: &Value) {
        let path = self.root().join(".control");
        std::fs::write(path.with_extension("new"), control.to_string()).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Plugin<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn refused(output: testkit::Output, text: &str) {
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert_eq!(output.stderr.lines().next().unwrap_or_default(), text);
}

fn soon(what: impl FnOnce()) {
    let begun = Instant::now();
    what();
    assert!(begun.elapsed() < Duration::from_secs(12), "took {:?}", begun.elapsed());
}

#[test]
fn a_plugins_volume_lives_as_dockers() {
    let daemon = daemon();
    let plugin = Plugin::start(&daemon, "store");
    let made =
        daemon.docker(&["volume", "create", "-d", "store", "-o", "a=b", "--label", "l=1", "pv"]);
    assert_eq!(made.ok(), "pv");
    assert_eq!(plugin.asked(), ["Activate -", "Capabilities -", "Create pv"]);
    let shown = daemon.docker(&["volume", "inspect", "pv"]).ok();
    let expect = json!([{
        "CreatedAt": "2020-01-02T03:04:05Z", "Driver": "store", "Labels": {"l": "1"},
        "Mountpoint": plugin.root().join("pv"), "Name": "pv", "Options": {"a": "b"},
        "Scope": "global", "Status": {"opts": {"a": "b"}},
    }]);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expect);
    daemon.docker(&["volume", "create", "own"]).ok();
    let listed = daemon.docker(&["volume", "ls", "--format", "{{.Driver}} {{.Name}}"]).ok();
    assert_eq!(listed, "local own\nstore pv");
    assert_eq!(daemon.docker(&["volume", "ls", "-qf", "driver=store"]).ok(), "pv");
    assert_eq!(daemon.docker(&["info", "-f", "{{.Plugins.Volume}}"]).ok(), "[local store]");
    plugin.asked();

    // Empty, so it is filled from the image; then the container's own mount.
    let run = ["run", "--rm", "-v", "pv:/etc", "busybox", "sh", "-c", "echo 1 >/etc/new; ls /etc"];
    assert!(daemon.docker(&run).ok().contains("passwd"));
    assert_eq!(plugin.asked(), ["Mount pv", "Unmount pv", "Mount pv", "Unmount pv"]);
    assert!(plugin.root().join("pv/new").exists());
    let names = ["-v", "pv:/a", "-v", "new:/n", "-v", "/anon"];
    let create = ["create", "--name", "cc", "--volume-driver", "store"];
    daemon.docker(&[&create[..], &names, &["busybox"]].concat()).ok();
    let mounts: Value = serde_json::from_str(&field(&daemon, "cc", "{{json .Mounts}}")).unwrap();
    let drivers: Vec<_> = mounts.as_array().unwrap().iter().map(|mount| &mount["Driver"]).collect();
    assert_eq!(drivers, ["store"; 3], "{mounts}");
    assert_eq!((&mounts[0]["Source"], &mounts[0]["Mode"]), (&json!(""), &json!("")));
    let in_use = daemon.docker(&["volume", "rm", "pv"]);
    assert!(in_use.stderr.contains("remove pv: volume is in use - ["), "{}", in_use.stderr);
    daemon.docker(&["cp", "/etc/hostname", "cc:/a/copied"]).ok();
    assert!(plugin.root().join("pv/copied").exists());
    // What was mounted for the copy is given back a moment later.
    let mounted = plugin.ids("Mount").len();
    wait_until("the unmounts", || (plugin.ids("Unmount").len() == mounted).then_some(()));
    plugin.asked();
    daemon.docker(&["rm", "-v", "cc"]).ok();
    let anonymous = mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == "/anon");
    let anonymous = anonymous.unwrap()["Name"].as_str().unwrap();
    assert_eq!(plugin.asked(), [format!("Remove {anonymous}")]);
    // Docker prunes its own only.
    daemon.docker(&["volume", "prune", "-af"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "new\npv");
    daemon.docker(&["volume", "rm", "pv", "new"]).ok();
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "");
    drop(plugin);
    daemon.finish();
}

#[test]
fn what_a_plugin_refuses_is_said_in_its_words() {
    let daemon = daemon();
    let plugin = Plugin::start(&daemon, "store");
    let docker = |args: &[&str]| daemon.docker(args);
    let error = |text: &str| format!("Error response from daemon: {text}");
    docker(&["volume", "create", "-d", "store", "pv"]).ok();
    docker(&["volume", "create", "own"]).ok();
    let taken = "already has volume";
    refused(
        docker(&["volume", "create", "pv"]),
        &error(&format!("create pv: driver 'store' {taken} 'pv': volume name must be unique")),
    );
    refused(
        docker(&["volume", "create", "-d", "store", "own"]),
        &error(&format!("create own: driver 'local' {taken} 'own': volume name must be unique")),
    );
    plugin.control(&json!({
        "Create": {"answer": {"Err": "no space today"}}, "Mount": {"answer": {"Err": "not now"}},
        "Remove": {"answer": {"Err": "I will not"}}, "List": {"answer": {"Err": "cannot list"}},
    }));
    refused(
        docker(&["volume", "create", "-d", "store", "other"]),
        &error("create other: no space today"),
    );
    refused(docker(&["volume", "rm", "pv"]), &error("remove pv: I will not"));
    let place = plugin.root().join("pv");
    refused(
        docker(&["run", "--rm", "-v", "pv:/x", "busybox", "true"]),
        &format!(
            "docker: {}",
            error(&format!("error while mounting volume '{}': not now", place.display()))
        ),
    );
    let list = daemon.api().get("/v1.51/volumes").unwrap().json();
    assert_eq!(list["Warnings"], json!(["list store: cannot list"]));
    let names: Vec<_> = list["Volumes"].as_array().unwrap().iter().map(|v| &v["Name"]).collect();
    assert_eq!(names, ["own", "pv"]);
    // Force means that we, at least, forget it.
    docker(&["volume", "rm", "-f", "pv"]).ok();
    plugin.control(&json!({"List": {"answer": {"Volumes": [{"Name": "there"}, {"Name": "own"}]}}}));
    // What only the plugin knows of is listed; a name that is ours stays ours.
    let listed = docker(&["volume", "ls", "--format", "{{.Driver}} {{.Name}}"]).ok();
    assert_eq!(listed, "local own\nstore there");
    plugin.control(&json!({}));
    assert_eq!(docker(&["run", "--rm", "-v", "pv:/x", "busybox", "echo", "1"]).ok(), "1");
    assert_eq!(docker(&["volume", "inspect", "-f", "{{.Driver}}", "pv"]).ok(), "store");
    drop(plugin);
    daemon.finish();
}

#[test]
fn a_plugin_that_is_gone_or_hangs_holds_nobody_up() {
    let daemon = daemon();
    let mut plugin = Plugin::start(&daemon, "store");
    let docker = |args: &[&str]| daemon.docker(args);
    docker(&["volume", "create", "-d", "store", "--label", "l=1", "pv"]).ok();
    docker(&["run", "-d", "--name", "cc", "-v", "pv:/data", "busybox", "sleep", "1000"]).ok();
    let hang = json!({"sleep": 60});
    plugin.control(&json!({"List": hang, "Get": hang, "Unmount": hang}));
    soon(|| assert_eq!(docker(&["volume", "ls", "-qf", "label=l=1"]).ok(), "pv"));
    soon(|| assert_eq!(docker(&["ps", "-q"]).ok().len(), 12));
    soon(|| drop(docker(&["rm", "-f", "cc"]).ok()));
    plugin.kill();
    let socket = "/run/docker/plugins/store.sock";
    let dial = format!("dial unix {socket}: connect: connection refused");
    let get = |attempt: &str| {
        format!(
            "error while checking if volume \"pv\" exists in driver \"store\": Post \
             \"http://plugin.moby.localhost/VolumeDriver.Get\": {attempt}"
        )
    };
    soon(|| assert_eq!(docker(&["volume", "ls", "-q"]).ok(), "pv"));
    let warning = &daemon.api().get("/v1.51/volumes").unwrap().json()["Warnings"][0];
    let post = "Post \"http://plugin.moby.localhost/VolumeDriver.List\"";
    assert_eq!(warning, &json!(format!("list store: {post}: {dial}")));
    soon(|| {
        refused(
            docker(&["volume", "rm", "pv"]),
            &format!("Error response from daemon: get pv: {}", get(&dial)),
        );
    });
    soon(|| {
        let found = "found reference to volume 'pv' in driver 'store', but got an error while \
                     checking the driver: ";
        refused(
            docker(&["volume", "create", "-d", "store", "pv"]),
            &format!(
                "Error response from daemon: create pv: {found}{}: volume name must be unique",
                get(&dial)
            ),
        );
    });
    // Back again, it hears of the unmount that it missed, under the id of the mount.
    plugin.control(&json!({}));
    plugin.launch();
    let mounts = plugin.ids("Mount");
    wait_until("the unmount", || {
        plugin.ids("Unmount").iter().rev().take(1).eq(&mounts).then_some(())
    });
    docker(&["volume", "rm", "pv"]).ok();
    drop(plugin);
    daemon.finish();
}

#[test]
fn a_mount_ends_though_the_daemon_was_killed() {
    let mut daemon = daemon();
    let root = daemon.root().join("plugin");
    let plugin = Plugin::start(&daemon, "store");
    let ran = |name: &str, script: &str| {
        let args = ["run", "-d", "--name", name, "-v", "pv:/data", "--volume-driver", "store"];
        daemon.docker(&[&args[..], &["busybox", "sh", "-c", script]].concat()).ok();
    };
    ran("stays", "sleep 1000");
    ran("ends", "until [ -e /data/end ]; do sleep 0.05; done");
    let mounts = plugin.ids("Mount");
    assert_eq!(mounts.len(), 2);
    let process = std::mem::ManuallyDrop::new(plugin).process.take();
    daemon.kill();
    std::fs::write(root.join("pv/end"), "").unwrap();
    daemon.launch();
    let plugin = Plugin { daemon: &daemon, name: "store", process };
    daemon.docker(&["wait", "ends"]).ok();
    wait_until("the unmount", || (!plugin.ids("Unmount").is_empty()).then_some(()));
    assert_eq!(plugin.ids("Unmount"), mounts[1..]);
    assert_eq!(
        field(&daemon, "stays", "{{(index .Mounts 0).Source}}"),
        root.join("pv").to_string_lossy()
    );
    daemon.docker(&["exec", "stays", "touch", "/data/written"]).ok();
    daemon.docker(&["rm", "-f", "stays", "ends"]).ok();
    assert_eq!(plugin.ids("Unmount"), [&mounts[1][..], &mounts[0]]);
    assert!(root.join("pv/written").exists());
    daemon.docker(&["volume", "rm", "pv"]).ok();
    drop(plugin);
    daemon.finish();
}
