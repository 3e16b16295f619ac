//! Start, exec, signals, limits, exits.

use std::io::Read;

use runtime::exits::read_exits;
use runtime::protocol::{Event, Failure, Reply, Request};
use runtime::spec::{Namespace, Resources};

use crate::Test;
use crate::fixture::{Fixture, OUTPUT, demultiplex, process, random_id, start, started};

pub(crate) const TESTS: &[Test] = &[
    ("output_exit_code_and_record", output_exit_code_and_record),
    ("failing_starts_leave_nothing", failing_starts_leave_nothing),
    ("exec_runs_inside", exec_runs_inside),
    ("signals_pause_and_stats", signals_pause_and_stats),
    ("fifty_at_once", fifty_at_once),
    ("out_of_memory_is_told", out_of_memory_is_told),
    ("host_pids_are_killed_with_the_first", host_pids_are_killed_with_the_first),
    ("restart_at_once", restart_at_once),
    ("joined_namespaces", joined_namespaces),
];

fn output_exit_code_and_record() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("echo hi; echo bad >&2; printf end; exit 7");
    let mut client = fixture.start_attached(&spec, OUTPUT);
    let exit = fixture.exit(&spec.id);
    assert_eq!((exit.code, exit.generation, exit.oom_killed), (Some(7), 1, false));
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output), ("hi\nend".to_owned(), "bad\n".to_owned()));
    let mut lines: Vec<_> = fixture.log(&spec.id).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["bad", "end", "hi"]);

    let recorded = read_exits(&fixture.config().exits_log, 0).unwrap();
    assert_eq!(format!("{recorded:?}"), format!("{:?}", [&exit]));
    fixture.reconnect(0);
    assert_eq!(fixture.exit(&spec.id).log_offset, exit.log_offset, "told again");
    fixture.reconnect(exit.log_offset);
    assert!(!fixture.has_exit(&spec.id));
    fixture.assert_clean();
}

fn failing_starts_leave_nothing() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("");
    spec.process.args = vec!["no-such-program".to_owned()];
    let failure = fixture.call(start(&spec)).unwrap_err();
    let expect = Failure::Exec { program: "no-such-program".into(), errno: 2, in_path: true };
    assert_eq!(failure, expect);
    spec.process = process("true");
    spec.process.cwd = "/bin/sh".to_owned();
    assert!(matches!(fixture.call(start(&spec)), Err(Failure::Cwd { .. })));
    spec.process = process("true");
    spec.namespaces.net = Namespace::Container(random_id());
    assert_eq!(fixture.call(start(&spec)).unwrap_err(), Failure::NotRunning);
    fixture.assert_clean();
    let id = spec.id.clone();
    assert_eq!(fixture.call(Request::KillAll { id }).unwrap_err(), Failure::NotFound);
    spec.namespaces.net = Namespace::Private;
    fixture.start(&spec);
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    fixture.assert_clean();
}

fn exec_runs_inside() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("exec sleep 1000");
    spec.namespaces.uts = Namespace::Private;
    fixture.start(&spec);
    let script = process("echo in $(cat /proc/sys/kernel/hostname); exit 5");
    let (exec, mut client) = fixture.exec_attached(&spec.id, script, OUTPUT).unwrap();
    let exit = fixture.exit(&exec);
    assert_eq!((exit.code, exit.container.as_ref()), (Some(5), Some(&spec.id)));
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert_eq!(demultiplex(&output).0, "in box\n");

    let mut missing = process("");
    missing.args = vec!["/no/such".to_owned()];
    let failure = fixture.exec_attached(&spec.id, missing, OUTPUT).unwrap_err();
    assert!(matches!(failure, Failure::Exec { errno: 2, .. }), "{failure:?}");

    let (exec, _client) = fixture.exec_attached(&spec.id, process("sleep 1000"), OUTPUT).unwrap();
    assert_eq!(fixture.list().len(), 2);
    fixture.kill(&spec.id);
    assert_eq!(fixture.exit(&exec).code, Some(137), "dies with the container");
    assert_eq!(fixture.exit(&spec.id).code, Some(137));
    fixture.assert_clean();
}

