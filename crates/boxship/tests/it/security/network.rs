//! Class N: what containers, neighbours and other tools try with the network.
//!
//! The daemon's host has a neighbour, 10.9.0.2 behind `lan0` (10.9.0.1), which routes everything
//! through it. N09 (no VXLAN is offered) and N13 (no proxy is) have nothing to attack.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use network::firewall::Firewall;
use serde_json::json;
use sys::netlink::{Batch, Socket, namespace, route};
use testkit::{Daemon, Options, wait_until};

use super::{bind, compile};
use crate::network::{assert_no_leftovers, on_host, reaches, serve};
use crate::{BINARY, daemon, field};

/// Another host on the daemon's network.
pub(crate) struct Neighbour(OwnedFd);

impl Neighbour {
    pub(crate) fn new(daemon: &Daemon) -> Self {
        let space = namespace::create().unwrap();
        let host = File::open(format!("/proc/{}/ns/net", daemon.pid())).unwrap();
        let mut socket = on_host(daemon, Socket::route).unwrap();
        let mut batch = Batch::new();
        route::create_link(&mut batch, "lan", "lan0", |link| {
            link.nested(route::IFLA_LINKINFO, |info| {
                info.text(route::IFLA_INFO_KIND, "veth");
                info.nested(route::IFLA_INFO_DATA, |veth| {
                    veth.nested_after(
                        route::VETH_INFO_PEER,
                        &route::link_header(0, 0, 0),
                        |peer| {
                            peer.text(route::IFLA_IFNAME, "lan0");
                            peer.descriptor(route::IFLA_NET_NS_FD, space.as_fd());
                        },
                    );
                });
            });
        });
        socket.transact(&mut batch).unwrap();
        let neighbour = Self(space);
        configure(&host, [10, 9, 0, 1], None);
        configure(&neighbour.0, [10, 9, 0, 2], Some([10, 9, 0, 1]));
        neighbour
    }

    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        namespace::visit(self.0.as_fd(), work).unwrap()
    }

    /// Whether a connection comes about.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(700))).is_ok()
    }
}

fn configure(space: &impl AsFd, ip: [u8; 4], gateway: Option<[u8; 4]>) {
    let mut socket = namespace::visit(space.as_fd(), Socket::route).unwrap().unwrap();
    let index = socket.link_index("lan0").unwrap();
    let mut batch = Batch::new();
    route::add_address(&mut batch, "address", index, ip.into(), 24);
    route::set_up(&mut batch, "up", index);
    route::set_up(&mut batch, "up", route::LOOPBACK);
    if let Some(gateway) = gateway {
        route::add_default_route(&mut batch, "route", index, gateway.into());
    }
    socket.transact(&mut batch).unwrap();
}

