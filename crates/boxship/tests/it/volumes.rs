//! Volumes: the API's, the command line's, Docker's client's; the articles' checks S28 to S33, and
//! the security cases of the class V, by id.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::image::{Builder, Tar};
use testkit::{Daemon, wait_until};

use crate::{daemon, field, run_detached};

fn data(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.data_root().join("volumes").join(name).join("_data")
}

/// Runs a script in a new container with these options; its output.
#[track_caller]
fn run(daemon: &Daemon, options: &[&str], script: &str) -> String {
    let mut args = vec!["run", "--rm"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    daemon.boxship(&args).ok()
}

#[track_caller]
fn refused(output: testkit::Output, text: &str) {
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert!(output.stderr.contains(text), "{}", output.stderr);
}

fn volumes(daemon: &Daemon) -> String {
    daemon.boxship(&["volume", "ls", "-q"]).ok()
}

fn post(daemon: &Daemon, body: &Value) -> testkit::Response {
    daemon.api().post_json("/v1.51/volumes/create", body).unwrap()
}

/// An image with a volume that is not empty and not root's.
fn image_with_volume(daemon: &Daemon) {
    let mut layer = Tar::default();
    layer.directory("srv").entry("srv/data", tar::EntryType::Directory, "", 0o1770, b"");
    layer.file("srv/data/seed", 0o640, b"from the image").symlink("srv/data/out", "/etc/passwd");
    let image = Builder::busybox("seeded:1").layer(layer.finish());
    daemon.load(&image.set("Volumes", json!({"/srv/data": {}})).archive());
}

#[test]
fn volumes_answer_as_dockers() {
    let daemon = daemon();
    let made = post(&daemon, &json!({"Name": "hv1", "Labels": {"a": "b"}, "DriverOpts": {}}));
    let mut shown = made.json();
    assert!(shown["CreatedAt"].as_str().unwrap().ends_with('Z'), "{shown}");
    shown["CreatedAt"] = json!("");
    let expect = json!({
        "CreatedAt": "", "Driver": "local", "Labels": {"a": "b"},
        "Mountpoint": data(&daemon, "hv1"), "Name": "hv1", "Options": {}, "Scope": "local",
    });
    assert_eq!((made.status, shown), (201, expect.clone()));
    // The second create finds the first.
    let again = post(&daemon, &json!({"Name": "hv1", "Labels": {"c": "d"}}));
    assert_eq!((again.status, &again.json()["Labels"]), (201, &expect["Labels"]));
    let anonymous = post(&daemon, &json!({})).json();
    assert_eq!(anonymous["Name"].as_str().unwrap().len(), 64);
    assert_eq!(anonymous["Labels"], json!({"com.docker.volume.anonymous": ""}));
    assert_eq!(anonymous["Options"], Value::Null);

    let check = |method: &str, path: &str, status: u16, message: &str| {
        let answer = daemon.api().request(method, &format!("/v1.51{path}"), &[], b"").unwrap();
        let text = if answer.body.is_empty() { String::new() } else { answer.message() };
        assert_eq!((answer.status, text.as_str()), (status, message), "{method} {path}");
    };
    check("GET", "/volumes/nope", 404, "get nope: no such volume");
    check("DELETE", "/volumes/nope", 404, "get nope: no such volume");
    check("DELETE", "/volumes/nope?force=1", 204, "");
    check(
        "GET",
        "/volumes?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D",
        400,
        "invalid filter 'dangling=[x]'",
    );
    check("GET", "/volumes?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D", 400, "invalid filter 'foo'");
    check(
        "POST",
        "/volumes/prune?filters=%7B%22all%22%3A%5B%22zz%22%5D%7D",
        400,
        "invalid filter 'all': strconv.ParseBool: parsing \"zz\": invalid syntax",
    );
    let update = "volume update only valid for cluster volumes, but swarm is unavailable";
    check("PUT", "/volumes/x", 503, update);
    let bad = |body: Value, status: u16, message: &str| {
        let answer = post(&daemon, &body);
        assert_eq!((answer.status, answer.message().as_str()), (status, message), "{body}");
    };
    let options = |options: Value| json!({"Name": "hv3", "DriverOpts": options});
    bad(options(json!({"foo": "x"})), 400, "create hv3: invalid option: \"foo\"");
    bad(options(json!({"device": "x"})), 400, "create hv3: missing required option: \"type\"");
    bad(
        json!({"Name": "hv3", "ClusterVolumeSpec": {}}),
        503,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    );
    bad(
        json!({"Name": "hv3", "Driver": "nope"}),
        404,
        "create hv3: error looking up volume plugin nope: plugin \"nope\" not found",
    );
    daemon.finish();
}

#[test]
fn a_named_volume_is_shared_and_outlives_containers() {
    let daemon = daemon();
    let id = run_detached_with(&daemon, "one", &["-v", "shared:/a"], "sleep 1000");
    let other =
        run_detached_with(&daemon, "two", &["--mount", "src=shared,dst=/b,ro"], "sleep 1000");
    daemon.boxship(&["exec", "one", "sh", "-c", "echo hello >/a/file"]).ok();
    assert_eq!(daemon.boxship(&["exec", "two", "cat", "/b/file"]).ok(), "hello");
    refused(daemon.boxship(&["exec", "two", "touch", "/b/x"]), "Read-only file system");
    let mounts = |name| serde_json::from_str(&field(&daemon, name, "{{json .Mounts}}")).unwrap();
    let expect = |target: &str, rw: bool| {
        json!([{
            "Type": "volume", "Name": "shared", "Source": data(&daemon, "shared"),
            "Destination": target, "Driver": "local", "Mode": "z", "RW": rw, "Propagation": "",
        }])
    };
    assert_eq!((mounts("one"), mounts("two")), (expect("/a", true), expect("/b", false)));

    let in_use = daemon.api().request("DELETE", "/volumes/shared?force=1", &[], b"").unwrap();
    let mut users = [id, other];
    users.sort();
    let text = format!("remove shared: volume is in use - [{}, {}]", users[0], users[1]);
    assert_eq!((in_use.status, in_use.message()), (409, text));
    assert_eq!(daemon.boxship(&["volume", "prune", "-af"]).ok(), "Total reclaimed space: 0B");
    daemon.boxship(&["rm", "-fv", "one", "two"]).ok();
    assert_eq!(volumes(&daemon), "shared");
    assert_eq!(run(&daemon, &["-v", "shared:/c:nocopy,z"], "cat /c/file"), "hello");
    // Without `all` only anonymous volumes are pruned.
    assert_eq!(daemon.boxship(&["volume", "prune", "-f"]).ok(), "Total reclaimed space: 0B");
    let pruned = daemon.boxship(&["volume", "prune", "-af"]).ok();
    assert_eq!(pruned, "Deleted Volumes:\nshared\n\nTotal reclaimed space: 6B");
    assert!(!data(&daemon, "shared").exists());
    daemon.finish();
}

#[track_caller]
fn run_detached_with(daemon: &Daemon, name: &str, options: &[&str], script: &str) -> String {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    daemon.boxship(&args).ok()
}

#[test]
fn anonymous_volumes_go_with_their_container_when_asked() {
    let daemon = daemon();
    run(&daemon, &["-v", "/cache", "-v", "kept:/kept"], "touch /cache/x /kept/x");
    assert_eq!(volumes(&daemon), "kept");
    let create = |name| daemon.boxship(&["create", "--name", name, "-v", "/cache", "busybox"]).ok();
    create("aa");
    daemon.boxship(&["rm", "-v", "aa"]).ok();
    assert_eq!(volumes(&daemon), "kept");
    create("bb");
    daemon.boxship(&["rm", "bb"]).ok();
    assert_eq!(volumes(&daemon).lines().count(), 2);
    let dangling = daemon.boxship(&["volume", "ls", "-qf", "dangling=true"]).ok();
    assert_eq!(dangling.lines().count(), 2);
    assert!(daemon.boxship(&["volume", "prune", "-f"]).ok().starts_with("Deleted Volumes:"));
    assert_eq!(volumes(&daemon), "kept");
    daemon.finish();
}

#[test]
fn dockers_client_knows_our_volumes() {
    let daemon = daemon();
    let docker = |args: &[&str]| daemon.docker(args).ok();
    assert_eq!(docker(&["volume", "create", "--label", "tier=db", "db"]), "db");
    assert_eq!(docker(&["volume", "ls", "-q", "-f", "label=tier=db"]), "db");
    assert_eq!(docker(&["volume", "ls", "-q", "-f", "name=x"]), "");
    assert_eq!(docker(&["volume", "ls", "-q", "-f", "name=^db$"]), "db");
    assert_eq!(docker(&["volume", "ls", "-q", "-f", "name=^b"]), "");
    assert_eq!(docker(&["volume", "ls", "-q", "-f", "driver=local"]), "db");
    assert_eq!(
        docker(&["volume", "inspect", "-f", "{{.Scope}} {{.Labels.tier}}", "db"]),
        "local db"
    );
    docker(&[
        "run",
        "--name",
        "cc",
        "-v",
        "db:/var/lib/db",
        "busybox",
        "sh",
        "-c",
        "echo 1 >/var/lib/db/1",
    ]);
    refused(daemon.docker(&["volume", "rm", "db"]), "remove db: volume is in use - [");
    let usage = docker(&["system", "df", "-v"]);
    let line = usage.lines().find(|line| line.starts_with("db ")).unwrap_or_default();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["db", "1", "2B"], "{usage}");
    docker(&["rm", "cc"]);
    assert_eq!(docker(&["volume", "rm", "db"]), "db");
    refused(daemon.docker(&["volume", "rm", "db"]), "get db: no such volume");
    docker(&["volume", "rm", "-f", "db"]);
    refused(daemon.docker(&["volume", "inspect", "db"]), "no such volume");
    daemon.finish();
}

