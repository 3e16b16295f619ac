//! `cargo xtask powercut [POINTS] [ext4|xfs|btrfs] [LAYOUT] [--seed N] [--binary FILE]`: cuts the
//! power at 1,000 random moments unless told otherwise, and fails when a daemon that starts on what
//! the disk then has lost anything that was acknowledged. LAYOUT is the form of layers, `auto`, `dirs`
//! or `erofs`; FILE a boxship built before.
//!
//! The disk's writes are recorded under load ([`record`], [`workload`]), with marks for what was
//! acknowledged ([`history`]). A crash point is a place in the log: what was flushed before it is on
//! the disk, of what came later a random part ([`log`]). [`check`] starts a daemon on that.
//!
//! The seed decides the workload and the choice of points, not how the daemon's threads take turns;
//! so the disk of a point that failed is kept below `target/powercut` as the cut left it: mount it, and
//! start a daemon on it.
//!
//! Needs root, qemu-storage-daemon and the mkfs of the file system. All happens in a mount
//! and a PID namespace, on a tmpfs: whatever ends this program ends with it its daemons, mounts and
//! loop devices.

mod check;
mod history;
mod log;
mod record;
mod workload;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use check::{Point, check};
use log::{Entry, Random};
use record::{FileSystem, Recording, record};

/// A new recording is made after so many points.
const POINTS_OF_RECORDING: usize = 250;
/// How many disks are kept.
const KEPT: usize = 3;
/// Said to the program itself, once it is in its namespaces.
const INSIDE: &str = "--inside";

/// What to do.
#[derive(Debug)]
struct Plan {
    points: usize,
    file_system: FileSystem,
    layout: String,
    seed: u64,
    /// Steps of each client in a recording.
    steps: usize,
    binary: PathBuf,
}

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let inside = args.first().is_some_and(|arg| arg == INSIDE);
    let plan = Plan::parse(if inside { &args[1..] } else { args })?;
    if inside {
        // Whoever builds meanwhile does not change what is tested.
        let binary = std::env::temp_dir().join("boxship");
        std::fs::copy(&plan.binary, &binary).map_err(|error| error.to_string())?;
        return Plan { binary, ..plan }.cut_again_and_again();
    }
    let mkfs = plan.file_system.mkfs()[0];
    let needed = [
        ("qemu-storage-daemon", "qemu-system-common (or qemu-utils)"),
        (mkfs, "e2fsprogs, xfsprogs or btrfs-progs"),
        ("setpriv", "util-linux"),
    ];
    for (program, package) in needed {
        installed(program).ok_or_else(|| format!("{program} is missing: install {package}"))?;
    }
    if plan.binary == built() {
        let mut build = Command::new("cargo");
        build.current_dir(crate::root()).args(["build", "--quiet", "--package", "boxship"]);
        succeeds(&mut build)?;
    }
    // The archive is made outside, where it stays.
    testkit::image::busybox();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
        // The shell is the namespace's init: it reaps what daemons leave.
        .arg("mount -t tmpfs -o size=80% powercut /dev/shm && { \"$0\" \"$@\" & wait $!; }")
        .arg(program)
        .args(["powercut", INSIDE])
        .args([&plan.points.to_string(), plan.file_system.name(), &plan.layout])
        .args(["--seed", &plan.seed.to_string(), "--binary"])
        .arg(&plan.binary)
        .env("TMPDIR", "/dev/shm")
        .env("RUST_BACKTRACE", "0")
        .env("BOXSHIP_TEST_LIMIT", "600");
    succeeds(&mut command)
}

fn built() -> PathBuf {
    crate::root().join("target/debug/boxship")
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.exists())
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// The outcome of one point.
type Outcome = (Point, Result<(), String>);

