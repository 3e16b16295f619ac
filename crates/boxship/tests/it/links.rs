//! Links between containers: names, variables, hosts files, and what they open with `--icc=false`.
//!
//! What a container sees was recorded from dockerd 28.5 in the same situations.

use network::firewall::Firewall;
use serde_json::{Value, json};
use testkit::{Daemon, Options, wait_until};

use crate::network::on_host;
use crate::{BINARY, daemon, field};

/// Runs `sleep` with these flags before the image.
#[track_caller]
fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) {
    let run = ["run", "-d", "--name", name];
    daemon.boxship(&[&run[..], flags, &["busybox", "sleep", "1000"]].concat()).ok();
}

fn ip(daemon: &Daemon, name: &str) -> String {
    field(daemon, name, "{{.NetworkSettings.IPAddress}}")
}

/// The lines of its hosts file that are not every container's.
#[track_caller]
fn hosts(daemon: &Daemon, name: &str) -> Vec<String> {
    let text = daemon.boxship(&["exec", name, "cat", "/etc/hosts"]).ok();
    text.lines().skip(6).map(|line| line.replace('\t', " ")).collect()
}

fn links(daemon: &Daemon, name: &str) -> Value {
    serde_json::from_str(&field(daemon, name, "{{json .HostConfig.Links}}")).unwrap()
}

fn names(daemon: &Daemon, name: &str) -> Value {
    let list = daemon.api().get("/containers/json?all=1").unwrap().json();
    let id = field(daemon, name, "{{.Id}}");
    let own = list.as_array().unwrap().iter().find(|summary| summary["Id"] == id);
    own.unwrap()["Names"].clone()
}

#[test]
fn a_link_is_names_variables_and_lines() {
    let daemon = daemon();
    sleeper(&daemon, "db", &["-h", "dbhost", "--expose", "3306", "-e", "A=b c", "-e", "HOME=/x"]);
    let run = ["run", "--rm", "--name", "web", "-h", "webhost", "--add-host", "ex:1.2.3.4"];
    let linked = ["--link", "db:my-db", "--link", "db", "-e", "DB_PORT=mine", "busybox"];
    let script = "env; tail -n +7 /etc/hosts";
    let seen = daemon.boxship(&[&run[..], &linked, &["sh", "-c", script]].concat()).ok();
    let ip = ip(&daemon, "db");
    let expect = format!(
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOSTNAME=webhost
MY_DB_PORT=tcp://{ip}:3306
MY_DB_PORT_3306_TCP=tcp://{ip}:3306
MY_DB_PORT_3306_TCP_ADDR={ip}
MY_DB_PORT_3306_TCP_PORT=3306
MY_DB_PORT_3306_TCP_PROTO=tcp
MY_DB_NAME=/web/my-db
MY_DB_ENV_A=b c
DB_PORT=mine
DB_PORT_3306_TCP=tcp://{ip}:3306
DB_PORT_3306_TCP_ADDR={ip}
DB_PORT_3306_TCP_PORT=3306
DB_PORT_3306_TCP_PROTO=tcp
DB_NAME=/web/db
DB_ENV_A=b c"
    );
    let mut words: Vec<_> = seen.lines().collect();
    let mut wanted: Vec<_> = expect.lines().collect();
    let lines = words.split_off(words.iter().position(|line| line.contains("1.2.3.4")).unwrap());
    words.retain(|word| !word.starts_with("SHLVL=") && !word.starts_with("PWD="));
    words.retain(|word| !word.starts_with("HOME="));
    words.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(words, wanted);
    let lines: Vec<_> = lines.iter().map(|line| line.replace('\t', " ")).collect();
    let [extra, first, second, _own] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        [extra.as_str(), first, second],
        ["1.2.3.4 ex", &format!("{ip} my-db dbhost db"), &format!("{ip} db dbhost")]
    );
    daemon.finish();
}

