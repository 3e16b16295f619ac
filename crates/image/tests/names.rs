//! Finding, naming, listing and removing images, by Docker's rules and in its words.
#![allow(clippy::unwrap_used)]

mod support;

use image::{ImageError, ImageId, Removed, Use, parse_target};
use spec::{ErrorKind, Filters, Kinded, Reference};
use support::{Lab, config, docker, layer};

fn id_of(lab: &Lab, name: &str) -> ImageId {
    lab.images.resolve(name).unwrap()
}

fn tag(lab: &Lab, source: &str, target: &str) -> Result<(), ImageError> {
    let target = parse_target(target, "")?.unwrap();
    lab.images.tag(source, &target)
}

/// Removes and shows each line as the CLI does, ids shortened; or the error and its kind.
fn rmi(lab: &Lab, name: &str, force: bool, user: Option<(&str, bool)>) -> Vec<String> {
    let in_use = |_id: &ImageId| {
        user.map(|(container, running)| Use { container: container.to_owned(), running })
    };
    match lab.images.remove(name, force, true, &in_use) {
        Err(error) => vec![format!("{:?} {error}", error.kind())],
        Ok(removed) => removed
            .into_iter()
            .map(|line| match line {
                Removed::Untagged(name) => format!("Untagged: {name}"),
                Removed::Deleted(digest) => format!("Deleted: {}", &digest.hex()[..12]),
            })
            .collect(),
    }
}

