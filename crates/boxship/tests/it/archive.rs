//! Files in and out of containers: the archive endpoints, `cp` of both clients, and the security
//! cases of the class C, by id.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};
use testkit::image::Tar;
use testkit::{Daemon, Response, wait_until};

use crate::{daemon, run_detached};

fn ask(daemon: &Daemon, method: &str, container: &str, query: &str, body: &[u8]) -> Response {
    let path = format!("/v1.51/containers/{container}/archive{query}");
    let headers = [("Content-Type", "application/x-tar")];
    daemon.api().request(method, &path, &headers, body).unwrap()
}

fn get(daemon: &Daemon, container: &str, path: &str) -> Response {
    ask(daemon, "GET", container, &format!("?path={path}"), b"")
}

fn put(daemon: &Daemon, container: &str, path: &str, tar: &[u8]) -> Response {
    ask(daemon, "PUT", container, &format!("?path={path}"), tar)
}

fn stat(daemon: &Daemon, container: &str, path: &str) -> Value {
    let answer = ask(daemon, "HEAD", container, &format!("?path={path}"), b"");
    assert_eq!(answer.status, 200, "{path}");
    let header = answer.header("x-docker-container-path-stat").unwrap().to_owned();
    let decoded =
        testkit::run::run(std::process::Command::new("base64").arg("-d"), header.as_bytes());
    serde_json::from_str(&decoded.ok()).unwrap()
}

/// Names and contents in an archive.
fn entries(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let text = String::from_utf8_lossy(&data).into_owned();
        (name, text)
    });
    entries.collect()
}

fn names(tar: &[u8]) -> Vec<String> {
    entries(tar).into_iter().map(|(name, _)| name).collect()
}

/// A container with something of every kind in it; it writes `/ready` last.
fn start_full(daemon: &Daemon, name: &str, options: &[&str]) {
    let script = "mkdir -p /d/sub; echo hi >/d/f; ln -s /d/f /ln; ln -s /d /dl; ln -s nope /dang; \
        mkfifo /fifo; chmod 4750 /d/f; echo >/ready; exec sleep 1000";
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    daemon.boxship(&args).ok();
    wait_until("the files", || (get(daemon, name, "/ready").status == 200).then_some(()));
}

#[test]
fn paths_are_described_as_dockers() {
    let daemon = daemon();
    start_full(&daemon, "full", &[]);
    for stopped in [false, true] {
        if stopped {
            daemon.boxship(&["stop", "-t", "0", "full"]).ok();
        }
        let check = |path: &str, name: &str, mode: u32, link: &str| {
            let seen = stat(&daemon, "full", path);
            let expect = json!({"name": name, "mode": mode, "linkTarget": link});
            for key in ["name", "mode", "linkTarget"] {
                assert_eq!(seen[key], expect[key], "{path} {key} (stopped: {stopped})");
            }
            assert!(seen["mtime"].as_str().unwrap().ends_with('Z'), "{seen}");
        };
        let directory = 1 << 31 | 0o755;
        let link = 1 << 27 | 0o777;
        check("/", "/", directory, "");
        check("/d", "d", directory, "");
        check("/d/", "d", directory, "");
        check("/d/.", ".", directory, "");
        check("d", "d", directory, "");
        check("/d/../../d", "d", directory, "");
        check("/ln", "ln", link, "/d/f");
        check("/dl", "dl", link, "/d");
        check("/dl/", "dl", directory, "");
        check("/dang", "dang", link, "/nope");
        check("/fifo", "fifo", 1 << 25 | 0o644, "");
        check("/d/f", "f", 1 << 23 | 0o750, "");
        assert_eq!(stat(&daemon, "full", "/d/f")["size"], 3);
        let refused = |path: &str, status: u16, message: &str| {
            let answer = get(&daemon, "full", path);
            assert_eq!((answer.status, answer.message().as_str()), (status, message), "{path}");
        };
        refused("/nope", 404, "Could not find the file /nope in container full");
        refused("/dang/", 404, "Could not find the file /dang/ in container full");
        refused("/proc/self", 404, "Could not find the file /proc/self in container full");
        refused("/d/f/", 500, "lstat /d/f/: not a directory");
        refused("", 400, "bad parameter: pathcannot be empty");
    }
    let missing = get(&daemon, "nope", "/");
    assert_eq!((missing.status, missing.message().as_str()), (404, "No such container: nope"));
    daemon.finish();
}