#[test]
fn watchers_hear_of_volumes() {
    let daemon = daemon();
    let id = run_detached_with(&daemon, "cc", &["-v", "vol:/data:ro"], "true");
    daemon.boxship(&["wait", "cc"]).ok();
    daemon.boxship(&["rm", "cc"]).ok();
    daemon.boxship(&["volume", "rm", "vol"]).ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (now.as_secs() + 1).to_string();
    let events = daemon.boxship(&[
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--filter",
        "type=volume",
        "--format",
        "{{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}",
    ]);
    let expect = format!(
        "create vol {{\"driver\":\"local\"}}\n\
         mount vol {{\"container\":\"{id}\",\"destination\":\"/data\",\"driver\":\"local\",\
         \"propagation\":\"\",\"read/write\":\"false\"}}\n\
         unmount vol {{\"container\":\"{id}\",\"driver\":\"local\"}}\n\
         destroy vol {{\"driver\":\"local\"}}"
    );
    assert_eq!(events.ok(), expect);
    daemon.finish();
}

#[test]
fn the_local_driver_mounts_what_its_options_say() {
    let daemon = daemon();
    let mounted = || {
        let table = daemon.inside("cat").arg("/proc/self/mountinfo").output().unwrap();
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let root = daemon.root().display().to_string();
        table.lines().filter(|line| line.contains(&root)).count()
    };
    let memory = "type=tmpfs,device=tmpfs,o=size=1m".split(',');
    let mut args = vec!["volume", "create"];
    memory.for_each(|option| args.extend(["-o", option]));
    args.push("memory");
    daemon.boxship(&args).ok();
    // One file system, however many containers.
    run_detached_with(&daemon, "one", &["-v", "memory:/m"], "echo hi >/m/f; sleep 1000");
    run_detached_with(&daemon, "two", &["-v", "memory:/m"], "sleep 1000");
    // Those of images have left by then.
    wait_until("one mount", || (mounted() == 1).then_some(()));
    daemon.boxship(&["exec", "two", "sh", "-c", "until grep hi /m/f; do :; done"]).ok();
    refused(
        daemon.boxship(&["exec", "one", "dd", "if=/dev/zero", "of=/m/big", "bs=1M", "count=3"]),
        "No space left",
    );
    daemon.boxship(&["rm", "-f", "one"]).ok();
    assert_eq!(daemon.boxship(&["exec", "two", "cat", "/m/f"]).ok(), "hi");
    daemon.boxship(&["rm", "-f", "two"]).ok();
    assert_eq!(mounted(), 0);

    let host = daemon.root().join("host");
    std::fs::create_dir(&host).unwrap();
    let device = format!("device={}", host.display());
    daemon
        .boxship(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"])
        .ok();
    run(&daemon, &["-v", "bound:/b"], "echo kept >/b/file");
    daemon.boxship(&["volume", "rm", "bound"]).ok();
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "kept\n");

    let inline =
        format!("src=inline,dst=/i,volume-opt=type=none,volume-opt=o=bind,volume-opt={device}");
    assert_eq!(run(&daemon, &["--mount", &inline], "cat /i/file"), "kept");
    let missing = "device=/nonexistent-device";
    daemon
        .boxship(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", missing, "nope"])
        .ok();
    daemon.boxship(&["create", "--name", "cc", "-v", "nope:/x:nocopy", "busybox"]).ok();
    let expect = format!(
        "error while mounting volume '{point}': failed to mount local volume: mount \
         /nonexistent-device:{point}, flags: 0x1000: no such file or directory",
        point = data(&daemon, "nope").display()
    );
    refused(daemon.boxship(&["start", "cc"]), &expect);
    daemon.finish();
}

#[test]
fn a_mounted_volume_survives_its_daemon() {
    let mut daemon = daemon();
    daemon.boxship(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
    run_detached_with(&daemon, "cc", &["-v", "mem:/m"], "echo hi >/m/f; sleep 1000");
    run_detached_with(
        &daemon,
        "dd",
        &["-v", "mem:/m"],
        "until grep hi /m/f; do :; done; sleep 1000",
    );
    daemon.boxship(&["volume", "create", "plain"]).ok();
    daemon.restart();
    assert_eq!(volumes(&daemon), "mem\nplain");
    assert_eq!(daemon.boxship(&["exec", "dd", "cat", "/m/f"]).ok(), "hi");
    refused(daemon.boxship(&["volume", "rm", "mem"]), "volume is in use");
    assert_eq!(run(&daemon, &["-v", "mem:/m"], "cat /m/f"), "hi");
    // The last user ends while no daemon looks.
    daemon.boxship(&["stop", "-t", "0", "dd"]).ok();
    let pid = field(&daemon, "cc", "{{.State.Pid}}");
    daemon.kill();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    daemon.launch();
    wait_until("the end", || (field(&daemon, "cc", "{{.State.Running}}") == "false").then_some(()));
    daemon.boxship(&["rm", "-f", "cc", "dd"]).ok();
    daemon.boxship(&["volume", "rm", "mem"]).ok();
    daemon.finish();
}

#[test]
fn parts_of_a_volume_can_be_mounted() {
    let daemon = daemon();
    run(&daemon, &["-v", "vv:/v"], "mkdir -p /v/a/b; echo part >/v/a/b/f; ln -s / /v/out");
    let part = |path: &str| format!("src=vv,dst=/p,volume-subpath={path}");
    assert_eq!(run(&daemon, &["--mount", &part("a/b")], "cat /p/f"), "part");
    let missing = daemon.boxship(&["run", "--rm", "--mount", &part("no"), "busybox", "true"]);
    let path = data(&daemon, "vv").join("no").display().to_string();
    refused(
        missing,
        &format!("cannot access path {path}: lstat {path}: no such file or directory"),
    );
    refused(
        daemon.boxship(&["run", "--rm", "--mount", &part("../x"), "busybox", "true"]),
        "subpath must be a relative path within the volume",
    );
    // A link is resolved inside the volume.
    assert_eq!(run(&daemon, &["--mount", &part("out")], "ls /p"), "a\nout");
    assert_eq!(run(&daemon, &["--mount", &part("a/b/f")], "cat /p"), "part");
    daemon.finish();
}

#[test]
fn mounts_come_in_every_form() {
    let daemon = daemon();
    let host = daemon.root().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("f"), "host").unwrap();
    let host = host.display().to_string();
    let bind = |rest: &str| format!("type=bind,src={host},dst=/x{rest}");
    for rest in [
        "",
        ",ro",
        ",readonly=true",
        ",bind-propagation=private",
        ",consistency=cached",
        ",bind-recursive=disabled",
    ] {
        let mount = bind(rest);
        assert_eq!(run(&daemon, &["--mount", &mount], "cat /x/f"), "host", "{rest}");
    }
    for mode in ["", ":ro", ":z", ":Z,ro", ":rprivate", ":delegated"] {
        let volume = format!("{host}:/x{mode}");
        assert_eq!(run(&daemon, &["-v", &volume], "cat /x/f"), "host", "{mode}");
    }
    let tmpfs = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770";
    assert_eq!(run(&daemon, &["--mount", tmpfs], "stat -c %a /t"), "1770");
    assert_eq!(run(&daemon, &["--mount", "dst=/v"], "touch /v/x; ls /v"), "x");
    refused(
        daemon.boxship(&["run", "--rm", "-v", "vv:/x:rslave", "busybox"]),
        "field BindOptions must not be specified",
    );
    refused(
        daemon.boxship(&["run", "--rm", "--mount", "type=bind,src=/nope-nope,dst=/x", "busybox"]),
        "bind source path does not exist: /nope-nope",
    );
    daemon.finish();
}

/// S27: a directory or a file of the host in several containers at once.
#[test]
fn s27_the_hosts_files_are_shared() {
    let daemon = daemon();
    let host = daemon.root().join("src");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("conf"), "one").unwrap();
    let tree = format!("{}:/var/www/drupal", host.display());
    let file = format!("{}:/etc/site.conf:ro", host.join("conf").display());
    for name in ["web1", "web2"] {
        run_detached_with(&daemon, name, &["-v", &tree, "-v", &file], "sleep 1000");
    }
    let exec = |name: &str, script: &str| daemon.boxship(&["exec", name, "sh", "-c", script]);
    std::fs::write(host.join("page"), "from the host").unwrap();
    for name in ["web1", "web2"] {
        assert_eq!(exec(name, "cat /var/www/drupal/page").ok(), "from the host");
        assert_eq!(exec(name, "cat /etc/site.conf").ok(), "one");
        refused(exec(name, "echo x >/etc/site.conf"), "Read-only file system");
    }
    exec("web1", "echo two >/var/www/drupal/conf").ok();
    assert_eq!(exec("web2", "cat /etc/site.conf").ok(), "two");
    assert_eq!(std::fs::read_to_string(host.join("conf")).unwrap(), "two\n");
    daemon.finish();
}

