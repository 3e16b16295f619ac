//! Who reaches what: published ports from every side, and networks that differ from the usual one.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use network::firewall::Firewall;
use serde_json::{Value, json};
use sys::netlink::{Batch, Socket, route};
use testkit::{Daemon, Options, wait_until};

use crate::network::{assert_no_leftovers, fetch, fetched, on_host, reaches, serve};
use crate::security::network::{Neighbour, host_connects, ip_of};
use crate::{BINARY, daemon, field};

fn add_address(link: &str, ip: &str) {
    let mut socket = Socket::route().unwrap();
    let index = socket.link_index(link).unwrap();
    let mut batch = Batch::new();
    route::add_address(&mut batch, "address", index, ip.parse().unwrap(), 64);
    socket.transact(&mut batch).unwrap();
}

#[test]
fn a_port_answers_everywhere_it_is_published() {
    let args = ["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    let neighbour = Neighbour::new(&daemon);
    on_host(&daemon, || add_address("lan0", "fd00:9::1"));
    neighbour.run(|| add_address("lan0", "fd00:9::2"));
    serve(&daemon, "web", &["-p", "8080:80"]);
    for address in ["127.0.0.1:8080", "10.9.0.1:8080", "172.17.0.1:8080", "[fd00:9::1]:8080"] {
        assert_eq!(fetched(&daemon, address), "web", "{address}");
    }
    for address in ["10.9.0.1:8080", "[fd00:9::1]:8080"] {
        wait_until(address, || neighbour.reaches(address).then_some(()));
    }
    serve(&daemon, "other", &[]);
    assert!(reaches(&daemon, "other", "10.9.0.1:8080"));
    daemon.boxship(&["rm", "-f", "web", "other"]).ok();
    let refused = fetch(&daemon, "10.9.0.1:8080").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    daemon.finish();
}

#[test]
fn options_of_a_bridge_hold() {
    let daemon = daemon();
    let neighbour = Neighbour::new(&daemon);
    let create = |option: &str, name: &str, subnet: &str| {
        let option = format!("com.docker.network.bridge.{option}");
        daemon.boxship(&["network", "create", "--subnet", subnet, "-o", &option, name]).ok();
    };
    create("host_binding_ipv4=127.0.0.1", "bound", "10.71.0.0/24");
    serve(&daemon, "web", &["--network", "bound", "-p", "8080:80"]);
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "80/tcp -> 127.0.0.1:8080");
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    assert!(!neighbour.reaches("10.9.0.1:8080"));
    // Without masquerade the neighbour sees the container itself.
    create("enable_ip_masquerade=false", "plain", "10.72.0.0/24");
    let listener = neighbour.run(|| TcpListener::bind("10.9.0.2:82")).unwrap();
    let seen_from = |network: &str| {
        let shout =
            ["run", "--rm", "--network", network, "busybox", "nc", "-w", "2", "10.9.0.2", "82"];
        let run = std::thread::scope(|scope| {
            let client = scope.spawn(|| daemon.boxship(&shout));
            let (stream, peer) = listener.accept().unwrap();
            drop(stream);
            client.join().unwrap();
            peer.ip()
        });
        run.to_string()
    };
    assert!(seen_from("plain").starts_with("10.72.0."));
    assert_eq!(seen_from("bound"), "10.9.0.1");
    daemon.boxship(&["rm", "-f", "web"]).ok();
    daemon.boxship(&["network", "rm", "bound", "plain"]).ok();
    daemon.finish();
}

