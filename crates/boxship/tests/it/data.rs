//! Data outlives programs, with a real database: PostgreSQL from Debian's packages, in one image
//! made once (`scripts/base-image`, a minute). And what images that share layers cost.

use serde_json::json;
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Options, wait_until};

use crate::layouts::with_layout;
use crate::{BINARY, daemon, field};

/// As the entry points of database images do: take over the directory, fill it once, then become
/// the server.
const SERVER: &str = "\
    PATH=$PATH:$(echo /usr/lib/postgresql/*/bin); \
    chown postgres /pg; chmod 700 /pg; cd /pg; \
    as='setpriv --reuid postgres --regid postgres --clear-groups'; \
    [ -s /pg/PG_VERSION ] || $as initdb -D /pg -A trust --locale=C.UTF-8 >/dev/null; \
    exec $as postgres -D /pg -k /tmp";

/// Version 1 is Debian's image; version 2 was committed from it, with another setting.
fn host() -> Daemon {
    let daemon = Daemon::with(BINARY, Options { without_images: true, ..Options::default() });
    daemon.load(&testkit::image::with_packages("postgresql", &["postgresql"]));
    daemon.boxship(&["tag", "postgresql", "db:1"]).ok();
    let change = "sed -i 's/^#work_mem.*/work_mem = 5MB/' /usr/share/postgresql/*/*.sample; \
                  echo 2 >/version";
    daemon.boxship(&["run", "--name", "next", "db:1", "sh", "-c", change]).ok();
    daemon.boxship(&["commit", "-c", "ENV VERSION=2", "next", "db:2"]).ok();
    daemon.boxship(&["rm", "next"]).ok();
    daemon
}

/// A server that answers.
#[track_caller]
fn serve(daemon: &Daemon, image: &str, mounts: &[&str]) {
    let run = ["run", "-d", "--name", "db"];
    daemon.boxship(&[&run[..], mounts, &[image, "sh", "-c", SERVER]].concat()).ok();
    wait_until("the database", || {
        assert_eq!(field(daemon, "db", "{{.State.Status}}"), "running", "{:?}", log(daemon));
        let ready = ["exec", "db", "pg_isready", "-q", "-h", "/tmp"];
        (daemon.boxship(&ready).code == 0).then_some(())
    });
}

fn log(daemon: &Daemon) -> String {
    daemon.boxship(&["logs", "db"]).stderr
}

#[track_caller]
fn sql(daemon: &Daemon, statement: &str) -> String {
    let client = ["exec", "db", "psql", "-qAtX", "-U", "postgres", "-h", "/tmp", "-c", statement];
    daemon.boxship(&client).ok()
}

/// What the article does: version 1 writes, is replaced by version 2, which finds all of it.
#[track_caller]
fn upgrade(daemon: &Daemon, mounts: &[&str]) {
    serve(daemon, "db:1", mounts);
    sql(daemon, "CREATE TABLE note (text varchar); INSERT INTO note VALUES ('from version 1')");
    daemon.boxship(&["stop", "db"]).ok();
    assert_eq!(field(daemon, "db", "{{.State.ExitCode}}"), "0", "{}", log(daemon));
    daemon.boxship(&["rm", "db"]).ok();
    serve(daemon, "db:2", mounts);
    assert_eq!(daemon.boxship(&["exec", "db", "cat", "/version"]).ok(), "2");
    assert_eq!(sql(daemon, "SELECT text FROM note"), "from version 1");
    // No clean end this time: what was acknowledged is there all the same.
    sql(daemon, "INSERT INTO note VALUES ('from version 2')");
    daemon.boxship(&["rm", "-f", "db"]).ok();
    serve(daemon, "db:2", mounts);
    assert_eq!(sql(daemon, "SELECT text FROM note"), "from version 1\nfrom version 2");
    daemon.boxship(&["stop", "db"]).ok();
    daemon.boxship(&["rm", "db"]).ok();
}

/// S28, S30, S33 with a real database: its data in a directory of the host, in a container that
/// holds nothing else, in a named volume; and a backup of it.
#[test]
fn s28_postgresql_goes_on_in_its_next_version() {
    let daemon = host();
    let directory = daemon.root().join("pg");
    upgrade(&daemon, &["-v", &format!("{}:/pg", directory.display())]);
    assert!(directory.join("PG_VERSION").exists());

    daemon.boxship(&["create", "--name", "data", "-v", "/pg", "db:1", "true"]).ok();
    upgrade(&daemon, &["--volumes-from", "data"]);
    assert_eq!(field(&daemon, "data", "{{.State.Status}}"), "created");

    upgrade(&daemon, &["-v", "pgdata:/pg"]);
    assert_eq!(daemon.boxship(&["volume", "ls", "-qf", "dangling=1"]).ok(), "pgdata");

    let backup = daemon.root().join("backup");
    std::fs::create_dir(&backup).unwrap();
    let here = format!("{}:/backup", backup.display());
    let run = |mounts: &[&str], command: &[&str]| {
        let args = [&["run", "--rm", "-v", here.as_str()], mounts, &["db:1"], command].concat();
        daemon.boxship(&args).ok();
    };
    run(&["--volumes-from", "data:ro"], &["tar", "cf", "/backup/pg.tar", "-C", "/pg", "."]);
    run(&["-v", "restored:/pg"], &["tar", "xf", "/backup/pg.tar", "-C", "/pg"]);
    serve(&daemon, "db:2", &["-v", "restored:/pg"]);
    assert_eq!(sql(&daemon, "SELECT count(*) FROM note"), "2");
    daemon.finish();
}

