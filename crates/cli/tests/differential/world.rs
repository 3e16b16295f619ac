//! What the command lines of `daemon.txt` find at the daemon. Built and removed by real docker.

use std::path::Path;

use crate::Outcome;

pub(crate) type Run<'a> = &'a dyn Fn(&[&str]) -> Outcome;

pub(crate) struct World<'a> {
    run: Run<'a>,
    prefix: String,
}

const KINDS: [&str; 3] = ["run", "exit", "new"];

impl<'a> World<'a> {
    /// Makes the containers, the network and the volume; the error says what is missing.
    pub(crate) fn build(run: Run<'a>) -> Result<Self, String> {
        let image = run(&["image", "inspect", "busybox"]);
        if image.code != Some(0) {
            return Err(format!("the daemon has no busybox: {}", image.stderr.trim()));
        }
        let world = Self { run, prefix: format!("diff{}", std::process::id()) };
        let (network, volume) = (world.name("net"), world.name("vol"));
        world.must(&["network", "create", "--label", "x=y", &network])?;
        world.must(&["volume", "create", "--label", "q=r", &volume])?;
        let mount = format!("{volume}:/v");
        let script = "echo out; echo err >&2; while :; do sleep 1000; done";
        world.must(&[
            "run",
            "-d",
            "--name",
            &world.name("run"),
            "-v",
            &mount,
            "-p",
            "127.0.0.1::80",
            "-p",
            "127.0.0.1::53/udp",
            "--expose",
            "7000-7003",
            "-l",
            "a=b",
            "-l",
            "c.d-e=f",
            "--network",
            &network,
            "--network-alias",
            "al",
            "--memory",
            "64m",
            "-e",
            "A=1",
            "busybox",
            "sh",
            "-c",
            script,
        ])?;
        world.must(&["create", "--name", &world.name("new"), "-it", "busybox", "cat"])?;
        let script = "echo out; echo err >&2; exit 3";
        (world.run)(&["run", "--name", &world.name("exit"), "busybox", "sh", "-c", script]);
        Ok(world)
    }

    fn name(&self, kind: &str) -> String {
        format!("{}{kind}", self.prefix)
    }

    fn must(&self, arguments: &[&str]) -> Result<(), String> {
        let outcome = (self.run)(arguments);
        match outcome.code {
            Some(0) => Ok(()),
            _ => Err(format!("{arguments:?}: {}", outcome.stderr.trim())),
        }
    }

    /// Puts the real names in a line of the file.
    pub(crate) fn fill_in(&self, line: &str, work: &Path) -> String {
        line.replace("$RUN", &self.name("run"))
            .replace("$EXIT", &self.name("exit"))
            .replace("$NEW", &self.name("new"))
            .replace("$NET", &self.name("net"))
            .replace("$VOL", &self.name("vol"))
            .replace("$PREFIX", &self.prefix)
            .replace("$TMP", &work.display().to_string())
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for kind in KINDS {
            (self.run)(&["rm", "-fv", &self.name(kind)]);
        }
        (self.run)(&["network", "rm", &self.name("net")]);
        (self.run)(&["volume", "rm", &self.name("vol")]);
    }
}
