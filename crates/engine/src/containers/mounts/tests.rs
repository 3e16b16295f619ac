//! Mounts as users write them, and what they become.

use super::*;

fn bind(spec: &str) -> String {
    match parse_bind(spec, "") {
        Ok(mount) => format!("{} {:?} {:?}", mount.target, mount.source, mount.readonly),
        Err(error) => error.to_string(),
    }
}

fn check_bind(spec: &str, expect: &str) {
    assert_eq!(bind(spec), expect, "{spec}");
}

#[test]
fn binds_are_refused_in_dockers_words() {
    check_bind("", "invalid volume specification: ''");
    check_bind("::", "invalid volume specification: '::'");
    check_bind("/x:ro", "invalid volume specification: '/x:ro'");
    check_bind("/tmp:/a:/b:ro", "invalid volume specification: '/tmp:/a:/b:ro'");
    check_bind("/tmp:/x:foo", "invalid mode: foo");
    check_bind("/tmp:/x:ro,rw", "invalid mode: ro,rw");
    check_bind("/tmp:/x:z,Z", "invalid mode: z,Z");
    check_bind("/tmp:/x:rro", "invalid mode: rro");
    check_bind(
        "/tmp:x",
        "invalid volume specification: '/tmp:x': invalid mount config for type \"bind\": invalid \
         mount path: 'x' mount path must be absolute",
    );
    check_bind(
        "a:b",
        "invalid volume specification: 'a:b': invalid mount config for type \"volume\": invalid \
         mount path: 'b' mount path must be absolute",
    );
    check_bind(
        "/tmp:/",
        "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": invalid \
         specification: destination can't be '/'",
    );
    check_bind(
        "/tmp:/x:nocopy",
        "invalid volume specification: '/tmp:/x:nocopy': invalid mount config for type \"bind\": \
         field VolumeOptions must not be specified",
    );
    check_bind(
        "rel/x:/x",
        "create rel/x: \"rel/x\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path",
    );
    check_bind(
        "ok_vol:/x:rslave",
        "invalid volume specification: 'ok_vol:/x:rslave': invalid mount config for type \
         \"volume\": field BindOptions must not be specified",
    );
}

#[test]
fn binds_are_understood() {
    let expect = |propagation, readonly, rro| {
        format!(
            "/x Bind {{ path: \"/tmp\", recursive: true, propagation: {propagation}, \
             recursive_readonly: {rro}, create: true }} {readonly}"
        )
    };
    check_bind("/tmp:/x", &expect("RPrivate", false, "No"));
    check_bind("/tmp:/x:", &expect("RPrivate", false, "No"));
    check_bind("/tmp/./:/x/y/..:ro,Z,rslave", &expect("RSlave", true, "IfPossible"));
    let volume = |name: &str, copy: bool| {
        let named = !name.is_empty();
        format!(
            "/x Volume {{ name: {name:?}, subpath: \"\", named: {named}, copy: {copy}, driver: \"\", \
             wanted: Wanted {{ driver: \"\", options: None, labels: None }} }}"
        )
    };
    check_bind("/x", &format!("{} false", volume("", true)));
    check_bind("ok_vol:/x", &format!("{} false", volume("ok_vol", true)));
    check_bind("ok_vol:/x:nocopy,ro", &format!("{} true", volume("ok_vol", false)));
    let mode = |spec| parse_bind(spec, "").unwrap().mode;
    assert_eq!(
        (mode("vol:/x"), mode("vol:/x:ro"), mode("/x")),
        ("z".into(), "ro".into(), "".into())
    );
}

fn check_mount(json: &str, expect: &str) {
    let request: MountRequest = serde_json::from_str(json).unwrap();
    let got = match parse_mount(&request) {
        Ok(mount) => format!("{} {:?}", mount.target, mount.source),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expect, "{json}");
}

#[test]
fn mounts_are_checked_in_dockers_words() {
    check_mount("{}", "invalid mount config for type \"\": field Target must not be empty");
    check_mount(
        r#"{"Type":"foo","Target":"/x"}"#,
        "invalid mount config for type \"foo\": mount type unknown",
    );
    check_mount(
        r#"{"Type":"bind","Target":"/x"}"#,
        "invalid mount config for type \"bind\": field Source must not be empty",
    );
    check_mount(
        r#"{"Type":"bind","Source":"rel","Target":"/x"}"#,
        "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be \
         absolute",
    );
    check_mount(
        r#"{"Type":"bind","Source":"/tmp","Target":"/x","VolumeOptions":{}}"#,
        "VolumeOptions must not be specified on mount type \"bind\"",
    );
    check_mount(
        r#"{"Type":"bind","Source":"/tmp","Target":"/x","BindOptions":{"Propagation":"foo"}}"#,
        "invalid mount config for type \"bind\": invalid propagation mode: foo",
    );
    check_mount(
        r#"{"Type":"tmpfs","Source":"/y","Target":"/x"}"#,
        "invalid mount config for type \"tmpfs\": field Source must not be specified",
    );
    check_mount(
        r#"{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"Options":[["foo"]]}}"#,
        "invalid mount config for type \"tmpfs\": invalid option: foo",
    );
    check_mount(
        r#"{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"Mode":511,"SizeBytes":4096,"Options":[["exec"]]}}"#,
        "/x Tmpfs { options: [\"size=4096\", \"mode=777\", \"exec\"], listed: true }",
    );
    check_mount(
        r#"{"Type":"volume","Source":"!","Target":"/x"}"#,
        "create !: volume name is too short, names should be at least two alphanumeric characters",
    );
    check_mount(
        r#"{"Type":"volume","Target":"/x","VolumeOptions":{"Subpath":"../x"}}"#,
        "invalid mount config for type \"volume\": subpath must be a relative path within the \
         volume",
    );
    check_mount(
        r#"{"Type":"volume","Target":"/x","VolumeOptions":{"Subpath":"x"}}"#,
        "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
    );
    check_mount(
        r#"{"Type":"volume","Source":"vol","Target":"/x","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"DriverConfig":{"Options":{"o":"x"}}}}"#,
        "/x Volume { name: \"vol\", subpath: \"\", named: true, copy: false, driver: \"\", wanted: \
         Wanted { driver: \"\", options: Some({\"o\": \"x\"}), labels: Some({\"a\": \"b\"}) } }",
    );
}

#[test]
fn duplicates_are_refused_and_depth_orders() {
    let host_config = HostConfig {
        binds: Some(vec!["/tmp:/a/b".to_owned(), "/tmp:/a".to_owned()]),
        tmpfs: Some(BTreeMap::from([("/t/".to_owned(), "size=1k,exec,ro".to_owned())])),
        ..HostConfig::default()
    };
    let volumes = BTreeMap::from([("/a".to_owned(), Empty {}), ("/v".to_owned(), Empty {})]);
    let plan = super::plan(&host_config, Some(&volumes), Vec::new()).unwrap();
    let targets: Vec<_> = plan.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/a", "/t", "/v", "/a/b"]);
    assert!(plan[1].readonly);

    let twice = HostConfig {
        tmpfs: Some(BTreeMap::from([("/a".to_owned(), String::new())])),
        ..host_config
    };
    let error = super::plan(&twice, None, Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "Duplicate mount point: /a");
}

#[test]
fn paths_clean_as_go_cleans_them() {
    for (path, expect) in [
        ("/a/../b/", "/b"),
        ("/../..", "/"),
        ("a//b/./c", "a/b/c"),
        ("../a", "../a"),
        ("", "."),
        ("a/..", "."),
    ] {
        assert_eq!(clean(path), expect, "{path}");
    }
}
