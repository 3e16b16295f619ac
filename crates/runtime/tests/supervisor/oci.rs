//! Containers of a real runc, where there is one.

use std::io::{Read, Write};
use std::path::PathBuf;

use runtime::protocol::{Failure, Request};
use runtime::spec::{ContainerSpec, Mount, MountSource, OciRuntime, RecursiveReadonly};

use crate::Test;
use crate::fixture::{ALL, Fixture, OUTPUT, demultiplex, process, start};

pub(crate) const TESTS: &[Test] = &[
    ("oci_runs_execs_and_ends", oci_runs_execs_and_ends),
    ("oci_terminal", oci_terminal),
    ("oci_failures_are_told", oci_failures_are_told),
    ("oci_survives_the_supervisor", oci_survives_the_supervisor),
    ("oci_mounts_images", oci_mounts_images),
];

/// `BOXSHIP_TEST_RUNC` names another.
fn runc() -> Option<PathBuf> {
    let named = std::env::var_os("BOXSHIP_TEST_RUNC").map(PathBuf::from);
    let installed = ["/usr/bin/runc", "/usr/sbin/runc", "/usr/local/sbin/runc"].map(PathBuf::from);
    named.into_iter().chain(installed).find(|path| path.exists())
}

/// A container of runc; none on a machine without it.
fn spec(fixture: &Fixture, script: &str) -> Option<ContainerSpec> {
    let mut spec = fixture.spec(script);
    spec.oci_runtime = Some(OciRuntime { path: runc()?, args: Vec::new() });
    Some(spec)
}

fn oci_runs_execs_and_ends() {
    let mut fixture = Fixture::new();
    let script = "cat /proc/sys/kernel/hostname; trap 'exit 7' TERM; read line; exit 8";
    let Some(mut spec) = spec(&fixture, script) else { return };
    spec.process.open_stdin = true;
    for generation in 1..3 {
        spec.generation = generation;
        let mut client = fixture.start_attached(&spec, OUTPUT);
        let mut output = vec![0; 8 + 4];
        client.read_exact(&mut output).unwrap();
        assert_eq!(demultiplex(&output).0, "box\n");
        let (exec, mut client) =
            fixture.exec_attached(&spec.id, process("echo inside; exit 5"), OUTPUT).unwrap();
        assert_eq!(fixture.exit(&exec).code, Some(5));
        let mut output = Vec::new();
        client.read_to_end(&mut output).unwrap();
        assert_eq!(demultiplex(&output).0, "inside\n");
        let id = spec.id.clone();
        fixture.call(Request::Signal { id: id.clone(), signal: libc::SIGKILL }).unwrap();
        assert_eq!(fixture.exit(&id).code, Some(137));
    }
    assert_eq!(fixture.log(&spec.id), "box\nbox\n");
    fixture.assert_clean();
}

fn oci_terminal() {
    let mut fixture = Fixture::new();
    let Some(mut spec) = spec(&fixture, "stty size; read line; echo got $line") else { return };
    spec.process.tty = true;
    spec.process.open_stdin = true;
    spec.process.console_size = Some((100, 30));
    let mut client = fixture.start_attached(&spec, ALL);
    client.write_all(b"hello\n").unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert!(output.contains("30 100\r\n") && output.ends_with("got hello\r\n"), "{output:?}");
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    fixture.assert_clean();
}

fn oci_failures_are_told() {
    let mut fixture = Fixture::new();
    let Some(mut spec) = spec(&fixture, "") else { return };
    spec.process.args = vec!["no-such-program".to_owned()];
    let failure = fixture.call(start(&spec)).unwrap_err();
    assert!(failure.to_string().contains("executable file not found"), "{failure}");
    spec.process = process("");
    spec.process.user = "nobody-here".to_owned();
    assert!(matches!(fixture.call(start(&spec)), Err(Failure::User { .. })));
    spec.process.user = String::new();
    spec.oci_runtime = Some(OciRuntime { path: "/no/such".into(), args: Vec::new() });
    assert!(matches!(fixture.call(start(&spec)), Err(Failure::Exec { errno: 2, .. })));
    fixture.assert_clean();
}

fn oci_mounts_images() {
    let mut fixture = Fixture::new();
    let script = "cat /image/*; echo x 2>/dev/null >/image/x || echo refused";
    let Some(mut spec) = spec(&fixture, script) else { return };
    // A colon in a path must not divide it.
    let [lower, empty] = ["a:layer", "empty"].map(|name| fixture.directory.path().join(name));
    for directory in [&lower, &empty] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(lower.join("file"), "of the image\n").unwrap();
    spec.mounts.push(Mount {
        target: "/image".to_owned(),
        source: MountSource::Image { lower: vec![lower], empty, subpath: String::new() },
        readonly: true,
        recursive_readonly: RecursiveReadonly::No,
    });
    fixture.start(&spec);
    assert_eq!(fixture.exit(&spec.id).code, Some(0));
    assert_eq!(fixture.log(&spec.id), "of the image\nrefused\n");
    fixture.assert_clean();
}

fn oci_survives_the_supervisor() {
    let mut fixture = Fixture::new();
    let Some(mut spec) = spec(&fixture, "echo one; read line; echo two; exit 3") else { return };
    spec.process.open_stdin = true;
    fixture.start(&spec);
    fixture.replace_killed();
    let (theirs, mut client) = crate::fixture::stream_pair();
    let request = Request::Attach { id: spec.id.clone(), options: ALL };
    fixture.call_with(request, vec![theirs]).unwrap();
    writeln!(client, "go").unwrap();
    assert!(matches!(fixture.exit(&spec.id).code, Some(3) | None));
    assert_eq!(fixture.log(&spec.id), "one\ntwo\n");
    fixture.assert_clean();
}
