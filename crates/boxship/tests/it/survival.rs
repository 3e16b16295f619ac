//! Containers live on whatever dies around them.

use testkit::{Daemon, wait_until};

use crate::{daemon, field, run_detached};

/// Prints a growing number for ever; the numbers in the log tell what was lost.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

/// The counted numbers of a log, checked to be without a gap.
#[track_caller]
fn counted(daemon: &Daemon, name: &str) -> usize {
    let logs = daemon.boxship(&["logs", name]).ok();
    let numbers: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers.iter().enumerate().all(|(at, number)| *number == at + 1),
        "a gap in {numbers:?}"
    );
    numbers.len()
}

fn grows(daemon: &Daemon, name: &str) {
    let before = counted(daemon, name);
    wait_until("later output", || (counted(daemon, name) > before + 5).then_some(()));
}

#[test]
fn kill_of_the_daemon_loses_nothing() {
    let mut daemon = daemon();
    run_detached(&daemon, "counts", COUNT);
    run_detached(&daemon, "ends", "read line </dev/null; sleep 1; echo bye; exit 9");
    let pid = field(&daemon, "counts", "{{.State.Pid}}");
    let started = field(&daemon, "counts", "{{.State.StartedAt}}");
    grows(&daemon, "counts");
    daemon.kill();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    daemon.launch();
    assert_eq!(
        field(&daemon, "counts", "{{.State.Pid}} {{.State.StartedAt}} {{.State.Running}}"),
        format!("{pid} {started} true")
    );
    assert_eq!(field(&daemon, "ends", "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
    assert_eq!(daemon.boxship(&["logs", "ends"]).ok(), "bye");
    grows(&daemon, "counts");
    daemon.boxship(&["exec", "counts", "true"]).ok();
    daemon.boxship(&["stop", "-t", "0", "counts"]).ok();
    daemon.finish();
}

#[test]
fn kill_of_the_supervisor_loses_no_container() {
    let daemon = daemon();
    run_detached(&daemon, "counts", COUNT);
    let pid = field(&daemon, "counts", "{{.State.Pid}}");
    grows(&daemon, "counts");
    daemon.kill_supervisor();
    grows(&daemon, "counts");
    assert_eq!(
        field(&daemon, "counts", "{{.State.Pid}} {{.State.Running}}"),
        format!("{pid} true")
    );
    daemon.boxship(&["exec", "counts", "true"]).ok();
    daemon.boxship(&["kill", "counts"]).ok();
    assert_eq!(daemon.boxship(&["wait", "counts"]).ok(), "137");
    daemon.finish();
}

#[test]
fn kill_of_both_at_once_loses_no_container() {
    let mut daemon = daemon();
    run_detached(&daemon, "counts", COUNT);
    let pid = field(&daemon, "counts", "{{.State.Pid}}");
    grows(&daemon, "counts");
    daemon.kill();
    daemon.kill_supervisor();
    daemon.launch();
    assert_eq!(
        field(&daemon, "counts", "{{.State.Pid}} {{.State.Running}}"),
        format!("{pid} true")
    );
    grows(&daemon, "counts");
    // Its death is seen within a second though nobody here is its parent.
    testkit::run::run(std::process::Command::new("kill").args(["-9", &pid]), b"").ok();
    wait_until("the true state", || {
        (field(&daemon, "counts", "{{.State.Running}}") == "false").then_some(())
    });
    daemon.finish();
}

#[test]
fn a_graceful_end_leaves_containers_running() {
    let mut daemon = daemon();
    run_detached(&daemon, "stays", COUNT);
    assert!(daemon.terminate().success());
    daemon.launch();
    grows(&daemon, "stays");
    daemon.finish();
}

/// Kills the daemon at odd moments under creates, starts, execs and removals. The large count is
/// `cargo xtask torture`, which sets `BOXSHIP_TORTURE`.
#[test]
fn random_kills_under_load_lose_and_leak_nothing() {
    let rounds = std::env::var("BOXSHIP_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let mut daemon = daemon();
    run_detached(&daemon, "witness", COUNT);
    let pid = field(&daemon, "witness", "{{.State.Pid}}");
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..rounds {
        let socket = daemon.socket_path();
        let worker = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for number in 0.. {
                let name = format!("r{round}n{number}");
                let Ok(true) = one_life(&socket, &name, number % 3 == 0) else { break };
                if number % 3 == 0 {
                    kept.push(name);
                }
            }
            kept
        });
        std::thread::sleep(std::time::Duration::from_millis(30 + (round * 37) % 170));
        daemon.kill();
        acknowledged.extend(worker.join().unwrap());
        daemon.launch();
        assert_eq!(
            field(&daemon, "witness", "{{.State.Pid}} {{.State.Running}}"),
            format!("{pid} true")
        );
        let names = daemon.boxship(&["ps", "-a", "--format", "{{.Names}}"]).ok();
        let names: Vec<_> = names.lines().collect();
        for name in &acknowledged {
            assert_eq!(names.iter().filter(|seen| *seen == name).count(), 1, "{name} in {names:?}");
        }
        if round % 10 == 9 {
            for name in acknowledged.drain(..) {
                daemon.boxship(&["rm", "-f", &name]).ok();
            }
        }
    }
    grows(&daemon, "witness");
    daemon.finish();
}

/// Creates, starts and executes; removes unless the container is to be kept. `Ok(true)` when
/// every step was acknowledged.
fn one_life(socket: &std::path::Path, name: &str, keep: bool) -> std::io::Result<bool> {
    let mut api = testkit::Socket::connect(socket)?;
    let body = serde_json::json!({"Image": "busybox", "Cmd": ["sleep", "1000"]});
    let created = api.post_json(&format!("/containers/create?name={name}"), &body)?;
    if created.status != 201 {
        return Ok(false);
    }
    if api.post(&format!("/containers/{name}/start"))?.status != 204 {
        return Ok(false);
    }
    let exec = serde_json::json!({"Cmd": ["true"]});
    api.post_json(&format!("/containers/{name}/exec"), &exec)?;
    if !keep {
        api.request("DELETE", &format!("/containers/{name}?force=1"), &[], b"")?;
    }
    Ok(true)
}
