//! Expectations are what docker 28.2.2 printed for the same format.

use super::*;

const CONTAINER: &str = r#"{"Id":"abc","Args":["-c","echo hi"],
    "State":{"Status":"exited","Running":false,"Pid":0,"ExitCode":3},"Name":"/clt",
    "HostConfig":{"Binds":null,"LogConfig":{"Type":"json-file","Config":{}},
        "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"PidsLimit":null},
    "Mounts":[{"Type":"bind","Source":"/a"}],
    "Config":{"Cmd":["sh"],"Entrypoint":null,"Labels":{"b":"2","a":"1"},"Volumes":null,
        "Env":["A=1","B=2"]},
    "NetworkSettings":{"Ports":{},"Networks":{"bridge":{"Gateway":"10.0.0.1"}}}}"#;

fn run(format: &str) -> String {
    let data = from_json(CONTAINER.as_bytes(), "container").unwrap();
    match Template::parse(format).and_then(|template| template.render(&data)) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

fn check(format: &str, expect: &str) {
    assert_eq!(run(format), expect, "{format}");
}

#[test]
fn values_print_as_go_prints_them() {
    check("{{.Name}}", "/clt");
    check("{{.State}}", "{exited false 0 3}");
    check("{{.Args}} {{.Config.Labels}}", "[-c echo hi] map[a:1 b:2]");
    check("{{.HostConfig.Binds}} {{.Config.Entrypoint}} {{.Config.Volumes}}", "[] [] map[]");
    check("{{.HostConfig.PidsLimit}} {{.State.Health}}", "<nil> <nil>");
    check("{{.HostConfig.LogConfig}}", "{json-file map[]}");
    check("{{.HostConfig.PortBindings}}", "map[80/tcp:[{ 8080}]]");
    check("{{.NetworkSettings.Ports}}", "map[]");
}

#[test]
fn json_keeps_order_and_nulls() {
    check("{{json .State}}", r#"{"Status":"exited","Running":false,"Pid":0,"ExitCode":3}"#);
    check("{{json .Config.Labels}}", r#"{"a":"1","b":"2"}"#);
    check("{{json .HostConfig.Binds}} {{json .Name}}", r#"null "/clt""#);
}

#[test]
fn missing_things_differ_by_where_they_are_missing() {
    check("{{.Config.Labels.nope}}", "<no value>");
    check("[{{index .Config.Labels \"nope\"}}]", "[]");
    check("{{.NetworkSettings.Networks.nope.IPAddress}}", "<no value>");
    check("{{range .Mounts}}[{{.Name}}]{{end}}", "[]");
    check(
        "{{.Config.Foo}}",
        "template: :1:9: executing \"\" at <.Config.Foo>: map has no entry for key \"Foo\"",
    );
    check(
        "{{.State.Health.Status}}",
        "template: :1:8: executing \"\" at <.State.Health.Status>: map has no entry for key \
         \"Status\"",
    );
    check(
        "{{index .Args 5}}",
        "template: :1:2: executing \"\" at <index .Args 5>: error calling index: index out of \
         range: 5",
    );
    check(
        "{{.State.Pid.x}}",
        "template: :1:8: executing \"\" at <.State.Pid.x>: can't evaluate field x in type interface {}",
    );
}

#[test]
fn control_flow() {
    check("{{if .State.Running}}y{{else if gt .State.ExitCode 2}}z{{else}}n{{end}}", "z");
    check(
        "{{with .State}}{{.Status}}{{end}}{{with .State.Health}}x{{else}}none{{end}}",
        "exitednone",
    );
    check("{{range .Args}}{{.}},{{end}}", "-c,echo hi,");
    check("{{range $i, $v := .Args}}{{$i}}={{$v}} {{end}}", "0=-c 1=echo hi ");
    check("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 ");
    check("{{range .HostConfig.Binds}}x{{else}}empty{{end}}", "empty");
    check("{{range .Config.Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1");
    check("{{$x := .Name}}{{range .Args}}{{$x}}{{$.Id}} {{end}}", "/cltabc /cltabc ");
    check("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2");
    check("{{if and .Name (not .State.Running) (eq .State.ExitCode 1 3)}}ok{{end}}", "ok");
    check("{{or .State.Health .Name}}", "/clt");
}

#[test]
fn functions_and_pipelines() {
    check("{{.Name | printf \"%s!\" | upper}}", "/CLT!");
    check("{{join .Args \" \"}}|{{split .Name \"l\"}}", "-c echo hi|[/c t]");
    check(
        "{{upper .Name}}{{title \"ab cd\"}}{{pad .Name 2 3}}|{{truncate .Name 2}}",
        "/CLTAb Cd  /clt   |/c",
    );
    check(
        "{{println 1 2}}{{print 1 2 \"a\" \"b\" 3}}",
        "1 2\n1 2a b3".replace("a b", "ab").as_str(),
    );
    check("{{len .Args}} {{len .Name}} {{slice .Name 1 3}}", "2 4 cl");
    check("{{(index .NetworkSettings.Networks \"bridge\").Gateway}}", "10.0.0.1");
    check("{{(index (index .HostConfig.PortBindings \"80/tcp\") 0).HostPort}}", "8080");
    check("{{html \"<a>\"}} {{urlquery \"a b/\"}}", "&lt;a&gt; a+b%2F");
    check(
        "{{printf \"%s|%d|%v|%q|%5s|%-5s|%05d|%x|%%\" .Name .State.ExitCode .State.Running .Name \"a\" \"b\" 42 255}}",
        "/clt|3|false|\"/clt\"|    a|b    |00042|ff|%",
    );
    check("{{printf \"%d\" \"x\"}}", "%!d(string=x)");
    check("{{lower 1}}", "template: :1:8: executing \"\" at <1>: expected string; found 1");
}

#[test]
fn text_and_trimming() {
    check("x }} y", "x }} y");
    check("{{/* c */}}a {{- \"b\" -}} c", "abc");
    check("{{\"a\\tb\"}}{{`\\n`}}", "a\tb\\n");
    check("", "");
}

#[test]
fn parse_errors_are_gos() {
    check("{{.ID", "template: :1: unclosed action");
    check("{{", "template: :1: unclosed action");
    check("{{nosuch .Name}}", "template: :1: function \"nosuch\" not defined");
    check("{{.Name | nosuch}}", "template: :1: function \"nosuch\" not defined");
    check("{{$x}}", "template: :1: undefined variable \"$x\"");
    check("{{}}", "template: :1: missing value for command");
    check("{{if}}{{end}}", "template: :1: missing value for if");
    check("{{if .Name}}x", "template: :1: unexpected EOF");
    check("{{end}}", "template: :1: unexpected {{end}}");
    check("{{\"x}}", "template: :1: unterminated quoted string");
    check("a\n{{template \"x\"}}", "template: :2: {{template}} is not supported in formats");
}