/// S28: a new version of a program goes on with the data of the old one.
#[test]
fn s28_data_outlives_the_container() {
    let daemon = daemon();
    let host = daemon.root().join("data").display().to_string();
    for source in [format!("{host}:/var/lib/db"), "named:/var/lib/db".to_owned()] {
        daemon.boxship(&["tag", "busybox", "db:1"]).ok();
        run(&daemon, &["-v", &source], "echo row >>/var/lib/db/table");
        daemon.boxship(&["tag", "busybox", "db:2"]).ok();
        let args = ["run", "--rm", "-v", &source, "db:2", "cat", "/var/lib/db/table"];
        assert_eq!(daemon.boxship(&args).ok(), "row");
    }
    daemon.finish();
}

/// S29: a volume of the image is filled from it, with owner and mode.
#[test]
fn s29_a_volume_of_the_image_is_filled_from_it() {
    let daemon = daemon();
    image_with_volume(&daemon);
    let id = daemon.boxship(&["create", "--name", "cc", "seeded:1"]).ok();
    assert_eq!(field(&daemon, "cc", "{{(index .Mounts 0).Destination}}"), "/srv/data");
    let name = field(&daemon, "cc", "{{(index .Mounts 0).Name}}");
    assert_eq!(name.len(), 64);
    let labels = daemon.boxship(&["volume", "inspect", "-f", "{{json .Labels}}", &name]).ok();
    assert_eq!(labels, "{\"com.docker.volume.anonymous\":\"\"}");
    let seed = data(&daemon, &name).join("seed");
    assert_eq!(std::fs::read_to_string(&seed).unwrap(), "from the image");
    assert_eq!(std::fs::metadata(&seed).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::metadata(data(&daemon, &name)).unwrap().mode() & 0o7777, 0o1770);
    assert!(data(&daemon, &name).join("out").is_symlink());
    daemon.boxship(&["rm", "-v", &id]).ok();
    // A named volume as well, once; and not with nocopy.
    let cat = |options: &[&str], script: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(options);
        args.extend(["seeded:1", "sh", "-c", script]);
        daemon.boxship(&args).ok()
    };
    let named = ["-v", "named:/srv/data"];
    assert_eq!(cat(&named, "cat /srv/data/seed; echo new >/srv/data/seed"), "from the image");
    assert_eq!(cat(&named, "cat /srv/data/seed"), "new");
    assert_eq!(cat(&["-v", "bare:/srv/data:nocopy"], "ls /srv/data"), "");
    daemon.boxship(&["volume", "create", "made"]).ok();
    assert_eq!(cat(&["-v", "made:/srv/data"], "cat /srv/data/seed"), "from the image");
    daemon.finish();
}

