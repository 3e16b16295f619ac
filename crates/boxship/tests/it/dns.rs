//! Names in users' networks: who answers, what, and for how long.
//!
//! Queries go from the container's own network namespace to 127.0.0.11, by busybox's `nslookup` or
//! as bytes; the world beyond is a name server of the test's, on the daemon's host.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sys::netlink::namespace;
use testkit::{Daemon, wait_until};

use crate::network::on_host;
use crate::{daemon, field};

const RESOLVER: (&str, u16) = ("127.0.0.11", 53);
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x47, 0x11, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    code: u8,
    /// The data of the answers.
    data: Vec<Vec<u8>>,
}

impl Reply {
    /// Our own answers: each name in them is a pointer, apart from the question's.
    fn parse(query: &[u8], bytes: &[u8]) -> Self {
        assert_eq!(bytes[..2], query[..2]);
        assert_eq!(bytes[2] & 0x80, 0x80);
        let count = u16::from_be_bytes([bytes[6], bytes[7]]);
        let mut rest = &bytes[query.len()..];
        let mut data = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
            data.push(rest[12..12 + length].to_vec());
            rest = &rest[12 + length..];
        }
        Self { code: bytes[3] & 0x0f, data }
    }

    fn ips(&self) -> Vec<IpAddr> {
        let ip = |data: &Vec<u8>| match data.len() {
            4 => <[u8; 4]>::try_from(&data[..]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&data[..]).unwrap().into(),
        };
        self.data.iter().map(ip).collect()
    }
}

/// A program's socket in a container.
fn socket_in(daemon: &Daemon, container: &str) -> UdpSocket {
    let pid = field(daemon, container, "{{.State.Pid}}");
    let space = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let socket = namespace::visit(space.as_fd(), || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.connect(RESOLVER).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn receive(socket: &UdpSocket, query: &[u8]) -> Reply {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    Reply::parse(query, &buffer[..length])
}

fn ask(daemon: &Daemon, container: &str, name: &str, kind: u16) -> Reply {
    let (socket, query) = (socket_in(daemon, container), query(name, kind));
    socket.send(&query).unwrap();
    receive(&socket, &query)
}

fn ask_by_tcp(daemon: &Daemon, container: &str, name: &str) -> Reply {
    let pid = field(daemon, container, "{{.State.Pid}}");
    let space = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let connect = || TcpStream::connect(RESOLVER);
    let mut stream = namespace::visit(space.as_fd(), connect).unwrap().unwrap();
    let query = query(name, A);
    let framed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    // Two on one connection.
    stream.write_all(&framed(&query)).unwrap();
    stream.write_all(&framed(&query)).unwrap();
    let mut reply = Vec::new();
    for _ in 0..2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        reply = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut reply).unwrap();
    }
    Reply::parse(&query, &reply)
}

#[track_caller]
fn ip_of(daemon: &Daemon, container: &str, network: &str) -> IpAddr {
    let template = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    field(daemon, container, &template).parse().unwrap()
}

fn sleeper(daemon: &Daemon, name: &str, args: &[&str]) -> String {
    let run = ["run", "-d", "--name", name];
    daemon.boxship(&[&run[..], args, &["busybox", "sleep", "1000"]].concat()).ok()
}

/// A name server that knows `outside.example` and counts what it is asked.
struct World {
    queries: Arc<AtomicUsize>,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    /// On the daemon's host.
    fn at(daemon: &Daemon, address: &str) -> Self {
        let socket = on_host(daemon, || UdpSocket::bind((address, 53))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut world = Self {
            queries: Arc::default(),
            clients: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (queries, clients, stop) =
            (Arc::clone(&world.queries), Arc::clone(&world.clients), Arc::clone(&world.stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                queries.fetch_add(1, Ordering::Relaxed);
                clients.lock().unwrap().push(client);
                let query = &buffer[..length];
                let known = query.windows(9).any(|part| part == b"\x07outside\x07");
                let mut reply = query.to_vec();
                (reply[2], reply[3]) = (0x81, 0x80);
                match known {
                    true => {
                        reply[7] = 1;
                        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4];
                        reply.extend_from_slice(&record);
                        reply.extend_from_slice(&Self::ANSWER.octets());
                    }
                    false => reply[3] |= NO_SUCH_NAME,
                }
                socket.send_to(&reply, client).ok();
            }
        });
        world.thread = Some(thread);
        world
    }

