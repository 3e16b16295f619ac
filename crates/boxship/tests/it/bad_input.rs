//! Bad input gets Docker's status and text, and leaves nothing behind. Texts are those of Engine
//! 28.5, recorded with the requests below.

use serde_json::{Value, json};
use testkit::{Daemon, Response};

use crate::{daemon, run_detached};

fn create(daemon: &Daemon, body: &Value) -> Response {
    daemon.api().post_json("/v1.51/containers/create", body).unwrap()
}

#[track_caller]
fn refused(response: &Response, status: u16, text: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    let message = response.message();
    assert!(message.contains(text), "{message:?} does not say {text:?}");
}

#[test]
fn malformed_bodies_are_refused() {
    let daemon = daemon();
    let send = |kind: &str, body: &str| {
        daemon
            .api()
            .request("POST", "/v1.51/containers/create", &[("Content-Type", kind)], body.as_bytes())
            .unwrap()
    };
    refused(&send("application/json", "{"), 400, "");
    refused(&send("application/json", "[]"), 400, "");
    refused(&send("application/json", "{\"Image\": 7}"), 400, "");
    refused(&send("application/json", "{\"Image\":\"busybox\"} {}"), 400, "");
    refused(&send("text/plain", "{}"), 400, "Content-Type");
    refused(&send("application/json", &"[".repeat(100_000)), 400, "");
    refused(&send("application/json", "{\"Image\":\"\"}"), 400, "");
    assert_eq!(daemon.api().get("/containers/json?all=1").unwrap().json(), json!([]));
    daemon.finish();
}

#[test]
fn absent_things_are_not_found() {
    let daemon = daemon();
    let get = |path: &str| daemon.api().get(path).unwrap();
    let post = |path: &str| daemon.api().post(path).unwrap();
    for path in [
        "/containers/nope/json",
        "/containers/nope/logs?stdout=1",
        "/containers/nope/top",
        "/containers/nope/stats",
        "/containers/nope/changes",
    ] {
        refused(&get(path), 404, "No such container: nope");
    }
    for verb in [
        "start",
        "stop",
        "restart",
        "kill",
        "pause",
        "unpause",
        "wait",
        "resize?h=1&w=1",
        "rename?name=x1",
        "attach?stream=1",
    ] {
        refused(&post(&format!("/containers/nope/{verb}")), 404, "No such container: nope");
    }
    refused(
        &daemon.api().request("DELETE", "/containers/nope", &[], b"").unwrap(),
        404,
        "No such container: nope",
    );
    refused(&get("/images/nope/json"), 404, "No such image: nope:latest");
    refused(&get("/exec/nope/json"), 404, "No such exec instance: nope");
    refused(&get("/networks/nope"), 404, "network nope not found");
    refused(&create(&daemon, &json!({"Image": "absent"})), 404, "No such image: absent:latest");
    refused(&get("/nosuchpage"), 404, "page not found");
    daemon.finish();
}

#[test]
fn wrong_states_are_conflicts() {
    let daemon = daemon();
    run_detached(&daemon, "up", "sleep 1000");
    daemon.boxship(&["create", "--name", "down", "busybox", "true"]).ok();
    let post = |path: &str| daemon.api().post(path).unwrap();
    assert_eq!(post("/containers/up/start").status, 304);
    assert_eq!(post("/containers/down/stop").status, 304);
    refused(&post("/containers/down/kill"), 409, "is not running");
    refused(&post("/containers/down/pause"), 409, "is not running");
    refused(&post("/containers/up/unpause"), 500, "is not paused");
    refused(
        &post("/containers/down/rename?name=up"),
        409,
        "Conflict. The container name \"/up\" is already in use",
    );
    refused(
        &daemon.api().request("DELETE", "/containers/up", &[], b"").unwrap(),
        409,
        "container is running",
    );
    refused(&daemon.api().get("/containers/down/top").unwrap(), 409, "is not running");
    let exec = json!({"Cmd": ["true"]});
    refused(
        &daemon.api().post_json("/containers/down/exec", &exec).unwrap(),
        409,
        "is not running",
    );
    assert_eq!(post("/containers/up/pause").status, 204);
    refused(&post("/containers/up/pause"), 409, "already paused");
    refused(&daemon.api().post_json("/containers/up/exec", &exec).unwrap(), 409, "is paused");
    assert_eq!(post("/containers/up/unpause").status, 204);
    refused(
        &daemon.api().request("DELETE", "/images/busybox", &[], b"").unwrap(),
        409,
        "conflict: unable to",
    );
    daemon.finish();
}

