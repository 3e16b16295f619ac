//! Archives in and out, friendly and hostile ones. Names are those of `cases/security.tsv`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;

use image::{ImportOptions, LoadEvent};
use spec::{ErrorKind, Kinded};
use storage::sha256;
use storage::tar::Kind;
use support::{Archive, Lab, config, docker, layer};

#[test]
fn a_docker_archive_loads_and_saves_to_the_same_image() {
    let (one, two) = (layer("a", "1"), layer("b", "2"));
    let lab = Lab::new();
    let loaded = lab.load(&docker(&["x:1", "user/x:2"], &[&one, &two], "")).unwrap();
    let names: Vec<_> = loaded.iter().map(|it| it.reference.clone().unwrap()).collect();
    assert_eq!(names, ["x:1", "user/x:2"]);
    let info = lab.images.inspect("x:1").unwrap();
    assert_eq!(info.size, 2);
    assert_eq!(info.diff_ids, [sha256(&one), sha256(&two)]);
    assert_eq!(info.tags, ["x:1", "user/x:2"]);

    let mut saved = Vec::new();
    lab.images.save(&["x:1", "user/x"], &mut saved).unwrap();
    let mut again = Vec::new();
    lab.images.save(&["x:1", "user/x"], &mut again).unwrap();
    assert!(saved == again);
    let other = Lab::new();
    let loaded = other.load(&saved).unwrap();
    assert_eq!(loaded[0].id, info.id);
    assert_eq!(other.images.inspect("user/x:2").unwrap().raw, info.raw);

    // The same archive without Docker's document: an OCI layout.
    let oci = without(&saved, "manifest.json");
    let third = Lab::new();
    let loaded = third.load(&oci).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(third.images.inspect("x:1").unwrap().id, info.id);
}

/// Copies an archive but for one member.
fn without(archive: &[u8], name: &str) -> Vec<u8> {
    let mut reader = storage::tar::Reader::new(archive, ());
    let mut copy = Archive::default();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        while let bytes @ [_, ..] = reader.data().unwrap() {
            data.extend_from_slice(bytes);
            let length = bytes.len();
            reader.consume(length);
        }
        let path = String::from_utf8(entry.path).unwrap();
        if entry.kind == Kind::File && path != name {
            copy = copy.file(&path, &data);
        }
    }
    copy.end()
}

#[test]
fn archives_may_be_compressed_inside_and_out() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let one = layer("a", "1");
    let config = config(&[&one], "");
    let manifest = r#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let archive = Archive::default()
        .file("manifest.json", manifest.as_bytes())
        .file("l", &gzip(&one))
        .file("c", &config)
        .end();
    let lab = Lab::new();
    lab.load(&gzip(&archive)).unwrap();
    assert_eq!(lab.images.inspect("x:1").unwrap().id, sha256(&config));
}

#[test]
fn loading_again_changes_nothing_and_a_name_that_moves_is_told() {
    let lab = Lab::new();
    let first = docker(&["x:1"], &[&layer("a", "1")], "");
    let old = lab.load(&first).unwrap()[0].id;
    let census = lab.census();
    lab.load(&first).unwrap();
    assert_eq!(lab.census(), census);
    let mut told = Vec::new();
    let second = docker(&["x:1"], &[&layer("a", "2")], "");
    lab.images.load(&mut second.as_slice(), &mut |event| told.push(event)).unwrap();
    assert!(told.contains(&LoadEvent::Renamed { reference: "x:1".to_owned(), old }));
    assert!(matches!(told[0], LoadEvent::Layer { current, total, .. } if current == total));
    assert_eq!(lab.list(true).len(), 2);
}

#[test]
fn legacy_layers_may_be_links_inside_the_archive() {
    let one = layer("a", "1");
    let config = config(&[&one, &one], "");
    let manifest = r#"[{"Config":"c","RepoTags":null,"Layers":["1/layer.tar","2/layer.tar"]}]"#;
    let archive = Archive::default()
        .file("1/layer.tar", &one)
        .link(Kind::Symlink, "2/layer.tar", "../1/layer.tar")
        .file("c", &config)
        .file("manifest.json", manifest.as_bytes())
        .end();
    let loaded = Lab::new().load(&archive).unwrap();
    assert_eq!((loaded[0].id, &loaded[0].reference), (sha256(&config), &None));
}