/// S30: a container that holds nothing but data, and never runs.
#[test]
fn s30_a_data_container_never_runs() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "data", "-v", "/data", "busybox"]).ok();
    run(&daemon, &["--volumes-from", "data"], "echo first >/data/log");
    assert_eq!(run(&daemon, &["--volumes-from=data"], "cat /data/log"), "first");
    assert_eq!(field(&daemon, "data", "{{.State.Status}}"), "created");
    assert_eq!(volumes(&daemon).lines().count(), 1);
    daemon.finish();
}

/// S31: several, read-only, chained.
#[test]
fn s31_volumes_come_from_several_containers() {
    let daemon = daemon();
    let host = format!("{}:/host", daemon.root().join("host").display());
    daemon.boxship(&["create", "--name", "aa", "-v", "/a", "-v", "/both", "busybox"]).ok();
    daemon
        .boxship(&[
            "create", "--name", "bb", "-v", "named:/b", "-v", "/both", "-v", &host, "busybox",
        ])
        .ok();
    run(&daemon, &["--volumes-from", "aa"], "echo a >/a/f; echo a >/both/f");
    run(&daemon, &["--volumes-from", "bb"], "echo b >/b/f; echo b >/both/f; echo h >/host/f");
    let both = ["--volumes-from", "aa:ro", "--volumes-from", "bb"];
    // The last one wins; the first is read-only.
    let script = "cat /a/f /b/f /both/f /host/f; touch /b/x; touch /a/x 2>&1";
    let mut args = vec!["run", "--rm"];
    args.extend(both);
    args.extend(["busybox", "sh", "-c", script]);
    let output = daemon.boxship(&args);
    assert_eq!(output.stdout, "a\nb\nb\nh\ntouch: /a/x: Read-only file system\n");
    let mut chained = vec!["create", "--name", "cc"];
    chained.extend(both);
    chained.push("busybox");
    daemon.boxship(&chained).ok();
    assert_eq!(
        run(&daemon, &["--volumes-from", "cc"], "cat /a/f /b/f; touch /a/x 2>&1 || true"),
        "a\nb\ntouch: /a/x: Read-only file system"
    );
    let mounts: Value = serde_json::from_str(&field(&daemon, "cc", "{{json .Mounts}}")).unwrap();
    let first = mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == "/a");
    assert_eq!((&first.unwrap()["RW"], &first.unwrap()["Mode"]), (&json!(false), &json!("")));
    // What the container mounts itself wins over what it inherits.
    assert_eq!(run(&daemon, &["--volumes-from", "aa", "-v", "other:/a"], "ls /a"), "");
    let create = |from: &str| {
        let body = json!({"Image": "busybox", "HostConfig": {"VolumesFrom": [from]}});
        let answer = daemon.api().post_json("/v1.51/containers/create", &body).unwrap();
        (answer.status, answer.message())
    };
    assert_eq!(create("nope"), (400, "No such container: nope".to_owned()));
    assert_eq!(create("aa:foo"), (400, "invalid mode: foo".to_owned()));
    assert_eq!(create("aa:ro:x"), (400, "invalid mode: ro:x".to_owned()));
    let empty = "volumes-from specification cannot be an empty string";
    assert_eq!(create(""), (400, empty.to_owned()));
    daemon.finish();
}