#[test]
fn links_are_shown_found_renamed_and_removed() {
    let mut daemon = daemon();
    sleeper(&daemon, "db", &[]);
    sleeper(&daemon, "web", &["--link", "db:my-db", "--link", "/db:other"]);
    assert_eq!(links(&daemon, "web"), json!(["/db:/web/my-db", "/db:/web/other"]));
    assert_eq!(names(&daemon, "db"), json!(["/db", "/web/my-db", "/web/other"]));
    assert_eq!(names(&daemon, "web"), json!(["/web"]));
    assert_eq!(daemon.boxship(&["ps", "--format", "{{.Names}}"]).ok(), "web\ndb");
    let full = ["ps", "--no-trunc", "--filter", "name=^db$", "--format", "{{.Names}}"];
    assert_eq!(daemon.boxship(&full).ok(), "db,web/my-db,web/other");
    assert_eq!(field(&daemon, "/web/my-db", "{{.Name}}"), "/db");
    assert_eq!(daemon.docker(&["exec", "web/other", "echo", "here"]).ok(), "here");
    daemon.boxship(&["rename", "web", "app"]).ok();
    daemon.boxship(&["rename", "db", "store"]).ok();
    let renamed = json!(["/store:/app/my-db", "/store:/app/other"]);
    assert_eq!(links(&daemon, "app"), renamed);
    assert_eq!(names(&daemon, "store"), json!(["/app/my-db", "/app/other", "/store"]));
    daemon.kill();
    daemon.launch();
    assert_eq!(links(&daemon, "app"), renamed, "written down");

    let fails = |args: &[&str]| daemon.boxship(args).fails(1);
    assert!(
        fails(&["rm", "--link", "app"])
            .ends_with("Conflict, cannot remove the default link name of the container")
    );
    assert!(fails(&["rm", "--link", "/app/nope"]).ends_with("No such container: app/nope"));
    assert!(fails(&["rm", "--link", "/nope/db"]).ends_with("No such container: nope/db"));
    assert_eq!(daemon.boxship(&["rm", "--link", "/app/my-db"]).ok(), "/app/my-db");
    assert_eq!(links(&daemon, "app"), json!(["/store:/app/other"]));
    let (ip, id) = (ip(&daemon, "store"), field(&daemon, "store", "{{.Config.Hostname}}"));
    assert_eq!(hosts(&daemon, "app")[0], format!("{ip} other {id} store"), "as it runs");
    assert_eq!(daemon.docker(&["rm", "--link", "/app/other"]).ok(), "/app/other");
    assert_eq!(links(&daemon, "app"), Value::Null);
    assert_eq!(hosts(&daemon, "app").len(), 1);
    assert_eq!(field(&daemon, "store", "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn what_cannot_be_linked_is_refused_in_dockers_words() {
    let daemon = daemon();
    sleeper(&daemon, "db", &[]);
    sleeper(&daemon, "onhost", &["--net", "host"]);
    sleeper(&daemon, "shares", &["--net", "container:db"]);
    sleeper(&daemon, "alone", &["--net", "none"]);
    let create = |links: Value, mode: &str| {
        let config = json!({"Links": links, "NetworkMode": mode});
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": config});
        daemon.api().post_json("/containers/create", &body).unwrap()
    };
    let check = |links: Value, mode: &str, message: &str| {
        let answer = create(links, mode);
        assert_eq!((answer.status, answer.message().as_str()), (400, message));
    };
    check(json!(["nope:x"]), "bridge", "could not get container for nope: No such container: nope");
    check(json!([":x"]), "", "could not get container for : invalid name or ID supplied: \"\"");
    check(json!(["a:b:c"]), "", "bad format for links: a:b:c");
    check(json!([""]), "", "empty string specified for links");
    check(json!(["db:x\n6.6.6.6"]), "", "bad format for links: db:x\n6.6.6.6");
    let host = "conflicting options: host type networking can't be used with links. This would \
                result in undefined behavior";
    check(json!(["onhost:x"]), "bridge", host);
    check(json!(["db:x"]), "host", host);
    check(
        json!(["db:x"]),
        "container:db",
        "conflicting options: container type network can't be used with links. This would result \
         in undefined behavior",
    );
    // One that shares another's network stands for it; without a network a link does nothing.
    let made = create(json!(["shares:x", "db:x", "alone:x"]), "bridge").json();
    assert_eq!(made["Warnings"], json!(["The link alone:x is left out: x is /db already"]));
    assert_eq!(links(&daemon, made["Id"].as_str().unwrap())[0].as_str().unwrap()[..4], *"/db:");
    let made = create(json!(["db:x"]), "none").json();
    daemon.boxship(&["start", made["Id"].as_str().unwrap()]).ok();

    let run = |target: &str| {
        let link = format!("{target}:x");
        let run = ["run", "--rm", "--name", "web", "--link", &link, "busybox", "true"];
        daemon.boxship(&run).fails(125)
    };
    let id = field(&daemon, "alone", "{{.Id}}");
    let text = run("alone");
    assert!(text.contains(&format!("container {id} not attached to default bridge network")));
    daemon.boxship(&["kill", "db"]).ok();
    let text = run("db");
    assert!(text.contains("Cannot link to a non running container: /db AS /web/x"), "{text}");
    let own = ["run", "--name", "own", "--link", "own:me", "busybox", "true"];
    let text = daemon.boxship(&own).fails(125);
    assert!(text.contains("could not get container for own: No such container: own"), "{text}");
    daemon.finish();
}

/// S36: the hosts file of whoever is linked follows the target.
#[test]
fn s36_the_hosts_file_follows_the_target() {
    let mut daemon = daemon();
    sleeper(&daemon, "pg1", &["-h", "pg", "--expose", "5432"]);
    sleeper(&daemon, "web", &["--link", "pg1:postgres-master"]);
    let line = |ip: &str| format!("{ip} postgres-master pg pg1");
    let resolved = |daemon: &Daemon| {
        let script = "ping -c 1 -W 1 postgres-master | sed -n 's/^PING.*(\\(.*\\)):.*/\\1/p'";
        daemon.boxship(&["exec", "web", "sh", "-c", script]).ok()
    };
    let first = ip(&daemon, "pg1");
    assert_eq!(hosts(&daemon, "web")[0], line(&first));
    assert_eq!(resolved(&daemon), first);
    // Somebody edits the file; what is his stays.
    let edit = "echo 9.9.9.9 mine >>/etc/hosts; stat -c %i /etc/hosts";
    let inode = daemon.boxship(&["exec", "web", "sh", "-c", edit]).ok();
    daemon.boxship(&["stop", "-t", "0", "pg1"]).ok();
    assert_eq!(hosts(&daemon, "web").len(), 2, "nothing stale: {:?}", hosts(&daemon, "web"));
    // Its address goes to somebody else meanwhile.
    let mut squatters = 0;
    while squatters < 20 && {
        let name = format!("squatter{squatters}");
        sleeper(&daemon, &name, &[]);
        ip(&daemon, &name) != first
    } {
        squatters += 1;
    }
    daemon.boxship(&["start", "pg1"]).ok();
    let second = ip(&daemon, "pg1");
    assert_ne!(first, second);
    assert_eq!(hosts(&daemon, "web").last(), Some(&line(&second)));
    assert_eq!(hosts(&daemon, "web")[1], "9.9.9.9 mine");
    assert_eq!(daemon.boxship(&["exec", "web", "stat", "-c", "%i", "/etc/hosts"]).ok(), inode);
    assert_eq!(resolved(&daemon), second);
    // An exec hears of the address that is.
    let script = "echo $POSTGRES_MASTER_PORT_5432_TCP_ADDR";
    assert_eq!(daemon.boxship(&["exec", "web", "sh", "-c", script]).ok(), second);
    // What ends while there is no daemon is made good by the next.
    let pid = field(&daemon, "pg1", "{{.State.Pid}}").parse().unwrap();
    daemon.kill();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    daemon.launch();
    let stale =
        |daemon: &Daemon| hosts(daemon, "web").iter().any(|line| line.contains("postgres-master"));
    wait_until("the line to go", || (!stale(&daemon)).then_some(()));
    daemon.boxship(&["start", "pg1"]).ok();
    assert!(stale(&daemon));
    daemon.boxship(&["rm", "-f", "pg1"]).ok();
    assert!(!stale(&daemon));
    assert_eq!(links(&daemon, "web"), json!(["/pg1:/web/postgres-master"]));
    let text = daemon.boxship(&["restart", "-t", "0", "web"]).fails(1);
    assert!(text.contains("Cannot link to a non running container: /pg1 AS"), "{text}");
    // Another of the name takes its place.
    sleeper(&daemon, "pg1", &["-h", "new"]);
    daemon.boxship(&["start", "web"]).ok();
    assert!(hosts(&daemon, "web")[0].ends_with(" postgres-master new pg1"));
    daemon.finish();
}

#[test]
fn links_on_a_users_network_are_kept_with_the_endpoint() {
    let daemon = daemon();
    daemon.boxship(&["network", "create", "lan"]).ok();
    sleeper(&daemon, "db", &["--net", "lan"]);
    let at = |name: &str, network: &str| -> Value {
        let template = format!("{{{{json (index .NetworkSettings.Networks {network:?}).Links}}}}");
        serde_json::from_str(&field(&daemon, name, &template)).unwrap()
    };
    sleeper(&daemon, "web", &["--net", "lan", "--link", "db:store", "--link", "db"]);
    assert_eq!(at("web", "lan"), json!(["db:store", "db"]));
    assert_eq!(links(&daemon, "web"), Value::Null);
    let docker = ["run", "-d", "--name", "dweb", "--net", "lan", "--link", "nobody:x"];
    daemon.docker(&[&docker[..], &["busybox", "sleep", "1000"]].concat()).ok();
    assert_eq!(at("dweb", "lan"), json!(["nobody:x"]), "who need not be there yet");
    // Compose says it beside the mode, where dockerd no longer looks.
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": "lan", "Links": ["db:q"]},
    });
    let made = daemon.api().post_json("/containers/create?name=c1", &body).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!((at("c1", "lan"), links(&daemon, "c1")), (json!(["db:q"]), Value::Null));
    daemon.boxship(&["network", "create", "other"]).ok();
    daemon.boxship(&["network", "connect", "--link", "db:al", "other", "web"]).ok();
    assert_eq!(at("web", "other"), json!(["db:al"]));
    let body = json!({"Container": "db", "EndpointConfig": {"Links": ["a:b:c"]}});
    let answer = daemon.api().post_json("/networks/other/connect", &body).unwrap();
    assert_eq!((answer.status, answer.message()), (400, "bad format for links: a:b:c".to_owned()));
    daemon.finish();
}