pub(crate) fn ip_of(daemon: &Daemon, name: &str) -> String {
    field(daemon, name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

fn ipv6_of(daemon: &Daemon, name: &str) -> String {
    let ip = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    format!("[{}]", field(daemon, name, ip))
}

pub(crate) fn host_connects(daemon: &Daemon, address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    on_host(daemon, || TcpStream::connect_timeout(&address, Duration::from_secs(1))).is_ok()
}

#[test]
fn n02_ports_that_are_not_published_are_closed_to_neighbours() {
    let daemon = daemon();
    let neighbour = Neighbour::new(&daemon);
    serve(&daemon, "web", &["-p", "127.0.0.1:8080:80"]);
    serve(&daemon, "open", &["-p", "8081:80"]);
    let (closed, open) = (ip_of(&daemon, "web"), ip_of(&daemon, "open"));
    wait_until("the servers", || {
        let both = host_connects(&daemon, &format!("{closed}:80"))
            && host_connects(&daemon, "127.0.0.1:8081");
        both.then_some(())
    });
    assert!(neighbour.reaches("10.9.0.1:8081"), "what is published is");
    // Published on the loopback only, or not at all, by whatever address it is called.
    for address in ["10.9.0.1:8080", "172.17.0.1:8080", &format!("{closed}:80")] {
        assert!(!neighbour.reaches(address), "{address}");
    }
    // A published port is the host's, not the container's own.
    assert!(!neighbour.reaches(&format!("{open}:80")));
    assert!(host_connects(&daemon, "127.0.0.1:8080"));
    // Nor does another container reach what is on the loopback only.
    serve(&daemon, "other", &[]);
    for address in ["172.17.0.1:8080", "10.9.0.1:8080", "127.0.0.1:8080"] {
        assert!(!reaches(&daemon, "other", address), "{address}");
    }
    daemon.finish();
}

#[test]
fn n03_flushed_rules_are_back_within_a_second() {
    let daemon = daemon();
    let neighbour = Neighbour::new(&daemon);
    serve(&daemon, "web", &["-p", "127.0.0.1:8080:80"]);
    let hidden = format!("{}:80", ip_of(&daemon, "web"));
    wait_until("the server", || host_connects(&daemon, "127.0.0.1:8080").then_some(()));
    let mut stranger = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
    for round in 0..4 {
        // At another moment of the daemon's interval each time.
        std::thread::sleep(Duration::from_millis(130 * round));
        stranger.remove().unwrap();
        let flushed = Instant::now();
        wait_until("the rules", || (stranger.published_count().ok()? == 1).then_some(()));
        assert!(flushed.elapsed() < Duration::from_secs(1), "{:?}", flushed.elapsed());
        assert!(!neighbour.reaches(&hidden));
        assert!(host_connects(&daemon, "127.0.0.1:8080"));
        assert!(!neighbour.reaches("10.9.0.1:8080"), "not wider than asked");
    }
    // A start that meets flushed tables restores them first.
    stranger.remove().unwrap();
    serve(&daemon, "next", &["-p", "127.0.0.1:8081:80"]);
    assert!(!neighbour.reaches(&hidden));
    assert_eq!(stranger.published_count().unwrap(), 2);
    daemon.finish();
}

/// Says over and over that this container is a router, or has somebody's address.
const LIAR: &str = r#"
    #include <arpa/inet.h>
    #include <net/if.h>
    #include <netinet/in.h>
    #include <linux/if_packet.h>
    #include <net/ethernet.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <unistd.h>
    static unsigned short sum(const unsigned char *p, int n, unsigned long s) {
        for (int i = 0; i < n; i += 2) s += p[i] << 8 | p[i + 1];
        while (s >> 16) s = (s & 0xffff) + (s >> 16);
        return ~s;
    }
    int main(int argc, char **argv) {
        int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
        struct ifreq r; memset(&r, 0, sizeof r); strcpy(r.ifr_name, "eth0");
        if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &r)) { perror("socket"); return 1; }
        unsigned char mac[6]; memcpy(mac, r.ifr_hwaddr.sa_data, 6);
        struct sockaddr_ll to; memset(&to, 0, sizeof to);
        to.sll_family = AF_PACKET; to.sll_ifindex = if_nametoindex("eth0"); to.sll_halen = 6;
        unsigned char f[128]; memset(f, 0, sizeof f);
        int length;
        if (!strcmp(argv[1], "arp")) {
            memset(f, 0xff, 6); memcpy(f + 6, mac, 6); f[12] = 8; f[13] = 6;
            unsigned char arp[] = {0, 1, 8, 0, 6, 4, 0, 2};
            memcpy(f + 14, arp, 8); memcpy(f + 22, mac, 6); inet_pton(AF_INET, argv[2], f + 28);
            memset(f + 32, 0xff, 6); memcpy(f + 38, f + 28, 4); length = 42;
        } else {
            unsigned char all[] = {0x33, 0x33, 0, 0, 0, 1};
            memcpy(f, all, 6); memcpy(f + 6, mac, 6); f[12] = 0x86; f[13] = 0xdd;
            unsigned char *ip = f + 14, *ra = f + 54;
            ip[0] = 0x60; ip[5] = 48; ip[6] = 58; ip[7] = 255;
            inet_pton(AF_INET6, "fe80::bad", ip + 8); inet_pton(AF_INET6, "ff02::1", ip + 24);
            ra[0] = 134; ra[4] = 64; ra[6] = 0x70; ra[7] = 8;
            unsigned char prefix[] = {3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0};
            memcpy(ra + 16, prefix, 16); inet_pton(AF_INET6, "fd66::", ra + 32);
            unsigned short s = sum(ra, 48, (unsigned long)0);
            unsigned long pseudo = 48 + 58;
            for (int i = 8; i < 40; i += 2) pseudo += ip[i] << 8 | ip[i + 1];
            s = sum(ra, 48, pseudo); ra[2] = s >> 8; ra[3] = s & 255; length = 102;
        }
        for (int i = 0; i < 200; i++) {
            if (sendto(fd, f, length, 0, (struct sockaddr *)&to, sizeof to) < 0) perror("send");
            usleep(2000);
        }
        puts("told");
    }"#;