    fn asked(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// What the daemon's host has in `/etc/resolv.conf` from now on.
struct HostServers<'a>(&'a Daemon);

impl<'a> HostServers<'a> {
    fn set(daemon: &'a Daemon, text: &str) -> Self {
        let path = daemon.root().join("resolv.conf");
        std::fs::write(&path, text).unwrap();
        let mount =
            daemon.inside("mount").arg("--bind").arg(&path).arg("/etc/resolv.conf").status();
        assert!(mount.unwrap().success());
        Self(daemon)
    }
}

impl Drop for HostServers<'_> {
    fn drop(&mut self) {
        self.0.inside("umount").arg("/etc/resolv.conf").status().ok();
    }
}

#[test]
fn containers_of_a_network_know_each_other() {
    let daemon = daemon();
    daemon.boxship(&["network", "create", "--ipv6", "--subnet", "fd12::/64", "Net1"]).ok();
    let web = sleeper(
        &daemon,
        "web",
        &["--network", "Net1", "--network-alias", "Shared", "--hostname", "webhost"],
    );
    sleeper(&daemon, "db", &["--network", "Net1", "--network-alias", "shared"]);
    let [web_ip, db_ip] = ["web", "db"].map(|name| ip_of(&daemon, name, "Net1"));
    for name in ["web", "WEB", "webhost", "web.net1", "shared.Net1", &web[..12]] {
        let found = ask(&daemon, "db", name, A).ips();
        assert!(found.contains(&web_ip), "{name}: {found:?}");
    }
    let v6 = field(&daemon, "web", "{{.NetworkSettings.Networks.Net1.GlobalIPv6Address}}");
    assert_eq!(ask(&daemon, "db", "web", AAAA).ips(), [v6.parse::<IpAddr>().unwrap()]);
    assert_eq!(ask(&daemon, "db", "db", A).ips(), [db_ip], "its own name");
    // Replicas take turns.
    let socket = socket_in(&daemon, "db");
    let query = query("shared", A);
    let firsts: Vec<_> = (0..4)
        .map(|_| {
            socket.send(&query).unwrap();
            let ips = receive(&socket, &query).ips();
            assert_eq!(ips.len(), 2);
            ips[0]
        })
        .collect();
    assert!(firsts.contains(&web_ip) && firsts.contains(&db_ip), "{firsts:?}");
    // Backwards, and what a name has nothing of.
    let IpAddr::V4(ip) = web_ip else { panic!() };
    let [a, b, c, d] = ip.octets();
    let name = ask(&daemon, "db", &format!("{d}.{c}.{b}.{a}.in-addr.arpa"), PTR);
    assert_eq!(name.data, [b"\x03web\x04Net1\x00".to_vec()]);
    assert_eq!(ask(&daemon, "db", "web", 15), Reply { code: 0, data: vec![] }, "MX");
    assert_eq!(ask_by_tcp(&daemon, "db", "web").ips(), [web_ip]);
    // As a program sees it.
    let looked_up = daemon.boxship(&["exec", "db", "nslookup", "-type=a", "web"]).ok();
    assert!(looked_up.contains(&format!("Address: {web_ip}")), "{looked_up}");
    let resolv_conf = daemon.boxship(&["exec", "db", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolv_conf.contains("\nnameserver 127.0.0.11\noptions ndots:0\n"), "{resolv_conf}");
    let names = field(&daemon, "web", "{{json .NetworkSettings.Networks.Net1.DNSNames}}");
    assert_eq!(names, format!("[\"web\",\"Shared\",\"{}\",\"webhost\"]", &web[..12]));
    // From its first moment on.
    for _ in 0..10 {
        let first = ["run", "--rm", "--network", "Net1", "busybox", "nslookup", "-type=a", "web"];
        daemon.boxship(&first).ok();
    }
    // Port 53 is the container's own.
    daemon.boxship(&["exec", "-d", "web", "nc", "-l", "-p", "53"]).ok();
    assert_eq!(ask(&daemon, "web", "db", A).ips(), [db_ip]);
    daemon.finish();
}

#[test]
fn answers_follow_the_containers() {
    let daemon = daemon();
    daemon.boxship(&["network", "create", "one"]).ok();
    daemon.boxship(&["network", "create", "two"]).ok();
    sleeper(&daemon, "asker", &["--network", "one"]);
    sleeper(&daemon, "target", &["--network", "two", "--network-alias", "svc"]);
    let none = Reply { code: SERVER_FAILURE, data: vec![] };
    let servers = HostServers::set(&daemon, "");
    assert_eq!(ask(&daemon, "asker", "target", A), none, "another network");
    let socket = socket_in(&daemon, "asker");
    let becomes = |name: &str, expect: &[IpAddr]| {
        let (query, since) = (query(name, A), Instant::now());
        loop {
            socket.send(&query).unwrap();
            if receive(&socket, &query).ips() == expect {
                break;
            }
            assert!(since.elapsed() < Duration::from_millis(100), "{name}: not {expect:?}");
        }
    };
    daemon.boxship(&["network", "connect", "--alias", "late", "one", "target"]).ok();
    let ip = ip_of(&daemon, "target", "one");
    becomes("target", &[ip]);
    becomes("late", &[ip]);
    becomes("svc", &[]);
    daemon.boxship(&["rename", "target", "renamed"]).ok();
    becomes("renamed", &[ip]);
    becomes("target", &[]);
    becomes("late", &[ip]);
    daemon.boxship(&["network", "disconnect", "one", "renamed"]).ok();
    becomes("renamed", &[]);
    daemon.boxship(&["network", "connect", "one", "renamed"]).ok();
    becomes("renamed", &[ip_of(&daemon, "renamed", "one")]);
    daemon.boxship(&["kill", "renamed"]).ok();
    becomes("renamed", &[]);
    daemon.boxship(&["start", "renamed"]).ok();
    becomes("renamed", &[ip_of(&daemon, "renamed", "one")]);
    daemon.boxship(&["rm", "-f", "renamed"]).ok();
    becomes("renamed", &[]);
    drop(servers);
    daemon.finish();
}

#[test]
fn a_container_of_the_default_bridge_gets_a_resolver_when_it_joins_a_network() {
    let daemon = daemon();
    daemon.boxship(&["network", "create", "net"]).ok();
    sleeper(&daemon, "db", &["--network", "net"]);
    sleeper(&daemon, "web", &[]);
    sleeper(&daemon, "own", &[]);
    let resolv_conf = |name| daemon.boxship(&["exec", name, "cat", "/etc/resolv.conf"]).ok();
    assert!(!resolv_conf("web").contains("127.0.0.11"));
    daemon
        .boxship(&["exec", "own", "sh", "-c", "echo nameserver 192.0.2.1 >/etc/resolv.conf"])
        .ok();
    for name in ["web", "own"] {
        daemon.boxship(&["network", "connect", "--link", "db:database", "net", name]).ok();
    }
    let ip = ip_of(&daemon, "db", "net");
    let looked_up = daemon.boxship(&["exec", "web", "nslookup", "-type=a", "database"]).ok();
    assert!(looked_up.contains(&format!("Address: {ip}")), "{looked_up}");
    assert_eq!(resolv_conf("own"), "nameserver 192.0.2.1", "what a user wrote stays");
    assert_eq!(ask(&daemon, "own", "database", A).ips(), [ip]);
    assert_ne!(ask(&daemon, "db", "database", A).code, 0, "the alias is of those who linked alone");
    daemon.finish();
}

#[test]
fn other_names_are_asked_of_the_right_servers() {
    let daemon = daemon();
    let servers = HostServers::set(&daemon, "nameserver 127.0.0.1\nsearch corp.example\n");
    daemon.boxship(&["network", "create", "--subnet", "172.30.0.0/24", "open"]).ok();
    daemon.boxship(&["network", "create", "--internal", "closed"]).ok();
    let host = World::at(&daemon, "127.0.0.1");
    let own = World::at(&daemon, "172.30.0.1");
    sleeper(&daemon, "plain", &["--network", "open"]);
    sleeper(&daemon, "picky", &["--network", "open", "--dns", "172.30.0.1"]);
    sleeper(&daemon, "inner", &["--network", "closed"]);
    sleeper(&daemon, "inner2", &["--network", "closed", "--dns", "172.30.0.1"]);
    let known = |container| ask(&daemon, container, "outside.example", A).ips();
    assert_eq!(known("plain"), [IpAddr::V4(World::ANSWER)]);
    assert_eq!((host.asked(), own.asked()), (1, 0), "the host's server, although on its loopback");
    assert_eq!(known("picky"), [IpAddr::V4(World::ANSWER)]);
    assert_eq!((host.asked(), own.asked()), (1, 1));
    let client = own.clients.lock().unwrap()[0].ip();
    assert_eq!(client, ip_of(&daemon, "picky", "open"), "the container asks, not the host");
    assert_eq!(ask(&daemon, "plain", "nobody.example", A).code, NO_SUCH_NAME);
    let before = (host.asked(), own.asked());
    for inner in ["inner", "inner2"] {
        assert_eq!(ask(&daemon, inner, "outside.example", A).code, SERVER_FAILURE);
        assert_eq!(ask(&daemon, inner, inner, A).ips().len(), 1);
    }
    assert_eq!((host.asked(), own.asked()), before, "nothing leaves an internal network");
    let text = daemon.boxship(&["exec", "plain", "cat", "/etc/resolv.conf"]).ok();
    assert!(text.contains("\nsearch corp.example\n"), "{text}");
    assert!(text.contains("# ExtServers: [host(127.0.0.1)]"), "{text}");
    drop(servers);
    daemon.finish();
}

/// Whether the supervisor holds what answers to the container's queries.
fn supervisor_has_socket_of(daemon: &Daemon, container: &str) -> bool {
    let pid = field(daemon, container, "{{.State.Pid}}");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].starts_with("0B00007F:")).unwrap();
    let inode = row[9];
    let Some(supervisor) = daemon.supervisor_pid() else { return false };
    let Ok(files) = std::fs::read_dir(format!("/proc/{supervisor}/fd")) else { return false };
    let mut links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links.any(|link| link.as_os_str() == format!("socket:[{inode}]").as_str())
}