#[test]
fn images_are_found_by_name_id_and_prefix() {
    let lab = Lab::new();
    let id = lab.load(&docker(&["busybox:latest"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let hex = id.hex();
    for text in ["busybox", "docker.io/library/busybox:latest", &hex, &id.to_string(), &hex[..5]] {
        assert_eq!(lab.images.resolve(text).unwrap(), id, "{text}");
    }
    assert_eq!(lab.images.resolve(&format!("sha256:{}", &hex[..7])).unwrap(), id);
    let absent = "ab".repeat(32);
    for (text, message) in [
        ("nope", "No such image: nope:latest".to_owned()),
        ("nope:1", "No such image: nope:1".to_owned()),
        (&absent, format!("No such image: sha256:{absent}")),
        (&format!("busybox@sha256:{absent}"), format!("No such image: busybox@sha256:{absent}")),
    ] {
        let error = lab.images.resolve(text).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (message, ErrorKind::NotFound));
    }
    let error = lab.images.resolve("ABC").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid reference format: repository name (library/ABC) must be lowercase"
    );
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    // The same first digit twice: neither.
    let mut first = vec![id];
    for n in 0.. {
        let archive = docker(&[], &[&layer("a", "1")], &format!(r#","comment":"{n}""#));
        let next = lab.load(&archive).unwrap()[0].id;
        if first.iter().any(|id| id.hex()[..1] == next.hex()[..1]) {
            let error = lab.images.resolve(&next.hex()[..1]).unwrap_err();
            assert!(error.to_string().starts_with("No such image: "));
            break;
        }
        first.push(next);
    }
}

#[test]
fn targets_are_checked_in_dockers_words() {
    let check = |repository: &str, tag: &str, expect: &str| {
        let got = match parse_target(repository, tag) {
            Ok(Some(reference)) => reference.familiar(),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect);
    };
    let digest = format!("a@sha256:{}", "ab".repeat(32));
    check("", "", "none");
    check("abc", "", "abc:latest");
    check("abc", "1", "abc:1");
    check("abc:2", "1", "abc:1");
    check("abc", "x..@", "invalid tag format");
    check(&digest, "", "cannot import digest reference");
    check("a@sha256:1", "", "invalid reference format");
    let lab = Lab::new();
    lab.load(&docker(&["x:1"], &[&layer("a", "1")], "")).unwrap();
    assert_eq!(
        tag(&lab, "x:1", "sha256:1").unwrap_err().to_string(),
        "refusing to create an ambiguous tag using digest algorithm as name"
    );
    assert_eq!(tag(&lab, "nope:1", "y").unwrap_err().to_string(), "No such image: nope:1");
    tag(&lab, "x:1", "y").unwrap();
    assert_eq!(id_of(&lab, "y"), id_of(&lab, "x:1"));
    assert!(lab.images.inspect("y").unwrap().tagged.is_some());
}

#[test]
fn removing_follows_dockers_rules() {
    let lab = Lab::new();
    let id = lab.load(&docker(&["x:1", "x:2"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let short = id.hex()[..12].to_owned();
    let stopped = Some(("c0ffee000000ffff", false));
    let running = Some(("c0ffee000000ffff", true));
    assert_eq!(rmi(&lab, "x:2", false, stopped), ["Untagged: x:2"]);
    assert_eq!(
        rmi(&lab, "x:1", false, stopped),
        [format!(
            "Conflict conflict: unable to remove repository reference \"x:1\" (must force) - \
             container c0ffee000000 is using its referenced image {short}"
        )]
    );
    assert_eq!(
        rmi(&lab, &short, false, stopped),
        [format!(
            "Conflict conflict: unable to delete {short} (must be forced) - \
             image is being used by stopped container c0ffee000000"
        )]
    );
    assert_eq!(
        rmi(&lab, &short, true, running),
        [format!(
            "Conflict conflict: unable to delete {short} (cannot be forced) - \
             image is being used by running container c0ffee000000"
        )]
    );
    tag(&lab, "x:1", "other/y:2").unwrap();
    assert_eq!(
        rmi(&lab, &short, false, None),
        [format!(
            "Conflict conflict: unable to delete {short} (must be forced) - \
             image is referenced in multiple repositories"
        )]
    );
    assert_eq!(rmi(&lab, "x:1", false, stopped), ["Untagged: x:1"]);
    // By force the name goes; a running container keeps the image.
    assert_eq!(rmi(&lab, "other/y:2", true, running), ["Untagged: other/y:2"]);
    let top = storage::sha256(&layer("a", "1")).hex()[..12].to_owned();
    assert_eq!(
        rmi(&lab, &id.to_string(), true, stopped),
        [format!("Deleted: {short}"), format!("Deleted: {top}")]
    );
    assert_eq!(rmi(&lab, "x:1", false, None), ["NotFound No such image: x:1"]);
    assert_eq!(lab.census(), [""; 0]);
}

#[test]
fn an_id_with_names_of_one_repository_goes_with_them() {
    let lab = Lab::new();
    let id = lab.load(&docker(&["x:1"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let top = storage::sha256(&layer("a", "1")).hex()[..12].to_owned();
    assert_eq!(
        rmi(&lab, &id.hex()[..4], false, None),
        [
            "Untagged: x:1".to_owned(),
            format!("Deleted: {}", &id.hex()[..12]),
            format!("Deleted: {top}")
        ]
    );
    let id = lab.load(&docker(&["x:1", "y:1"], &[&layer("a", "1")], "")).unwrap()[0].id;
    let lines = rmi(&lab, &id.hex(), true, None);
    assert_eq!(lines[..2], ["Untagged: x:1", "Untagged: y:1"]);
    assert_eq!(lab.census(), [""; 0]);
}

#[test]
fn shared_layers_stay_for_the_other_image_and_for_containers() {
    let (base, one, two) = (layer("base", "0"), layer("a", "1"), layer("b", "2"));
    let lab = Lab::new();
    lab.load(&docker(&["x:1"], &[&base, &one], "")).unwrap();
    lab.load(&docker(&["x:2"], &[&base, &two], "")).unwrap();
    let storage = lab.images.storage();
    assert_eq!(storage.all_layers().unwrap().len(), 3);
    let chain = lab.images.chain(&id_of(&lab, "x:2")).unwrap();
    storage.create_container("c", chain.as_ref()).unwrap();
    assert_eq!(rmi(&lab, "x:1", false, None).len(), 3);
    assert_eq!(storage.all_layers().unwrap().len(), 2);
    // Removed by force under a stopped container: the layers wait for it.
    assert_eq!(rmi(&lab, "x:2", true, Some(("c", false))).len(), 2);
    assert_eq!(lab.list(true), [""; 0]);
    assert_eq!(storage.all_layers().unwrap().len(), 2);
    storage.remove_container("c").unwrap();
    assert_eq!(lab.census(), [""; 0]);
}

#[test]
fn parents_are_shown_on_request_and_go_with_their_last_child() {
    let base = layer("base", "0");
    let lab = Lab::new();
    let parent = lab.load(&docker(&["p:1"], &[&base], "")).unwrap()[0].id;
    let lease = lab.images.storage().lease();
    let child = config(&[&base], r#","comment":"child""#);
    let names = [parse_target("c", "1").unwrap().unwrap()];
    let child = lab.images.create(&lease, &child, Some(parent), &names).unwrap();
    let short = parent.hex()[..12].to_owned();
    assert_eq!(
        rmi(&lab, &short, true, None),
        [format!(
            "Conflict conflict: unable to delete {short} (cannot be forced) - \
             image has dependent child images"
        )]
    );
    assert_eq!(rmi(&lab, "p:1", false, None), ["Untagged: p:1"]);
    assert_eq!(lab.list(false).len(), 1);
    assert_eq!(lab.list(true).len(), 2);
    assert_eq!(lab.filtered(false, r#"{"dangling":["true"]}"#).unwrap(), [""; 0]);
    let history = lab.images.history("c:1").unwrap();
    assert_eq!(
        (history[0].id.clone(), &history[0].tags),
        (child.to_string(), &vec!["c:1".to_owned()])
    );
    assert_eq!(rmi(&lab, "c:1", false, None).len(), 4);
    assert_eq!(lab.census(), [""; 0]);
}

#[test]
fn lists_are_filtered() {
    let lab = Lab::new();
    let labelled = r#","config":{"Labels":{"a":"b"}}"#;
    lab.load(&docker(&["x:1", "user/y:2"], &[&layer("a", "1")], labelled)).unwrap();
    let newer = config(&[&layer("a", "1")], "");
    let newer =
        String::from_utf8(newer).unwrap().replace("\"created\":\"2024", "\"created\":\"2025");
    let lease = lab.images.storage().lease();
    lab.images.create(&lease, newer.as_bytes(), None, &[]).unwrap();
    let names = |filters: &str| -> Vec<String> {
        lab.filtered(false, filters).unwrap().into_iter().map(|line| line[7..].to_owned()).collect()
    };
    let all = ["", "x:1 user/y:2"];
    assert_eq!(names(""), all);
    assert_eq!(names(r#"{"dangling":["true"]}"#), [""]);
    assert_eq!(names(r#"{"dangling":["false"]}"#), ["x:1 user/y:2"]);
    assert_eq!(names(r#"{"label":["a=b"]}"#), ["x:1 user/y:2"]);
    assert_eq!(names(r#"{"label":["a=c"]}"#), [""; 0]);
    assert_eq!(names(r#"{"reference":["x"]}"#), ["x:1"]);
    assert_eq!(names(r#"{"reference":["*/*:2"]}"#), ["user/y:2"]);
    assert_eq!(names(r#"{"since":["x:1"]}"#), [""]);
    assert_eq!(names(r#"{"before":["x:1"]}"#), [""; 0]);
    assert_eq!(names(r#"{"until":["2024-06-01"]}"#), ["x:1 user/y:2"]);
    for (filters, message) in [
        (r#"{"x":["y"]}"#, "invalid filter 'x'"),
        (r#"{"dangling":["maybe"]}"#, "invalid filter 'dangling=[maybe]'"),
        (r#"{"before":["nope"]}"#, "No such image: nope:latest"),
        (r#"{"reference":["[x"]}"#, "syntax error in pattern"),
        (r#"{"until":["xx"]}"#, "failed to parse value as time or duration: \"xx\""),
    ] {
        assert_eq!(lab.filtered(false, filters).unwrap_err().to_string(), message);
    }
}

#[test]
fn prune_takes_what_nothing_needs() {
    let lab = Lab::new();
    lab.load(&docker(&["x:1"], &[&layer("a", "one")], "")).unwrap();
    lab.load(&docker(&["y:1"], &[&layer("b", "two!")], "")).unwrap();
    lab.load(&docker(&[], &[&layer("c", "three")], "")).unwrap();
    let used = id_of(&lab, "y:1");
    let in_use =
        |id: &ImageId| (*id == used).then(|| Use { container: "c".to_owned(), running: false });
    let report = lab.images.prune(&Filters::default(), &in_use).unwrap();
    assert_eq!((report.removed.len(), report.reclaimed), (2, 5));
    let mut filters = Filters::default();
    filters.add("dangling", "false");
    filters.add("until", "2023-01-01");
    assert_eq!(lab.images.prune(&filters, &in_use).unwrap().removed, []);
    let mut filters = Filters::default();
    filters.add("dangling", "false");
    let report = lab.images.prune(&filters, &in_use).unwrap();
    assert_eq!((report.removed.len(), report.reclaimed), (3, 3));
    assert_eq!(report.removed[0], Removed::Untagged("x:1".to_owned()));
    assert_eq!(lab.list(true).len(), 1);
    let mut filters = Filters::default();
    filters.add("x", "y");
    assert_eq!(lab.images.prune(&filters, &in_use).unwrap_err().to_string(), "invalid filter 'x'");
}

#[test]
fn prune_keeps_the_newest_of_each_repository() {
    let lab = Lab::new();
    // Made at the same time: the order is that of the names.
    for (name, content) in [("x:1", "a"), ("x:2", "b"), ("x:3", "c"), ("x:4", "d"), ("y:1", "e")] {
        lab.load(&docker(&[name], &[&layer(content, content)], "")).unwrap();
    }
    // The oldest of one repository may be the newest of another.
    lab.images.tag("x:1", &Reference::parse("z:1").unwrap()).unwrap();
    lab.images.tag("x:4", &Reference::parse("x:4").unwrap()).unwrap();
    let used = id_of(&lab, "x:2");
    let in_use =
        |id: &ImageId| (*id == used).then(|| Use { container: "c".to_owned(), running: false });
    let prune = |filters: &str| lab.images.prune(&Filters::parse(filters).unwrap(), &in_use);
    let left = || {
        let lines = lab.list(true).join(" ");
        let mut names: Vec<_> = lines.split(' ').filter(|word| word.contains(':')).collect();
        names.sort_unstable();
        names.join(" ")
    };
    for (filters, message) in [
        (r#"{"dangling":["false"],"keep-last":["0"]}"#, "invalid filter 'keep-last=[0]'"),
        (r#"{"dangling":["false"],"keep-last":["x"]}"#, "invalid filter 'keep-last=[x]'"),
        (r#"{"dangling":["false"],"keep-last":["1","2"]}"#, "invalid filter 'keep-last=[1 2]'"),
        (r#"{"dangling":["false"],"keep-last":[]}"#, "invalid filter 'keep-last=[]'"),
        (
            r#"{"keep-last":["1"]}"#,
            "the filter 'keep-last' needs 'dangling=false': images without a name have no order",
        ),
    ] {
        assert_eq!(prune(filters).unwrap_err().to_string(), message);
    }
    prune(r#"{"dangling":["false"],"keep-last":["4"]}"#).unwrap();
    assert_eq!(left(), "x:1 x:2 x:3 x:4 y:1 z:1");
    let report = prune(r#"{"dangling":["false"],"keep-last":["2"]}"#).unwrap();
    // The images tagged last are x:4 and x:1; x:2 is used.
    assert_eq!(report.removed[0], Removed::Untagged("x:3".to_owned()));
    assert_eq!(left(), "x:1 x:2 x:4 y:1 z:1");
    prune(r#"{"dangling":["false"],"keep-last":["1"]}"#).unwrap();
    assert_eq!(left(), "x:1 x:2 x:4 y:1 z:1");
}

#[test]
fn saving_what_is_not_there_says_so_before_the_first_byte() {
    let lab = Lab::new();
    let mut output = Vec::new();
    let mut save = |name| lab.images.save(&[name], &mut output).unwrap_err().to_string();
    assert_eq!(save("nope"), "No such image: nope");
    assert_eq!(save("nope:1"), "reference does not exist");
    assert_eq!(
        save("ABC"),
        "invalid reference format: repository name (library/ABC) must be lowercase"
    );
    assert_eq!(output, b"");
}

/// Loads, removals and prunes at once: nothing is lost that has a name, nothing stays without.
#[test]
fn loads_and_removals_at_once_end_in_a_store_without_garbage() {
    let lab = Lab::new();
    let base = layer("base", "0");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (lab, base) = (&lab, &base);
            scope.spawn(move || {
                for round in 0..5 {
                    let top = layer("top", &format!("{n}"));
                    let name = format!("x{n}:1");
                    lab.load(&docker(&[&name], &[base, &top], "")).unwrap();
                    lab.images.save(&[&name], &mut Vec::new()).unwrap();
                    if round % 2 == 0 {
                        lab.images.remove(&name, false, true, &|_| None).unwrap();
                    }
                    lab.images.prune(&Filters::default(), &|_| None).unwrap();
                }
            });
        }
    });
    for n in 0..4 {
        let gone = lab.images.resolve(&format!("x{n}:1")).is_err();
        assert!(gone, "the last round removes");
    }
    assert_eq!(lab.census(), [""; 0]);
}
