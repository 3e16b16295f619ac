//! `system check`: what is damaged, missing, too much or miscounted is found and put right, in both
//! forms of layers; what is being worked on is let alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metadata::{Store, Table};
use serde_json::{Value, json};
use testkit::image::{Builder, Tar};
use testkit::{Daemon, Output, run::run};

use crate::kills::{make_source, step};
use crate::layouts::with_layout;
use crate::{daemon, field};

const FORMS: [&str; 2] = ["dirs", "erofs"];

fn check(daemon: &Daemon, flags: &[&str]) -> Output {
    daemon.boxship(&[&["system", "check"], flags].concat())
}

/// Nothing is wrong.
#[track_caller]
fn sound(daemon: &Daemon) {
    let text = check(daemon, &[]).ok();
    assert!(text.ends_with(": no problems"), "{text}");
}

/// The lines of problems, without what is said of them.
#[track_caller]
fn found(daemon: &Daemon, flags: &[&str], code: i32) -> Vec<String> {
    let output = check(daemon, &[&["-q"], flags].concat());
    assert_eq!(output.code, code, "{output:?}");
    let lines = output.stdout.lines().filter(|line| !line.starts_with(' '));
    lines.map(str::to_owned).collect()
}

/// An image with layers of one file each, `own0` and so on; and those layers.
fn own(name: &str, layers: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let layer = |number: usize| {
        let content = format!("{name} {number}").repeat(1000);
        let path = format!("own{number}");
        Tar::default().directory("d").file(&path, 0o644, content.as_bytes()).finish()
    };
    let layers: Vec<_> = (0..layers).map(layer).collect();
    let image = layers.iter().fold(Builder::busybox(name), |image, one| image.layer(one.clone()));
    (image.archive(), layers)
}

/// The directories of an image's layers, bottom first.
fn places(daemon: &Daemon, image: &str) -> Vec<PathBuf> {
    let inspect = daemon.api().get(&format!("/images/{image}/json")).unwrap().json();
    let mut chain = String::new();
    let mut places = Vec::new();
    for diff_id in inspect["RootFS"]["Layers"].as_array().unwrap() {
        let diff_id = diff_id.as_str().unwrap();
        chain = match chain.as_str() {
            "" => diff_id.to_owned(),
            parent => {
                let text = format!("{parent} {diff_id}");
                format!("sha256:{}", testkit::image::sha256(text.as_bytes()))
            }
        };
        places.push(layers(daemon).join(&chain["sha256:".len()..]));
    }
    places
}