#[test]
fn impossible_configurations_are_refused_at_create() {
    let daemon = daemon();
    let host = |config: Value| create(&daemon, &json!({"Image": "busybox", "HostConfig": config}));
    refused(&host(json!({"Memory": 4096})), 400, "Minimum memory limit allowed is 6MB");
    refused(
        &host(json!({"Memory": 1 << 26, "MemorySwap": 1 << 25})),
        400,
        "Minimum memoryswap limit should be larger than memory limit",
    );
    refused(&host(json!({"CpusetCpus": "4000"})), 400, "Requested CPUs are not available");
    refused(&host(json!({"CpusetCpus": "9999"})), 400, "Invalid value 9999 for cpuset cpus");
    refused(&host(json!({"CpusetCpus": "a-b"})), 400, "Invalid value a-b for cpuset cpus");
    refused(
        &host(json!({"NanoCpus": 1_000_000_000_000_i64})),
        400,
        "range of CPUs is from 0.01 to",
    );
    refused(&host(json!({"NanoCpus": -1})), 400, "");
    refused(&host(json!({"ShmSize": -1})), 400, "SHM size can not be less than 0");
    refused(&host(json!({"RestartPolicy": {"Name": "sometimes"}})), 400, "restart policy");
    refused(
        &host(json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true})),
        400,
        "can't create 'AutoRemove' container with restart policy",
    );
    refused(&host(json!({"CapAdd": ["NOSUCH"]})), 400, "NOSUCH");
    refused(&host(json!({"Binds": ["/tmp:relative"]})), 400, "");
    refused(&host(json!({"Binds": ["/tmp:/a", "/tmp:/a"]})), 400, "Duplicate mount point: /a");
    refused(
        &host(json!({"Mounts": [{"Type": "bind", "Source": "/nonexistent/x", "Target": "/a"}]})),
        400,
        "bind source path does not exist: /nonexistent/x",
    );
    refused(&host(json!({"Mounts": [{"Type": "strange", "Target": "/a"}]})), 400, "");
    refused(&host(json!({"LogConfig": {"Type": "nosuch"}})), 400, "nosuch");
    refused(
        &host(json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}})),
        400,
        "",
    );
    refused(&host(json!({"SecurityOpt": ["seccomp={"]})), 400, "");
    refused(&host(json!({"SecurityOpt": ["nosuch=1"]})), 400, "");
    refused(&host(json!({"PidMode": "strange"})), 400, "");
    refused(&host(json!({"IpcMode": "strange"})), 400, "");
    refused(
        &host(
            json!({"Devices": [{"PathOnHost": "/dev/nosuch", "PathInContainer": "/dev/x", "CgroupPermissions": "q"}]}),
        ),
        400,
        "",
    );
    refused(&create(&daemon, &json!({"Image": "busybox", "StopSignal": "NOSUCH"})), 400, "signal");
    refused(
        &create(&daemon, &json!({"Image": "busybox", "WorkingDir": "relative"})),
        400,
        "the working directory 'relative' is invalid, it needs to be an absolute path",
    );
    refused(&create(&daemon, &json!({"Image": "busybox", "Env": ["=x"]})), 400, "");
    refused(&create(&daemon, &json!({"Image": "BUSYBOX"})), 400, "must be lowercase");
    refused(
        &daemon
            .api()
            .post_json("/containers/create?name=bad%20name", &json!({"Image": "busybox"}))
            .unwrap(),
        400,
        "Invalid container name (bad name)",
    );
    assert_eq!(daemon.api().get("/containers/json?all=1").unwrap().json(), json!([]));
    daemon.finish();
}