/// S32: an anonymous volume lives as long as a container has it.
#[test]
fn s32_the_last_container_takes_its_volumes_along() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "data", "-v", "/data", "busybox"]).ok();
    daemon.boxship(&["create", "--name", "user", "--volumes-from", "data", "busybox"]).ok();
    daemon.boxship(&["rm", "-v", "data"]).ok();
    assert_eq!(volumes(&daemon).lines().count(), 1);
    daemon.boxship(&["rm", "-v", "user"]).ok();
    assert_eq!(volumes(&daemon), "");
    // Without -v it stays, and shows as dangling.
    daemon.boxship(&["create", "--name", "data", "-v", "/data", "busybox"]).ok();
    daemon.boxship(&["rm", "data"]).ok();
    assert_eq!(daemon.boxship(&["volume", "ls", "-qf", "dangling=1"]).ok().lines().count(), 1);
    daemon.finish();
}

/// S33: the data is a directory below the data root, and is backed up by another container.
#[test]
fn s33_data_is_found_and_backed_up() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "data", "-v", "/data", "busybox"]).ok();
    run(&daemon, &["--volumes-from", "data"], "echo precious >/data/file");
    let source = PathBuf::from(field(&daemon, "data", "{{(index .Mounts 0).Source}}"));
    assert!(source.starts_with(daemon.data_root()));
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "precious\n");
    let backup = daemon.root().join("backup");
    std::fs::create_dir(&backup).unwrap();
    let here = format!("{}:/b", backup.display());
    run(&daemon, &["--volumes-from", "data", "-v", &here], "tar cf /b/data.tar -C /data .");
    run(&daemon, &["-v", "restored:/data", "-v", &here], "tar xf /b/data.tar -C /data");
    assert_eq!(run(&daemon, &["-v", "restored:/data"], "cat /data/file"), "precious");
    daemon.finish();
}

