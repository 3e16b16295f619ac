//! Containers that outlive daemon, supervisor and program.

use std::io::{Read, Write};

use runtime::protocol::{Failure, Request, VERSION};
use runtime::spec::LogSpec;

use crate::Test;
use crate::fixture::{ALL, Fixture, OUTPUT, demultiplex, process};

pub(crate) const TESTS: &[Test] = &[
    ("killed_supervisor_loses_no_line", killed_supervisor_loses_no_line),
    ("unfinished_lines_survive", unfinished_lines_survive),
    ("exit_codes_after_adoption", exit_codes_after_adoption),
    ("exits_while_nobody_watched", exits_while_nobody_watched),
    ("re_exec_keeps_everything", re_exec_keeps_everything),
    ("only_one_supervisor", only_one_supervisor),
    ("versions", versions),
];

fn killed_supervisor_loses_no_line() {
    let mut fixture = Fixture::new();
    let expect: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    // At full speed, with rotation, so that the kill comes between reading and logging.
    for (max_size, files) in [(None, 1), (Some(1 << 20), 100)] {
        // It waits at the end: what is in a pipe when its last holder exits is gone.
        let mut spec = fixture.spec("seq 100000; read line; exit 6");
        spec.process.open_stdin = true;
        if let LogSpec::JsonFile(log) = &mut spec.log {
            log.max_size = max_size;
            log.max_files = files;
        }
        let mut client = fixture.start_attached(&spec, OUTPUT);
        client.read_exact(&mut [0; 100_000]).unwrap();
        drop(client);
        fixture.replace_killed();
        fixture.replace_killed();
        let (theirs, mut client) = crate::fixture::stream_pair();
        let request = Request::Attach { id: spec.id.clone(), options: ALL };
        fixture.call_with(request, vec![theirs]).unwrap();
        writeln!(client, "go on").unwrap();
        let exit = fixture.exit(&spec.id);
        assert!(matches!(exit.code, Some(6) | None), "{exit:?}");
        let log = fixture.log(&spec.id);
        assert!(log == expect, "{} of 100000 lines", log.lines().count());
    }
    fixture.assert_clean();
}

fn unfinished_lines_survive() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("printf one; printf two >&2; read line; echo \" $line\"; echo >&2");
    spec.process.open_stdin = true;
    let mut client = fixture.start_attached(&spec, OUTPUT);
    client.read_exact(&mut [0; 2 * 8 + 6]).unwrap();
    fixture.replace_killed();
    let (theirs, mut client) = crate::fixture::stream_pair();
    let request = Request::Attach { id: spec.id.clone(), options: ALL };
    fixture.call_with(request, vec![theirs]).unwrap();
    writeln!(client, "more").unwrap();
    fixture.exit(&spec.id);
    let mut lines: Vec<_> = fixture.log(&spec.id).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one more", "two"]);
    fixture.assert_clean();
}

fn exit_codes_after_adoption() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("read line; exit 9");
    spec.process.open_stdin = true;
    fixture.start(&spec);
    let mut waiting = process("read line; exit 8");
    waiting.open_stdin = true;
    // The end of stdin, which the supervisor's death is for an exec, ends it.
    let (exec, _client) = fixture.exec_attached(&spec.id, waiting, ALL).unwrap();
    fixture.replace_killed();
    assert!(matches!(fixture.exit(&exec).code, Some(8) | None));
    assert_eq!(fixture.list()[0].id, spec.id);
    let (theirs, mut client) = crate::fixture::stream_pair();
    let request = Request::Attach { id: spec.id.clone(), options: ALL };
    fixture.call_with(request, vec![theirs]).unwrap();
    writeln!(client, "go").unwrap();
    let code = fixture.exit(&spec.id).code;
    assert!(matches!(code, Some(9) | None), "{code:?}");
    fixture.assert_clean();
}

fn exits_while_nobody_watched() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("exec sleep 1000");
    let pid = fixture.start(&spec);
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    fixture.kill_supervisor();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    crate::fixture::wait_for(&pidfd);
    fixture.replace_dead();
    assert_eq!(fixture.exit(&spec.id).code, None);
    fixture.assert_clean();
    let records = runtime::exits::read_exits(&fixture.config().exits_log, 0).unwrap();
    fixture.replace_killed();
    fixture.exit(&spec.id);
    let again = runtime::exits::read_exits(&fixture.config().exits_log, 0).unwrap();
    assert_eq!((records.len(), again.len()), (1, 1), "recorded once");
}

fn re_exec_keeps_everything() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("printf unfinished; read line; echo \" $line\"; exit 9");
    spec.process.open_stdin = true;
    spec.process.stdin_once = true;
    let mut client = fixture.start_attached(&spec, ALL);
    let mut output = vec![0; 8 + "unfinished".len()];
    client.read_exact(&mut output).unwrap();
    let supervisor = fixture.supervisor;
    let failure = fixture.call(Request::ReExec { path: "/no/such".to_owned() }).unwrap_err();
    assert!(matches!(failure, Failure::System { errno: 2, .. }));
    let path = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    fixture.call(Request::ReExec { path }).unwrap();
    assert_eq!(fixture.list()[0].id, spec.id);
    fixture.reconnect(0);
    assert_eq!(fixture.supervisor, supervisor, "the same process");
    client.write_all(b"line\n").unwrap();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output).0, "unfinished line\n");
    assert_eq!(fixture.exit(&spec.id).code, Some(9));
    assert_eq!(fixture.log(&spec.id), "unfinished line\n");
    fixture.assert_clean();
}

fn only_one_supervisor() {
    let mut fixture = Fixture::new();
    let exe = std::env::current_exe().unwrap();
    assert!(runtime::connection::spawn_detached(&exe, &fixture.config()).is_err());
    assert!(fixture.supervisor_log().contains("another supervisor runs"));
    assert!(fixture.list().is_empty(), "the first one still serves");
}

fn versions() {
    let mut fixture = Fixture::new();
    let hello = Request::Hello { version: VERSION + 1, exits_seen: 0 };
    let failure = fixture.call(hello).unwrap_err();
    assert_eq!(failure, Failure::Version { ours: VERSION, theirs: VERSION + 1 });
}
