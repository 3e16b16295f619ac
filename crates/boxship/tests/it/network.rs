//! Networks as their users meet them: published ports, names, networks of one's own.
//!
//! Each daemon has a network namespace of its own, so any port may be asked for.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use network::firewall::Firewall;
use serde_json::{Value, json};
use sys::netlink::namespace;
use testkit::{Daemon, Options, wait_until};

use crate::{BINARY, daemon, field};

const SERVE: &str = "mkdir -p /w; hostname >/w/index.html; exec httpd -f -h /w";

/// Runs `work` as a program of the daemon's host would.
fn on_host<T>(daemon: &Daemon, work: impl FnOnce() -> T) -> T {
    let space = File::open(format!("/proc/{}/ns/net", daemon.pid())).unwrap();
    namespace::visit(space.as_fd(), work).unwrap()
}

/// What a web server at `address` answers, if anything does.
fn fetch(daemon: &Daemon, address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let patience = Duration::from_secs(2);
    let mut stream = on_host(daemon, || TcpStream::connect_timeout(&address, patience))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
}

/// Waits for the server, then returns what it says.
#[track_caller]
fn fetched(daemon: &Daemon, address: &str) -> String {
    wait_until(address, || fetch(daemon, address).ok().filter(|text| !text.is_empty()))
}

/// Nothing of a container may be left in the packet filter or among the links.
#[track_caller]
fn assert_no_leftovers(daemon: &Daemon) {
    wait_until("the last link to go", || {
        let links = on_host(daemon, || {
            sys::netlink::route::links(&mut sys::netlink::Socket::route().unwrap()).unwrap()
        });
        let left: Vec<_> = links.iter().filter(|link| link.kind == "veth").collect();
        left.is_empty().then_some(())
    });
    let mut firewall = on_host(daemon, || Firewall::open("boxship0")).unwrap();
    wait_until("the last port to go", || (firewall.published_count().unwrap() == 0).then_some(()));
}