#[test]
fn failing_starts_tell_why_and_clean_up() {
    let daemon = daemon();
    let run = |args: &[&str]| daemon.docker(&[&["run", "--rm"], args].concat());
    let check = |args: &[&str], code, text: &str| {
        let stderr = run(args).fails(code);
        assert!(stderr.contains(text), "{stderr}");
    };
    check(&["busybox", "nosuch"], 127, "exec: \"nosuch\": executable file not found in $PATH");
    check(&["busybox", "/no/such"], 127, "no such file or directory");
    check(&["busybox", "/etc/passwd"], 126, "permission denied");
    check(&["busybox", "/etc"], 126, "");
    check(
        &["-u", "nosuch", "busybox", "true"],
        125,
        "unable to find user nosuch: no matching entries in passwd file",
    );
    check(
        &["-u", "0:nosuch", "busybox", "true"],
        125,
        "unable to find group nosuch: no matching entries in group file",
    );
    check(&["-w", "/etc/passwd", "busybox", "true"], 125, "");
    check(&["-v", "/dev/null:/proc/self", "busybox", "true"], 125, "");
    check(&["absent:1", "true"], 125, "absent:1");
    let shown = daemon.boxship(&["ps", "-aq"]).ok();
    assert_eq!(shown, "");
    // Without --rm the container stays and says why.
    daemon.docker(&["run", "--name", "kept", "busybox", "nosuch"]).fails(127);
    let state =
        crate::field(&daemon, "kept", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}");
    assert!(
        state.starts_with("created 127") && state.contains("executable file not found"),
        "{state}"
    );
    daemon.finish();
}

#[test]
fn broken_archives_leave_the_store_as_it_was() {
    let daemon = daemon();
    let images = || daemon.boxship(&["images", "-q", "--no-trunc"]).ok();
    let before = images();
    let load = |archive: &[u8]| {
        let response = daemon
            .api()
            .request(
                "POST",
                "/images/load?quiet=1",
                &[("Content-Type", "application/x-tar")],
                archive,
            )
            .unwrap();
        let text = response.text();
        assert!(
            response.status >= 400 || text.contains("errorDetail"),
            "{} {text}",
            response.status
        );
    };
    load(b"");
    load(b"not a tar at all, but long enough to be read as something");
    load(&[0; 10240]);
    load(&testkit::image::Tar::default().file("manifest.json", 0o644, b"{").finish());
    load(
        &testkit::image::Tar::default()
            .file("manifest.json", 0o644, b"[{\"Config\":\"x.json\",\"Layers\":[]}]")
            .finish(),
    );
    let layer = testkit::image::Tar::default().file("f", 0o644, &[b'x'; 100_000]).finish();
    let whole = testkit::image::Builder::scratch("cut:1").layer(layer).archive();
    load(&whole[..whole.len() / 2]);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    load(&flipped);
    assert_eq!(images(), before);
    let ingest = daemon.data_root().join("storage/ingest");
    assert_eq!(std::fs::read_dir(ingest).map_or(0, Iterator::count), 0);
    daemon.finish();
}

#[test]
fn what_is_not_there_yet_says_so() {
    let daemon = daemon();
    let pull = daemon.api().post("/images/create?fromImage=busybox&tag=nosuch").unwrap();
    assert!(pull.status >= 400 || pull.text().contains("errorDetail"), "{}", pull.text());
    for (method, path) in [
        ("POST", "/build"),
        ("POST", "/images/busybox/push"),
        ("POST", "/session"),
        ("POST", "/containers/x/checkpoints"),
    ] {
        let response = daemon.api().request(method, path, &[], b"").unwrap();
        assert!(
            matches!(response.status, 404 | 501 | 503),
            "{method} {path}: {} {}",
            response.status,
            response.text()
        );
    }
    daemon.finish();
}
