//! Real programs that find each other by links, as in the articles: MariaDB, Apache with PHP, and
//! socat as an ambassador between hosts. One image has them all, made once (`scripts/base-image`,
//! two minutes).

use testkit::{Daemon, Options, wait_until};

use crate::network::fetch;
use crate::{BINARY, field};

const PACKAGES: [&str; 5] =
    ["mariadb-server", "apache2", "libapache2-mod-php", "php-mysql", "socat"];

/// The server as its own image would start it; the package made the tables.
const DATABASE: &str = "install -d -o mysql /run/mysqld; exec mariadbd --user=mysql \
                        --bind-address=0.0.0.0 --skip-name-resolve --init-file=/init.sql";

/// The command of the ambassador image that Docker's documentation named: what links, or `-e`, say
/// is listened to and passed on.
const AMBASSADOR: &str = r"env | sed -n 's/.*_PORT_\([0-9]*\)_TCP=tcp:\/\/\(.*\):\(.*\)/socat TCP4-LISTEN:\1,fork,reuseaddr TCP4:\2:\3 \&/p' | sh; exec sleep infinity";

/// Reads the database by the address that the variables say, and by the name.
const PAGE: &str = r#"<?php
mysqli_report(MYSQLI_REPORT_OFF);
$variables = [getenv('DB_PORT_3306_TCP_ADDR'), (int) getenv('DB_PORT_3306_TCP_PORT')];
foreach ([$variables, ['db', 3306]] as [$host, $port]) {
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 1);
    $there = $db->real_connect($host, 'drupal', 'secret', 'drupal', $port);
    echo $there ? $db->query('SELECT title FROM node')->fetch_row()[0] : 'nobody', "\n";
}
"#;

fn host() -> Daemon {
    let daemon = Daemon::with(BINARY, Options { without_images: true, ..Options::default() });
    daemon.load(&testkit::image::with_packages("lamp", &PACKAGES));
    daemon
}

#[track_caller]
fn run(daemon: &Daemon, name: &str, flags: &[&str], script: &str) {
    let run = ["run", "-d", "--name", name];
    daemon.boxship(&[&run[..], flags, &["lamp", "sh", "-c", script]].concat()).ok();
}

/// A database with one title in it.
#[track_caller]
fn run_database(daemon: &Daemon, title: &str) {
    use std::os::unix::fs::PermissionsExt;
    let sql = format!(
        "CREATE DATABASE IF NOT EXISTS drupal;\n\
         CREATE TABLE IF NOT EXISTS drupal.node (title VARCHAR(80));\n\
         TRUNCATE drupal.node;\n\
         INSERT INTO drupal.node VALUES ('{title}');\n\
         CREATE USER IF NOT EXISTS 'drupal'@'%' IDENTIFIED BY 'secret';\n\
         GRANT ALL ON drupal.* TO 'drupal'@'%';\n"
    );
    let file = daemon.root().join("init.sql");
    std::fs::write(&file, sql).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let bind = format!("{}:/init.sql:ro", file.display());
    let flags = ["-v", &bind, "--expose", "3306", "-e", "MYSQL_DATABASE=drupal"];
    run(daemon, "db", &flags, DATABASE);
}

