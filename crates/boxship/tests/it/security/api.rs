//! Class A: who may talk to the daemon, and with what words.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use testkit::{Daemon, Options, wait_until};

use super::create;
use crate::{BINARY, daemon, field};

#[test]
fn a02_a_body_has_one_meaning() {
    let daemon = daemon();
    let send = |body: &str| {
        daemon
            .api()
            .request(
                "POST",
                "/v1.51/containers/create",
                &[("Content-Type", "application/json")],
                body.as_bytes(),
            )
            .unwrap()
    };
    // As in Go: the last of two equal keys wins, and so the image is absent.
    assert_eq!(send(r#"{"Image":"busybox","Image":"absent"}"#).status, 404);
    assert_eq!(send("{\"Image\":\"busybox\"} trailing").status, 400);
    assert_eq!(send("\u{feff}{\"Image\":\"busybox\"}").status, 400);
    assert_eq!(send(&format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000))).status, 400);
    assert_eq!(
        send(r#"{"Image":"busybox","HostConfig":{"Memory":99999999999999999999}}"#).status,
        400
    );
    // A key in another case means the same as in Docker, or is refused: never dropped.
    let response = send(r#"{"Image":"busybox","hostconfig":{"Privileged":true}}"#);
    if response.status == 201 {
        let id = response.json()["Id"].as_str().unwrap().to_owned();
        assert_eq!(field(&daemon, &id, "{{.HostConfig.Privileged}}"), "true");
    } else {
        assert_eq!(response.status, 400);
    }
    daemon.finish();
}

#[test]
fn a04_browsers_cannot_reach_a_tcp_listener() {
    let daemon = Daemon::with(
        BINARY,
        Options {
            args: ["-H", "tcp://127.0.0.1:2375", "--tls=false"].map(str::to_owned).to_vec(),
            ..Options::default()
        },
    );
    let ask = |headers: &str| {
        let mut command = daemon.inside("sh");
        let script = format!(
            "printf 'POST /containers/create HTTP/1.1\\r\\n{headers}Content-Type: text/plain\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{{}}' | busybox nc 127.0.0.1 2375 | head -1"
        );
        testkit::run::run(command.args(["-c", &script]), b"").ok()
    };
    for headers in
        ["Host: evil.example\\r\\n", "Host: 127.0.0.1:2375\\r\\nOrigin: http://evil.example\\r\\n"]
    {
        let status = ask(headers);
        assert!(status.contains("403") || status.contains("400"), "{headers}: {status}");
    }
    // Websocket libraries send the daemon's own address.
    let status = ask("Host: 127.0.0.1:2375\\r\\nOrigin: http://127.0.0.1:2375\\r\\n");
    assert!(!status.contains("403"), "{status}");
    let mut version = daemon.inside(BINARY);
    version.args(["-H", "tcp://127.0.0.1:2375", "version", "--format", "{{.Server.APIVersion}}"]);
    assert_eq!(testkit::run::run(&mut version, b"").ok(), "1.51");
    daemon.finish();
}

#[test]
fn a05_tcp_wants_mutual_tls() {
    // Plain TCP without an explicit word is refused.
    let root = std::env::temp_dir().join(format!("bxt-plain-{}", std::process::id()));
    let output = Command::new(BINARY)
        .args(["daemon", "-H", "tcp://127.0.0.1:1", "--data-root"])
        .arg(root.join("d"))
        .arg("--exec-root")
        .arg(root.join("r"))
        .arg("--pidfile")
        .arg(root.join("p"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("tls"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(std::fs::remove_dir_all(&root));

    let certificates = tempdir();
    let script = "set -e; cd \"$1\"; q='-batch -nodes -newkey rsa:2048 -sha256'
        ca() { openssl req -x509 $q -days 1 -subj /CN=$1 -keyout $1-key.pem -out $1.pem; }
        leaf() { openssl req $q -subj /CN=$1 -keyout $1-key.pem -out $1.csr; openssl x509 -req -days $4 -in $1.csr -CA $2.pem -CAkey $2-key.pem -CAcreateserial -extfile $3 -out $1.pem; }
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' >server.ext; echo 'extendedKeyUsage=serverAuth' >>server.ext
        echo 'extendedKeyUsage=clientAuth' >client.ext
        ca good; ca other; leaf server good server.ext 1; leaf client good client.ext 1; leaf stranger other client.ext 1; leaf swapped good server.ext 1";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(&certificates).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| certificates.join(name).display().to_string();
    let daemon = Daemon::with(
        BINARY,
        Options {
            args: vec![
                "-H".into(),
                "tcp://127.0.0.1:2376".into(),
                "--tlsverify".into(),
                "--tlscacert".into(),
                file("good.pem"),
                "--tlscert".into(),
                file("server.pem"),
                "--tlskey".into(),
                file("server-key.pem"),
            ],
            ..Options::default()
        },
    );
    let version = |certificate: Option<&str>| {
        let mut command = daemon.inside("docker");
        command.env_remove("DOCKER_HOST").args([
            "-H",
            "tcp://127.0.0.1:2376",
            "--tls",
            "--tlscacert",
            &file("good.pem"),
            "--tlsverify",
        ]);
        match certificate {
            Some(name) => command.args([
                "--tlscert",
                &file(&format!("{name}.pem")),
                "--tlskey",
                &file(&format!("{name}-key.pem")),
            ]),
            None => command.args(["--tlscert", "/nonexistent", "--tlskey", "/nonexistent"]),
        };
        testkit::run::run(command.args(["version", "--format", "{{.Server.Version}}"]), b"")
    };
    version(Some("client")).ok();
    for bad in [None, Some("stranger"), Some("swapped")] {
        assert_ne!(version(bad).code, 0, "{bad:?}");
    }
    daemon.finish();
    std::fs::remove_dir_all(certificates).unwrap();
}

fn tempdir() -> PathBuf {
    let path = std::env::temp_dir().join(format!("bxt-tls-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a07_idle_and_slow_connections_hurt_nobody() {
    let daemon = daemon();
    let mut idle: Vec<_> = (0..1000).map(|_| daemon.api()).collect();
    for (number, socket) in idle.iter_mut().enumerate() {
        if number % 2 == 0 {
            socket.send(b"GET /info HT").unwrap();
        } else {
            socket.send(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").unwrap();
        }
    }
    for _ in 0..20 {
        assert_eq!(daemon.api().get("/_ping").unwrap().status, 200);
    }
    daemon.boxship(&["run", "--rm", "busybox", "true"]).ok();
    drop(idle);
    daemon.finish();
}

#[test]
fn a08_hijacked_connections_end_in_any_order() {
    let daemon = daemon();
    daemon.boxship(&["run", "-di", "--name", "c1", "busybox", "cat"]).ok();
    let attach = || {
        let mut stream = daemon.api();
        stream.send(b"POST /containers/c1/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(stream.response_head().unwrap().status, 101);
        stream
    };
    let mut garbage = attach();
    garbage.stream().get_mut().write_all(&[0xff; 4096]).unwrap();
    drop(garbage);
    let half = attach();
    half.finish_writing().unwrap();
    drop(half);
    let mut last = attach();
    last.stream().get_mut().write_all(b"still here\n").unwrap();
    drop(last);
    wait_until("the container's answer", || {
        daemon.boxship(&["logs", "c1"]).stdout.contains("still here").then_some(())
    });
    assert_eq!(field(&daemon, "c1", "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn a09_noise_is_answered_and_survived() {
    let daemon = daemon();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words = [
        "/containers/",
        "json",
        "?all=",
        "%00",
        "%zz",
        "busybox",
        "/../",
        "start",
        "{",
        "[]",
        "null",
        "-1",
        "1e999",
        "\u{fffd}",
        "/v1.51",
        "images",
        "?filters={\"a\":",
        "exec",
        " ",
    ];
    let methods = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"];
    for _ in 0..2000 {
        let mut path = String::from("/");
        for _ in 0..random() % 5 {
            path.push_str(words[random() as usize % words.len()]);
        }
        let path = path.replace([' ', '\u{fffd}'], "+");
        if path.contains("events") || path.contains("stats") {
            continue;
        }
        let body = words[random() as usize % words.len()];
        let method = methods[random() as usize % methods.len()];
        let response = daemon.api().request(
            method,
            &path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        let Ok(response) = response else { continue };
        assert!(
            response.status < 500 || response.status == 501 || response.status == 503,
            "{method} {path} {body}: {} {}",
            response.status,
            response.text()
        );
    }
    for _ in 0..500 {
        let noise: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        let mut socket = daemon.api();
        // The daemon may have hung up by now; that is an answer too.
        drop(socket.send(&noise));
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert_eq!(daemon.api().get("/_ping").unwrap().status, 200);
    daemon.finish();
}

#[test]
fn a11_versions_are_negotiated_or_refused() {
    let daemon = daemon();
    let get = |path: &str| daemon.api().get(path).unwrap();
    for path in ["/v1.1/info", "/v9.99/info", "/v1.999/version"] {
        let response = get(path);
        assert_eq!(response.status, 400, "{path}");
        assert!(response.message().contains("client version"), "{}", response.text());
    }
    for path in ["/v1.44.5/info", "/vx/info", "/v/info", "/v1./info", "/v-1.2/info"] {
        assert!(matches!(get(path).status, 400 | 404), "{path}");
    }
    for path in ["/v1.12/info", "/v1.24/info", "/v1.44/info", "/v1.51/info", "/info"] {
        let response = get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("api-version"), Some("1.51"));
    }
    daemon.finish();
}

#[test]
fn a12_absurd_numbers_are_refused_at_once() {
    let daemon = daemon();
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = rss();
    for host in [
        json!({"CpusetCpus": "0-9223372036854775807"}),
        json!({"CpusetCpus": "0-99999999999999999999999"}),
        json!({"Memory": -5}),
        json!({"MemorySwap": 1, "Memory": 0}),
        json!({"ShmSize": -1}),
        json!({"PortBindings": {"1-65535/tcp": [{"HostPort": "1-3"}]}}),
        json!({"PortBindings": {"70000/tcp": null}}),
        json!({"OomScoreAdj": 5000}),
    ] {
        let response = create(&daemon, &json!({"Image": "busybox", "HostConfig": host}));
        assert_eq!(response.status, 400, "{host}: {}", response.text());
    }
    let env: Vec<String> = (0..1_000_000).map(|number| format!("A{number}=")).collect();
    let response = create(&daemon, &json!({"Image": "busybox", "Env": env}));
    assert!(matches!(response.status, 400 | 413), "{} {}", response.status, response.text());
    wait_until("memory to come back", || (rss() < before + (32 << 10)).then_some(()));
    daemon.finish();
}
