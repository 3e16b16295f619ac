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

/// The command line that runs a web server that says its name.
fn server<'a>(name: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    const SERVE: &str = "mkdir -p /w; hostname >/w/index.html; exec httpd -f -h /w";
    let run = ["run", "-d", "--name", name, "--hostname", name];
    [&run[..], args, &["busybox", "sh", "-c", SERVE]].concat()
}

#[track_caller]
pub(crate) fn serve(daemon: &Daemon, name: &str, args: &[&str]) {
    daemon.boxship(&server(name, args)).ok();
}

/// Runs `work` as a program of the daemon's host would.
pub(crate) fn on_host<T>(daemon: &Daemon, work: impl FnOnce() -> T) -> T {
    let space = File::open(format!("/proc/{}/ns/net", daemon.pid())).unwrap();
    namespace::visit(space.as_fd(), work).unwrap()
}

/// What a web server at `address` answers, if anything does.
pub(crate) fn fetch(daemon: &Daemon, address: &str) -> std::io::Result<String> {
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
pub(crate) fn fetched(daemon: &Daemon, address: &str) -> String {
    wait_until(address, || fetch(daemon, address).ok().filter(|text| !text.is_empty()))
}

/// Nothing of a container may be left in the packet filter or among the links.
#[track_caller]
pub(crate) fn assert_no_leftovers(daemon: &Daemon) {
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
    serve(&daemon, "web", &["-p", "8080:80", "-p", "127.0.0.1::81/udp"]);
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
    serve(&daemon, "next", &["-p", "8080:80"]);
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "next");
    daemon.boxship(&["rm", "-f", "next"]).ok();
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
        let text = match text.split_once('(') {
            Some((before, after)) => format!("{before}{}", after.split_once(')').unwrap().1),
            None => text,
        };
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
    let expect = format!(
        "{begin} cc : Bind for 0.0.0.0:8080 failed: port is already allocated (by container bb)"
    );
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
    serve(&daemon, "web", &["-p", "8080:80"]);
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
    on_host(&daemon, || add_address("10.0.0.1"));
    docker(&server("web", &["-p", "8080:80", "-p", "10.0.0.1:99:99/udp"]));
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
pub(crate) fn add_address(ip: &str) {
    use sys::netlink::{Batch, Socket, route};
    let mut batch = Batch::new();
    route::add_address(&mut batch, "address", route::LOOPBACK, ip.parse().unwrap(), 32);
    Socket::route().unwrap().transact(&mut batch).unwrap();
}

#[test]
fn ports_come_back_after_a_flush_and_are_reached_in_ipv6() {
    let args = ["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    serve(&daemon, "web", &["-p", "8080:80"]);
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

/// The host's bridges by name, without the default one.
fn bridges(daemon: &Daemon) -> Vec<String> {
    let links = on_host(daemon, || {
        sys::netlink::route::links(&mut sys::netlink::Socket::route().unwrap()).unwrap()
    });
    let bridges = links.into_iter().filter(|link| link.kind == "bridge" && link.name != "boxship0");
    bridges.map(|link| link.name).collect()
}

/// Whether `container` can fetch from `address`, tried once.
pub(crate) fn reaches(daemon: &Daemon, container: &str, address: &str) -> bool {
    let url = format!("http://{address}/");
    // Its own time-out (-T) crashes this busybox.
    let args = ["exec", container, "timeout", "2", "wget", "-q", "-O", "-", &url];
    daemon.boxship(&args).code == 0
}

#[test]
fn networks_are_made_joined_and_removed() {
    let mut daemon = daemon();
    let boxship = |daemon: &Daemon, args: &[&str]| daemon.boxship(args).ok();
    let create = ["network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254"];
    let more =
        ["--ip-range", "10.77.0.128/25", "--aux-address", "nas=10.77.0.128", "--label", "a=b"];
    let options =
        ["-o", "com.docker.network.driver.mtu=1400", "-o", "com.docker.network.bridge.name=brx"];
    let id = boxship(&daemon, &[&create[..], &more, &options, &["own"]].concat());
    boxship(&daemon, &["network", "create", "auto"]);
    assert_eq!(
        boxship(&daemon, &["network", "ls", "--format", "{{.Name}} {{.Driver}}"]),
        "auto bridge\nbridge bridge\nhost host\nnone null\nown bridge"
    );
    assert_eq!(
        boxship(&daemon, &["network", "inspect", "-f", "{{json .IPAM.Config}}", "own"]),
        r#"[{"Subnet":"10.77.0.0/24","IPRange":"10.77.0.128/25","Gateway":"10.77.0.254","AuxiliaryAddresses":{"nas":"10.77.0.128"}}]"#
    );
    let place = ["--network", "own", "--ip", "10.77.0.9", "--mac-address", "02:42:0a:4d:00:09"];
    serve(&daemon, "web", &[&place[..], &["--network-alias", "www", "-p", "8080:80"]].concat());
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "web");
    let link = boxship(&daemon, &["exec", "web", "ip", "addr", "show", "eth0"]);
    assert!(link.contains("mtu 1400") && link.contains("02:42:0a:4d:00:09"), "{link}");
    assert!(link.contains("10.77.0.9/24"), "{link}");
    let settings = field(&daemon, "web", "{{json .NetworkSettings.Networks.own.DNSNames}}");
    let short = &field(&daemon, "web", "{{.Id}}")[..12];
    assert_eq!(settings, format!("[\"web\",\"www\",\"{short}\"]"));
    // Others of the network reach it, those of another do not.
    boxship(
        &daemon,
        &["run", "-d", "--name", "near", "--network", &id[..12], "busybox", "sleep", "1000"],
    );
    assert_eq!(
        field(&daemon, "near", "{{.NetworkSettings.Networks.own.IPAddress}}"),
        "10.77.0.129"
    );
    boxship(
        &daemon,
        &["run", "-d", "--name", "far", "--network", "auto", "busybox", "sleep", "1000"],
    );
    assert!(reaches(&daemon, "near", "10.77.0.9"));
    assert!(!reaches(&daemon, "far", "10.77.0.9"));
    // Live: joins, leaves, and again.
    boxship(&daemon, &["network", "connect", "own", "far"]);
    assert!(reaches(&daemon, "far", "10.77.0.9"));
    let hosts = boxship(&daemon, &["exec", "far", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.77.0.130"), "{hosts}");
    let again = daemon.boxship(&["network", "connect", "own", "far"]).fails(1);
    assert!(again.ends_with("endpoint with name far already exists in network own"), "{again}");
    // A daemon that comes back knows of it.
    daemon.kill();
    daemon.launch();
    assert!(reaches(&daemon, "far", "10.77.0.9"));
    boxship(&daemon, &["network", "disconnect", "own", "far"]);
    assert!(!reaches(&daemon, "far", "10.77.0.9"));
    assert!(!boxship(&daemon, &["exec", "far", "cat", "/etc/hosts"]).contains("10.77.0"));
    let refused = daemon.boxship(&["network", "rm", "own"]).fails(1);
    assert!(refused.contains("network own has active endpoints (name:\""), "{refused}");
    let refused = daemon.boxship(&["network", "rm", "bridge"]).fails(1);
    assert!(refused.contains("bridge is a pre-defined network and cannot be removed"), "{refused}");
    assert_eq!(bridges(&daemon).len(), 2);
    boxship(&daemon, &["rm", "-f", "web", "near"]);
    assert_eq!(boxship(&daemon, &["network", "prune", "-f"]), "Deleted Networks:\nown");
    boxship(&daemon, &["rm", "-f", "far"]);
    boxship(&daemon, &["network", "rm", "auto"]);
    assert!(bridges(&daemon).is_empty());
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn a_container_in_several_networks_has_one_way_out() {
    let daemon = daemon();
    let boxship = |args: &[&str]| daemon.boxship(args).ok();
    for (name, subnet) in [("na", "10.71.0.0/24"), ("nb", "10.72.0.0/24"), ("nc", "10.73.0.0/24")] {
        boxship(&["network", "create", "--subnet", subnet, name]);
    }
    serve(&daemon, "two", &["--network", "nb", "--network", "na", "-p", "8080:80"]);
    let via =
        || boxship(&["exec", "two", "ip", "route"]).lines().next().unwrap_or_default().to_owned();
    assert_eq!(via(), "default via 10.71.0.1 dev eth1 ");
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "two");
    boxship(&["network", "connect", "--gw-priority", "9", "nc", "two"]);
    assert_eq!(via(), "default via 10.73.0.1 dev eth2 ");
    boxship(&["network", "disconnect", "nc", "two"]);
    assert_eq!(via(), "default via 10.71.0.1 dev eth1 ");
    boxship(&["network", "disconnect", "na", "two"]);
    assert_eq!(via(), "default via 10.72.0.1 dev eth0 ");
    // The published port went along.
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "two");
    boxship(&["restart", "-t", "0", "two"]);
    assert_eq!(fetched(&daemon, "127.0.0.1:8080"), "two");
    assert_eq!(
        field(&daemon, "two", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}"),
        "nb"
    );
    // Joined while it is stopped: in effect with the next start.
    boxship(&["stop", "-t", "0", "two"]);
    boxship(&["network", "connect", "--ip", "10.73.0.7", "nc", "two"]);
    boxship(&["start", "two"]);
    assert_eq!(field(&daemon, "two", "{{.NetworkSettings.Networks.nc.IPAddress}}"), "10.73.0.7");
    boxship(&["rm", "-f", "two"]);
    boxship(&["network", "rm", "na", "nb", "nc"]);
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn internal_networks_and_icc_hold() {
    let daemon = daemon();
    let boxship = |args: &[&str]| daemon.boxship(args).ok();
    boxship(&["network", "create", "--internal", "--subnet", "10.81.0.0/24", "inner"]);
    boxship(&[
        "network",
        "create",
        "--subnet",
        "10.82.0.0/24",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "apart",
    ]);
    boxship(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.83.0.0/24",
        "--subnet",
        "fd00:83::/64",
        "six",
    ]);
    for (name, network) in [
        ("ia", "inner"),
        ("ib", "inner"),
        ("aa", "apart"),
        ("ab", "apart"),
        ("sa", "six"),
        ("sb", "six"),
    ] {
        serve(&daemon, name, &["--network", network]);
    }
    let ip = |name: &str| {
        field(&daemon, name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    };
    wait_until("neighbours", || reaches(&daemon, "ia", &ip("ib")).then_some(()));
    assert_eq!(boxship(&["exec", "ia", "ip", "route"]).lines().count(), 1, "no way out");
    let world = "ip route add default via 10.81.0.1 && timeout 2 wget -q -O - http://10.82.0.1:1/";
    let forced = daemon.boxship(&["exec", "--privileged", "ia", "sh", "-c", world]);
    assert_ne!(forced.code, 0);
    assert!(!reaches(&daemon, "aa", &ip("ab")));
    wait_until("neighbours", || reaches(&daemon, "sa", &ip("sb")).then_some(()));
    let six = field(&daemon, "sb", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    assert_eq!(six, "fd00:83::3");
    wait_until("neighbours", || reaches(&daemon, "sa", &format!("[{six}]")).then_some(()));
    boxship(&["rm", "-f", "ia", "ib", "aa", "ab", "sa", "sb"]);
    boxship(&["network", "rm", "inner", "apart", "six"]);
    assert!(bridges(&daemon).is_empty());
    assert_no_leftovers(&daemon);
    daemon.finish();
}

#[test]
fn networks_refuse_in_dockers_words() {
    let daemon = daemon();
    let check = |method: &str, path: &str, body: Value, status: u16, text: &str| {
        let body = body.to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = daemon.api().request(method, path, &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        if status >= 400 {
            assert_eq!(answer.json()["message"].as_str().unwrap(), text, "{path} {body}");
        }
    };
    let create =
        |body: Value, status, text: &str| check("POST", "/networks/create", body, status, text);
    create(json!({"Name": "n1"}), 201, "");
    create(json!({"Name": "n1"}), 409, "network with name n1 already exists");
    create(json!({"Name": ""}), 400, "invalid name: name is empty");
    create(json!({"Name": "host"}), 403, "operation is not permitted on predefined host network ");
    create(json!({"Name": "x", "Driver": "nope"}), 404, "plugin \"nope\" not found");
    create(
        json!({"Name": "x", "Driver": "macvlan", "Options": {"macvlan_mode": "foo"}}),
        500,
        "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default",
    );
    create(
        json!({"Name": "x", "ConfigOnly": true}),
        501,
        "a network that is only configuration (ConfigOnly) is not supported yet",
    );
    create(json!({"Name": "x", "EnableIPv4": false}), 400, "IPv4 or IPv6 must be enabled");
    create(json!({"Name": "n2", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}}), 201, "");
    create(
        json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.77.0.0/25"}]}}),
        403,
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    let run = |name: &str, network: &str, ip: &str| {
        let body = json!({
            "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": network},
            "NetworkingConfig": {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": ip}}}},
        });
        let mut api = daemon.api();
        let created = api.post_json(&format!("/containers/create?name={name}"), &body).unwrap();
        if created.status != 201 {
            return (created.status, created.json()["message"].as_str().unwrap().to_owned());
        }
        let started = api.post(&format!("/containers/{name}/start")).unwrap();
        let text = match started.status {
            204 => String::new(),
            _ => started.json()["message"].as_str().unwrap().to_owned(),
        };
        (started.status, text)
    };
    assert_eq!(run("c1", "n2", "10.77.0.9"), (204, String::new()));
    let begin = "failed to set up container networking:";
    assert_eq!(run("c2", "n2", "10.77.0.9"), (403, format!("{begin} Address already in use")));
    let settings = |network: &str| {
        format!("invalid config for network {network}: invalid endpoint settings:\n")
    };
    assert_eq!(
        run("c3", "n2", "10.99.0.9"),
        (400, settings("n2") + "no configured subnet or ip-range contain the IP address 10.99.0.9")
    );
    assert_eq!(
        run("c3", "n1", "10.99.0.9"),
        (
            400,
            settings("n1")
                + "user specified IP address is supported only when connecting to networks with \
                   user configured subnets"
        )
    );
    assert_eq!(run("c4", "nope", ""), (404, format!("{begin} network nope not found")));
    let connect = |network: &str, container: &str, status, text: &str| {
        check(
            "POST",
            &format!("/networks/{network}/connect"),
            json!({"Container": container}),
            status,
            text,
        );
    };
    connect("nope", "c1", 404, "network nope not found");
    connect("n1", "nope", 404, "No such container: nope");
    connect("n1", "", 400, "invalid name or ID supplied: \"\"");
    connect(
        "host",
        "c1",
        400,
        "cannot connect container to host network - container must be created in host network mode",
    );
    connect("n1", "c1", 200, "");
    let id = field(&daemon, "c1", "{{.Id}}");
    check(
        "POST",
        "/networks/bridge/disconnect",
        json!({"Container": "c1"}),
        500,
        &format!("container {id} is not connected to network bridge"),
    );
    check(
        "DELETE",
        "/networks/none",
        json!({}),
        403,
        "none is a pre-defined network and cannot be removed",
    );
    check("DELETE", "/networks/nope", json!({}), 404, "network nope not found");
    check(
        "POST",
        "/networks/prune?filters=%7B%22x%22%3A%5B%22y%22%5D%7D",
        json!({}),
        400,
        "invalid filter 'x'",
    );
    daemon.boxship(&["rm", "-f", "c1", "c2", "c4"]).ok();
    daemon.finish();
}

#[test]
fn the_docker_cli_manages_networks() {
    let daemon = daemon();
    let docker = |args: &[&str]| daemon.docker(args).ok();
    docker(&["network", "create", "--label", "tier=front", "front"]);
    docker(&server("web", &["--network", "front"]));
    docker(&["network", "create", "--subnet", "10.90.0.0/24", "back"]);
    docker(&["network", "connect", "--ip", "10.90.0.5", "--alias", "w", "back", "web"]);
    docker(&["run", "-d", "--name", "peer", "--network", "back", "busybox", "sleep", "1000"]);
    wait_until("the server", || {
        let got = daemon.docker(&[
            "exec",
            "peer",
            "timeout",
            "2",
            "wget",
            "-q",
            "-O",
            "-",
            "http://10.90.0.5/",
        ]);
        (got.stdout.trim() == "web").then_some(())
    });
    let inside =
        docker(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "back"]);
    assert!(inside.contains("web") && inside.contains("peer"), "{inside}");
    assert_eq!(docker(&["network", "ls", "-q", "--filter", "label=tier=front"]).lines().count(), 1);
    docker(&["network", "disconnect", "back", "web"]);
    docker(&["rm", "-f", "web", "peer"]);
    docker(&["network", "rm", "front", "back"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (now.as_secs() + 1).to_string();
    let events = docker(&[
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    for event in
        ["create front", "connect front", "connect back", "disconnect back", "destroy back"]
    {
        assert!(events.lines().any(|line| line == event), "{event} in {events}");
    }
    assert!(bridges(&daemon).is_empty());
    assert_no_leftovers(&daemon);
    daemon.finish();
}