#[test]
fn archives_have_dockers_names() {
    let daemon = daemon();
    start_full(&daemon, "full", &[]);
    for stopped in [false, true] {
        if stopped {
            daemon.boxship(&["stop", "-t", "0", "full"]).ok();
        }
        let check = |path: &str, expect: &[&str]| {
            let answer = get(&daemon, "full", path);
            assert_eq!(answer.header("content-type"), Some("application/x-tar"));
            assert_eq!(names(&answer.body), expect, "{path}");
        };
        check("/d", &["d/", "d/f", "d/sub/"]);
        check("/d/", &["d/", "d/f", "d/sub/"]);
        check("/d/.", &["./", "./f", "./sub/"]);
        check("/dl", &["dl"]);
        check("/dl/", &["dl/", "dl/f", "dl/sub/"]);
        check("/fifo", &["fifo"]);
        check("/d/f", &["f"]);
        check("/proc/", &["proc/"]);
        let all = get(&daemon, "full", "/");
        let all = names(&all.body);
        assert_eq!(all[0], "/");
        assert!(all.contains(&"/d/sub/".to_owned()) && all.contains(&"/proc/".to_owned()));
        assert!(!all.iter().any(|name| name.starts_with("/proc/1") || name.starts_with("/sys/k")));
    }
    daemon.finish();
}

#[test]
fn archives_are_put_as_by_docker() {
    let daemon = daemon();
    start_full(&daemon, "full", &["-v", "vol:/v", "-v", "ro:/ro:ro", "--tmpfs", "/t"]);
    let mut tar = Tar::default();
    let tar = tar.file("a", 0o640, b"text").directory("sub").file("sub/x", 0o644, b"x").finish();
    for stopped in [false, true] {
        if stopped {
            daemon.boxship(&["stop", "-t", "0", "full"]).ok();
        }
        for path in ["/d", "/d/", "/dl", "/v", "/"] {
            let answer = put(&daemon, "full", path, &tar);
            assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}");
        }
        let file = get(&daemon, "full", "/v/a");
        assert_eq!(entries(&file.body), [("a".to_owned(), "text".to_owned())]);
        let refused = |path: &str, body: &[u8], status: u16, message: &str| {
            let answer = put(&daemon, "full", path, body);
            assert_eq!((answer.status, answer.message().as_str()), (status, message), "{path}");
        };
        refused("/d/f", &tar, 400, "extraction point is not a directory");
        refused("/ln", &tar, 400, "extraction point is not a directory");
        refused("/d/f/", &tar, 500, "lstat /d/f/: not a directory");
        refused("/nope", &tar, 404, "Could not find the file /nope in container full");
        refused("/dang", &tar, 404, "Could not find the file /dang in container full");
        refused("/ro", &tar, 400, "mounted volume is marked read-only");
        refused("", &tar, 400, "bad parameter: pathcannot be empty");
        if !stopped {
            refused("/proc", &tar, 404, "Could not find the file /proc in container full");
        }
        let mut up = Tar::default();
        let up = up.file("../esc", 0o644, b"x").finish();
        refused("/d", &up, 400, "invalid entry name \"../esc\"");
        let keep = |tar: &[u8]| {
            let query = "?path=/d&noOverwriteDirNonDir=true";
            ask(&daemon, "PUT", "full", query, tar).message()
        };
        let file = Tar::default().file("sub", 0o644, b"").finish();
        let expect = "cannot overwrite directory \"sub\" with non-directory \"/d\"";
        assert_eq!(keep(&file), expect);
        let directory = Tar::default().directory("f").finish();
        let expect = "cannot overwrite non-directory \"f\" with directory \"/d\"";
        assert_eq!(keep(&directory), expect);
    }
    assert_eq!(std::fs::read(daemon.data_root().join("volumes/vol/_data/a")).unwrap(), b"text");
    // What is in memory is reached while the container runs.
    daemon.boxship(&["start", "full"]).ok();
    assert_eq!(put(&daemon, "full", "/t", &tar).status, 200);
    assert_eq!(daemon.boxship(&["exec", "full", "cat", "/t/a", "/d/a"]).ok(), "texttext");
    daemon.boxship(&["create", "--name", "still", "--read-only", "-v", "vol:/w", "busybox"]).ok();
    assert_eq!(put(&daemon, "still", "/w", &tar).status, 200);
    let answer = put(&daemon, "still", "/etc", &tar);
    let expect = (400, "container rootfs is marked read-only".to_owned());
    assert_eq!((answer.status, answer.message()), expect);
    daemon.finish();
}