fn signals_pause_and_stats() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done");
    let mut client = fixture.start_attached(&spec, OUTPUT);
    client.read_exact(&mut [0; 14]).unwrap();
    let id = spec.id.clone();
    fixture.call(Request::Pause { id: id.clone() }).unwrap();
    assert!(fixture.list()[0].paused);
    let failure = fixture.exec_attached(&id, process("true"), OUTPUT).unwrap_err();
    assert!(matches!(failure, Failure::Invalid { .. }));
    fixture.call(Request::Resume { id: id.clone() }).unwrap();
    let Reply::Stats(stats) = fixture.call(Request::Stats { id: id.clone() }).unwrap() else {
        panic!()
    };
    assert!(stats.cpu_usage > 0 && stats.networks.is_empty(), "{stats:?}");
    let Reply::Pids(pids) = fixture.call(Request::Pids { id: id.clone() }).unwrap() else {
        panic!()
    };
    assert!(pids.contains(&fixture.list()[0].pid));
    let resources = Resources { pids_limit: Some(50), ..Resources::default() };
    fixture.call(Request::Update { id: id.clone(), resources: Box::new(resources) }).unwrap();
    assert_eq!(fixture.call(Request::Stop).unwrap_err(), Failure::Busy);
    fixture.call(Request::Signal { id: id.clone(), signal: libc::SIGTERM }).unwrap();
    assert_eq!(fixture.exit(&id).code, Some(3));
    fixture.assert_clean();
}

fn fifty_at_once() {
    let mut fixture = Fixture::new();
    let specs: Vec<_> = (0..50).map(|number| fixture.spec(&format!("exit {number}"))).collect();
    let sequences: Vec<u64> =
        specs.iter().map(|spec| fixture.send(start(spec), Vec::new())).collect();
    // The replies come in the order in which the programs are executed.
    let mut left = sequences.len();
    while left > 0 {
        started(fixture.any_reply(&sequences));
        left -= 1;
    }
    for (number, spec) in specs.iter().enumerate() {
        assert_eq!(fixture.exit(&spec.id).code, Some(number as u8));
    }
    fixture.assert_clean();
}

fn out_of_memory_is_told() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("exec dd if=/dev/zero of=/dev/null bs=256M count=1");
    spec.cgroup.resources.memory = Some(16 << 20);
    spec.cgroup.resources.memory_swap = Some(16 << 20);
    fixture.start(&spec);
    let id = spec.id.clone();
    fixture.event(|event| match event {
        Event::Oom { id: told } if *told == id => Some(()),
        _ => None,
    });
    let exit = fixture.exit(&spec.id);
    assert_eq!((exit.code, exit.oom_killed), (Some(137), true));
    fixture.assert_clean();
}

fn host_pids_are_killed_with_the_first() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("sleep 1000 & exit 4");
    spec.namespaces.pid = Namespace::Host;
    fixture.start(&spec);
    assert_eq!(fixture.exit(&spec.id).code, Some(4));
    fixture.assert_clean();
}

fn restart_at_once() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("sleep 1000 & exit $GENERATION");
    spec.namespaces.pid = Namespace::Host;
    for generation in 1..6 {
        spec.generation = generation;
        spec.process.env.push(format!("GENERATION={generation}"));
        fixture.start(&spec);
        let exit = fixture.exit(&spec.id);
        assert_eq!((exit.code, exit.generation), (Some(generation as u8), generation));
    }
    fixture.assert_clean();
}

fn joined_namespaces() {
    let mut fixture = Fixture::new();
    let first = fixture.spec("echo ready; exec sleep 1000");
    let mut client = fixture.start_attached(&first, OUTPUT);
    client.read_exact(&mut [0; 14]).unwrap();
    let mut second = fixture.spec("tr '\\0' ' ' < /proc/1/cmdline; exit 9");
    let joined = Namespace::Container(first.id.clone());
    second.namespaces.pid = joined.clone();
    second.namespaces.net = joined.clone();
    second.namespaces.ipc = joined;
    fixture.start(&second);
    assert_eq!(fixture.exit(&second.id).code, Some(9));
    assert_eq!(fixture.log(&second.id), "sleep 1000 ");
    fixture.kill(&first.id);
    fixture.exit(&first.id);
    fixture.assert_clean();
}