/// Some forms of layers are unpacked before anybody knows that they are layers.
#[test]
fn what_looks_like_a_layer_and_is_none_does_no_harm() {
    let lab = Lab::new();
    let one = layer("a", "1");
    let mut broken = layer("b", "2");
    broken.truncate(700);
    let load = |layer_name: &str, manifest: &[u8]| {
        let json = format!(r#"[{{"Config":"c","RepoTags":["x:1"],"Layers":["{layer_name}"]}}]"#);
        let manifest = if manifest.is_empty() { json.as_bytes() } else { manifest };
        let archive = Archive::default()
            .file("l", &one)
            .file("unasked", &layer("c", "3"))
            .file("broken", &broken)
            .file("c", &config(&[&one], ""))
            .file("manifest.json", manifest)
            .end();
        lab.load(&archive).map(drop).map_err(|error| support::full(&error))
    };
    let census = lab.census();
    let refused = load("broken", b"").unwrap_err();
    assert_eq!(refused, "unexpected end of the archive at byte 700");
    assert!(load("l", &one).unwrap_err().contains("manifest.json"));
    assert_eq!(lab.census(), census);
    load("l", b"").unwrap();
    assert_eq!(lab.images.inspect("x:1").unwrap().diff_ids, [sha256(&one)]);
    // Nothing of the others.
    let census = lab.census();
    lab.load(&docker(&["x:1"], &[&one], "")).unwrap();
    assert_eq!(lab.census(), census);
}

#[test]
fn l02_links_to_the_host_find_nothing() {
    let lab = Lab::new();
    let secret = lab.dir.path().join("secret");
    std::fs::write(&secret, layer("host", "secret")).unwrap();
    let target = secret.display().to_string();
    let config = config(&[&layer("host", "secret")], "");
    let manifest = r#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let missing = |name: &str| format!("invalid archive: open {name}: no such file or directory");
    for kind in [Kind::Symlink, Kind::HardLink] {
        let layer_link = Archive::default()
            .file("manifest.json", manifest.as_bytes())
            .file("c", &config)
            .link(kind, "l", &target)
            .end();
        assert_eq!(lab.refused(&layer_link), missing("l"));
        let config_link = Archive::default()
            .file("manifest.json", manifest.as_bytes())
            .file("l", &layer("a", "1"))
            .link(kind, "c", &target)
            .end();
        assert_eq!(lab.refused(&config_link), missing("c"));
        let manifest_link = Archive::default().link(kind, "manifest.json", &target).end();
        assert!(lab.refused(&manifest_link).contains("neither manifest.json nor index.json"));
    }
    let climbing = Archive::default()
        .file("manifest.json", manifest.as_bytes())
        .file("c", &config)
        .link(Kind::Symlink, "l", "../../../../secret")
        .end();
    assert_eq!(lab.refused(&climbing), "invalid archive: a link leads out of it");
    let looping = Archive::default()
        .link(Kind::Symlink, "manifest.json", "a")
        .link(Kind::Symlink, "a", "manifest.json")
        .end();
    assert!(lab.refused(&looping).contains("neither"));
    let named = r#"[{"Config":"../../secret","RepoTags":["x:1"],"Layers":[]}]"#;
    let named = Archive::default().file("manifest.json", named.as_bytes()).end();
    assert_eq!(lab.refused(&named), missing("../../secret"));
    let climbing_member = Archive::default().file("../x", b"").end();
    assert_eq!(lab.refused(&climbing_member), "invalid archive: a name leads out of it");
}

#[test]
fn l03_wrong_digests_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let one = layer("a", "1");
    let (good, bad) = (sha256(&one), sha256(b"bad"));
    let right = docker(&["x:1"], &[&one], "");
    // The config promises another layer than there is.
    let config = config(&[b"bad"], "");
    let manifest = r#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let wrong_layer = Archive::default()
        .file("manifest.json", manifest.as_bytes())
        .file("c", &config)
        .file("l", &one)
        .end();
    assert_eq!(
        lab.refused(&wrong_layer),
        format!("invalid diffID for layer 0: expected \"{bad}\", got \"{good}\"")
    );
    // The config is not what its name says.
    let name = format!("{}.json", bad.hex());
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["x:1"],"Layers":["l"]}}]"#);
    let wrong_config = Archive::default()
        .file("manifest.json", manifest.as_bytes())
        .file(&name, &support::config(&[&one], ""))
        .file("l", &one)
        .end();
    let shown = lab.refused(&wrong_config);
    assert!(shown.starts_with("digest of the image config is sha256:"), "{shown}");
    // Cut off in the middle.
    for length in [right.len() / 2, 700, 100] {
        let shown = lab.refused(&right[..length]);
        assert!(shown.contains("unexpected end") || shown.contains("neither"), "{length}: {shown}");
    }
    // Another number of layers.
    let config = support::config(&[&one, &one], "");
    let manifest = r#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let count = Archive::default()
        .file("manifest.json", manifest.as_bytes())
        .file("c", &config)
        .file("l", &one)
        .end();
    assert_eq!(lab.refused(&count), "invalid manifest, layers length mismatch: expected 1, got 2");
    // The second image is bad: the first does not appear either.
    let first = support::config(&[&one], "");
    let both = r#"[{"Config":"c1","RepoTags":["x:1"],"Layers":["l"]},
                   {"Config":"c2","RepoTags":["x:2"],"Layers":["l"]}]"#;
    let both = Archive::default()
        .file("manifest.json", both.as_bytes())
        .file("c1", &first)
        .file("c2", b"{}")
        .file("l", &one)
        .end();
    assert_eq!(lab.refused(&both), "invalid image JSON, no RootFS key");
}

