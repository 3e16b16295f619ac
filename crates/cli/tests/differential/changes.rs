//! Command lines that change things: each of the two has names of its own, and the names become one
//! word again before the outcomes are compared.

use std::path::Path;

use crate::{Outcome, Pair, Report, cases, normal, words};

/// The names that one of the two command lines uses.
struct Names {
    me: String,
    subnet: String,
    bridge: String,
}

impl Names {
    /// `place` is one digit, so that tables have the same width.
    fn new(place: u32) -> Self {
        let process = std::process::id();
        Self {
            me: format!("df{process}x{place}"),
            subnet: format!("10.{}.{place}", 100 + process % 100),
            bridge: format!("b{place}x{process}"),
        }
    }

    fn fill_in(&self, line: &str, work: &Path) -> String {
        line.replace("$ME", &self.me)
            .replace("$SUB", &self.subnet)
            .replace("$BR", &self.bridge)
            .replace("$TMP", &work.display().to_string())
    }

    fn normal(&self, text: &str) -> String {
        let text = text
            .replace(&self.me, "ME")
            .replace(&self.subnet, "SUB")
            .replace(&self.bridge, "BRIDGE");
        normal::addresses(&normal::text(&text))
    }
}

pub(crate) fn compare(pair: &Pair, host: &str, text: &str) -> usize {
    write_files(&pair.work());
    let sides = [(&pair.docker, Names::new(1)), (&pair.ours, Names::new(2))];
    let mut report = Report::new("changes");
    for case in cases(text) {
        let [theirs, ours] = sides.each_ref().map(|(program, names)| {
            let arguments = words(&names.fill_in(case.line, &pair.work()));
            let outcome = pair.run(program, host, &arguments);
            Outcome {
                stdout: case.ordered(names.normal(&outcome.stdout)),
                stderr: names.normal(&outcome.stderr),
                ..outcome
            }
        });
        report.compare_case(&case, &theirs, &ours);
    }
    for (_, names) in &sides {
        clean(pair, host, &names.me);
    }
    report.finish()
}

fn write_files(work: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(work.join(name), bytes).unwrap();
    write("hello", b"hello\n");
    write("big", &vec![b'x'; 1 << 20]);
    std::fs::create_dir_all(work.join("tree/sub")).unwrap();
    write("tree/one", b"1");
    write("tree/sub/two", b"22");
    std::os::unix::fs::symlink("one", work.join("tree/link")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("in-tar", "from a tar\n"), ("etc/in-tar", "x")] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    write("root.tar", &tar);
    write("bad.tar", &vec![b'?'; 2048]);
}

/// What a line that failed has left.
fn clean(pair: &Pair, host: &str, me: &str) {
    let run = |line: &str| pair.run(&pair.docker, host, &words(line));
    let kinds = [
        ("rm -fv", format!("ps -aq --filter name={me}")),
        (
            "rmi -f",
            format!("images --format {{{{.Repository}}}}:{{{{.Tag}}}} --filter reference=*{me}*"),
        ),
        ("network rm", format!("network ls -q --filter name={me}")),
        ("volume rm", format!("volume ls -q --filter name={me}")),
    ];
    for (remove, list) in kinds {
        for name in run(&list).stdout.lines() {
            run(&format!("{remove} {name}"));
        }
    }
}