#[test]
fn owners_follow_the_archive_or_the_user() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "create", "--name", "own", "-u", "5:6", "busybox", "stat", "-c", "%u:%g", "/tmp/a",
            "/tmp/b",
        ])
        .ok();
    let tar = |name: &str| Tar::default().file(name, 0o600, b"").finish();
    put(&daemon, "own", "/tmp", &tar("a"));
    ask(&daemon, "PUT", "own", "?path=/tmp&copyUIDGID=true", &tar("b"));
    assert_eq!(daemon.boxship(&["start", "-a", "own"]).ok(), "0:0\n5:6");
    daemon.finish();
}

/// Both clients, on a container that runs and on one that never did.
#[test]
fn both_clients_copy_both_ways() {
    let daemon = daemon();
    let here = daemon.root().join("here");
    std::fs::create_dir_all(here.join("tree/sub")).unwrap();
    std::fs::write(here.join("file"), "file").unwrap();
    std::fs::write(here.join("tree/sub/leaf"), "leaf").unwrap();
    std::os::unix::fs::symlink("file", here.join("link")).unwrap();
    let at = |name: &str| here.join(name).display().to_string();
    let bind = format!("{}:/b", daemon.root().join("bound").display());
    run_detached(&daemon, "runs", "mkdir /w; sleep 1000");
    daemon.boxship(&["create", "--name", "never", "-v", "vol:/vol", "-v", &bind, "busybox"]).ok();
    for client in ["boxship", "docker"] {
        let run = |args: &[&str]| match client {
            "docker" => daemon.docker(args),
            _ => daemon.boxship(args),
        };
        for container in ["runs", "never"] {
            let cp = |from: &str, to: &str| run(&["cp", from, to]);
            let inside = |path: &str| format!("{container}:{path}");
            let label = format!("{client} {container}");
            let root = format!("/tmp/{client}");
            let made = here.join(format!("{client}-{container}"));
            std::fs::create_dir(&made).unwrap();
            let out = |name: &str| made.join(name).display().to_string();
            let content = |path: &str| {
                let answer = get(&daemon, container, path);
                assert_eq!(answer.status, 200, "{label} {path}: {}", answer.text());
                entries(&answer.body).pop().unwrap().1
            };
            // To a new name, into a directory, over a file; the contents of a directory.
            cp(&at("tree"), &inside(&root)).ok();
            assert_eq!(content(&format!("{root}/sub/leaf")), "leaf", "{label}");
            cp(&at("tree"), &inside(&root)).ok();
            assert_eq!(content(&format!("{root}/tree/sub/leaf")), "leaf");
            cp(&format!("{}/.", at("tree/sub")), &inside(&root)).ok();
            assert_eq!(content(&format!("{root}/leaf")), "leaf");
            cp(&at("file"), &inside(&format!("{root}/renamed"))).ok();
            assert_eq!(content(&format!("{root}/renamed")), "file");
            cp(&at("file"), &inside(&format!("{root}/leaf"))).ok();
            assert_eq!(content(&format!("{root}/leaf")), "file");
            cp(&at("file"), &inside(&format!("{root}/"))).ok();
            assert_eq!(content(&format!("{root}/file")), "file");
            // A link as itself, or what it leads to.
            cp(&at("link"), &inside(&root)).ok();
            assert_eq!(stat(&daemon, container, &format!("{root}/link"))["mode"], 1 << 27 | 0o777);
            run(&["cp", "-L", &at("link"), &inside(&format!("{root}/followed"))]).ok();
            assert_eq!(content(&format!("{root}/followed")), "file");
            // And back.
            cp(&inside(&root), &out("back")).ok();
            let read = |path: &str| std::fs::read_to_string(made.join(path)).unwrap();
            assert_eq!(read("back/sub/leaf"), "leaf", "{label}");
            cp(&inside(&format!("{root}/renamed")), &out("")).ok();
            assert_eq!(read("renamed"), "file");
            cp(&inside(&format!("{root}/sub/.")), &out("")).ok();
            assert_eq!(read("leaf"), "leaf");
            run(&["cp", "-L", &inside(&format!("{root}/link")), &out("solid")]).ok();
            assert_eq!(read("solid"), "file");
            run(&["cp", "-a", &inside(&format!("{root}/file")), &out("kept")]).ok();
            assert_eq!(std::fs::metadata(made.join("kept")).unwrap().uid(), 0);
            // Streams.
            let streamed = cp(&inside(&format!("{root}/sub")), "-").ok();
            assert!(streamed.contains("leaf"));
            // Mistakes.
            for (from, to, text) in [
                (at("tree"), inside(&format!("{root}/file")), "cannot copy directory"),
                (at("file"), inside(&format!("{root}/nope/")), "no such directory"),
                (inside("/nope"), out("x"), "Could not find the file /nope in container"),
            ] {
                let output = cp(&from, &to);
                assert!(
                    output.code != 0 && output.stderr.contains(text),
                    "{label}: {}",
                    output.stderr
                );
            }
        }
        let tar = Tar::default().file("streamed", 0o644, b"in").finish();
        let output = match client {
            "boxship" => daemon.boxship_with(&["cp", "-", "never:/vol"], &tar),
            _ => daemon.docker_with(&["cp", "-", "never:/vol"], &tar),
        };
        output.ok();
        run(&["cp", &at("file"), "never:/b/from-cp"]).ok();
    }
    assert_eq!(
        std::fs::read(daemon.data_root().join("volumes/vol/_data/streamed")).unwrap(),
        b"in"
    );
    assert_eq!(std::fs::read(daemon.root().join("bound/from-cp")).unwrap(), b"file");
    let leaf =
        daemon.boxship(&["exec", "runs", "cat", "/tmp/boxship/sub/leaf", "/tmp/docker/leaf"]);
    assert_eq!(leaf.ok(), "leaffile");
    daemon.finish();
}