#[test]
fn l03_blobs_of_a_layout_are_checked_whole() {
    let lab = Lab::new();
    let one = layer("a", "1");
    // Extra bytes after the end of a compressed layer: the diff id is right, the blob is not.
    let packed = [zstd_frame(&one), b"\x50\x2a\x4d\x18\x04\0\0\0evil".to_vec()].concat();
    let config = config(&[&one], "");
    let layout = |layer_digest: &str, layer_size: usize, config_size: usize| {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"","digest":"{}","size":{config_size}}},
                "layers":[{{"mediaType":"","digest":"{layer_digest}","size":{layer_size}}}]}}"#,
            sha256(&config)
        );
        let digest = sha256(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"","digest":"{digest}","size":{},
                "annotations":{{"org.opencontainers.image.ref.name":"x:1"}}}}]}}"#,
            manifest.len()
        );
        Archive::default()
            .file("index.json", index.as_bytes())
            .file(&format!("blobs/sha256/{}", digest.hex()), manifest.as_bytes())
            .file(&format!("blobs/sha256/{}", sha256(&config).hex()), &config)
            .file(&format!("blobs/{}", layer_digest.replace(':', "/")), &packed)
            .end()
    };
    let frame = sha256(&zstd_frame(&one)).to_string();
    let shown = lab.refused(&layout(&frame, packed.len(), config.len()));
    assert!(shown.starts_with("digest of a layer is sha256:"), "{shown}");
    let whole = sha256(&packed).to_string();
    let shown = lab.refused(&layout(&whole, packed.len(), config.len() + 1));
    assert!(shown.contains(" bytes, not "), "{shown}");
    let loaded = lab.load(&layout(&whole, packed.len(), config.len())).unwrap();
    assert_eq!(loaded[0].reference.as_deref(), Some("x:1"));
}

/// A zstd frame with one raw block; enough for a small tar.
fn zstd_frame(data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).unwrap();
    let block = (size << 3) | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &size.to_le_bytes(), &block.to_le_bytes()[..3], data]
        .concat()
}

#[test]
fn indexes_in_indexes_lead_to_this_machine() {
    let one = layer("a", "1");
    let mine = config(&[&one], "");
    let other = config(&[&one], r#","variant":"other""#);
    let mut archive = Archive::default();
    let mut blob = |bytes: &[u8]| {
        let path = format!("blobs/sha256/{}", sha256(bytes).hex());
        archive = std::mem::take(&mut archive).file(&path, bytes);
        (sha256(bytes).to_string(), bytes.len())
    };
    let layer_blob = blob(&one);
    let mut manifest = |config: &[u8]| {
        let (digest, size) = blob(config);
        let json = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":{size}}},
                "layers":[{{"digest":"{}","size":{}}}]}}"#,
            layer_blob.0, layer_blob.1
        );
        blob(json.as_bytes())
    };
    let (other, mine_manifest) = (manifest(&other), manifest(&mine));
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    };
    let missing = sha256(b"not in the archive");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{}","size":{},"platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"digest":"{missing}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}},
            {{"digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{arch}"}}}},
            {{"digest":"{}","size":{},"platform":{{"os":"unknown","architecture":"unknown"}}}}]}}"#,
        other.0, other.1, mine_manifest.0, mine_manifest.1, other.0, other.1
    );
    let index = blob(index.as_bytes());
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":{},
            "annotations":{{"io.containerd.image.name":"docker.io/library/x:1",
                            "org.opencontainers.image.ref.name":"1"}}}}]}}"#,
        spec::oci::MEDIA_INDEX,
        index.0,
        index.1
    );
    let archive = archive.file("index.json", top.as_bytes()).end();
    let lab = Lab::new();
    let loaded = lab.load(&archive).unwrap();
    assert_eq!((loaded[0].id, loaded[0].reference.as_deref()), (sha256(&mine), Some("x:1")));
}

