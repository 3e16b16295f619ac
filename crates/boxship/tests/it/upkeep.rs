//! Networks stay as they should be, whatever happens to containers, rules and processes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use network::firewall::Firewall;
use testkit::{Daemon, wait_until};

use crate::network::{assert_no_leftovers, on_host};
use crate::{daemon, field, run_detached};

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// `network rm` never finds an endpoint of somebody who is gone.
#[test]
fn networks_can_be_removed_after_any_death() {
    let mut daemon = daemon();
    let start = |daemon: &Daemon, name: &str| {
        daemon.boxship(&["network", "create", name]).ok();
        let run = ["run", "-d", "--name", name, "--network", name, "-p", "80", "busybox"];
        daemon.boxship(&[&run[..], &["sleep", "1000"]].concat()).ok();
        field(daemon, name, "{{.State.Pid}}")
    };
    let over = |daemon: &Daemon, name: &str| {
        wait_until("the end to be known", || {
            (field(daemon, name, "{{.State.Running}}") == "false").then_some(())
        });
        daemon.boxship(&["network", "rm", name]).ok();
        daemon.boxship(&["rm", "-f", name]).ok();
    };
    start(&daemon, "stopped");
    daemon.boxship(&["stop", "-t", "0", "stopped"]).ok();
    over(&daemon, "stopped");
    let pid = start(&daemon, "killed");
    kill(&pid);
    over(&daemon, "killed");
    start(&daemon, "forced");
    daemon.boxship(&["rm", "-f", "forced"]).ok();
    daemon.boxship(&["network", "rm", "forced"]).ok();
    // While no daemon was there, and while neither daemon nor supervisor was.
    let pid = start(&daemon, "alone");
    daemon.kill();
    kill(&pid);
    daemon.launch();
    over(&daemon, "alone");
    let pid = start(&daemon, "lost");
    daemon.kill();
    daemon.kill_supervisor();
    kill(&pid);
    daemon.launch();
    over(&daemon, "lost");
    // Its program was not found: it never ran.
    daemon.boxship(&["network", "create", "never"]).ok();
    daemon
        .boxship(&["run", "--name", "never", "--network", "never", "busybox", "/none"])
        .fails(127);
    over(&daemon, "never");
    assert_no_leftovers(&daemon);
    daemon.finish();
}

/// N03: another tool flushes in a loop. Starts work meanwhile, and all is back within a second.
#[test]
fn a_loop_of_flushes_is_survived() {
    let daemon = daemon();
    let serve = "mkdir -p /w; echo hi >/w/index.html; exec httpd -f -h /w";
    let run = ["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", serve];
    daemon.boxship(&run).ok();
    let connect = || {
        let address = ([127, 0, 0, 1], 8080).into();
        on_host(&daemon, || TcpStream::connect_timeout(&address, Duration::from_millis(300)))
    };
    wait_until("the server", || connect().ok());
    let until = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stranger = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
            while Instant::now() < until {
                stranger.remove().unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        while Instant::now() < until {
            daemon.boxship(&["run", "--rm", "-p", "8081:81", "busybox", "true"]).ok();
        }
    });
    let flushed = Instant::now();
    wait_until("the rules", || connect().ok());
    let back = flushed.elapsed();
    assert!(back < Duration::from_secs(1), "{back:?}");
    run_detached(&daemon, "next", "sleep 1000");
    daemon.boxship(&["rm", "-f", "web", "next"]).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}