#[test]
fn without_iptables_there_are_no_rules_and_no_ports() {
    let args = ["--iptables=false", "--ip6tables=false"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    serve(&daemon, "one", &[]);
    serve(&daemon, "two", &[]);
    let ip = ip_of(&daemon, "two");
    wait_until("the server", || reaches(&daemon, "one", &ip).then_some(()));
    assert!(host_connects(&daemon, &format!("{ip}:80")));
    let refused = daemon.boxship(&["run", "-d", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(refused.contains("--iptables=false forbids"), "{refused}");
    let mut firewall = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
    assert!(firewall.published_count().is_err(), "there is no table");
    daemon.finish();
}

#[test]
fn macvlan_networks_from_the_command_line() {
    let mut daemon = daemon();
    let neighbour = Neighbour::new(&daemon);
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=lan0", "--label", "a=b"];
    let pool = ["--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.64/26", "--gateway", "10.9.0.2"];
    daemon.boxship(&[&create[..], &pool, &["lan"]].concat()).ok();
    let inspect = daemon.boxship(&["network", "inspect", "-f", "{{json .}}", "lan"]).ok();
    let mut inspect: Value = serde_json::from_str(&inspect).unwrap();
    for volatile in ["Id", "Created"] {
        inspect[volatile] = Value::Null;
    }
    let expect = json!({
        "Name": "lan", "Id": null, "Created": null, "Scope": "local", "Driver": "macvlan",
        "EnableIPv4": true, "EnableIPv6": false, "Internal": false, "Attachable": false,
        "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": {},
        "IPAM": {"Driver": "default", "Options": {}, "Config": [
            {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.64/26", "Gateway": "10.9.0.2"},
        ]},
        "Options": {"parent": "lan0"}, "Labels": {"a": "b"},
    });
    assert_eq!(inspect, expect);
    serve(&daemon, "web", &["--network", "lan", "-p", "8080:80"]);
    assert_eq!(ip_of(&daemon, "web"), "10.9.0.64");
    wait_until("the server", || neighbour.reaches("10.9.0.64:80").then_some(()));
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "", "as on Docker, nothing is published");
    let link = daemon.boxship(&["exec", "web", "ip", "-d", "link", "show", "eth0"]);
    assert!(!link.stdout.contains("bxs"), "{link:?}");
    // Joined and left while it runs; the daemon's end changes nothing.
    serve(&daemon, "far", &[]);
    daemon.boxship(&["network", "connect", "--ip", "10.9.0.99", "lan", "far"]).ok();
    wait_until("the second", || neighbour.reaches("10.9.0.99:80").then_some(()));
    daemon.kill();
    daemon.launch();
    assert!(neighbour.reaches("10.9.0.99:80"));
    let refused = daemon.boxship(&["network", "rm", "lan"]).fails(1);
    assert!(refused.contains("network lan has active endpoints"), "{refused}");
    daemon.boxship(&["network", "disconnect", "lan", "far"]).ok();
    assert!(!neighbour.reaches("10.9.0.99:80"));
    let links = daemon.boxship(&["exec", "far", "ls", "/sys/class/net"]).ok();
    assert!(!links.contains("eth1"), "{links}");
    let events = daemon.boxship(&["events", "--since", "0", "--until", "0s", "-f", "type=network"]);
    assert!(events.stdout.contains("name=lan, type=macvlan"), "{}", events.stdout);
    daemon.boxship(&["rm", "-f", "web", "far"]).ok();
    daemon.boxship(&["network", "rm", "lan"]).ok();
    assert!(on_host(&daemon, || Socket::route().unwrap().link_index("lan0")).is_ok());
    daemon.finish();
}

#[test]
fn networks_without_ipv4() {
    let daemon = daemon();
    let create = ["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:66::/64", "six"];
    daemon.boxship(&create).ok();
    let shown = "{{.EnableIPv4}} {{.EnableIPv6}} {{json .IPAM.Config}}";
    assert_eq!(
        daemon.boxship(&["network", "inspect", "-f", shown, "six"]).ok(),
        r#"false true [{"Subnet":"fd00:66::/64"}]"#
    );
    serve(&daemon, "web", &["--network", "six", "-p", "8080:80"]);
    let networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}|{{.Gateway}}|\
                    {{.GlobalIPv6Address}}|{{.IPv6Gateway}}{{end}}";
    assert_eq!(field(&daemon, "web", networks), "||fd00:66::2|fd00:66::1");
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "80/tcp -> [::]:8080");
    assert_eq!(fetched(&daemon, "[fd00:66::1]:8080"), "web");
    let route = daemon.boxship(&["exec", "web", "ip", "-6", "route"]).ok();
    assert!(route.contains("default via fd00:66::1"), "{route}");
    // With another network for IPv4 each family has its own way out.
    daemon.boxship(&["network", "connect", "bridge", "web"]).ok();
    let routes = |flag: &str| daemon.boxship(&["exec", "web", "ip", flag, "route"]).ok();
    assert!(routes("-4").contains("default via 172.17.0.1 dev eth1"), "{}", routes("-4"));
    assert!(routes("-6").contains("default via fd00:66::1 dev eth0"), "{}", routes("-6"));
    daemon.boxship(&["rm", "-f", "web"]).ok();
    daemon.boxship(&["network", "rm", "six"]).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}

/// Publishing and removing again and again: `cargo xtask churn` does it 10,000 times.
#[test]
fn publishing_again_and_again_leaks_nothing() {
    let rounds = std::env::var("BOXSHIP_CHURN").ok().and_then(|count| count.parse().ok());
    let rounds: usize = rounds.unwrap_or(200);
    // Few addresses and few ports: a leak of either ends this soon.
    let args = ["--bip", "10.99.0.1/27"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "HostConfig": {"PortBindings": {
            "80/tcp": [{"HostPort": "8080-8081"}, {"HostIp": "127.0.0.1", "HostPort": ""}],
            "53/udp": [{"HostPort": "5353"}],
        }},
    });
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let mut api = daemon.api();
    let mut before = 0;
    let began = std::time::Instant::now();
    for round in 0..rounds {
        let created = api.post_json("/containers/create", &body).unwrap();
        let id = created.json()["Id"].as_str().unwrap().to_owned();
        let started = api.post(&format!("/containers/{id}/start")).unwrap();
        assert_eq!(started.status, 204, "round {round}: {}", started.text());
        let path = format!("/containers/{id}?force=1");
        let removed = api.request("DELETE", &path, &[], b"").unwrap();
        assert_eq!(removed.status, 204, "round {round}: {}", removed.text());
        if round == 20 {
            before = descriptors();
        }
    }
    report(rounds, began.elapsed());
    assert_no_leftovers(&daemon);
    let mut firewall = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
    // The bridge's own address and MAC.
    assert_eq!(firewall.element_count().unwrap(), 2);
    let endpoints = daemon.boxship(&["network", "inspect", "-f", "{{len .Containers}}", "bridge"]);
    assert_eq!(endpoints.ok(), "0");
    for (ip, port) in [("0.0.0.0", 8080), ("0.0.0.0", 8081)] {
        let ip: IpAddr = ip.parse().unwrap();
        wait_until("the port", || on_host(&daemon, || TcpListener::bind((ip, port))).ok());
    }
    let after = descriptors();
    assert!(after <= before + 8, "{before} descriptors of the daemon became {after}");
    daemon.finish();
}

#[allow(clippy::print_stderr)] // What the xtask is asked for.
fn report(rounds: usize, took: Duration) {
    let each = took.as_secs_f64() * 1000.0 / rounds as f64;
    eprintln!(
        "{rounds} times published and removed in {:.1} s, {each:.1} ms each",
        took.as_secs_f64()
    );
}