#[test]
fn ports_are_published_shown_and_freed() {
    let daemon = daemon();
    let run = ["run", "-d", "--name", "web", "--hostname", "web", "-p", "8080:80"];
    daemon
        .boxship(&[&run[..], &["-p", "127.0.0.1::81/udp", "busybox", "sh", "-c", SERVE]].concat())
        .ok();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    assert_eq!(fetched(&daemon, "172.17.0.1:8080"), "web");
    let random =
        field(&daemon, "web", "{{(index (index .NetworkSettings.Ports \"81/udp\") 0).HostPort}}");
    assert!((32768..61000).contains(&random.parse::<u32>().unwrap()), "{random}");
    assert_eq!(
        daemon.boxship(&["port", "web"]).ok(),
        format!("80/tcp -> 0.0.0.0:8080\n81/udp -> 127.0.0.1:{random}")
    );
    assert_eq!(daemon.boxship(&["port", "web", "80/tcp"]).ok(), "0.0.0.0:8080");
    assert_eq!(
        daemon.boxship(&["ps", "--format", "{{.Ports}}"]).ok(),
        format!("0.0.0.0:8080->80/tcp, 127.0.0.1:{random}->81/udp")
    );
    let inspect = field(&daemon, "web", "{{json .HostConfig.PortBindings}}");
    let expect = json!({
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    });
    assert_eq!(serde_json::from_str::<Value>(&inspect).unwrap(), expect);
    daemon.boxship(&["kill", "web"]).ok();
    assert_eq!(field(&daemon, "web", "{{json .NetworkSettings.Ports}}"), "{}");
    assert_eq!(
        fetch(&daemon, "127.0.0.1:8080").unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    // At once: whoever waited for the end may have the port.
    let again = ["run", "-d", "-p", "8080:80", "--hostname", "next", "busybox", "sh", "-c", SERVE];
    let next = daemon.boxship(&again).ok();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "next");
    daemon.boxship(&["rm", "-f", &next]).ok();
    daemon.boxship(&["start", "web"]).ok();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    daemon.boxship(&["rm", "-f", "web"]).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn ranges_and_all_exposed_ports() {
    let daemon = daemon();
    let many =
        ["run", "-d", "--name", "many", "-p", "7000-7299:1000-1299", "busybox", "sleep", "1000"];
    daemon.boxship(&many).ok();
    assert_eq!(daemon.boxship(&["port", "many"]).ok().lines().count(), 300);
    let mut firewall = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
    assert_eq!(firewall.published_count().unwrap(), 300);
    let all = ["run", "-d", "--name", "all", "-P", "--expose", "80", "--expose", "5000-5001/udp"];
    daemon.boxship(&[&all[..], &["-p", "8000-8001:90", "busybox", "sleep", "1000"]].concat()).ok();
    let ports = daemon.boxship(&["port", "all"]).ok();
    let lines: Vec<_> = ports.lines().map(|line| line.split(" -> ").next().unwrap()).collect();
    assert_eq!(lines, ["80/tcp", "90/tcp", "5000/udp", "5001/udp"], "{ports}");
    assert!(ports.contains("90/tcp -> 0.0.0.0:8000"), "{ports}");
    let second =
        ["run", "-d", "--name", "second", "-p", "8000-8001:90", "busybox", "sleep", "1000"];
    daemon.boxship(&second).ok();
    assert_eq!(daemon.boxship(&["port", "second", "90"]).ok(), "0.0.0.0:8001");
    daemon.boxship(&["rm", "-f", "many", "all", "second"]).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn a_port_in_use_is_named_as_docker_names_it() {
    let daemon = daemon();
    let start = |name: &str| {
        let body = json!({
            "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        });
        let mut api = daemon.api();
        api.post_json(&format!("/containers/create?name={name}"), &body).unwrap();
        let answer = api.post(&format!("/containers/{name}/start")).unwrap();
        let text = match answer.status {
            204 => String::new(),
            _ => answer.json()["message"].as_str().unwrap().to_owned(),
        };
        // The endpoint's id is nobody's business.
        let text = text.split_once('(').map_or_else(
            || text.clone(),
            |(before, after)| format!("{before}{}", after.split_once(')').unwrap().1),
        );
        (answer.status, text)
    };
    let begin = "failed to set up container networking: driver failed programming external \
                 connectivity on endpoint";
    let listener = on_host(&daemon, || TcpListener::bind("0.0.0.0:8080")).unwrap();
    let expect = format!(
        "{begin} aa : failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already \
         in use"
    );
    assert_eq!(start("aa"), (500, expect));
    assert_eq!(field(&daemon, "aa", "{{.State.Status}} {{.State.ExitCode}}"), "created 128");
    drop(listener);
    assert_eq!(start("bb"), (204, String::new()));
    let expect = format!("{begin} cc : Bind for 0.0.0.0:8080 failed: port is already allocated");
    assert_eq!(start("cc"), (500, expect));
    let refused = on_host(&daemon, || TcpListener::bind("0.0.0.0:8080")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    let check = |binding: Value, status: u16, text: &str| {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"PortBindings": {"80/tcp": [binding]}}});
        let mut api = daemon.api();
        let created = api.post_json("/containers/create", &body).unwrap();
        if created.status != 201 {
            assert_eq!(
                (created.status, created.json()["message"].as_str().unwrap()),
                (status, text)
            );
            return;
        }
        let id = created.json()["Id"].as_str().unwrap().to_owned();
        let answer = api.post(&format!("/containers/{id}/start")).unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(text), "{}", answer.text());
    };
    check(
        json!({"HostIp": "1.2.3.4", "HostPort": "8081"}),
        500,
        "80/tcp: cannot assign requested address",
    );
    check(json!({"HostIp": "::1", "HostPort": "8081"}), 501, "no userland proxy");
    check(
        json!({"HostIp": "x", "HostPort": "1"}),
        400,
        "invalid port binding: invalid host IP address: x",
    );
    check(json!({"HostPort": "9-8"}), 400, "invalid port specification: \"9-8\"");
    daemon.finish();
}

/// The supervisor keeps the ports; a new one gets them again.
#[test]
fn ports_outlive_the_daemon_and_the_supervisor() {
    let mut daemon = daemon();
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--hostname",
        "web",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        SERVE,
    ];
    daemon.boxship(&run).ok();
    let taken = |daemon: &Daemon| on_host(daemon, || TcpListener::bind("0.0.0.0:8080")).is_err();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    daemon.kill();
    daemon.launch();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    assert!(taken(&daemon));
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "80/tcp -> 0.0.0.0:8080");
    let refused = daemon.boxship(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(refused.contains("port is already allocated"), "{refused}");
    daemon.kill_supervisor();
    wait_until("the new supervisor to hold the port", || taken(&daemon).then_some(()));
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    daemon.boxship(&["rm", "-f", "web"]).ok();
    wait_until("the port to be free", || (!taken(&daemon)).then_some(()));
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn the_docker_cli_publishes_ports() {
    let daemon = daemon();
    let docker = |args: &[&str]| daemon.docker(args).ok();
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--hostname",
        "web",
        "-p",
        "8080:80",
        "-p",
        "10.0.0.1:99:99/udp",
    ];
    on_host(&daemon, || add_address("10.0.0.1"));
    docker(&[&run[..], &["busybox", "sh", "-c", SERVE]].concat());
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    assert_eq!(docker(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n99/udp -> 10.0.0.1:99");
    assert_eq!(
        docker(&["ps", "--format", "{{.Ports}}"]),
        "10.0.0.1:99->99/udp, 0.0.0.0:8080->80/tcp"
    );
    let refused = daemon.docker(&["run", "-d", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(
        refused.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"),
        "{refused}"
    );
    docker(&["rm", "-f", "web"]);
    assert_no_leftovers(&daemon);
    daemon.finish();
}

/// One more address of the host, on its loopback.
fn add_address(ip: &str) {
    use sys::netlink::{Batch, Socket, route};
    let mut batch = Batch::new();
    route::add_address(&mut batch, "address", route::LOOPBACK, ip.parse().unwrap(), 32);
    Socket::route().unwrap().transact(&mut batch).unwrap();
}

#[test]
fn ports_come_back_after_a_flush_and_are_reached_in_ipv6() {
    let args = ["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--hostname",
        "web",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        SERVE,
    ];
    daemon.boxship(&run).ok();
    assert_eq!(
        daemon.boxship(&["port", "web"]).ok(),
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080"
    );
    assert_eq!(fetched(&daemon, "[fd00:17::1]:8080"), "web");
    on_host(&daemon, || Firewall::open("boxship0").unwrap().remove()).unwrap();
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    assert_eq!(fetched(&daemon, "[fd00:17::1]:8080"), "web");
    daemon.boxship(&["rm", "-f", "web"]).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}