#[test]
fn a_copy_and_a_start_come_one_after_the_other() {
    let daemon = daemon();
    daemon.boxship(&["create", "--name", "one", "busybox", "cat", "/late"]).ok();
    let tar = Tar::default().file("late", 0o644, b"there").finish();
    let mut upload = daemon.api();
    let head = format!(
        "PUT /containers/one/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    );
    upload.send(head.as_bytes()).unwrap();
    upload.send(&tar[..100]).unwrap();
    // While the upload is under way the daemon answers, and a second copy and the start wait.
    wait_until("the copy", || daemon.log().is_empty().then_some(()).or(Some(())));
    let mut start = daemon.api();
    start
        .send(b"POST /containers/one/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert_eq!(daemon.boxship(&["ps", "-aq"]).ok().lines().count(), 1);
    upload.send(&tar[100..]).unwrap();
    assert_eq!(upload.response(false).unwrap().status, 200);
    assert_eq!(start.response(false).unwrap().status, 204);
    daemon.boxship(&["wait", "one"]).ok();
    daemon.finish();
}

/// A container that swaps `/w/real` with a link to a directory of the host, as fast as it can.
fn start_swapping(daemon: &Daemon, name: &str, options: &[&str], at: &str) {
    let outside = daemon.root().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("canary"), "secret-of-the-host").unwrap();
    let script = format!(
        "mkdir -p {at}/real; cd {at}; echo inside >real/canary; echo >/ready; \
         while :; do mv real away; ln -s {} real; rm real; ln -s / real; rm real; mv away real; done",
        outside.display()
    );
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", &script]);
    daemon.boxship(&args).ok();
    wait_until("the swapping", || (get(daemon, name, "/ready").status == 200).then_some(()));
}

/// Everything below a directory of the host.
fn listing(directory: &Path) -> Vec<String> {
    let find = std::process::Command::new("find").arg(directory).output().unwrap();
    let mut lines: Vec<_> =
        String::from_utf8_lossy(&find.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn c01_a_swapped_link_leads_nowhere() {
    let daemon = daemon();
    start_swapping(&daemon, "swaps", &[], "/w");
    let outside = daemon.root().join("outside");
    let before = listing(&outside);
    let tar = Tar::default().file("planted", 0o777, b"x").file("canary", 0o777, b"inside").finish();
    let mut read = 0;
    for _ in 0..crate::security::race_count() {
        let answer = get_raw(&daemon, "/containers/swaps/archive?path=/w/real/canary");
        if let Ok(answer) = answer
            && answer.status == 200
        {
            let all = entries(&answer.body);
            assert!(all.iter().all(|(_, text)| text.trim_end() == "inside"), "{all:?}");
            read += 1;
        }
        // A transfer may break off when what it sends goes away.
        let answer = get_raw(&daemon, "/containers/swaps/archive?path=/w/real/");
        if let Ok(answer) = answer
            && answer.status == 200
        {
            assert!(!answer.text().contains("secret-of-the-host"), "{:?}", names(&answer.body));
        }
        put(&daemon, "swaps", "/w/real", &tar);
        put(&daemon, "swaps", "/w", &Tar::default().file("real/planted", 0o777, b"x").finish());
    }
    assert!(read > 0, "the race was never lost");
    assert_eq!(listing(&outside), before);
    assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "secret-of-the-host");
    daemon.finish();
}

#[test]
fn c03_no_program_of_the_container_decompresses() {
    let daemon = daemon();
    let script = "for name in xz unpigz gzip gunzip zstd bzip2 tar; do rm -f /bin/$name; \
        printf '#!/bin/sh\\ntouch /canary\\n' >/bin/$name; chmod 755 /bin/$name; done; \
        echo >/ready; exec sleep 1000";
    run_detached(&daemon, "evil", script);
    wait_until("the programs", || (get(&daemon, "evil", "/ready").status == 200).then_some(()));
    let tar = Tar::default().file("f", 0o644, b"packed").finish();
    let pack = |program: &str| {
        let mut command = std::process::Command::new(program);
        let mut child = command
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    assert_eq!(put(&daemon, "evil", "/tmp", &pack("gzip")).status, 200);
    assert_eq!(entries(&get(&daemon, "evil", "/tmp/f").body)[0].1, "packed");
    for program in ["xz", "bzip2", "zstd"] {
        let packed = pack(program);
        let answer = put(&daemon, "evil", &format!("/tmp/{program}"), &packed);
        assert_eq!(answer.status, 404, "{}", answer.text());
        daemon.boxship(&["exec", "evil", "mkdir", &format!("/tmp/{program}")]).ok();
        let answer = put(&daemon, "evil", &format!("/tmp/{program}"), &packed);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let file = get(&daemon, "evil", &format!("/tmp/{program}/f"));
        assert_eq!(entries(&file.body)[0].1, "packed");
        // Its first bytes alone.
        assert_ne!(put(&daemon, "evil", "/tmp", &packed[..12]).status, 200);
    }
    assert_eq!(get(&daemon, "evil", "/canary").status, 404);
    daemon.finish();
}

#[test]
fn c04_a_swapped_mount_target_leads_nowhere() {
    let daemon = daemon();
    start_swapping(&daemon, "swaps", &["-v", "shared:/v"], "/v");
    let outside = daemon.root().join("outside");
    let bound = daemon.root().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let inner = format!("{}:/v/real/deep", bound.display());
    daemon.boxship(&["create", "--name", "still", "-v", "shared:/v", "-v", &inner, "busybox"]).ok();
    let before = listing(&outside);
    let tar = Tar::default().file("planted", 0o777, b"x").finish();
    for _ in 0..crate::security::race_count() / 4 {
        put(&daemon, "still", "/v/real/deep", &tar);
        drop(get_raw(&daemon, "/containers/still/archive?path=/v/real/deep/"));
    }
    assert_eq!(listing(&outside), before);
    // Where it was let through it is in the bound directory or the volume, not beside them.
    assert!(listing(&bound).len() <= 2);
    daemon.finish();
}

#[test]
fn c05_no_mode_is_changed_through_a_link() {
    let daemon = daemon();
    let victim = daemon.root().join("victim");
    std::fs::write(&victim, "host").unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    let script = format!(
        "cd /tmp; ln -s {0} dir; ln -s {0} file; ln -s / up; echo >/ready; sleep 1000",
        victim.display()
    );
    run_detached(&daemon, "links", &script);
    wait_until("the links", || (get(&daemon, "links", "/ready").status == 200).then_some(()));
    let name = victim.display().to_string();
    let mut tar = Tar::default();
    tar.entry("dir", tar::EntryType::Directory, "", 0o777, b"").file("file", 0o777, b"new");
    assert_eq!(put(&daemon, "links", "/tmp", &tar.finish()).status, 200);
    let hard = Tar::default().hardlink("hard", &name).finish();
    assert_ne!(put(&daemon, "links", "/tmp", &hard).status, 200);
    let through = Tar::default().file(&format!("up{name}"), 0o777, b"x").finish();
    assert_eq!(put(&daemon, "links", "/tmp", &through).status, 400);
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.nlink(), after.mtime_nsec()),
        (before.mode(), before.uid(), before.nlink(), before.mtime_nsec())
    );
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "host");
    daemon.finish();
}