/// Has a container of the network send one frame that is a lie.
#[track_caller]
fn lie(daemon: &Daemon, liar: &Path, network: &str, what: &[&str]) {
    let run = ["run", "--rm", "--network", network, "-v", &bind(liar, "/liar"), "busybox", "/liar"];
    assert_eq!(daemon.boxship(&[&run[..], what].concat()).ok(), "told");
}

#[test]
fn n05_no_ipv6_unasked_and_no_router_is_believed() {
    let daemon = daemon();
    let liar = compile(&daemon, "liar", LIAR);
    serve(&daemon, "web", &["-p", "8080:80"]);
    wait_until("the server", || host_connects(&daemon, "127.0.0.1:8080").then_some(()));
    let addresses = daemon.boxship(&["exec", "web", "cat", "/proc/net/if_inet6"]).stdout;
    assert!(!addresses.contains("eth0"), "{addresses}");
    let routes = daemon.boxship(&["exec", "web", "cat", "/proc/net/ipv6_route"]).stdout;
    assert!(!routes.contains("eth0"), "{routes}");
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "80/tcp -> 0.0.0.0:8080");
    assert!(!host_connects(&daemon, "[::1]:8080"));
    // With IPv6, and a neighbour in the network that claims to be its router.
    let create = ["network", "create", "--ipv6", "--subnet", "fd00:55::/64", "six"];
    daemon.boxship(&create).ok();
    for (name, network) in [("victim", "six"), ("near", "bridge")] {
        daemon
            .boxship(&[
                "run",
                "-d",
                "--name",
                name,
                "--network",
                network,
                "busybox",
                "sleep",
                "1000",
            ])
            .ok();
    }
    let seen = |name: &str| {
        let files = ["cat", "/proc/net/ipv6_route", "/proc/net/if_inet6", "/proc/net/snmp6"];
        daemon.boxship(&[&["exec", name][..], &files].concat()).ok()
    };
    for (name, network) in [("victim", "six"), ("near", "bridge")] {
        lie(&daemon, &liar, network, &["ra"]);
        let after = seen(name);
        assert!(!after.contains("fd66") && !after.contains("0bad"), "{name}: {after}");
        // It did not even hear of it.
        let heard = after.lines().find(|line| line.starts_with("Icmp6InRouterAdvertisements"));
        assert!(heard.is_some_and(|line| line.split_whitespace().nth(1) == Some("0")), "{heard:?}");
    }
    // Nor does the host believe it.
    let host = on_host(&daemon, || std::fs::read_to_string("/proc/thread-self/net/if_inet6"));
    assert!(!host.unwrap().contains("fd66"));
    daemon.boxship(&["rm", "-f", "web", "victim", "near"]).ok();
    daemon.boxship(&["network", "rm", "six"]).ok();
    daemon.finish();
}

#[test]
fn n06_spoofed_addresses_do_not_cross() {
    let daemon = daemon();
    let liar = compile(&daemon, "liar", LIAR);
    daemon.boxship(&["network", "create", "--subnet", "10.77.0.0/24", "own"]).ok();
    for network in ["bridge", "own"] {
        for name in ["server", "client"] {
            serve(&daemon, &format!("{name}-{network}"), &["--network", network]);
        }
        let (client, server) = (format!("client-{network}"), format!("server-{network}"));
        let ip = ip_of(&daemon, &server);
        wait_until("the server", || reaches(&daemon, &client, &ip).then_some(()));
        let gateway =
            field(&daemon, &client, "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}");
        // Makes the gateway known, which is to be replaced.
        daemon.boxship(&["exec", &client, "ping", "-c", "1", &gateway]).ok();
        let arp = || {
            let table = daemon.boxship(&["exec", &client, "cat", "/proc/net/arp"]).ok();
            let mac = |ip: &str| {
                let line = table.lines().find(|line| line.split(' ').next() == Some(ip));
                line.and_then(|line| line.split_whitespace().nth(3)).map(str::to_owned)
            };
            (mac(&gateway), mac(&ip))
        };
        let before = arp();
        assert!(before.0.is_some() && before.1.is_some(), "{before:?}");
        for claimed in [&gateway, &ip] {
            lie(&daemon, &liar, network, &["arp", claimed]);
        }
        assert_eq!(arp(), before, "{network}");
        assert!(reaches(&daemon, &client, &ip));
        daemon.boxship(&["rm", "-f", &client, &server]).ok();
    }
    daemon.boxship(&["network", "rm", "own"]).ok();
    daemon.finish();
}