/// What is linked to comes first when all come back.
#[test]
fn the_target_starts_first_with_the_daemon() {
    let args = vec!["--live-restore=false".to_owned()];
    let mut daemon = Daemon::with(BINARY, Options { args, ..Options::default() });
    let always = ["--restart", "always", "--stop-signal", "KILL"];
    sleeper(&daemon, "zdb", &always);
    sleeper(&daemon, "amid", &[&always[..], &["--link", "zdb:db"]].concat());
    sleeper(&daemon, "aweb", &[&always[..], &["--link", "amid:m", "--link", "zdb:db"]].concat());
    assert!(daemon.terminate().success());
    daemon.launch();
    for name in ["zdb", "amid", "aweb"] {
        wait_until(name, || (field(&daemon, name, "{{.State.Running}}") == "true").then_some(()));
    }
    assert_eq!(hosts(&daemon, "aweb").len(), 3);
    daemon.finish();
}

/// S40: without inter-container communication a link opens the exposed port, and nothing else.
#[test]
fn s40_a_link_opens_the_exposed_port_only() {
    let args = ["--icc=false", "--ipv6", "--fixed-cidr-v6=fd00:40::/64"].map(str::to_owned);
    let mut daemon = Daemon::with(BINARY, Options { args: args.into(), ..Options::default() });
    let serve = "mkdir -p /w; hostname >/w/index.html; httpd -h /w; httpd -p 81 -h /w; sleep 1000";
    let run = ["run", "-d", "--name", "db", "-h", "dbhost", "--expose", "80"];
    daemon.boxship(&[&run[..], &["busybox", "sh", "-c", serve]].concat()).ok();
    sleeper(&daemon, "web", &["--link", "db"]);
    sleeper(&daemon, "stranger", &[]);
    // All at once, as what is closed answers nothing.
    let open = |daemon: &Daemon, from: &str| -> Vec<String> {
        let settings = "{{.NetworkSettings.IPAddress}} [{{.NetworkSettings.GlobalIPv6Address}}]";
        let hosts = field(daemon, "db", settings);
        let fetch = "timeout 1 wget -q -O - http://$host:$port/ | grep -q dbhost && echo $port";
        let script =
            format!("for host in {hosts}; do for port in 80 81; do ({fetch}) & done; done; wait");
        let seen = daemon.boxship(&["exec", from, "sh", "-c", &script]).ok();
        seen.lines().map(str::to_owned).collect()
    };
    let check = |daemon: &Daemon| {
        // Servers and IPv6 neighbours may need a moment, and the firewall one to come back.
        wait_until("what is open", || (open(daemon, "web") == ["80", "80"]).then_some(()));
        assert_eq!(open(daemon, "stranger"), [""; 0]);
    };
    check(&daemon);
    daemon.restart();
    check(&daemon);
    // `nft flush ruleset`
    on_host(&daemon, || Firewall::open("boxship0").unwrap().remove()).unwrap();
    check(&daemon);
    daemon.boxship(&["restart", "-t", "0", "db"]).ok();
    check(&daemon);
    daemon.boxship(&["rm", "--link", "web/db"]).ok();
    assert_eq!(open(&daemon, "web"), [""; 0]);
    daemon.finish();
}

