//! The life of containers through the API, as clients drive it.

use std::io::{BufRead, Read, Write};

use serde_json::{Value, json};
use testkit::{Daemon, wait_until};

use crate::{daemon, field, run_detached};

fn create(daemon: &Daemon, name: &str, body: &Value) -> String {
    let response =
        daemon.api().post_json(&format!("/v1.51/containers/create?name={name}"), body).unwrap();
    assert_eq!(response.status, 201, "{}", response.text());
    response.json()["Id"].as_str().unwrap().to_owned()
}

fn post(daemon: &Daemon, path: &str) -> u16 {
    daemon.api().post(path).unwrap().status
}

#[test]
fn wait_flushes_its_headers_before_anything_happens() {
    let daemon = daemon();
    create(&daemon, "w1", &json!({"Image": "busybox", "Cmd": ["sh", "-c", "exit 3"]}));
    let mut waiting = daemon.api();
    waiting.send(b"POST /v1.51/containers/w1/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(waiting.response_head().unwrap().status, 200);
    let mut removed = daemon.api();
    removed.send(b"POST /v1.51/containers/w1/wait?condition=removed HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(removed.response_head().unwrap().status, 200);
    assert_eq!(post(&daemon, "/containers/w1/start"), 204);
    let body = waiting.chunk().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["StatusCode"], 3);
    daemon.api().request("DELETE", "/containers/w1", &[], b"").unwrap();
    let body = removed.chunk().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["StatusCode"], 3);
    daemon.finish();
}

