//! Docker's own Compose, unmodified, against our daemon.

use std::fmt::Write as _;
use std::process::Command;

use testkit::run::{Output, run};
use testkit::{Daemon, wait_until};

use crate::network::on_host;
use crate::{daemon, field};

/// A project in a directory of its own.
struct Project<'a> {
    daemon: &'a Daemon,
    name: &'a str,
}

impl<'a> Project<'a> {
    fn new(daemon: &'a Daemon, name: &'a str, file: &str) -> Self {
        let directory = daemon.root().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("compose.yaml"), file).unwrap();
        Self { daemon, name }
    }

    fn compose(&self, args: &[&str]) -> Output {
        let mut command: Command = self.daemon.client_command("docker");
        command.current_dir(self.daemon.root().join(self.name)).arg("compose").args(args);
        run(&mut command, b"")
    }
}

const TWO_SERVICES: &str = r#"
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; echo front >/w/index.html; exec httpd -f -h /w"
    stop_grace_period: 0s
    ports: ["8080:80"]
    depends_on:
      db: {condition: service_healthy}
    environment: {DB: "http://db/"}
  db:
    image: busybox
    stop_grace_period: 0s
    hostname: store
    command: sh -c "cp /etc/hostname /data/index.html; exec httpd -f -h /data"
    volumes: ["data:/data"]
    networks:
      default: {aliases: [database]}
    healthcheck:
      test: wget -q -O /dev/null http://localhost/
      interval: 100ms
      start_period: 10s
      start_interval: 100ms
volumes: {data: {}}
"#;

#[test]
fn two_services_find_each_other() {
    let daemon = daemon();
    let project = Project::new(&daemon, "shop", TWO_SERVICES);
    project.compose(&["up", "-d"]).ok();
    let fetch = |url: &str| project.compose(&["exec", "-T", "web", "wget", "-q", "-O", "-", url]);
    for url in ["http://db/", "http://database/", "http://store/", "http://shop-db-1/"] {
        assert_eq!(fetch(url).ok(), "store", "{url}");
    }
    let back = ["exec", "-T", "db", "wget", "-q", "-O", "-", "http://web.shop_default/"];
    assert_eq!(project.compose(&back).ok(), "front");
    assert_eq!(project.compose(&["port", "web", "80"]).ok(), "0.0.0.0:8080");
    let connect = || std::net::TcpStream::connect("127.0.0.1:8080");
    on_host(&daemon, connect).expect("the port is published");
    let listed = project.compose(&["ps", "--format", "{{.Service}} {{.State}} {{.Health}}"]).ok();
    let mut lines: Vec<_> = listed.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["db running healthy", "web running"]);
    // Again: nothing changes. With another command: only that service is made anew.
    let id = field(&daemon, "shop-db-1", "{{.Id}}");
    project.compose(&["up", "-d"]).ok();
    assert_eq!(field(&daemon, "shop-db-1", "{{.Id}}"), id);
    project.compose(&["down", "-v"]).ok();
    for list in [&["ps", "-aq"][..], &["volume", "ls", "-q"]] {
        assert_eq!(daemon.boxship(list).ok(), "");
    }
    let networks = daemon.boxship(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(networks, "bridge\nhost\nnone");
    daemon.finish();
}

#[test]
fn replicas_share_a_name_and_come_and_go() {
    let daemon = daemon();
    let file = "services:\n  pool:\n    image: busybox\n    command: sleep 1000\n    \
                stop_grace_period: 0s\n  asker:\n    image: busybox\n    command: sleep 1000\n    \
                stop_grace_period: 0s\n";
    let project = Project::new(&daemon, "scaled", file);
    let addresses = || {
        let asked = project.compose(&["exec", "-T", "asker", "nslookup", "-type=a", "pool"]).ok();
        let lines = asked.lines().filter(|line| line.starts_with("Address: "));
        let mut found: Vec<_> = lines.map(str::to_owned).collect();
        found.sort_unstable();
        found
    };
    for replicas in [1, 3, 2] {
        project.compose(&["up", "-d", "--scale", &format!("pool={replicas}")]).ok();
        assert_eq!(addresses().len(), replicas, "{:?}", addresses());
    }
    let before = addresses();
    project.compose(&["up", "-d", "--force-recreate", "--scale", "pool=2"]).ok();
    assert_eq!(addresses().len(), 2);
    assert_eq!(before.len(), 2);
    let logs = project.compose(&["logs", "pool"]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    project.compose(&["restart", "-t", "0"]).ok();
    wait_until("both to be back", || (addresses().len() == 2).then_some(()));
    project.compose(&["down"]).ok();
    daemon.finish();
}

#[test]
fn networks_of_a_project() {
    let daemon = daemon();
    daemon.boxship(&["network", "create", "shared"]).ok();
    let mut file = String::from(
        "networks:\n  front: {ipam: {config: [{subnet: 172.31.7.0/24}]}}\n  \
         back: {internal: true, enable_ipv6: true}\n  shared: {external: true}\nservices:\n",
    );
    let sleeper = "image: busybox, command: sleep 1000, stop_grace_period: 0s";
    for (service, networks) in [
        ("proxy", "{front: {ipv4_address: 172.31.7.9}, back: {}}"),
        ("app", "{back: {aliases: [api]}, shared: {}}"),
        ("lone", "{front: {}}"),
    ] {
        writeln!(file, "  {service}: {{{sleeper}, networks: {networks}}}").unwrap();
    }
    let project = Project::new(&daemon, "nets", &file);
    project.compose(&["up", "-d"]).ok();
    let address = "{{.NetworkSettings.Networks.nets_front.IPAddress}}";
    assert_eq!(field(&daemon, "nets-proxy-1", address), "172.31.7.9");
    let finds = |service: &str, name: &str| {
        project.compose(&["exec", "-T", service, "nslookup", "-type=a", name]).code == 0
    };
    assert!(finds("proxy", "api") && finds("proxy", "lone") && finds("lone", "proxy"));
    assert!(!finds("lone", "app"), "they share no network");
    let other = ["run", "--rm", "--network", "shared", "busybox", "nslookup", "-type=a", "app"];
    daemon.boxship(&other).ok();
    project.compose(&["down"]).ok();
    daemon.boxship(&["network", "rm", "shared"]).ok();
    daemon.finish();
}
