//! At a keyboard: full screen programs, resize, detach keys, job control, large pastes; and
//! whatever happens, the terminal is left as it was.

use std::process::Command;

use testkit::{Daemon, Terminal};

use crate::{BINARY, daemon, field, run_detached};

fn ours(daemon: &Daemon, args: &[&str]) -> Command {
    with(daemon, BINARY, args)
}

fn with(daemon: &Daemon, program: &str, args: &[&str]) -> Command {
    let mut command = daemon.client_command(program);
    command.args(args).env("TERM", "xterm");
    command
}

/// A shell that a person could be in; its prompt is `ready> `.
fn shell(daemon: &Daemon) -> Terminal {
    let mut command = with(daemon, "bash", &["--norc", "--noprofile", "-i"]);
    command.env("PS1", "ready> ").env("BOXSHIP", BINARY).env("HISTFILE", "/dev/null");
    let mut shell = Terminal::run(&command);
    shell.expect("ready> ");
    shell
}

#[test]
fn a_full_screen_program_works_and_follows_the_window() {
    let daemon = daemon();
    let command = ours(&daemon, &["run", "-it", "--name", "v1", "busybox", "vi", "/tmp/text"]);
    let mut vi = Terminal::run(&command);
    let before = vi.modes();
    vi.expect("\u{1b}[24;1H");
    vi.resize(40, 100);
    vi.expect("\u{1b}[40;1H");
    vi.send("ione\rtwo");
    vi.expect("two");
    // With what follows at once, an escape would be a key of a terminal.
    vi.send("\u{1b}");
    vi.expect("- /tmp/text");
    vi.send("kyyP:wq\r");
    let (code, rest) = vi.end();
    assert_eq!(code, 0, "{rest}");
    assert_eq!(vi.modes(), before);
    daemon.boxship(&["cp", "v1:/tmp/text", &daemon.root().join("text").display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(daemon.root().join("text")).unwrap(), "one\none\ntwo\n");
    daemon.finish();
}

#[test]
fn sizes_reach_containers_and_execs() {
    let daemon = daemon();
    run_detached(&daemon, "c1", "sleep 1000");
    for args in [&["run", "--rm", "-it", "busybox", "sh"][..], &["exec", "-it", "c1", "sh"]] {
        let mut shell = Terminal::run(&ours(&daemon, args));
        shell.expect("# ");
        shell.send("stty size\r");
        shell.expect("24 80");
        shell.resize(33, 111);
        // The shell learns of it through the daemon, so it asks until it has.
        shell.send("until stty size | grep '33 11''1'; do sleep 0.02; done; exit 3\r");
        shell.expect("33 111");
        assert_eq!(shell.end().0, 3, "{args:?}");
    }
    daemon.finish();
}

#[test]
fn sessions_are_left_and_taken_up_again() {
    let daemon = daemon();
    let mut first = Terminal::run(&ours(&daemon, &["run", "-it", "--name", "c1", "busybox", "sh"]));
    let before = first.modes();
    first.expect("# ");
    first.send("kept=yes\r");
    first.expect("# ");
    first.send("\u{10}");
    first.send("\u{11}");
    assert_eq!(first.end().0, 0);
    assert_eq!(first.modes(), before);
    assert_eq!(field(&daemon, "c1", "{{.State.Running}}"), "true");

    // Other keys, from the command line; the default ones are then the container's.
    let args = ["attach", "--detach-keys", "ctrl-x,x", "c1"];
    let mut second = Terminal::run(&ours(&daemon, &args));
    second.wait_raw();
    second.send("echo still-$kept\r");
    second.expect("still-yes");
    second.send("\u{10}\u{11}\u{18}x");
    let (code, rest) = second.end();
    // What docker says and how it ends, see `both_clients_end_alike`.
    assert_eq!(code, 1, "{rest}");
    assert!(rest.contains("read escape sequence"), "{rest}");
    assert_eq!(second.modes(), before);

    // Keys of config.json, for an exec.
    let config = daemon.root().join("docker-config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), r#"{"detachKeys":"ctrl-e,e"}"#).unwrap();
    let mut third = Terminal::run(&ours(&daemon, &["exec", "-it", "c1", "sh"]));
    third.expect("# ");
    third.send("\u{5}e");
    third.end();
    assert_eq!(third.modes(), before);
    assert_eq!(field(&daemon, "c1", "{{.State.Running}}"), "true");
    daemon.finish();
}

#[test]
fn several_people_share_a_session() {
    let daemon = daemon();
    daemon.boxship(&["run", "-dit", "--name", "c1", "busybox", "sh"]).ok();
    let attach = || {
        let terminal = Terminal::run(&ours(&daemon, &["attach", "c1"]));
        terminal.wait_raw();
        terminal
    };
    let (mut one, mut two) = (attach(), attach());
    one.send("echo fr''om-one\r");
    one.expect("from-one");
    two.expect("from-one");
    two.send("echo fr''om-two; exit 6\r");
    one.expect("from-two");
    assert_eq!((one.end().0, two.end().0), (6, 6));
    daemon.finish();
}

#[test]
fn keys_are_the_containers_in_a_session() {
    let daemon = daemon();
    let mut shell = Terminal::run(&ours(&daemon, &["run", "--rm", "-it", "busybox", "sh"]));
    let before = shell.modes();
    shell.expect("# ");
    shell.send("sh -c 'echo g\"\"o; exec sleep 1000'\r");
    shell.expect("go");
    shell.send("\u{3}");
    shell.expect("# ");
    shell.send("echo a''live\r");
    shell.expect("alive");
    shell.send("sh -c 'echo g\"\"o; exec sleep 1000'\r");
    shell.expect("go");
    shell.send("\u{1a}");
    shell.expect("Stopped");
    shell.expect("# ");
    // The first exit is refused while there are stopped jobs.
    shell.send("kill -9 %1\r");
    shell.expect("# ");
    shell.send("exit 4\rexit 4\r");
    assert_eq!(shell.end().0, 4);
    assert_eq!(shell.modes(), before);
    daemon.finish();
}

#[test]
fn a_shell_has_its_history() {
    let daemon = daemon();
    daemon.load(&testkit::image::debian());
    let args = ["run", "--rm", "-it", "debian:bookworm", "bash", "--norc"];
    let mut shell = Terminal::run(&ours(&daemon, &args));
    shell.expect("# ");
    shell.send("echo $((40+2))\r");
    shell.expect("42");
    shell.expect("# ");
    // Up, and to the end of the line.
    shell.send("\u{1b}[A\u{5}\u{7f}\u{7f}*2))\r");
    shell.expect("44");
    shell.expect("# ");
    // Searched backwards.
    shell.send("\u{12}+2))\r");
    shell.expect("42");
    // A character that comes before the shell reads again is not its end.
    shell.expect("# ");
    shell.send("\u{4}");
    assert_eq!(shell.end().0, 0);
    daemon.finish();
}

#[test]
fn a_paste_of_a_mebibyte_arrives_whole() {
    let daemon = daemon();
    let script = "stty raw -echo; echo ready; head -c 1048576 | sha256sum; exit 9";
    let args = ["run", "--rm", "-it", "busybox", "sh", "-c", script];
    let mut client = Terminal::run(&ours(&daemon, &args));
    let before = client.first_modes();
    client.wait_raw();
    client.expect("ready");
    let text: String = (0..1u32 << 20).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    client.send(&text);
    client.expect(&testkit::image::sha256(text.as_bytes()));
    assert_eq!(client.end().0, 9);
    assert_eq!(client.modes(), before);
    daemon.finish();
}

/// Every command that waits, interrupted: it ends, and the terminal is as before.
#[test]
fn ctrl_c_leaves_the_terminal_sane() {
    let daemon = daemon();
    run_detached(&daemon, "c1", "echo up; sleep 1000");
    daemon.boxship(&["run", "-dit", "--name", "t1", "busybox", "sh"]).ok();
    let cases: &[(&[&str], &str)] = &[
        (&["logs", "-f", "c1"], "up"),
        (&["events"], ""),
        (&["stats"], "NAME"),
        (&["stats", "c1"], "NAME"),
        (&["wait", "c1"], ""),
        (&["attach", "--sig-proxy=false", "c1"], ""),
        (&["exec", "c1", "sleep", "1000"], ""),
        (&["exec", "-i", "c1", "sleep", "1000"], ""),
        (&["system", "prune"], "[y/N]"),
        (&["container", "prune"], "[y/N]"),
        (&["volume", "prune"], "[y/N]"),
        (&["login", "127.0.0.1:1"], "Username"),
        (&["login", "-u", "me", "127.0.0.1:1"], "Password"),
        (&["run", "--rm", "-i", "--sig-proxy=false", "busybox", "sleep", "1000"], ""),
        (&["import", "-"], ""),
        (&["stop", "-t", "1000", "c1"], ""),
    ];
    for (args, sign) in cases {
        let mut client = Terminal::run(&ours(&daemon, args));
        let before = client.first_modes();
        if sign.is_empty() {
            wait_connected(&client, args);
        } else {
            client.expect(sign);
        }
        if *sign == "Password" {
            client.wait_silent();
        }
        client.send("\u{3}");
        let (code, rest) = client.end();
        assert_eq!(client.modes(), before, "{args:?}");
        assert!(code != 0, "{args:?} ended well: {rest}");
        assert!(!rest.contains("panicked"), "{args:?}: {rest}");
    }
    daemon.finish();
}

/// Until the client waits for the daemon: it has a socket, and sleeps.
fn wait_connected(client: &Terminal, args: &[&str]) {
    testkit::wait_until(&format!("{args:?} to wait"), || {
        let process = format!("/proc/{}", client.pid());
        let sockets = std::fs::read_dir(format!("{process}/fd")).ok()?.flatten().filter(|file| {
            std::fs::read_link(file.path())
                .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        });
        let name = std::fs::read_to_string(format!("{process}/comm")).ok()?;
        (name.trim() == "boxship" && sockets.count() > 0).then_some(())
    });
}

#[test]
fn a_session_killed_from_outside_leaves_the_terminal_sane() {
    let daemon = daemon();
    daemon.boxship(&["run", "-dit", "--name", "t1", "busybox", "sh"]).ok();
    for (args, kill) in [
        (&["exec", "-it", "t1", "sh"][..], true),
        (&["attach", "--sig-proxy=false", "t1"], true),
        (&["run", "--rm", "-it", "--name", "u1", "busybox", "sh"], false),
        (&["exec", "-it", "t1", "sleep", "1000"], false),
    ] {
        let mut client = Terminal::run(&ours(&daemon, args));
        let before = client.first_modes();
        client.wait_raw();
        if kill {
            Command::new("kill").arg(client.pid().to_string()).status().unwrap();
        } else {
            let name = if args.contains(&"t1") { "t1" } else { "u1" };
            daemon.boxship(&["kill", name]).ok();
        }
        client.end();
        assert_eq!(client.modes(), before, "{args:?}");
    }
    daemon.finish();
}

/// Ctrl-C for a container without a terminal is a signal that it gets.
#[test]
fn signals_are_passed_on() {
    let daemon = daemon();
    let script = "trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done";
    let args = ["run", "--rm", "busybox", "sh", "-c", script];
    let mut client = Terminal::run(&ours(&daemon, &args));
    client.expect("ready");
    client.send("\u{3}");
    assert_eq!(client.end().0, 42);
    daemon.finish();
}

#[test]
fn jobs_are_stopped_and_go_on() {
    let daemon = daemon();
    let script = "i=0; while :; do i=$((i+1)); echo line$i; sleep 0.05; done";
    run_detached(&daemon, "c1", script);
    let mut shell = shell(&daemon);
    let before = shell.modes();
    shell.send("$BOXSHIP logs -f c1\r");
    shell.expect("line3");
    shell.send("\u{1a}");
    shell.expect("Stopped");
    shell.expect("ready> ");
    shell.send("fg\r");
    shell.expect("line");
    shell.expect("line");
    shell.send("\u{3}");
    shell.expect("ready> ");
    assert_eq!(shell.modes(), before);
    shell.send("exit 5\r");
    assert_eq!(shell.end().0, 5);
    daemon.finish();
}

#[test]
fn sessions_are_parts_of_pipelines() {
    let daemon = daemon();
    run_detached(&daemon, "c1", "sleep 1000");
    let mut shell = shell(&daemon);
    let before = shell.modes();
    let mut check = |line: &str, expect: &str| {
        shell.send(&format!("{line}; echo \"=$?=\"\r"));
        // The line itself, as it was typed.
        shell.expect("=$?=\"");
        let shown = shell.expect("ready> ");
        assert!(shown.contains(expect), "{line}: {shown:?}");
    };
    check("$BOXSHIP exec -t c1 echo one | tr -d '\\r' | tr a-z A-Z", "ONE");
    check("echo two | $BOXSHIP exec -i c1 tr a-z A-Z | cat", "TWO");
    check("$BOXSHIP exec -it c1 sh -c 'stty size; exit 7' | tr ' ' x; echo ${PIPESTATUS[0]}", "7");
    check("echo | $BOXSHIP exec -it c1 true", "the input device is not a TTY");
    check("echo three | $BOXSHIP run --rm -i busybox cat | wc -c", "6");
    check("$BOXSHIP exec -it c1 true < /dev/null", "=1=");
    check("$BOXSHIP exec -t c1 sh -c 'seq 100000' | head -1", "1");
    check("for i in 1 2 3; do $BOXSHIP exec -it c1 echo round$i; done", "round3");
    check("x=$($BOXSHIP exec -t c1 hostname); echo ${#x}", "13");
    assert_eq!(shell.modes(), before);
    shell.send("exit\r");
    shell.end();
    daemon.finish();
}

/// What takes long says how far it is, on a terminal and nowhere else; the line is gone before the
/// result is printed.
#[test]
fn progress_is_for_people() {
    let daemon = daemon();
    run_detached(&daemon, "c1", "sleep 1000");
    let tar = daemon.root().join("some.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    archive.append_dir("some", ".").unwrap();
    archive.into_inner().unwrap();
    let mut shell = shell(&daemon);
    // Half of it comes when a meter is due.
    let tar = tar.display();
    shell.send(&format!("slow() {{ head -c 512 {tar}; sleep 0.8; tail -c +513 {tar}; }}\r"));
    shell.expect("ready> ");
    let mut check = |line: &str, label: &str, shown: bool| {
        shell.send(&format!("{line}; echo \"=$?=\"\r"));
        shell.expect("=$?=\"");
        let text = shell.expect("ready> ");
        assert!(text.contains("=0="), "{line}: {text:?}");
        assert_eq!(text.contains(label), shown, "{line}: {text:?}");
        // The line is erased behind the last of it.
        let after = text.rsplit(label).next().unwrap_or_default();
        assert!(!shown || after.contains("\r\u{1b}[K"), "{line}: {text:?}");
    };
    check("slow | $BOXSHIP import - some:one", "Importing - ", true);
    check("slow | $BOXSHIP import - some:one 2>/dev/null", "Importing - ", false);
    check("slow | $BOXSHIP cp - c1:/tmp", "Copying to container - ", true);
    check("slow | $BOXSHIP cp -q - c1:/tmp", "Copying to container - ", false);
    shell.send("exit\r");
    shell.end();
    daemon.finish();
}

/// A name that is nearly right is answered with the right one; scripts see Docker's text alone.
#[test]
fn hints_are_for_people() {
    let daemon = daemon();
    run_detached(&daemon, "web", "sleep 1000");
    let mut shell = shell(&daemon);
    let before = shell.modes();
    let mut check = |line: &str, hint: Option<&str>| {
        shell.send(&format!("{line}; echo \"=$?=\"\r"));
        shell.expect("=$?=\"");
        let text = shell.expect("ready> ");
        assert!(!text.contains("=0="), "{line}: {text:?}");
        match hint {
            Some(hint) => assert!(text.contains(&format!("Did you mean {hint:?}?")), "{text:?}"),
            None => assert!(!text.contains("mean"), "{line}: {text:?}"),
        }
    };
    check("$BOXSHIP pss", Some("ps"));
    check("$BOXSHIP conteiner ls", Some("container"));
    check("$BOXSHIP logs wbe", Some("web"));
    check("$BOXSHIP exec -it webb sh", Some("web"));
    check("$BOXSHIP run --rm --pull never busibox true", Some("busybox:latest"));
    check("$BOXSHIP inspect something-else", None);
    check("$BOXSHIP logs wbe 2>&1 | cat; false", None);
    assert_eq!(shell.modes(), before);
    shell.send("exit\r");
    shell.end();
    daemon.finish();
}

/// The same keys, given to docker and to us: the same exit codes and last words.
#[test]
fn both_clients_end_alike() {
    let daemon = daemon();
    daemon.boxship(&["run", "-dit", "--name", "t1", "busybox", "sh"]).ok();
    run_detached(&daemon, "c1", "echo up; sleep 1000");
    let cases: &[(&[&str], &str)] = &[
        (&["attach", "t1"], "\u{10}\u{11}"),
        (&["exec", "-it", "t1", "sh"], "\u{10}\u{11}"),
        (&["run", "--rm", "-it", "busybox", "sh"], "\u{4}"),
        (&["run", "--rm", "-it", "busybox", "sh"], "exit 11\r"),
        (&["exec", "-it", "t1", "sh"], "exit 12\r"),
        (&["logs", "-f", "c1"], "\u{3}"),
        (&["events"], "\u{3}"),
        (&["wait", "c1"], "\u{3}"),
        (&["exec", "c1", "sleep", "1000"], "\u{3}"),
        (&["container", "prune"], "n\r"),
        (&["container", "prune"], "\u{4}"),
        (&["container", "prune"], "\u{3}"),
        (&["login", "-u", "me", "127.0.0.1:1"], "\u{3}"),
    ];
    let mut different = Vec::new();
    for (args, keys) in cases {
        let outcome = |program: &str| {
            let mut client = Terminal::run(&with(&daemon, program, args));
            let before = client.first_modes();
            if args.contains(&"sh") {
                client.expect("# ");
            } else if args == &["attach", "t1"] {
                client.wait_raw();
            } else if args.contains(&"prune") {
                client.expect("[y/N]");
            } else if args.contains(&"login") {
                client.expect("Password");
                client.wait_silent();
            } else if args.contains(&"logs") {
                client.expect("up");
            } else {
                // Nothing shows that docker waits.
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
            client.send(keys);
            let (code, rest) = client.end();
            assert_eq!(client.modes(), before, "{program} {args:?}");
            // How much of a shell's prompt is drawn again is a matter of time.
            let last = rest.rsplit("\u{1b}[J").next().unwrap_or_default();
            (code, last.replace("^C", "").trim().to_owned())
        };
        let (theirs, ours) = (outcome("docker"), outcome(BINARY));
        // Docker says that all went well when a prompt or an exec was interrupted.
        let interrupted = *keys == "\u{3}" && (theirs.0, ours.0) == (0, 130);
        if theirs != ours && !interrupted {
            different.push(format!("{args:?} {keys:?}: docker {theirs:?}, ours {ours:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    daemon.finish();
}