fn layers(daemon: &Daemon) -> PathBuf {
    daemon.data_root().join("storage/layers")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn quarantined(daemon: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.data_root().join("storage/quarantine"));
    let names = entries.into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_damaged_layer_is_set_aside_and_comes_back_with_its_image() {
    for form in FORMS {
        let daemon = with_layout(form);
        let (archive, _) = own("own:1", 2);
        daemon.load(&archive);
        daemon.boxship(&["create", "--name", "before", "own:1", "cat", "/own0"]).ok();
        sound(&daemon);
        let place = places(&daemon, "own:1")[1].clone();
        match form {
            "dirs" => flip(&place.join("diff/own0"), 700),
            _ => flip(&place.join("tar"), 512 + 512 + 700),
        }
        let hex = place.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(found(&daemon, &["--quick"], 0), [""; 0]);
        let output = check(&daemon, &[]);
        assert_eq!(output.code, 1);
        assert!(output.stdout.starts_with(&format!("layer sha256:{hex}: its files make sha256:")));
        let advice = "\n  needed by own:1: repair, then load or pull again\n";
        assert!(output.stdout.contains(advice), "{}", output.stdout);
        assert!(output.stdout.ends_with(": 1 problem\n"), "{}", output.stdout);
        assert_eq!(quarantined(&daemon).len(), 0);

        let report = check(&daemon, &["--repair", "--format", "json"]);
        assert_eq!(report.code, 1);
        let report: Value = serde_json::from_str(&report.stdout).unwrap();
        assert_eq!(report["Problems"][0]["Solved"], false);
        assert_eq!(report["Problems"][0]["NeededBy"], json!(["own:1"]));
        assert!(quarantined(&daemon)[0].starts_with(&hex), "{:?}", quarantined(&daemon));
        assert!(!place.exists());
        let ran = daemon.boxship(&["run", "--rm", "own:1", "true"]);
        assert_eq!(ran.code, 125);
        let reason = format!(
            "image own:1 cannot be used: its layer sha256:{hex} is lost or was set aside as \
             damaged; load or pull the image again"
        );
        assert!(ran.stderr.contains(&reason), "{}", ran.stderr);
        let started = daemon.boxship(&["start", "-a", "before"]);
        assert_ne!(started.code, 0);
        assert!(started.stderr.contains("load or pull"), "{}", started.stderr);
        assert_ne!(daemon.boxship(&["save", "-o", "/dev/null", "own:1"]).code, 0);
        daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
        let lost = format!("layer sha256:{hex}: its files are lost or were set aside");
        assert_eq!(found(&daemon, &["--repair"], 1), [lost]);

        daemon.load(&archive);
        sound(&daemon);
        assert!(daemon.boxship(&["start", "-a", "before"]).ok().starts_with("own:1 0own:1 0"));
        daemon.boxship(&["run", "--rm", "own:1", "cat", "/own1"]).ok();
        daemon.boxship(&["rm", "before"]).ok();
        daemon.boxship(&["rmi", "own:1"]).ok();
        assert!(!place.exists());
        sound(&daemon);
        assert_eq!(quarantined(&daemon).len(), 1);
        daemon.finish();
    }
}

#[test]
fn missing_layers_come_back_wherever_they_were() {
    for form in FORMS {
        let mut daemon = with_layout(form);
        let (archive, _) = own("own:1", 3);
        daemon.load(&archive);
        daemon.boxship(&["tag", "own:1", "other:1"]).ok();
        let places = places(&daemon, "own:1");
        // The one between them stays.
        for place in [&places[1], &places[3]] {
            std::fs::remove_dir_all(place).unwrap();
        }
        assert_eq!(found(&daemon, &["--quick"], 1).len(), 2);
        assert_eq!(found(&daemon, &["--repair", "--quick"], 1).len(), 2);
        daemon.restart();
        assert_eq!(found(&daemon, &[], 1).len(), 2);
        daemon.load(&archive);
        sound(&daemon);
        let read = ["run", "--rm", "own:1", "sh", "-c", "cat /own? | wc -c"];
        assert_eq!(daemon.boxship(&read).ok(), "21000");
        daemon.boxship(&["rmi", "own:1", "other:1"]).ok();
        sound(&daemon);
        assert!(places[1..].iter().all(|place| !place.exists()));
        daemon.finish();
    }
}

/// One of the files that belong to a layer of one file.
#[test]
fn tables_and_indexes_are_checked() {
    let daemon = with_layout("erofs");
    let (archive, _) = own("own:1", 1);
    daemon.load(&archive);
    let place = places(&daemon, "own:1")[1].clone();
    flip(&place.join("root.erofs"), 1100);
    let lines = found(&daemon, &[], 1);
    assert!(lines[0].ends_with("its index is not what its tables of contents make"), "{lines:?}");
    assert_eq!(found(&daemon, &["--repair"], 0).len(), 1);
    sound(&daemon);
    daemon.boxship(&["run", "--rm", "own:1", "cat", "/own0"]).ok();
    flip(&place.join("toc"), 100);
    let lines = found(&daemon, &["--quick"], 1);
    assert!(lines[0].contains("its table of contents: "), "{lines:?}");
    found(&daemon, &["--repair"], 1);
    daemon.load(&archive);
    sound(&daemon);
    daemon.boxship(&["run", "--rm", "own:1", "cat", "/own0"]).ok();
    daemon.finish();
}

#[test]
fn a_config_that_is_gone_comes_back() {
    let daemon = daemon();
    let (archive, _) = own("own:1", 1);
    daemon.load(&archive);
    let id = field(&daemon, "own:1", "{{.Id}}");
    let blob = daemon.data_root().join("storage/content/sha256").join(&id["sha256:".len()..]);
    flip(&blob, 20);
    let line = format!("image {id}: blob {id} is damaged");
    assert_eq!(found(&daemon, &[], 1), [line.as_str()]);
    assert_eq!(found(&daemon, &["--repair"], 1), [line]);
    assert_eq!(quarantined(&daemon).len(), 1);
    assert_eq!(found(&daemon, &[], 1), [format!("image {id}: blob {id} does not exist")]);
    daemon.load(&archive);
    sound(&daemon);
    daemon.boxship(&["run", "--rm", "own:1", "true"]).ok();
    daemon.finish();
}

#[test]
fn what_nobody_has_is_removed() {
    for form in FORMS {
        let daemon = with_layout(form);
        daemon.boxship(&["create", "--name", "own", "-v", "kept:/v", "busybox"]).ok();
        let root = daemon.data_root();
        let nothing = "0".repeat(64);
        let strays = [
            format!("storage/layers/{nothing}"),
            format!("storage/containers/{nothing}"),
            "storage/ingest/left".to_owned(),
            format!("containers/{nothing}"),
            "volumes/.making/left".to_owned(),
            "volumes/.removing/left".to_owned(),
            "storage/mounts/left".to_owned(),
        ];
        for stray in &strays {
            std::fs::create_dir_all(root.join(stray).join("sub")).ok();
        }
        let mount = root.join("storage/mounts/left");
        std::fs::remove_dir(mount.join("sub")).unwrap();
        run(daemon.inside("mount").args(["-t", "tmpfs", "none"]).arg(&mount), b"").ok();
        let blobs = root.join("storage/content/sha256");
        let blob = testkit::image::sha256(b"{}");
        std::fs::write(blobs.join(&blob), "{}").unwrap();
        std::fs::write(blobs.join("tmp-left"), "{").unwrap();
        let lines = found(&daemon, &["--quick"], 1);
        assert_eq!(lines.len(), strays.len() + 2, "{lines:#?}");
        for stray in &strays {
            assert!(lines.iter().any(|line| line.contains(stray.as_str())), "{stray}");
        }
        assert_eq!(found(&daemon, &["--repair"], 0).len(), lines.len());
        sound(&daemon);
        assert!(strays.iter().all(|stray| !root.join(stray).exists()));
        // Nothing in the place of a volume is deleted.
        std::fs::create_dir_all(root.join("volumes/stranger/_data/data")).unwrap();
        assert_eq!(found(&daemon, &[], 1).len(), 1);
        found(&daemon, &["--repair"], 0);
        let listed = daemon.boxship(&["run", "--rm", "-v", "stranger:/v", "busybox", "ls", "/v"]);
        assert_eq!(listed.ok(), "data");
        sound(&daemon);
        daemon.finish();
    }
}

#[test]
fn what_containers_and_volumes_lost_is_made_again() {
    let daemon = daemon();
    let id = daemon.boxship(&["create", "--name", "own", "-v", "kept:/v", "busybox", "true"]).ok();
    let root = daemon.data_root();
    std::fs::remove_dir_all(root.join("volumes/kept")).unwrap();
    std::fs::remove_dir_all(root.join("storage/containers").join(&id).join("upper")).unwrap();
    let expect = [
        format!("container {id}: what it wrote is missing"),
        "volume kept: its directory is missing".to_owned(),
    ];
    assert_eq!(found(&daemon, &[], 1), expect);
    assert_eq!(found(&daemon, &["--repair"], 0), expect);
    std::fs::remove_dir_all(root.join("storage/containers").join(&id).join("work")).unwrap();
    found(&daemon, &["--repair"], 0);
    sound(&daemon);
    daemon.boxship(&["start", "-a", "own"]).ok();
    daemon.finish();
}

/// Changes a record behind the daemon's back.
fn edit(daemon: &Daemon, table: &'static str, key: &str, change: impl Fn(Value) -> Option<Value>) {
    let store = Store::open(daemon.data_root().join("metadata.redb")).unwrap();
    let (table, key) = (Table::<Value>::new(table), key.to_owned());
    let record = store.get(table, &key).unwrap().unwrap_or_default();
    let changed = change(record);
    let written = store.write(move |txn| match changed {
        Some(record) => table.put(txn, &key, &record),
        None => {
            table.remove(txn, &key);
            Ok(())
        }
    });
    written.unwrap();
}

#[test]
fn wrong_records_are_corrected() {
    let mut daemon = daemon();
    let (archive, _) = own("own:1", 2);
    daemon.load(&archive);
    let hex: Vec<_> = places(&daemon, "own:1")
        .iter()
        .map(|place| place.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    daemon.terminate();
    edit(&daemon, "layers", &hex[0], |mut record| {
        record["holders"] = json!(7);
        Some(record)
    });
    // The next start sweeps its files.
    edit(&daemon, "layers", &hex[2], |_record| None);
    edit(&daemon, "container_states", "nobody", |_nothing| Some(json!({})));
    edit(&daemon, "volumes", "odd", |_nothing| Some(json!("no record")));
    edit(&daemon, "references", "docker.io/library/gone:1", |_nothing| {
        Some(json!({"image": format!("sha256:{}", "0".repeat(64))}))
    });
    daemon.launch();
    let lines = found(&daemon, &[], 1);
    let mut expect = vec![
        "record volumes odd: ".to_owned(),
        format!("layer sha256:{}: its record counts 7 references, not 2", hex[0]),
        format!("layer sha256:{}: its record is missing", hex[2]),
        "name docker.io/library/gone:1: image sha256:000".to_owned(),
        "record container_states nobody: no container".to_owned(),
    ];
    let matches = |lines: &[String], expect: &[String]| {
        assert_eq!(lines.len(), expect.len(), "{lines:#?}");
        for start in expect {
            assert!(
                lines.iter().any(|line| line.starts_with(start.as_str())),
                "{start}: {lines:#?}"
            );
        }
    };
    // The layer below has lost the one that held it, but its own record does not know.
    matches(&lines, &expect);
    matches(&found(&daemon, &["--repair"], 1), &expect);
    expect = vec![format!("layer sha256:{}: its files are lost", hex[2])];
    matches(&found(&daemon, &["--repair"], 1), &expect);
    daemon.load(&archive);
    sound(&daemon);
    daemon.boxship(&["run", "--rm", "own:1", "cat", "/own0", "/own1"]).ok();
    daemon.boxship(&["rmi", "own:1"]).ok();
    sound(&daemon);
    assert!(layers(&daemon).join(&hex[0]).exists());
    assert!(!layers(&daemon).join(&hex[1]).exists());
    daemon.finish();
}

/// Nothing is lost with a record that was damaged: neither a layer nor what a container wrote.
#[test]
fn damaged_records_are_made_again_or_their_files_set_aside() {
    for form in FORMS {
        let mut daemon = with_layout(form);
        let (archive, _) = own("own:1", 2);
        daemon.load(&archive);
        let place = places(&daemon, "own:1")[1].clone();
        let hex = place.file_name().unwrap().to_string_lossy().into_owned();
        let id = daemon.boxship(&["create", "busybox"]).ok();
        let wrote = daemon.data_root().join("storage/containers").join(&id);
        std::fs::write(wrote.join("upper/wrote"), "kept").unwrap();
        daemon.terminate();
        edit(&daemon, "layers", &hex, |_record| Some(json!("damaged")));
        edit(&daemon, "containers", &id, |_record| Some(json!("damaged")));
        daemon.launch();
        let lines = found(&daemon, &["--repair"], 0);
        assert!(lines.contains(&format!("layer sha256:{hex}: its record is missing")), "{lines:?}");
        sound(&daemon);
        daemon.boxship(&["run", "--rm", "own:1", "cat", "/own0", "/own1"]).ok();
        let aside = quarantined(&daemon);
        let aside = aside.iter().find(|name| name.starts_with(&id)).unwrap();
        let aside = daemon.data_root().join("storage/quarantine").join(aside);
        assert_eq!(std::fs::read_to_string(aside.join("upper/wrote")).unwrap(), "kept");
        daemon.boxship(&["rmi", "own:1"]).ok();
        assert!(!place.exists());
        daemon.finish();
    }
}

/// Loads, imports, commits, copies, prunes, removals and containers, all at the same time.
#[test]
fn running_work_is_not_taken_for_faults() {
    for form in FORMS {
        let daemon = with_layout(form);
        make_source(&daemon);
        let over = AtomicBool::new(false);
        let until = Instant::now() + Duration::from_secs(4);
        let mut checks = 0;
        std::thread::scope(|scope| {
            for kind in 0..7 {
                let (over, socket) = (&over, daemon.socket_path());
                scope.spawn(move || {
                    for number in 0.. {
                        assert!(step(&socket, kind, number).unwrap(), "step {kind}");
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    daemon.boxship(&["run", "--rm", "-v", "/v", "busybox", "true"]).ok();
                }
            });
            let mut outputs = Vec::new();
            while Instant::now() < until || checks < 10 {
                let flags: &[&str] = [&["--quick"][..], &["--repair"]][checks % 2];
                outputs.push(check(&daemon, flags));
                checks += 1;
            }
            over.store(true, Ordering::Relaxed);
            for output in outputs {
                assert_eq!(output.code, 0, "{output:?}");
                assert!(output.stdout.ends_with(": no problems\n"), "{}", output.stdout);
            }
        });
        sound(&daemon);
        daemon.finish();
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let daemon = daemon();
    let output = check(&daemon, &["--format", "{{.}}"]);
    assert_eq!(output.code, 1);
    assert_eq!(output.stderr, "invalid format \"{{.}}\": must be json\n");
    daemon.finish();
}