#[test]
fn v02_a_name_is_no_path() {
    let mut daemon = daemon();
    // A directory that is no volume, with a link in the place of its data.
    let planted = daemon.data_root().join("volumes/planted");
    std::fs::create_dir(&planted).unwrap();
    std::os::unix::fs::symlink("/etc", planted.join("_data")).unwrap();
    let long = "a".repeat(300);
    for _ in 0..2 {
        for name in ["../../x", ".", "..", "a\0b", "/etc", "a/b", "planted", &long] {
            let answer = post(&daemon, &json!({"Name": name}));
            assert_eq!(answer.status, 400, "{name}: {}", answer.text());
            let mounts = json!([{"Type": "volume", "Source": name, "Target": "/x"}]);
            let body = json!({"Image": "busybox", "HostConfig": {"Mounts": mounts}});
            let answer = daemon.api().post_json("/containers/create", &body).unwrap();
            assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        }
        daemon.restart();
    }
    assert_eq!(volumes(&daemon), "");
    daemon.finish();
}

/// A layer with the device that swallows everything.
fn device(path: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Char);
    header.set_mode(0o666);
    header.set_size(0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    layer.append_data(&mut header, path, std::io::empty()).unwrap();
    layer.into_inner().unwrap()
}

#[test]
fn v03_copy_up_stays_inside() {
    let daemon = daemon();
    std::fs::write(daemon.root().join("canary"), "host").unwrap();
    let outside = daemon.root().display().to_string();
    let mut layer = Tar::default();
    layer.symlink("link", &outside).symlink("up", "../../../../../../../..").directory("dir");
    layer.symlink("dir/inner", &outside).file("dir/file", 0o4755, b"x");
    layer.symlink("self", "/proc/self/root");
    daemon.load(
        &Builder::busybox("hostile:1").layer(layer.finish()).layer(device("dir/null")).archive(),
    );
    for (index, target) in ["/link", "/up", "/dir", "/self"].into_iter().enumerate() {
        let volume = format!("vol{index}:{target}");
        // Where the kernel then refuses to mount on the link is no matter here.
        daemon.boxship(&["create", "-v", &volume, "hostile:1"]).ok();
        let copied = data(&daemon, &format!("vol{index}"));
        assert!(!copied.join("canary").exists(), "{target}");
    }
    let copied = data(&daemon, "vol2");
    assert_eq!(std::fs::read_link(copied.join("inner")).unwrap(), Path::new(&outside));
    assert!(!copied.join("null").exists());
    assert_eq!(std::fs::metadata(copied.join("file")).unwrap().mode() & 0o7777, 0o4755);
    daemon.finish();
}

