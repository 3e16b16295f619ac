//! Attached clients, stdin, terminals.

use std::io::{Read, Write};
use std::net::Shutdown;

use runtime::protocol::{AttachOptions, Reply, Request};

use crate::Test;
use crate::fixture::{ALL, Fixture, OUTPUT, demultiplex, process, stream_pair};

pub(crate) const TESTS: &[Test] = &[
    ("stdin_ends_with_the_first_client", stdin_ends_with_the_first_client),
    ("stdin_stays_open", stdin_stays_open),
    ("a_slow_client_loses_nothing", a_slow_client_loses_nothing),
    ("a_vanished_client_stops_nobody", a_vanished_client_stops_nobody),
    ("clients_come_and_go", clients_come_and_go),
    ("terminal", terminal),
    ("exec_output_after_its_end", exec_output_after_its_end),
    ("stdout_can_be_opened_again", stdout_can_be_opened_again),
];

fn stdin_ends_with_the_first_client() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("wc -c");
    spec.process.open_stdin = true;
    spec.process.stdin_once = true;
    let mut client = fixture.start_attached(&spec, ALL);
    client.write_all(&vec![b'x'; 500_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output).0, "500000\n");
    assert_eq!(fixture.exit(&spec.id).code, Some(0));

    let mut spec = fixture.spec("wc -c");
    spec.process.open_stdin = true;
    spec.process.stdin_once = true;
    let mut client = fixture.start_attached(&spec, ALL);
    client.write_all(b"four").unwrap();
    drop(client);
    fixture.exit(&spec.id);
    assert_eq!(fixture.log(&spec.id), "4\n", "a client that closes ends stdin too");
    fixture.assert_clean();
}

fn stdin_stays_open() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("while read line; do echo got $line; done");
    spec.process.open_stdin = true;
    fixture.start(&spec);
    for text in ["one", "two"] {
        let (theirs, mut client) = stream_pair();
        let request = Request::Attach { id: spec.id.clone(), options: ALL };
        let (reply, _) = fixture.call_with(request, vec![theirs]).unwrap();
        assert!(matches!(reply, Reply::Attached));
        writeln!(client, "{text}").unwrap();
        let expect = format!("got {text}\n");
        let mut frame = vec![0; 8 + expect.len()];
        client.read_exact(&mut frame).unwrap();
        assert_eq!(demultiplex(&frame).0, expect);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "its end ends the attachment");
    }
    fixture.kill(&spec.id);
    fixture.exit(&spec.id);
    fixture.assert_clean();
}

fn a_slow_client_loses_nothing() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("seq 400000");
    let mut slow = fixture.start_attached(&spec, OUTPUT);
    let (theirs, gone) = stream_pair();
    let request = Request::Attach { id: spec.id.clone(), options: OUTPUT };
    fixture.call_with(request, vec![theirs]).unwrap();
    drop(gone);
    // The container is held up by the client that does not read: it is still there.
    assert_eq!(fixture.list().len(), 1);
    assert!(!fixture.has_exit(&spec.id));
    let mut output = Vec::new();
    slow.read_to_end(&mut output).unwrap();
    let expect: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(demultiplex(&output).0 == expect);
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    assert!(fixture.log(&spec.id) == expect);
    fixture.assert_clean();
}

fn a_vanished_client_stops_nobody() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("seq 50000");
    let client = fixture.start_attached(&spec, OUTPUT);
    drop(client);
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    assert!(fixture.log(&spec.id).ends_with("\n50000\n"));
    fixture.assert_clean();
}

fn clients_come_and_go() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("cat");
    spec.process.open_stdin = true;
    fixture.start(&spec);
    let descriptors = |fixture: &Fixture| {
        std::fs::read_dir(format!("/proc/{}/fd", fixture.supervisor)).unwrap().count()
    };
    // The log's files are opened with the first output.
    let before = descriptors(&fixture) + 2;
    for round in 0..500 {
        let (theirs, mut client) = stream_pair();
        let request = Request::Attach { id: spec.id.clone(), options: ALL };
        fixture.call_with(request, vec![theirs]).unwrap();
        if round % 3 == 0 {
            client.write_all(b"garbage").unwrap();
        }
        if round % 2 == 0 {
            client.shutdown(Shutdown::Write).unwrap();
        }
    }
    while descriptors(&fixture) > before {
        fixture.list();
    }
    fixture.kill(&spec.id);
    fixture.exit(&spec.id);
    fixture.assert_clean();
}

fn terminal() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("stty size; read line; stty size; echo got $line");
    spec.process.tty = true;
    spec.process.open_stdin = true;
    spec.process.console_size = Some((100, 30));
    let mut client = fixture.start_attached(&spec, ALL);
    let mut output = vec![0; "30 100\r\n".len()];
    client.read_exact(&mut output).unwrap();
    assert_eq!(output, b"30 100\r\n");
    let id = spec.id.clone();
    fixture.call(Request::Resize { id, columns: 77, rows: 11 }).unwrap();
    client.write_all(b"hello\n").unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "hello\r\n11 77\r\ngot hello\r\n");
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    assert_eq!(fixture.log(&spec.id), "30 100\r\nhello\r\n11 77\r\ngot hello\r\n");
    fixture.assert_clean();
}

fn exec_output_after_its_end() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("exec sleep 1000");
    fixture.start(&spec);
    let script = process("(sleep 0.2; echo late) & echo early");
    let options = AttachOptions { stdin: false, ..OUTPUT };
    let (exec, mut client) = fixture.exec_attached(&spec.id, script, options).unwrap();
    assert_eq!(fixture.exit(&exec).code, Some(0));
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output).0, "early\nlate\n");
    fixture.kill(&spec.id);
    fixture.exit(&spec.id);
    fixture.assert_clean();
}

fn stdout_can_be_opened_again() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("echo out > /dev/stdout; echo err > /dev/stderr");
    spec.process.user = "1234:1234".to_owned();
    let mut client = fixture.start_attached(&spec, OUTPUT);
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    fixture.assert_clean();
}