#[test]
fn attach_before_start_sees_the_first_byte_and_the_last() {
    let daemon = daemon();
    create(
        &daemon,
        "a1",
        &json!({
            "Image": "busybox", "Cmd": ["sh", "-c", "echo first; cat; echo last >&2"],
            "OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        }),
    );
    let mut stream = daemon.api();
    stream.send(b"POST /v1.51/containers/a1/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(stream.response_head().unwrap().status, 101);
    assert_eq!(post(&daemon, "/containers/a1/start"), 204);
    let payload = vec![b'x'; 300_000];
    stream.stream().get_mut().write_all(&payload).unwrap();
    stream.finish_writing().unwrap();
    let mut all = Vec::new();
    stream.stream().read_to_end(&mut all).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut rest = &all[..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
        let side = if rest[0] == 1 { &mut out } else { &mut err };
        side.extend_from_slice(&rest[8..8 + length]);
        rest = &rest[8 + length..];
    }
    assert_eq!(out, [b"first\n", &payload[..]].concat());
    assert_eq!(err, b"last\n");
    daemon.finish();
}

#[test]
fn old_clients_hijack_without_an_upgrade() {
    let daemon = daemon();
    create(
        &daemon,
        "o1",
        &json!({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true, "Tty": false}),
    );
    let mut stream = daemon.api();
    stream.send(b"POST /v1.18/containers/o1/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let head = stream.response_head().unwrap();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("application/vnd.docker.raw-stream"))
    );
    assert_eq!(post(&daemon, "/containers/o1/start"), 204);
    stream.stream().get_mut().write_all(b"echoed\n").unwrap();
    let mut frame = [0; 15];
    stream.stream().read_exact(&mut frame).unwrap();
    assert_eq!(&frame[8..], b"echoed\n");
    stream.finish_writing().unwrap();
    daemon.finish();
}

#[test]
fn a_terminal_is_raw_and_can_be_resized_and_left() {
    let daemon = daemon();
    create(
        &daemon,
        "t1",
        &json!({"Image": "busybox", "Cmd": ["sh"], "Tty": true, "OpenStdin": true, "HostConfig": {"ConsoleSize": [33, 99]}}),
    );
    let mut stream = daemon.api();
    stream.send(b"POST /v1.51/containers/t1/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(stream.response_head().unwrap().status, 101);
    assert_eq!(post(&daemon, "/containers/t1/start"), 204);
    let mut expect = |send: &[u8], wanted: &str| {
        stream.stream().get_mut().write_all(send).unwrap();
        let mut seen = String::new();
        while !seen.contains(wanted) {
            assert_ne!(stream.stream().read_line(&mut seen).unwrap(), 0, "no {wanted} in {seen}");
        }
    };
    expect(b"stty size\n", "33 99");
    assert_eq!(post(&daemon, "/containers/t1/resize?h=41&w=120"), 200);
    expect(b"stty size\n", "41 120");
    expect(b"tty; id -u\n", "/dev/pts/0");
    // Detach keys end the stream and nothing else.
    stream.stream().get_mut().write_all(&[16, 17]).unwrap();
    let mut rest = Vec::new();
    stream.stream().read_to_end(&mut rest).unwrap();
    assert_eq!(field(&daemon, "t1", "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn a_websocket_attaches() {
    let daemon = daemon();
    run_detached(&daemon, "ws", "while read line; do echo got $line; done");
    drop(daemon.boxship(&["rm", "-f", "ws"]).ok());
    create(
        &daemon,
        "ws",
        &json!({"Image": "busybox", "Cmd": ["sh", "-c", "while read line; do echo got $line; done"], "OpenStdin": true}),
    );
    assert_eq!(post(&daemon, "/containers/ws/start"), 204);
    let mut stream = daemon.api();
    stream.send(b"GET /v1.51/containers/ws/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").unwrap();
    let head = stream.response_head().unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A masked binary frame with mask 0 carries the bytes as they are.
    stream.stream().get_mut().write_all(b"\x82\x83\0\0\0\0hi\n").unwrap();
    let mut frame = [0; 9];
    stream.stream().read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x82\x07got hi\n");
    daemon.finish();
}

#[test]
fn stop_kills_after_its_timeout_and_returns_at_once_when_obeyed() {
    let daemon = daemon();
    run_detached(&daemon, "obeys", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    run_detached(&daemon, "ignores", "trap '' TERM; while :; do sleep 1; done");
    wait_until("the trap", || {
        daemon.boxship(&["logs", "obeys"]).stdout.contains("ready").then_some(())
    });
    assert_eq!(post(&daemon, "/containers/obeys/stop"), 204);
    assert_eq!(field(&daemon, "obeys", "{{.State.ExitCode}}"), "5");
    assert_eq!(post(&daemon, "/containers/ignores/stop?t=1"), 204);
    assert_eq!(field(&daemon, "ignores", "{{.State.ExitCode}}"), "137");
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "own",
            "--stop-signal",
            "USR1",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done",
        ])
        .ok();
    wait_until("the trap", || {
        daemon.boxship(&["logs", "own"]).stdout.contains("ready").then_some(())
    });
    assert_eq!(post(&daemon, "/containers/own/stop"), 204);
    assert_eq!(field(&daemon, "own", "{{.State.ExitCode}}"), "9");
    daemon.finish();
}

#[test]
fn signals_reach_the_first_process() {
    let daemon = daemon();
    run_detached(&daemon, "s1", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done");
    wait_until("ready", || daemon.boxship(&["logs", "s1"]).ok().contains("ready").then_some(()));
    assert_eq!(post(&daemon, "/containers/s1/kill?signal=SIGUSR1"), 204);
    wait_until("the trap", || daemon.boxship(&["logs", "s1"]).ok().contains("usr1").then_some(()));
    assert_eq!(post(&daemon, "/containers/s1/kill?signal=nosuch"), 400);
    assert_eq!(post(&daemon, "/containers/s1/kill?signal=9"), 204);
    assert_eq!(daemon.boxship(&["wait", "s1"]).ok(), "137");
    daemon.finish();
}

#[test]
fn a_paused_container_stands_still() {
    let daemon = daemon();
    run_detached(&daemon, "p1", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done");
    wait_until("output", || (!daemon.boxship(&["logs", "p1"]).ok().is_empty()).then_some(()));
    daemon.boxship(&["pause", "p1"]).ok();
    assert_eq!(
        field(&daemon, "p1", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"),
        "paused true true"
    );
    // What was written before may still be on its way to the log.
    let still = wait_until("the last line before the pause", || {
        let seen = daemon.boxship(&["logs", "p1"]).ok();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (daemon.boxship(&["logs", "p1"]).ok() == seen).then_some(seen)
    });
    daemon.boxship(&["unpause", "p1"]).ok();
    wait_until("more output", || (daemon.boxship(&["logs", "p1"]).ok() != still).then_some(()));
    daemon.boxship(&["pause", "p1"]).ok();
    daemon.boxship(&["rm", "-f", "p1"]).ok();
    daemon.finish();
}

#[test]
fn limits_hold_and_change_while_running() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "l1",
            "-m",
            "64m",
            "--pids-limit",
            "20",
            "--cpus",
            "0.5",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let inside = daemon.boxship(&["exec", "l1", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"]).ok();
    assert_eq!(inside, (64 << 20).to_string());
    let forks = daemon.boxship(&[
        "exec",
        "l1",
        "sh",
        "-c",
        "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo survived",
    ]);
    assert!(forks.stderr.contains("can't fork") || forks.code != 0, "{forks:?}");
    daemon
        .boxship(&["update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "100", "l1"])
        .ok();
    let inside = daemon.boxship(&["exec", "l1", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"]).ok();
    assert_eq!(inside, (128 << 20).to_string());
    assert_eq!(
        field(&daemon, "l1", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"),
        format!("{} 100", 128 << 20)
    );
    daemon.finish();
}

#[test]
fn the_list_filters_exactly() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "web1",
            "-l",
            "tier=front",
            "-l",
            "a",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "web2",
            "-l",
            "tier=frontend",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    daemon.boxship(&["run", "--name", "done3", "busybox", "sh", "-c", "exit 3"]).fails(3);
    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        for filter in filters {
            args.extend(["--filter", filter]);
        }
        let mut lines: Vec<_> = daemon.boxship(&args).ok().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    for (filters, expect) in [
        (&["label=tier=front"][..], "web1"),
        (&["label=tier"], "web1 web2"),
        (&["label=tier=front", "label=a"], "web1"),
        (&["name=web"], "web1 web2"),
        (&["name=^web1$"], "web1"),
        (&["status=exited"], "done3"),
        (&["exited=3"], "done3"),
        (&["exited=0"], ""),
        (&["status=running", "name=2"], "web2"),
        (&["ancestor=busybox"], "done3 web1 web2"),
        (&["before=web2"], "web1"),
        (&["since=web1"], "done3 web2"),
        (&["network=bridge"], "done3 web1 web2"),
        (&["volume=/nowhere"], ""),
    ] {
        assert_eq!(names(filters), expect, "{filters:?}");
    }
    daemon.boxship(&["ps", "--filter", "nosuch=1"]).fails(1);
    daemon.finish();
}

/// Rows of lists are kept as they were sent; each of these changes what a row shows.
#[test]
fn a_list_is_never_an_old_one() {
    let daemon = daemon();
    let list = |query: &str| daemon.api().get(&format!("/containers/json?all=1{query}")).unwrap();
    // With sizes, no row is a kept one. Ages may grow between the two.
    let listed = || {
        wait_until("two lists of one second", || {
            let (kept, mut fresh) = (list("").json(), list("&size=1").json());
            for row in fresh.as_array_mut().unwrap() {
                row.as_object_mut().unwrap().retain(|name, _| !name.starts_with("Size"));
            }
            (kept == fresh).then_some(kept)
        })
    };
    run_detached(&daemon, "c1", "sleep 1000");
    daemon.boxship(&["create", "--name", "c2", "--link", "c1:friend", "busybox"]).ok();
    let column = |name: &str| {
        let list = listed();
        let mut column: Vec<_> =
            list.as_array().unwrap().iter().map(|row| row[name].to_string()).collect();
        column.sort();
        column.join(" ")
    };
    assert_eq!(column("Names"), r#"["/c1","/c2/friend"] ["/c2"]"#);
    assert_eq!(column("State"), r#""created" "running""#);
    daemon.boxship(&["pause", "c1"]).ok();
    assert_eq!(column("State"), r#""created" "paused""#);
    daemon.boxship(&["unpause", "c1"]).ok();
    daemon.boxship(&["network", "create", "--subnet", "10.73.0.0/24", "n1"]).ok();
    daemon.boxship(&["network", "connect", "n1", "c1"]).ok();
    assert!(column("NetworkSettings").contains("10.73.0.2"));
    daemon.boxship(&["network", "disconnect", "n1", "c1"]).ok();
    assert!(!column("NetworkSettings").contains("10.73.0.2"));
    daemon.boxship(&["rename", "c1", "c3"]).ok();
    assert!(column("Names").contains("/c3"));
    daemon.boxship(&["rm", "c2"]).ok();
    assert_eq!(column("Names"), r#"["/c3"]"#);
    // The name of the image goes to another one.
    assert_eq!(column("Image"), r#""busybox""#);
    daemon.boxship(&["commit", "c3", "busybox"]).ok();
    assert!(column("Image").contains("sha256:"));
    daemon.boxship(&["rm", "-f", "c3"]).ok();
    assert_eq!(list("").text(), "[]\n");
    daemon.finish();
}

#[test]
fn health_is_checked_and_told() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "-d",
            "--name",
            "h1",
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "busybox",
            "sh",
            "-c",
            "sleep 1000",
        ])
        .ok();
    let status = || field(&daemon, "h1", "{{.State.Health.Status}}");
    wait_until("unhealthy", || (status() == "unhealthy").then_some(()));
    assert!(daemon.boxship(&["ps"]).ok().contains("(unhealthy)"));
    daemon.boxship(&["exec", "h1", "touch", "/ok"]).ok();
    wait_until("healthy", || (status() == "healthy").then_some(()));
    assert!(field(&daemon, "h1", "{{len .State.Health.Log}}").parse::<u32>().unwrap() <= 5);
    daemon.finish();
}

#[test]
fn execs_run_as_asked() {
    let daemon = daemon();
    run_detached(&daemon, "e1", "sleep 1000");
    let exec = |args: &[&str]| daemon.boxship(&[&["exec"], args].concat());
    assert_eq!(
        exec(&[
            "-u",
            "1000:100",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            "e1",
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $A"
        ])
        .ok(),
        "1000\n100\n/tmp\nb"
    );
    assert_eq!(daemon.boxship_with(&["exec", "-i", "e1", "cat"], b"through").ok(), "through");
    assert_eq!(exec(&["e1", "sh", "-c", "echo out; echo err >&2; exit 4"]).code, 4);
    assert_eq!(exec(&["e1", "nosuch"]).code, 127);
    assert_eq!(exec(&["e1", "/etc/passwd"]).code, 126);
    assert_eq!(exec(&["-d", "e1", "touch", "/detached"]).ok(), "");
    wait_until("the detached exec", || (exec(&["e1", "ls", "/detached"]).code == 0).then_some(()));
    let id = daemon
        .api()
        .post_json("/containers/e1/exec", &json!({"Cmd": ["sleep", "1000"]}))
        .unwrap()
        .json()["Id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        daemon
            .api()
            .post_json(&format!("/exec/{id}/start"), &json!({"Detach": true}))
            .unwrap()
            .status,
        200
    );
    let inspect = || daemon.api().get(&format!("/exec/{id}/json")).unwrap().json();
    wait_until("the exec runs", || (inspect()["Running"] == true).then_some(()));
    daemon.boxship(&["stop", "-t", "0", "e1"]).ok();
    wait_until("the exec ended with its container", || {
        (inspect()["Running"] == false).then_some(())
    });
    daemon.finish();
}

/// Makes an exec, and returns its id.
fn create_exec(daemon: &Daemon, container: &str, body: &Value) -> String {
    let created = daemon.api().post_json(&format!("/containers/{container}/exec"), body).unwrap();
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["Id"].as_str().unwrap().to_owned()
}

/// Starts an exec with an upgrade, and returns the content type and all that follows the head.
fn start_exec(daemon: &Daemon, id: &str, body: &str) -> (String, String) {
    let mut socket = daemon.api();
    let head = format!(
        "POST /v1.51/exec/{id}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.send(head.as_bytes()).unwrap();
    let head = socket.response_head().unwrap();
    assert_eq!(head.status, 101);
    let kind = head.header("content-type").unwrap();
    let kind = kind.strip_prefix("application/vnd.docker.").unwrap().to_owned();
    let mut output = String::new();
    socket.stream().read_to_string(&mut output).unwrap();
    (kind, output)
}

#[test]
fn an_exec_is_framed_as_its_starter_says() {
    const OUT: &str = "\x01\0\0\0\0\0\0";
    const ERR: &str = "\x02\0\0\0\0\0\0";
    let daemon = daemon();
    run_detached(&daemon, "framed", "sleep 1000");
    let exec = |body: &Value, start: &str| {
        start_exec(&daemon, &create_exec(&daemon, "framed", body), start)
    };
    let check = |created_tty: bool, started_tty: bool, kind: &str, output: &str| {
        let body = json!({"Tty": created_tty, "AttachStdout": true, "AttachStderr": true,
            "Cmd": ["sh", "-c", "echo o; sleep 0.1; echo e >&2; stty size 2>/dev/null"]});
        let start = json!({"Tty": started_tty, "ConsoleSize": [30, 90]}).to_string();
        let expect = (format!("{kind}-stream"), output.to_owned());
        assert_eq!(exec(&body, &start), expect, "{created_tty} {started_tty}");
    };
    check(false, false, "multiplexed", &format!("{OUT}\x02o\n{ERR}\x02e\n"));
    check(true, false, "multiplexed", &format!("{OUT}\x03o\r\n{OUT}\x03e\r\n"));
    check(true, true, "raw", "o\r\ne\r\n30 90\r\n");
    check(false, true, "raw", "o\n");
    // A terminal's output is stdout: whoever attaches stderr alone reads nothing.
    let nothing = json!({"Tty": true, "AttachStderr": true, "Cmd": ["sh", "-c", "echo e >&2"]});
    assert_eq!(exec(&nothing, "{}").1, "");
    daemon.finish();
}

#[test]
fn why_an_exec_does_not_run_is_told_in_its_stream() {
    let daemon = daemon();
    run_detached(&daemon, "told", "sleep 1000");
    let check = |body: Value, exit_code: i64, text: &str| {
        let id = create_exec(&daemon, "told", &body);
        let (_, told) = start_exec(&daemon, &id, r#"{"Tty":true}"#);
        assert_eq!(told, format!("OCI runtime exec failed: exec failed: {text}\r\n"));
        let exec = daemon.api().get(&format!("/exec/{id}/json")).unwrap().json();
        assert_eq!(exec["ExitCode"], exit_code, "{text}");
    };
    let unable = |text: &str| format!("unable to start container process: {text}");
    let set = "set in config.json failed: no such file or directory";
    check(
        json!({"Cmd": ["nope"]}),
        127,
        &unable("exec: \"nope\": executable file not found in $PATH"),
    );
    check(
        json!({"Cmd": ["true"], "WorkingDir": "/nope"}),
        127,
        &unable(&format!("chdir to cwd (\"/nope\") {set}")),
    );
    check(json!({"Cmd": ["true"], "WorkingDir": "tmp"}), 128, "Cwd must be an absolute path");
    check(
        json!({"Cmd": ["true"], "Env": ["=x"]}),
        128,
        &unable("invalid environment variable: name cannot be empty"),
    );
    let id = create_exec(&daemon, "told", &json!({"Cmd": ["true"], "AttachStdout": true}));
    start_exec(&daemon, &id, r#"{"Tty":true}"#);
    let inspect = || daemon.api().get(&format!("/exec/{id}/json")).unwrap().json();
    wait_until("its end", || (inspect()["Running"] == false).then_some(()));
    let again = start_exec(&daemon, &id, r#"{"Tty":true}"#).1;
    assert_eq!(again, format!("exec command {id} has already run\r\n"));
    let again = daemon.api().post_json(&format!("/exec/{id}/start"), &json!({"Detach": true}));
    assert_eq!(again.unwrap().status, 409);
    let id = create_exec(&daemon, "told", &json!({"Cmd": ["true"], "User": "nobodyhere"}));
    let answer = daemon.api().post_json(&format!("/exec/{id}/start"), &json!({})).unwrap();
    assert_eq!(
        (answer.status, answer.message().as_str()),
        (400, "unable to find user nobodyhere: no matching entries in passwd file")
    );
    daemon.finish();
}

#[test]
fn detaching_is_told_while_the_client_is_still_there() {
    let daemon = daemon();
    daemon.boxship(&["run", "-dit", "--name", "left", "busybox", "cat"]).ok();
    let mut socket = daemon.api();
    let path = "/containers/left/attach?stream=1&stdin=1&stdout=1";
    socket
        .send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(socket.response_head().unwrap().status, 101);
    socket.send(b"\x10\x11").unwrap();
    let mut rest = Vec::new();
    socket.stream().read_to_end(&mut rest).unwrap();
    wait_until("the event", || {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
        let path = format!("/events?since=1&until={now}");
        daemon.api().get(&path).unwrap().text().contains("\"detach\"").then_some(())
    });
    drop(socket);
    daemon.finish();
}

#[test]
fn a_commit_succeeds_whenever_the_container_ends() {
    let daemon = daemon();
    for round in 0..20 {
        let id = daemon.boxship(&["run", "-d", "busybox", "usleep", &format!("{round}000")]).ok();
        daemon.boxship(&["commit", &id]).ok();
    }
    daemon.finish();
}

#[test]
fn namespaces_are_shared_when_asked() {
    let daemon = daemon();
    run_detached(&daemon, "first", "sleep 1000");
    let run = |args: &[&str]| daemon.boxship(&[&["run", "--rm"], args].concat()).ok();
    let ip = field(&daemon, "first", "{{.NetworkSettings.IPAddress}}");
    assert!(run(&["--network", "container:first", "busybox", "ip", "-o", "addr"]).contains(&ip));
    assert!(
        run(&["--pid", "container:first", "busybox", "ps", "-o", "args"]).contains("sleep 1000")
    );
    assert!(run(&["--pid", "host", "busybox", "ps", "-o", "args"]).contains("boxship"));
    assert_eq!(run(&["--network", "none", "busybox", "ls", "/sys/class/net"]), "lo");
    assert!(run(&["--network", "host", "busybox", "ls", "/sys/class/net"]).contains("boxship0"));
    assert_eq!(
        run(&["--hostname", "h", "--domainname", "example", "busybox", "hostname", "-f"]),
        "h.example"
    );
    daemon.finish();
}

#[test]
fn mounts_are_what_was_asked() {
    let daemon = daemon();
    let host = daemon.root().join("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("f"), "from the host").unwrap();
    let host = host.display().to_string();
    let run = |args: &[&str]| daemon.boxship(&[&["run", "--rm"], args].concat());
    assert_eq!(
        run(&["-v", &format!("{host}:/m"), "busybox", "sh", "-c", "cat /m/f; echo back >/m/g"])
            .ok(),
        "from the host"
    );
    assert_eq!(std::fs::read_to_string(format!("{host}/g")).unwrap(), "back\n");
    assert!(
        run(&["-v", &format!("{host}:/m:ro"), "busybox", "touch", "/m/x"])
            .fails(1)
            .contains("Read-only")
    );
    assert_eq!(
        run(&[
            "--mount",
            &format!("type=bind,src={host}/f,dst=/deep/file,ro"),
            "busybox",
            "cat",
            "/deep/file"
        ])
        .ok(),
        "from the host"
    );
    assert_eq!(
        run(&[
            "--tmpfs",
            "/t:size=1m,mode=1700",
            "busybox",
            "sh",
            "-c",
            "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'"
        ])
        .ok(),
        "1700\n1024"
    );
    assert!(run(&["--read-only", "busybox", "touch", "/x"]).fails(1).contains("Read-only"));
    assert_eq!(
        run(&[
            "--read-only",
            "--tmpfs",
            "/run",
            "busybox",
            "sh",
            "-c",
            "touch /run/x && echo fine"
        ])
        .ok(),
        "fine"
    );
    assert_eq!(
        run(&[
            "--shm-size",
            "1m",
            "busybox",
            "sh",
            "-c",
            "df -k /dev/shm | tail -1 | awk '{print $2}'"
        ])
        .ok(),
        "1024"
    );
    daemon.finish();
}

#[test]
fn init_reaps_what_the_program_leaves() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "-d",
            "--init",
            "--name",
            "i1",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3; do (sleep 0.01 &) ; done; exec sleep 1000",
        ])
        .ok();
    wait_until("no zombies", || {
        let states = daemon
            .boxship(&["exec", "i1", "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null; true"])
            .ok();
        (!states.contains(") Z ") && !states.contains("sleep) S 1 1 1 0 -1 4194560")).then_some(())
    });
    assert_ne!(daemon.boxship(&["exec", "i1", "cat", "/proc/1/comm"]).ok(), "sleep");
    assert_eq!(daemon.boxship(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 6"]).code, 6);
    daemon.boxship(&["stop", "-t", "5", "i1"]).ok();
    assert_eq!(field(&daemon, "i1", "{{.State.ExitCode}}"), "143");
    daemon.finish();
}

#[test]
fn local_and_none_log_drivers() {
    let daemon = daemon();
    daemon
        .boxship(&[
            "run",
            "--name",
            "local",
            "--log-driver",
            "local",
            "busybox",
            "sh",
            "-c",
            "echo kept; echo err >&2",
        ])
        .ok();
    let logs = daemon.boxship(&["logs", "local"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("kept\n", "err\n"));
    daemon
        .boxship(&["run", "--name", "none", "--log-driver", "none", "busybox", "echo", "lost"])
        .ok();
    assert!(
        daemon
            .boxship(&["logs", "none"])
            .fails(1)
            .contains("configured logging driver does not support reading")
    );
    daemon
        .boxship(&[
            "run",
            "--name",
            "small",
            "--log-opt",
            "max-size=10k",
            "--log-opt",
            "max-file=2",
            "busybox",
            "sh",
            "-c",
            "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done",
        ])
        .ok();
    let logs = daemon.boxship(&["logs", "small"]).ok();
    assert!(
        logs.ends_with("line 999") && !logs.starts_with("line 0\n"),
        "rotation keeps the newest"
    );
    daemon.finish();
}

#[test]
fn stats_stream_and_stand_alone() {
    let daemon = daemon();
    run_detached(&daemon, "busy", "while :; do :; done");
    let once = daemon.api().get("/containers/busy/stats?stream=0").unwrap().json();
    assert!(
        once["cpu_stats"]["cpu_usage"]["total_usage"].as_u64()
            > once["precpu_stats"]["cpu_usage"]["total_usage"].as_u64(),
        "{once}"
    );
    assert!(once["memory_stats"]["usage"].as_u64().unwrap() > 0);
    assert_eq!(once["pids_stats"]["current"], 1);
    assert!(once["networks"]["eth0"]["rx_bytes"].is_u64());
    let shot = daemon.api().get("/containers/busy/stats?stream=0&one-shot=1").unwrap().json();
    assert_eq!(shot["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    let mut stream = daemon.api();
    stream.send(b"GET /containers/busy/stats HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(stream.response_head().unwrap().status, 200);
    for _ in 0..2 {
        let chunk = stream.chunk().unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&chunk).unwrap()["name"], "/busy");
    }
    daemon.finish();
}

#[test]
fn prune_takes_the_stopped_and_nothing_else() {
    let daemon = daemon();
    run_detached(&daemon, "stays", "sleep 1000");
    daemon.boxship(&["run", "--name", "goes", "busybox", "sh", "-c", "echo 12345 >/f"]).ok();
    daemon.boxship(&["create", "--name", "labelled", "-l", "keep", "busybox", "true"]).ok();
    let pruned = daemon.boxship(&["container", "prune", "-f", "--filter", "label!=keep"]).ok();
    assert!(pruned.contains("Total reclaimed space:"), "{pruned}");
    let mut names: Vec<_> = daemon
        .boxship(&["ps", "-a", "--format", "{{.Names}}"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["labelled", "stays"]);
    daemon.finish();
}