#[test]
fn v04_options_are_parsed_not_shelled() {
    let daemon = daemon();
    let canary = daemon.root().join("canary");
    let mount = |name: &str, o: String, text: &str| {
        let options = json!({"type": "nfs", "device": ":/x;touch /tmp/x", "o": o});
        assert_eq!(post(&daemon, &json!({"Name": name, "DriverOpts": options})).status, 201);
        let volume = format!("{name}:/x");
        refused(daemon.boxship(&["run", "--rm", "-v", &volume, "busybox", "true"]), text);
    };
    let touch = format!("touch {}", canary.display());
    let evil = format!("addr=127.0.0.1,x=;{touch},y=$({touch}),soft`{touch}`");
    mount("nfs", evil, "failed to mount local volume: mount :/x;touch /tmp/x:");
    // A name to look up is no more than that.
    let evil = format!("addr=127.0.0.1;{touch}");
    mount("named", evil, &format!("lookup 127.0.0.1;{touch}: no such host"));
    assert!(!canary.exists());
    daemon.finish();
}

/// There is no SELinux support: `z` and `Z` label nothing, whatever they are asked for.
#[test]
fn v07_relabel_touches_nothing_of_the_host() {
    let daemon = daemon();
    let shared = daemon.root().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "text").unwrap();
    let state = || {
        [shared.clone(), shared.join("file"), "/etc".into(), "/".into()].map(|path: PathBuf| {
            let mut names = [0u8; 4096];
            let length = rustix::fs::listxattr(&path, &mut names).unwrap_or_default();
            names[..length].to_vec()
        })
    };
    let before = state();
    for flag in ["z", "Z", "ro,z"] {
        let bind = format!("{}:/x:{flag}", shared.display());
        assert_eq!(run(&daemon, &["-v", &bind], "cat /x/file"), "text");
        run(
            &daemon,
            &["-v", &format!("/etc:/x:{flag}"), "-v", &format!("/:/y:{flag}")],
            "ls /y/etc",
        );
    }
    assert_eq!(state(), before);
    daemon.finish();
}