/// Before 1.24 errors were plain text.
fn old_message(answer: &testkit::Response) -> String {
    match answer.text().trim() {
        text if text.starts_with('{') => answer.message(),
        text => text.to_owned(),
    }
}

/// fig and the first Compose made containers bare and said all else at the start.
#[test]
fn the_oldest_clients_configure_at_the_start() {
    let daemon = daemon();
    let host = daemon.root().join("bound");
    std::fs::create_dir(&host).unwrap();
    sleeper(&daemon, "db", &["-v", "/data", "--expose", "3306"]);
    let create = |name: &str, extra: Value| {
        let mut body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Memory": 64 << 20});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let path = format!("/v1.12/containers/create?name={name}");
        assert_eq!(daemon.api().post_json(&path, &body).unwrap().status, 201);
    };
    let start = |path: &str, config: &Value| {
        let answer = daemon.api().post_json(&format!("{path}/start"), config).unwrap();
        (answer.status, old_message(&answer))
    };
    create("web", json!({"ExposedPorts": {"80/tcp": {}}, "Volumes": {"/srv": {}}}));
    let anonymous = field(&daemon, "web", "{{(index .Mounts 0).Name}}");
    let config = json!({
        "Links": ["db:store"],
        "Binds": [format!("{}:/bound:ro", host.display())],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "VolumesFrom": ["db"],
        "Privileged": true,
        "Dns": ["10.1.2.3"],
        "NetworkMode": "",
        "LxcConf": null,
    });
    assert_eq!(start("/v1.23/containers/web", &config), (204, String::new()));
    assert_eq!(links(&daemon, "web"), json!(["/db:/web/store"]));
    assert_eq!(names(&daemon, "db"), json!(["/db", "/web/store"]));
    assert_eq!(daemon.boxship(&["port", "web"]).ok(), "80/tcp -> 0.0.0.0:8080");
    assert_eq!(field(&daemon, "web", "{{.HostConfig.Memory}}"), (64 << 20).to_string());
    let script = "echo $STORE_PORT; cat /etc/resolv.conf; grep -c . /proc/self/status >/data/x; \
                  touch /bound/x; ls -d /srv; mount -t tmpfs none /tmp && echo privileged";
    let seen = daemon.boxship(&["exec", "web", "sh", "-c", script]);
    let ip = ip(&daemon, "db");
    for expect in [&format!("tcp://{ip}:3306"), "nameserver 10.1.2.3", "/srv", "privileged"] {
        assert!(seen.stdout.contains(expect), "{expect}: {seen:?}");
    }
    assert!(seen.stderr.contains("/bound/x: Read-only"), "{seen:?}");
    daemon.boxship(&["exec", "db", "ls", "/data/x"]).ok();
    let mounts = field(&daemon, "web", "{{range .Mounts}}{{.Destination}} {{.Name}}\n{{end}}");
    assert!(mounts.contains(&format!("/srv {anonymous}")), "made once: {mounts}");
    // It is its own from now on.
    assert_eq!(start("/v1.23/containers/web", &config), (304, String::new()));
    daemon.boxship(&["restart", "-t", "0", "web"]).ok();
    assert_eq!(links(&daemon, "web"), json!(["/db:/web/store"]));

    create("other", json!({}));
    let bad = json!({"Links": ["nope:x"]});
    let message = "could not get container for nope: No such container: nope".to_owned();
    assert_eq!(start("/v1.15/containers/other", &bad), (400, message));
    let refused = "starting container with non-empty request body was deprecated since API v1.22 \
                   and removed in v1.24";
    assert_eq!(start("/v1.24/containers/other", &config), (400, refused.to_owned()));
    assert_eq!(start("/v1.15/containers/other", &json!({"NetworkMode": "none"})).0, 204);
    let networks = field(&daemon, "other", "{{json .NetworkSettings.Networks}}");
    assert!(networks.starts_with("{\"none\":"), "{networks}");
    daemon.finish();
}

