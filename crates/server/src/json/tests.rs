//! Bodies as Go reads them.

use api_types::exec;

use super::*;

fn create(text: &str) -> Result<CreateRequest, JsonError> {
    parse(text.as_bytes()).and_then(decode_create)
}

fn refused(text: &str, expect: &str) {
    assert_eq!(create(text).unwrap_err().to_string(), expect, "{text}");
}

#[test]
fn refusals_are_in_dockerds_words() {
    refused("", "invalid JSON: got EOF while reading request body");
    refused("{", "invalid JSON: unexpected EOF");
    refused("{} x", "unexpected content after JSON");
    refused(r#"{"Image":"a"}{}"#, "unexpected content after JSON");
    refused(
        r#"{"Image":3}"#,
        "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string",
    );
    refused(
        "[]",
        "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest",
    );
    refused(
        r#"{"HostConfig":{"Memory":9223372036854775808}}"#,
        "invalid JSON: json: cannot unmarshal number 9223372036854775808 into Go struct field .HostConfig.Memory of type int64",
    );
    refused(
        r#"{"HostConfig":{"BlkioWeight":70000}}"#,
        "invalid JSON: json: cannot unmarshal number 70000 into Go struct field .HostConfig.BlkioWeight of type uint16",
    );
    refused(
        "\u{feff}{}",
        "invalid JSON: invalid character '\\ufeff' looking for beginning of value",
    );
    refused(
        "{\n\"a\":\n\t'x'}",
        "invalid JSON: invalid character '\\'' looking for beginning of value",
    );
    refused("{}", "config cannot be empty in order to create a container");
    refused(
        r#"{"HostConfig":{},"Unknown":1}"#,
        "config cannot be empty in order to create a container",
    );
    refused(r#"{"a" 1}"#, "invalid JSON: invalid character '1' after object key");
}

#[test]
fn depth_and_breadth_are_limited() {
    refused(&"[".repeat(100_000), "invalid JSON: recursion limit exceeded");
    let wide = format!(r#"{{"Env":[{}"a"]}}"#, r#""a","#.repeat(200_000));
    refused(&wide, "invalid JSON: more than 100000 elements");
    let text = format!(r#"{{"Image":"{}"}}"#, ",:\\\"".repeat(60_000));
    assert!(create(&text).is_ok());
}

#[test]
fn names_match_in_any_case_once() {
    let request = create(
        r#"{"image":"busybox","CMD":["a"],"hostconfig":{"memory":7,"networkmode":"host",
            "ulimits":[{"name":"nofile","SOFT":1}]},"labels":{"image":"kept","Image":"too"}}"#,
    )
    .unwrap();
    assert_eq!(request.config.image, "busybox");
    assert_eq!(request.config.cmd, Some(vec!["a".to_owned()]));
    assert_eq!(request.host_config.resources.memory, 7);
    assert_eq!(request.host_config.network_mode, "host");
    assert_eq!(request.host_config.resources.ulimits.unwrap()[0].name, "nofile");
    assert_eq!(request.config.labels.len(), 2, "the keys of a map are data");
    refused(
        r#"{"HostConfig":{},"hostconfig":{"Privileged":true}}"#,
        r#"invalid JSON: member "HostConfig" is given twice in different case"#,
    );
    refused(
        r#"{"HostConfig":{"Privileged":false,"privileged":true}}"#,
        r#"invalid JSON: member "Privileged" is given twice in different case"#,
    );
}

#[test]
fn the_last_of_equal_names_wins() {
    assert_eq!(create(r#"{"Image":"a","Image":"b"}"#).unwrap().config.image, "b");
}

#[test]
fn null_is_the_default() {
    let request = create(
        r#"{"Image":"a","Hostname":null,"Cmd":null,"HostConfig":{"Memory":null,"LogConfig":null,
            "ConsoleSize":null,"PortBindings":{"80/tcp":null},"RestartPolicy":{"Name":null}},
            "ExposedPorts":{"80/tcp":null},"NetworkingConfig":null}"#,
    )
    .unwrap();
    assert_eq!(request.config.cmd, None);
    assert!(request.config.exposed_ports.unwrap().contains_key("80/tcp"));
    assert_eq!(request.host_config.port_bindings.unwrap().get("80/tcp"), Some(&None));
    refused("null", "config cannot be empty in order to create a container");
}

#[test]
fn arrays_are_filled_up() {
    let check = |text: &str, expect| {
        let start: exec::StartRequest = parse(text.as_bytes()).and_then(decode).unwrap();
        assert_eq!(start.console_size, expect, "{text}");
    };
    check(r#"{"ConsoleSize":[24,80]}"#, Some([24, 80]));
    check(r#"{"ConsoleSize":[24]}"#, Some([24, 0]));
    check(r#"{"ConsoleSize":[1,2,3]}"#, Some([1, 2]));
    check(r#"{"ConsoleSize":null}"#, None);
}

/// A member missing in the table would be lost: everything that serializes must be in it.
#[test]
fn the_table_of_host_config_is_complete() {
    let full = HostConfig {
        annotations: Some(Default::default()),
        storage_opt: Some(Default::default()),
        tmpfs: Some(Default::default()),
        sysctls: Some(Default::default()),
        runtime: "runc".to_owned(),
        mounts: Some(Vec::new()),
        init: Some(true),
        ..HostConfig::default()
    };
    let Value::Object(members) = serde_json::to_value(&full).unwrap() else { panic!("an object") };
    let resources = value::fields_of::<Resources>();
    for name in members.keys().filter(|name| !resources.contains(&name.as_str())) {
        assert!(HOST_CONFIG.contains(&name.as_str()), "{name}");
    }
    assert_eq!(decode_host_config(serde_json::to_value(&full).unwrap()).unwrap(), full);
}

#[test]
fn updates_decode() {
    let request = parse(br#"{"memory":1,"RestartPolicy":{"Name":"always"}}"#)
        .and_then(decode_update)
        .unwrap();
    assert_eq!(request.resources.memory, 1);
    assert_eq!(request.restart_policy.name, "always");
}