#[test]
fn c07_special_files_neither_hang_nor_fill_the_memory() {
    let daemon = daemon();
    let script = "mkdir /s; cd /s; mkfifo fifo; dd if=/dev/zero of=sparse bs=1 count=1 seek=1099511627775; mknod zero c 1 5; \
        i=0; mkdir -p /deep; cd /deep; while [ $i -lt 600 ]; do mkdir d && cd d; i=$((i+1)); done; \
        echo >/ready; exec sleep 1000";
    run_detached(&daemon, "odd", script);
    wait_until("the files", || (get(&daemon, "odd", "/ready").status == 200).then_some(()));
    for path in ["/proc/kcore", "/proc/kmsg", "/sys/kernel"] {
        assert_eq!(get(&daemon, "odd", path).status, 404, "{path}");
    }
    for path in ["/s/fifo", "/s/zero", "/dev/zero", "/dev/null"] {
        let answer = get(&daemon, "odd", path);
        assert_eq!((answer.status, entries(&answer.body).len()), (200, 1), "{path}");
    }
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let mut stream = daemon.api();
    stream.send(b"GET /containers/odd/archive?path=/s/sparse HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(stream.response_head().unwrap().status, 200);
    let mut taken = 0;
    while taken < 64 << 20 {
        taken += stream.chunk().unwrap().unwrap().len();
    }
    // The client leaves; the daemon stops reading.
    drop(stream);
    assert!(memory() < before + (32 << 10), "{} KiB more", memory() - before);
    wait_until("the end of the copy", || {
        let threads = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
        let open = threads.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        (!open.into_iter().any(|path| path.ends_with("sparse"))).then_some(())
    });
    // Nested deeper than is sane: an end, and no stack of the daemon's is full.
    drop(get_raw(&daemon, "/containers/odd/archive?path=/deep"));
    drop(get_raw(&daemon, "/containers/odd/export"));
    assert_eq!(daemon.boxship(&["ps", "-q"]).ok().lines().count(), 1);
    daemon.finish();
}

/// A body that may break off.
fn get_raw(daemon: &Daemon, path: &str) -> std::io::Result<Response> {
    daemon.api().get(path)
}

#[test]
fn a_killed_daemon_leaves_nothing_of_a_copy() {
    let mut daemon = daemon();
    daemon.boxship(&["create", "--name", "one", "-v", "vol:/v", "busybox", "true"]).ok();
    for _ in 0..3 {
        let mut upload = daemon.api();
        let head = "PUT /containers/one/archive?path=/v HTTP/1.1\r\nHost: x\r\n\
            Content-Length: 1000000\r\n\r\n";
        upload.send(head.as_bytes()).unwrap();
        let tar = Tar::default().file("whole", 0o644, b"x").finish();
        upload.send(&tar[..1024]).unwrap();
        let whole = daemon.data_root().join("volumes/vol/_data/whole");
        wait_until("the first file", || whole.exists().then_some(()));
        std::fs::remove_file(&whole).unwrap();
        daemon.restart();
    }
    daemon.boxship(&["start", "-a", "one"]).ok();
    daemon.finish();
}