/// Bytes on the disk below the data root.
fn disk_use(daemon: &Daemon) -> u64 {
    let output = daemon.inside("du").args(["-sk"]).arg(daemon.data_root().join("storage")).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes that do not compress and are nobody else's.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// S07: a second image on the same base takes the room of its own layers, in `system df -v` and on
/// the disk.
#[test]
fn s07_images_share_their_base() {
    for form in ["dirs", "erofs"] {
        share_a_base(&with_layout(form));
    }
}

fn share_a_base(daemon: &Daemon) {
    let (base, own) = (8 << 20, 1 << 20);
    let base_layer = Tar::default().file("base", 0o644, &noise(1, base)).finish();
    let image = |name: &str, seed| {
        let layer = Tar::default().file("own", 0o644, &noise(seed, own)).finish();
        Builder::busybox(name)
            .layer(base_layer.clone())
            .layer(layer)
            .set("Labels", json!({"s": name}))
    };
    daemon.load(&image("one:1", 2).archive());
    daemon.wait_for_trash();
    let before = disk_use(daemon);
    daemon.load(&image("two:1", 3).archive());
    wait_until("the room of its own layer", || {
        let grown = disk_use(daemon).saturating_sub(before);
        // Directories, records and tables besides.
        (own as u64..(own + (own >> 1)) as u64).contains(&grown).then_some(())
    });
    let df: serde_json::Value = daemon.api().get("/v1.51/system/df").unwrap().json();
    let images = df["Images"].as_array().unwrap();
    let busybox = images.iter().find(|image| image["RepoTags"][0] == "busybox:latest").unwrap();
    let below = busybox["Size"].as_u64().unwrap();
    for name in ["one:1", "two:1"] {
        let image = images.iter().find(|image| image["RepoTags"][0] == name).unwrap();
        assert_eq!(image["SharedSize"], below + base as u64, "{image}");
        assert_eq!(image["Size"], below + (base + own) as u64, "{image}");
    }
    assert_eq!(busybox["SharedSize"], below);
    assert_eq!(df["LayersSize"], below + (base + 2 * own) as u64);
    let shown = daemon.boxship(&["system", "df", "-v"]).ok();
    let line = shown.lines().find(|line| line.starts_with("two ")).unwrap_or_default();
    assert!(line.contains("1.049MB"), "{shown}");
    daemon.boxship(&["rmi", "two:1"]).ok();
    wait_until("the room of its own layer back", || {
        (disk_use(daemon) < before + (own >> 1) as u64).then_some(())
    });
    let df: serde_json::Value = daemon.api().get("/v1.51/system/df").unwrap().json();
    assert_eq!(df["LayersSize"], below + (base + own) as u64);
    daemon.boxship(&["system", "check"]).ok();
}

/// An addition of ours to docker's `prune`, in docker's words.
#[test]
fn prune_can_keep_the_newest_of_each_repository() {
    let daemon = daemon();
    for name in ["app:1", "app:2", "app:3", "tool:1"] {
        let own = Tar::default().file("own", 0o644, name.as_bytes()).finish();
        daemon.load(&Builder::busybox(name).layer(own).archive());
    }
    daemon.boxship(&["rmi", "busybox"]).ok();
    let left = || {
        let names = daemon.boxship(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    let fails = |args: &[&str], text: &str| {
        let output = daemon.boxship(args);
        assert_eq!((output.code, output.stderr.trim_end()), (1, text));
    };
    let needs = "--keep-last needs --all: without it only images without a name are removed";
    fails(&["system", "prune", "-f", "--keep-last", "1"], needs);
    fails(&["image", "prune", "-f", "--keep-last", "1"], needs);
    let least = "--keep-last must be 1 or more, not 0";
    fails(&["system", "prune", "-af", "--keep-last", "0"], least);
    let asked = daemon.boxship_with(&["image", "prune", "-a", "--keep-last", "2"], b"n\n");
    assert!(asked.stdout.contains("but the 2 newest of each repository.\n"), "{}", asked.stdout);
    let pruned = daemon.boxship(&["system", "prune", "-af", "--keep-last", "2"]).ok();
    assert!(pruned.starts_with("Deleted Images:\nuntagged: app:1\ndeleted: sha256:"), "{pruned}");
    assert!(pruned.ends_with("Total reclaimed space: 5B"), "{pruned}");
    assert_eq!(left(), "app:2 app:3 tool:1");
    // What is used stays besides.
    daemon.boxship(&["create", "app:2"]).ok();
    daemon.boxship(&["image", "prune", "-af", "--keep-last", "1"]).ok();
    assert_eq!(left(), "app:2 app:3 tool:1");
    daemon.boxship(&["system", "prune", "-af", "--keep-last", "1"]).ok();
    assert_eq!(left(), "app:3 tool:1");
    daemon.finish();
}