/// S35, S38, S39: the two containers of the article, the database by its variables and its name.
#[test]
fn s35_a_web_server_finds_its_database() {
    let daemon = host();
    let source = daemon.root().join("src");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("index.php"), PAGE).unwrap();
    run_database(&daemon, "first");
    let bind = format!("{}:/var/www/drupal", source.display());
    let server = "sed -i s,/var/www/html,/var/www/drupal, /etc/apache2/sites-enabled/*; \
                  echo 'DirectoryIndex index.php' >/etc/apache2/conf-enabled/index.conf; \
                  exec apache2ctl -D FOREGROUND";
    run(&daemon, "web", &["--link", "db", "-p", "8080:80", "-v", &bind], server);
    let address = field(&daemon, "db", "{{.NetworkSettings.IPAddress}}");
    let env = daemon.boxship(&["exec", "web", "env"]).ok();
    for expect in [
        format!("DB_PORT=tcp://{address}:3306"),
        format!("DB_PORT_3306_TCP=tcp://{address}:3306"),
        format!("DB_PORT_3306_TCP_ADDR={address}"),
        "DB_PORT_3306_TCP_PORT=3306".to_owned(),
        "DB_PORT_3306_TCP_PROTO=tcp".to_owned(),
        "DB_NAME=/web/db".to_owned(),
        "DB_ENV_MYSQL_DATABASE=drupal".to_owned(),
    ] {
        assert!(env.lines().any(|line| line == expect), "{expect}: {env}");
    }
    wait_until("both ways to the database", || {
        (fetch(&daemon, "127.0.0.1:8080").ok()? == "first\nfirst").then_some(())
    });
    // The database comes back at another address: its name leads there.
    daemon.boxship(&["rm", "-f", "db"]).ok();
    run(&daemon, "squatter", &[], "sleep 1000");
    run_database(&daemon, "second");
    wait_until("the new database", || {
        fetch(&daemon, "127.0.0.1:8080").ok()?.ends_with("second").then_some(())
    });
    daemon.finish();
}

/// A cable between two hosts: `10.91.<network>.1` and `.2`.
fn connect(one: &Daemon, other: &Daemon, network: u8) {
    let ip = |daemon: &Daemon, args: &str| {
        let done = daemon.inside("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    };
    let (name, pid) = (format!("lan{network}"), other.pid());
    ip(one, &format!("link add {name} type veth peer name {name} netns {pid}"));
    for (daemon, own) in [(one, 1), (other, 2)] {
        ip(daemon, &format!("addr add 10.91.{network}.{own}/24 dev {name}"));
        ip(daemon, &format!("link set {name} up"));
    }
}

/// S41, S42: an application, its database on another host, and ambassadors between them. When the
/// database moves to a third host, one ambassador is told; the application notices nothing.
#[test]
fn s42_ambassadors_stand_between_hosts() {
    let [first, second, third] = std::thread::scope(|scope| {
        [(), (), ()].map(|()| scope.spawn(host)).map(|thread| thread.join().unwrap())
    });
    connect(&first, &second, 1);
    connect(&third, &second, 3);
    let serve = |daemon: &Daemon, title: &str| {
        run_database(daemon, title);
        run(daemon, "ambassador", &["--link", "db", "-p", "3306:3306"], AMBASSADOR);
    };
    let lead_to = |address: &str| {
        let variable = format!("DB_PORT_3306_TCP=tcp://{address}:3306");
        run(&second, "ambassador", &["--expose", "3306", "-e", &variable], AMBASSADOR);
    };
    serve(&first, "here");
    lead_to("10.91.1.1");
    run(&second, "app", &["--link", "ambassador:db"], "sleep 1000");
    let client = "mariadb -h $DB_PORT_3306_TCP_ADDR -P $DB_PORT_3306_TCP_PORT -udrupal -psecret";
    let by_name = "mariadb -h db -udrupal -psecret";
    let read = |client: &str| {
        let script = format!("timeout 5 {client} -Ne 'SELECT title FROM drupal.node'");
        second.boxship(&["exec", "app", "sh", "-c", &script]).stdout.trim().to_owned()
    };
    wait_until("the database", || (read(client) == "here").then_some(()));
    assert_eq!(read(by_name), "here");
    let started = field(&second, "app", "{{.State.StartedAt}} {{.State.Pid}}");

    serve(&third, "moved");
    first.boxship(&["rm", "-f", "ambassador", "db"]).ok();
    second.boxship(&["rm", "-f", "ambassador"]).ok();
    lead_to("10.91.3.1");
    wait_until("the database where it is now", || (read(by_name) == "moved").then_some(()));
    assert_eq!(read(client), "moved");
    assert_eq!(field(&second, "app", "{{.State.StartedAt}} {{.State.Pid}}"), started);
    for daemon in [first, second, third] {
        daemon.finish();
    }
}