#[test]
fn v06_the_hosts_mounts_stay_as_they_were() {
    let daemon = daemon();
    let table = || {
        let table = daemon.inside("cat").arg("/proc/self/mountinfo").output().unwrap();
        String::from_utf8_lossy(&table.stdout).into_owned()
    };
    let host = daemon.root().join("host");
    std::fs::create_dir(&host).unwrap();
    let own = |script: &str| {
        let status = daemon.inside("sh").args(["-c", script, "own"]).arg(&host).status().unwrap();
        assert!(status.success(), "{script}");
    };
    // The test's namespace may be private: a shared mount of its own, then.
    own("mount -t tmpfs none $1 && mount --make-shared $1 && mkdir $1/sub");
    let before = table();
    for mode in ["rslave", "slave", "rprivate", "private"] {
        let volume = format!("{}:/x:{mode}", host.display());
        let script = "mount -t tmpfs none /x/sub && mount -t tmpfs none /v && umount -l /x";
        run(&daemon, &["--privileged", "-v", &volume, "-v", "vol:/v"], script);
        wait_until(mode, || (table() == before).then_some(()));
    }
    own("umount -l $1");
    daemon.finish();
}

#[test]
fn made_volumes_survive_kill_9() {
    let mut daemon = daemon();
    image_with_volume(&daemon);
    for round in 0..5 {
        let name = format!("v{round}");
        daemon.boxship(&["volume", "create", &name]).ok();
        daemon.boxship(&["create", "-v", &format!("{name}:/srv/data"), "seeded:1"]).ok();
        daemon.restart();
        let seed = data(&daemon, &name).join("seed");
        assert_eq!(std::fs::read_to_string(seed).unwrap(), "from the image");
    }
    run_detached(&daemon, "up", "sleep 1000");
    let all = daemon.boxship(&["ps", "-aq"]).ok();
    let mut args = vec!["rm", "-fv"];
    args.extend(all.lines());
    daemon.boxship(&args).ok();
    let pruned = daemon.boxship(&["volume", "prune", "-af"]).ok();
    assert_eq!(pruned.lines().filter(|line| line.starts_with('v')).count(), 5);
    daemon.restart();
    assert_eq!(volumes(&daemon), "");
    daemon.finish();
}

/// Many containers want the same new volumes while somebody prunes.
#[test]
fn a_volume_that_a_container_has_is_there() {
    let daemon = daemon();
    image_with_volume(&daemon);
    let (creators, rounds) = (6, 20);
    std::thread::scope(|scope| {
        for creator in 0..creators {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut api = daemon.api();
                for round in 0..rounds {
                    let bind = format!("shared{}:/srv/data", round % 3);
                    let body = json!({"Image": "seeded:1", "HostConfig": {"Binds": [bind]}});
                    let made = api.post_json("/v1.51/containers/create", &body).unwrap();
                    // The only reason not to: its volume is on its way out at this moment.
                    let text = made.text();
                    assert!(made.status == 201 || text.contains("is being removed"), "{text}");
                    if creator % 2 == 0 && made.status == 201 {
                        let id = made.json()["Id"].as_str().unwrap().to_owned();
                        api.request("DELETE", &format!("/containers/{id}?v=1"), &[], b"").unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..rounds {
                let filters = "?filters=%7B%22all%22%3A%5B%22true%22%5D%7D";
                let pruned = daemon.api().post(&format!("/v1.51/volumes/prune{filters}")).unwrap();
                assert_eq!(pruned.status, 200, "{}", pruned.text());
            }
        });
    });
    let all = daemon.boxship(&["ps", "-aq", "--no-trunc"]).ok();
    for id in all.lines() {
        let name = field(&daemon, id, "{{(index .Mounts 0).Name}}");
        assert!(volumes(&daemon).lines().any(|volume| volume == name), "{name}");
        let seed = data(&daemon, &name).join("seed");
        assert_eq!(std::fs::read_to_string(seed).unwrap(), "from the image");
    }
    daemon.finish();
}