#[test]
fn n07_networks_are_apart_in_both_families() {
    let args = ["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"].map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    for (name, subnet) in [("na", "fd00:71::/64"), ("nb", "fd00:72::/64")] {
        daemon.boxship(&["network", "create", "--ipv6", "--subnet", subnet, name]).ok();
    }
    let networks = ["bridge", "na", "nb"];
    for (number, network) in networks.iter().enumerate() {
        let open = format!("{}:80", 8000 + number);
        let hidden = format!("127.0.0.1:{}:80", 9000 + number);
        serve(
            &daemon,
            &format!("s-{network}"),
            &["--network", network, "-p", &open, "-p", &hidden],
        );
        serve(&daemon, &format!("c-{network}"), &["--network", network]);
    }
    let template = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
    let gateways = networks.map(|network| field(&daemon, &format!("s-{network}"), template));
    for from in networks {
        let client = format!("c-{from}");
        for (number, to) in networks.into_iter().enumerate() {
            let server = format!("s-{to}");
            for ip in [ip_of(&daemon, &server), ipv6_of(&daemon, &server)] {
                if from == to {
                    wait_until("a neighbour", || reaches(&daemon, &client, &ip).then_some(()));
                } else {
                    assert!(!reaches(&daemon, &client, &ip), "{from} to {to} at {ip}");
                }
            }
            for gateway in &gateways {
                // What is published for everybody is for other networks too, as on Docker.
                let open = format!("{gateway}:{}", 8000 + number);
                assert!(reaches(&daemon, &client, &open), "{from} to {to} at {open}");
            }
            let hidden = format!("{}:{}", gateways[0], 9000 + number);
            assert!(!reaches(&daemon, &client, &hidden), "{from} to {to} at {hidden}");
        }
    }
    daemon.finish();
}

/// icc=false, as the daemon's flag and as a network's option, in both families.
#[test]
fn n07_without_icc_neighbours_are_apart() {
    let args = ["--icc=false", "--ipv6", "--fixed-cidr-v6", "fd00:17::/64"];
    let args = args.map(str::to_owned).to_vec();
    let daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    let option = "com.docker.network.bridge.enable_icc=false";
    let create = ["network", "create", "--ipv6", "--subnet", "fd00:71::/64", "-o", option, "apart"];
    daemon.boxship(&create).ok();
    for network in ["bridge", "apart"] {
        for name in ["one", "two"] {
            serve(&daemon, &format!("{name}-{network}"), &["--network", network]);
        }
        let server = format!("two-{network}");
        let (ip, ipv6) = (ip_of(&daemon, &server), ipv6_of(&daemon, &server));
        for ip in [&ip, &ipv6] {
            let there = || host_connects(&daemon, &format!("{ip}:80")).then_some(());
            wait_until("the server, from the host", there);
            assert!(!reaches(&daemon, &format!("one-{network}"), ip), "{ip}");
        }
    }
    daemon.finish();
}