#[test]
fn g07_malformed_documents_in_archives_are_refused() {
    let lab = Lab::new();
    let with_config = |json: &str| {
        let manifest = r#"[{"Config":"c","RepoTags":["x:1"],"Layers":[]}]"#;
        Archive::default()
            .file("manifest.json", manifest.as_bytes())
            .file("c", json.as_bytes())
            .end()
    };
    for json in ["{}", "[]", "null", "", r#"{"rootfs":null}"#, r#"{"rootfs":{},"os":"windows"}"#] {
        let archive = with_config(json);
        let error = lab.load(&archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{json}");
        lab.refused(&archive);
    }
    for manifest in ["{}", "null", "[{}]", r#"[{"Config":7,"Layers":[]}]"#, "[[[["] {
        let archive = Archive::default().file("manifest.json", manifest.as_bytes()).end();
        assert!(
            lab.refused(&archive).starts_with("invalid archive: manifest.json: "),
            "{manifest}"
        );
    }
    for tag in ["UPPER:1", "x", "x:1@sha256:aa", "a b:1", ""] {
        let manifest = format!(r#"[{{"Config":"c","RepoTags":["{tag}"],"Layers":[]}}]"#);
        let archive = Archive::default()
            .file("manifest.json", manifest.as_bytes())
            .file("c", br#"{"rootfs":{}}"#)
            .end();
        let error = lab.load(&archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{tag}");
    }
    // What is merely unusual is fine.
    let odd = r#"{"rootfs":{"type":"layers","diff_ids":null},"history":null,"os":null,
                  "config":null,"created":null,"features":["x"]}"#;
    let id = lab.load(&with_config(odd)).unwrap()[0].id;
    let info = lab.images.inspect(&id.to_string()).unwrap();
    assert_eq!((info.size, info.chain, info.config.history), (0, None, None));
    assert_eq!(lab.images.history("x:1").unwrap(), []);
    assert_eq!(
        lab.images.list(true, &spec::Filters::default()).unwrap()[0].created,
        -62_135_596_800
    );
    lab.images.save(&["x:1"], &mut Vec::new()).unwrap();
}

#[test]
fn garbage_is_refused() {
    let lab = Lab::new();
    assert!(lab.refused(b"garbage").contains("unexpected end of the archive"));
    assert!(lab.refused(b"").contains("neither manifest.json nor index.json"));
    assert!(lab.refused(&[7; 2048]).contains("invalid tar header"));
}

#[test]
fn imports_make_images_of_one_layer() {
    let lab = Lab::new();
    let root = layer("bin/sh", "#!");
    let options = ImportOptions {
        reference: image::parse_target("mine", "").unwrap(),
        message: "Imported from -".to_owned(),
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV a=b\nUSER me".to_owned()],
        architecture: String::new(),
        variant: String::new(),
    };
    let id = lab.images.import(&mut root.as_slice(), &options).unwrap();
    let info = lab.images.inspect("mine").unwrap();
    assert_eq!((info.id, info.tags), (id, vec!["mine:latest".to_owned()]));
    let run = lab.images.config_for_run(&id).unwrap();
    assert_eq!(run.cmd.unwrap(), ["sh"]);
    assert_eq!((run.env.unwrap(), run.user.unwrap()), (vec!["a=b".to_owned()], "me".to_owned()));
    let history = lab.images.history("mine").unwrap();
    assert_eq!((history.len(), history[0].comment.as_str()), (1, "Imported from -"));
    assert_eq!(history[0].size, 2);

    let before = lab.census();
    let bad = ImportOptions { changes: vec!["RUN x".to_owned()], ..ImportOptions::default() };
    let error = lab.images.import(&mut root.as_slice(), &bad).unwrap_err();
    assert_eq!(error.to_string(), "RUN is not a valid change command");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(lab.census(), before);
}

#[test]
fn a_crash_between_steps_leaves_no_image_and_no_garbage() {
    let lab = Lab::new();
    lab.load(&docker(&["x:1"], &[&layer("a", "1")], "")).unwrap();
    // A config without a record; a layer nobody holds.
    lab.images.storage().content().put(b"{}").unwrap();
    let mut lease = lab.images.storage().lease();
    let tar = layer("b", "2");
    lab.images.storage().apply_layer(&mut lease, None, &mut tar.as_slice(), None).unwrap();
    drop(lease);
    let census = lab.census();
    let lab = lab.reopen();
    assert_eq!(lab.census().len(), census.len() - 1);
    assert_eq!(lab.list(true).len(), 1);
}

#[test]
fn images_outlive_the_loss_of_their_records() {
    let lab = Lab::new();
    let id = lab.load(&docker(&["x:1"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let Lab { images, dir } = lab;
    drop(images);
    std::fs::write(dir.path().join("metadata.redb"), "damaged").unwrap();
    let store = metadata::Store::open(dir.path().join("metadata.redb")).unwrap();
    let storage = storage::Storage::open(dir.path().join("storage"), store).unwrap();
    let images = image::Images::open(storage).unwrap();
    let info = images.inspect(&id.to_string()).unwrap();
    assert_eq!((info.size, info.tags.len()), (1, 0));
}