impl Plan {
    fn parse(args: &[String]) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut plan = Self {
            points: 1000,
            file_system: FileSystem::Ext4,
            layout: "auto".to_owned(),
            seed: u64::from(now.subsec_nanos()),
            steps: 40,
            binary: built(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--seed" {
                let seed = args.next().and_then(|seed| seed.parse().ok());
                plan.seed = seed.ok_or("--seed needs a number")?;
            } else if arg == "--binary" {
                plan.binary = args.next().ok_or("--binary needs a file")?.into();
            } else if let Ok(points) = arg.parse() {
                plan.points = points;
            } else if let Some(file_system) = FileSystem::parse(arg) {
                plan.file_system = file_system;
            } else if ["auto", "dirs"].contains(&arg.as_str()) || arg.starts_with("erofs") {
                plan.layout.clone_from(arg);
            } else {
                return Err(format!("{arg}: neither a number, a file system nor a layout"));
            }
        }
        // A few points are not worth a long recording.
        plan.steps = plan.steps.min(5 + plan.points / 4);
        Ok(plan)
    }

    fn cut_again_and_again(&self) -> Result<(), String> {
        let (begun, name) = (Instant::now(), self.file_system.name());
        println!("{} points, {name}, layout {}, seed {}", self.points, self.layout, self.seed);
        let (mut failures, mut flushes, mut entries) = (0, 0, 0);
        for round in 0..self.points.div_ceil(POINTS_OF_RECORDING) {
            let points = POINTS_OF_RECORDING.min(self.points - round * POINTS_OF_RECORDING);
            let seed = self.seed + round as u64;
            let recording = record(self, seed);
            let of_round = recording.log.entries.iter().filter(|entry| entry.is_flush()).count();
            println!(
                "recording {round}: {} writes, {of_round} flushes, {} acknowledgements, {}",
                recording.log.entries.len() - of_round,
                recording.history.acknowledgements().len(),
                elapsed(begun),
            );
            entries += recording.log.entries.len();
            flushes += of_round;
            failures += self.cut(recording, seed, points, KEPT.saturating_sub(failures))?;
            println!("recording {round}: {points} points, {failures} failures, {}", elapsed(begun));
        }
        println!(
            "{} passed, {failures} failed: crash points among {entries} writes and flushes \
             ({flushes}) on {name}, layout {}, seed {}, {}",
            self.points - failures,
            self.layout,
            self.seed,
            elapsed(begun),
        );
        if failures == 0 { Ok(()) } else { Err(format!("{failures} crash points failed")) }
    }

    /// Tries crash points of one recording; returns how many failed.
    fn cut(
        &self,
        recording: Recording,
        seed: u64,
        points: usize,
        keep: usize,
    ) -> Result<usize, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (give, take) = sync_channel::<Point>(0);
        let (report, outcomes) = channel::<Outcome>();
        let take = Mutex::new(take);
        // One file system of a name at a time: btrfs tells them apart by their ids.
        let threads = if self.file_system == FileSystem::Btrfs { 1 } else { 2 };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (take, report) = (&take, report.clone());
                scope.spawn(move || self.check_points(take, &report));
            }
            drop(report);
            let images = directory.path();
            let prepared = scope.spawn(move || {
                prepare(recording, seed, points, images, &mut |point| {
                    // Refused when all threads are gone, which panics below.
                    give.send(point).ok();
                })
            });
            let mut failures = 0;
            for (point, outcome) in outcomes {
                if let Err(text) = outcome {
                    failures += 1;
                    println!("FAILED at {} (seed {seed}): {text}", point.place);
                    if failures <= keep {
                        self.keep(&point, seed)?;
                    }
                }
                for image in [&point.image, &point.untouched] {
                    std::fs::remove_file(image).map_err(|error| error.to_string())?;
                }
            }
            let prepared = prepared.join().map_err(|_panic| "no disks could be made")?;
            prepared.map(|()| failures).map_err(|error| error.to_string())
        })
    }

    fn check_points(&self, take: &Mutex<Receiver<Point>>, report: &Sender<Outcome>) {
        let next = || take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(point) = next() {
            let checked = std::panic::catch_unwind(|| check(self, &point)).map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default()
            });
            if report.send((point, checked)).is_err() {
                return;
            }
        }
    }

    fn keep(&self, point: &Point, seed: u64) -> Result<(), String> {
        let directory = crate::root().join("target/powercut");
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let name = format!("{}-{seed}-{}.img", self.file_system.name(), point.number);
        let kept = directory.join(name);
        println!("its disk is {}", kept.display());
        succeeds(Command::new("cp").arg("--sparse=always").arg(&point.untouched).arg(kept))
    }
}

/// Makes the disks of crash points, in the order of the log.
fn prepare(
    recording: Recording,
    seed: u64,
    points: usize,
    directory: &Path,
    give: &mut dyn FnMut(Point),
) -> std::io::Result<()> {
    let Recording { mut disk, log, history } = recording;
    let mut random = Random(seed);
    let mut cuts = choose(&log.entries, &history.acknowledgements(), points, &mut random);
    cuts.sort_unstable();
    for (number, cut) in cuts.into_iter().enumerate() {
        // All, nothing, or parts of what was not flushed.
        let percent = [0, 0, 10, 50, 50, 50, 90, 100][random.below(8)];
        let image = directory.join(format!("{number}.img"));
        let untouched = directory.join(format!("{number}.untouched"));
        disk.advance(&log, cut)?;
        let mut same = random.clone();
        disk.cut(&log, cut, &untouched, || same.percent(percent))?;
        disk.cut(&log, cut, &image, || random.percent(percent))?;
        let place = format!("entry {cut} with {percent} % of what was not flushed");
        give(Point { number, image, untouched, expected: history.after(cut), place });
    }
    Ok(())
}

/// Crash points: a third just after something was acknowledged, a third just before a flush is done,
/// a third anywhere.
fn choose(
    entries: &[Entry],
    acknowledgements: &[usize],
    points: usize,
    random: &mut Random,
) -> Vec<usize> {
    let flush = |(index, entry): (usize, &Entry)| entry.is_flush().then_some(index);
    let flushes: Vec<usize> = entries.iter().enumerate().filter_map(flush).collect();
    let last = acknowledgements.last().map_or(entries.len(), |last| last + 1);
    let choice = |kind: usize| match kind {
        0 => acknowledgements[random.below(acknowledgements.len())] + 1,
        1 => flushes[random.below(flushes.len())].min(last),
        _ => random.below(last),
    };
    (0..points).map(|number| number % 3).map(choice).collect()
}

fn elapsed(begun: Instant) -> String {
    format!("{:.0?}", Duration::from_secs(begun.elapsed().as_secs()))
}