/// The policy: containers reach the host's services and the link-local metadata address as any
/// program of the host does; `--internal` with gateway mode `isolated` leaves them neither.
#[test]
fn n10_host_services_are_reached_unless_isolated() {
    let daemon = daemon();
    let neighbour = Neighbour::new(&daemon);
    let service = on_host(&daemon, || TcpListener::bind("0.0.0.0:7777")).unwrap();
    let metadata = neighbour.run(|| {
        crate::network::add_address("169.254.169.254");
        TcpListener::bind("169.254.169.254:80").unwrap()
    });
    on_host(&daemon, || {
        let mut socket = Socket::route().unwrap();
        let index = socket.link_index("lan0").unwrap();
        let mut batch = Batch::new();
        let metadata = ([169, 254, 169, 254].into(), 32);
        route::add_route(&mut batch, "route", index, metadata, [10, 9, 0, 2].into());
        socket.transact(&mut batch).unwrap();
    });
    for listener in [service, metadata] {
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 512];
                let read = client.read(&mut request);
                drop(read.and_then(|_| client.write_all(b"HTTP/1.0 200 OK\r\n\r\nsecret")));
            }
        });
    }
    let isolated = "com.docker.network.bridge.gateway_mode_ipv4=isolated";
    daemon.boxship(&["network", "create", "--internal", "--subnet", "10.71.0.0/24", "inner"]).ok();
    let create = ["network", "create", "--internal", "--subnet", "10.72.0.0/24"];
    daemon.boxship(&[&create[..], &["-o", isolated, "isolated"]].concat()).ok();
    for (name, network) in [("plain", "bridge"), ("inside", "inner"), ("alone", "isolated")] {
        serve(&daemon, name, &["--network", network]);
        serve(&daemon, &format!("{name}-peer"), &["--network", network]);
        let peer = ip_of(&daemon, &format!("{name}-peer"));
        wait_until("its peer", || reaches(&daemon, name, &peer).then_some(()));
    }
    let check = |name: &str, address: &str, expect: bool| {
        assert_eq!(reaches(&daemon, name, address), expect, "{name} to {address}");
    };
    check("plain", "172.17.0.1:7777", true);
    check("plain", "169.254.169.254", true);
    check("inside", "10.71.0.1:7777", true);
    check("inside", "172.17.0.1:7777", false);
    check("inside", "169.254.169.254", false);
    check("alone", "169.254.169.254", false);
    for address in ["10.72.0.1:7777", "172.17.0.1:7777", "10.9.0.1:7777"] {
        // Not even with a way that it gives itself.
        let way = format!(
            "ip route add default dev eth0 2>/dev/null; timeout 2 wget -q -O - http://{address}/"
        );
        let forced = daemon.boxship(&["exec", "--privileged", "alone", "sh", "-c", &way]);
        assert_ne!(forced.code, 0, "{address}");
    }
    daemon.finish();
}

#[test]
fn n12_of_a_hundred_one_gets_the_port() {
    let daemon = daemon();
    let mut api = daemon.api();
    let binding = json!([{"HostPort": "8080"}]);
    let ids: Vec<String> = (0..100)
        .map(|_| {
            let body = json!({
                "Image": "busybox", "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"PortBindings": {"80/tcp": binding}},
            });
            let created = api.post_json("/containers/create", &body).unwrap();
            created.json()["Id"].as_str().unwrap().to_owned()
        })
        .collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |part: &[String]| {
            let mut api = daemon.api();
            let part = part.to_vec();
            scope.spawn(move || {
                let start = |id: &String| api.post(&format!("/containers/{id}/start")).unwrap();
                part.iter().map(start).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = ids.chunks(5).map(start).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|answer| answer.status == 204).count(), 1);
    for answer in results.iter().filter(|answer| answer.status != 204) {
        assert_eq!(answer.status, 500);
        assert!(answer.message().contains("port is already allocated"), "{}", answer.message());
    }
    let mut firewall = on_host(&daemon, || Firewall::open("boxship0")).unwrap();
    assert_eq!(firewall.published_count().unwrap(), 1);
    // The same number in UDP is another port; one of the host's own programs is named as such.
    daemon.boxship(&["run", "-d", "-p", "8080:80/udp", "busybox", "sleep", "1000"]).ok();
    let taken = on_host(&daemon, || UdpSocket::bind("0.0.0.0:8090")).unwrap();
    let range = ["run", "-d", "-p", "8089-8091:80-82/udp", "busybox", "sleep", "1000"];
    let refused = daemon.boxship(&range).fails(125);
    assert!(refused.contains("address already in use"), "{refused}");
    assert_eq!(firewall.published_count().unwrap(), 2, "nothing of the range is left");
    drop(taken);
    daemon.boxship(&range).ok();
    assert_eq!(firewall.published_count().unwrap(), 5);
    for id in &ids {
        api.request("DELETE", &format!("/containers/{id}?force=1"), &[], b"").unwrap();
    }
    let rest = daemon.boxship(&["ps", "-q"]).ok();
    let rest: Vec<_> = rest.lines().collect();
    daemon.boxship(&[&["rm", "-f"][..], &rest].concat()).ok();
    assert_no_leftovers(&daemon);
    daemon.finish();
}
