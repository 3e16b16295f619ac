//! Containers committed to images.
#![allow(clippy::unwrap_used)]

mod support;

use image::CommitOptions;
use spec::oci::RunConfig;
use support::{Lab, docker, layer};

fn options(lab: &Lab, changes: &[&str]) -> CommitOptions {
    CommitOptions {
        reference: image::parse_target("made", "1").unwrap(),
        parent: Some(lab.images.resolve("base").unwrap()),
        run: RunConfig { cmd: Some(vec!["sh".to_owned()]), ..RunConfig::default() },
        author: "who".to_owned(),
        message: "why".to_owned(),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        created_by: "sh -c x".to_owned(),
    }
}

fn lab() -> Lab {
    let lab = Lab::new();
    let base = lab.load(&docker(&["base:latest"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let chain = lab.images.chain(&base).unwrap();
    lab.images.storage().create_container("c", chain.as_ref()).unwrap();
    lab
}

#[test]
fn a_commit_adds_a_layer_and_says_who_and_why() {
    let lab = lab();
    let upper = lab.images.storage().rootfs("c").unwrap().upper;
    std::fs::write(upper.join("new"), "x").unwrap();
    let id = lab.images.commit("c", &options(&lab, &["ENV A=b"])).unwrap();
    let info = lab.images.inspect("made:1").unwrap();
    assert_eq!((info.id, info.diff_ids.len()), (id, 2));
    assert_eq!(info.parent, Some(lab.images.resolve("base").unwrap()));
    assert_eq!(info.config.author.as_deref(), Some("who"));
    let run = info.config.config.unwrap();
    assert_eq!((run.cmd, run.env), (Some(vec!["sh".to_owned()]), Some(vec!["A=b".to_owned()])));
    let newest = lab.images.history("made:1").unwrap().remove(0);
    assert_eq!((newest.created_by.as_str(), newest.comment.as_str()), ("sh -c x", "why"));
    let lab = lab.reopen();
    assert_eq!(lab.images.resolve("made:1").unwrap(), id);
}

#[test]
fn a_commit_without_changes_adds_no_layer() {
    let lab = lab();
    lab.images.commit("c", &options(&lab, &[])).unwrap();
    assert_eq!(lab.images.inspect("made:1").unwrap().diff_ids.len(), 1);
    assert_eq!(std::fs::read_dir(lab.dir.path().join("storage/ingest")).unwrap().count(), 0);
}

#[test]
fn a_bad_change_or_container_makes_nothing() {
    let lab = lab();
    let before = lab.census();
    lab.images.commit("c", &options(&lab, &["FROM x"])).unwrap_err();
    lab.images.commit("nope", &options(&lab, &[])).unwrap_err();
    assert_eq!(lab.census(), before);
}