/// S37, S38: a project as Compose 1 made it, each service linked by three names.
#[test]
fn s37_s38_a_compose_project_of_links() {
    let daemon = daemon();
    sleeper(&daemon, "proj_db_1", &["--expose", "7000-7003", "--expose", "9000"]);
    let links: Vec<_> =
        ["db", "db_1", "proj_db_1"].iter().map(|alias| format!("proj_db_1:{alias}")).collect();
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": {"Links": links, "NetworkMode": "default"},
    });
    let create = "/v1.19/containers/create?name=proj_web_1";
    assert_eq!(daemon.api().post_json(create, &body).unwrap().status, 201);
    daemon.boxship(&["start", "proj_web_1"]).ok();
    let ip = ip(&daemon, "proj_db_1");
    for name in ["db", "db_1", "proj_db_1"] {
        let ping = ["exec", "proj_web_1", "timeout", "5", "ping", "-c", "1", name];
        let seen = daemon.boxship(&ping).ok();
        assert!(seen.starts_with(&format!("PING {name} ({ip})")), "{seen}");
    }
    let env = daemon.boxship(&["exec", "proj_web_1", "env"]).ok();
    for prefix in ["DB", "DB_1", "PROJ_DB_1"] {
        for expect in [
            format!("{prefix}_PORT=tcp://{ip}:7000"),
            format!("{prefix}_PORT_7000_TCP_START=tcp://{ip}:7000"),
            format!("{prefix}_PORT_7000_TCP_PORT_START=7000"),
            format!("{prefix}_PORT_7000_TCP_END=tcp://{ip}:7003"),
            format!("{prefix}_PORT_7000_TCP_PORT_END=7003"),
            format!("{prefix}_PORT_7002_TCP_ADDR={ip}"),
            format!("{prefix}_PORT_9000_TCP=tcp://{ip}:9000"),
        ] {
            assert!(env.lines().any(|line| line == expect), "{expect}: {env}");
        }
    }
    assert!(!env.contains("9000_TCP_START"), "{env}");
    daemon.finish();
}