#[test]
fn no_look_up_fails_while_daemon_or_supervisor_are_replaced() {
    let mut daemon = daemon();
    daemon.boxship(&["network", "create", "net"]).ok();
    sleeper(&daemon, "db", &["--network", "net", "--network-alias", "store"]);
    sleeper(&daemon, "web", &["--network", "net"]);
    let ip = ip_of(&daemon, "db", "net");
    let (socket, query) = (socket_in(&daemon, "web"), query("store", A));
    daemon.kill();
    // Waits in the socket, and is answered by the next daemon.
    socket.send(&query).unwrap();
    daemon.launch();
    assert_eq!(receive(&socket, &query).ips(), [ip]);
    daemon.kill_supervisor();
    assert_eq!(ask(&daemon, "web", "store", A).ips(), [ip], "without a supervisor");
    // The next daemon gets the sockets from the next supervisor.
    wait_until("the next supervisor has the socket", || {
        supervisor_has_socket_of(&daemon, "web").then_some(())
    });
    daemon.kill();
    socket.send(&query).unwrap();
    daemon.launch();
    assert_eq!(receive(&socket, &query).ips(), [ip]);
    daemon.kill_supervisor();
    daemon.restart();
    // Sockets and rules are new: only now can a query have been lost, and be sent again.
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait_until("answers after both were killed", || {
        socket.send(&query).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).ok()?;
        (Reply::parse(&query, &buffer[..length]).ips() == [ip]).then_some(())
    });
    daemon.boxship(&["rm", "-f", "db", "web"]).ok();
    daemon.finish();
}
