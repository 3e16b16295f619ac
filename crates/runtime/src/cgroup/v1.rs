//! Groups in the separate hierarchies of cgroup v1.
//!
//! Only the `tasks` files stay open; other files are opened below the hierarchy's root when
//! needed, so that a running container costs one descriptor a hierarchy.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::devices::Rules;
use super::files::{Dir, gone_is_none, pids_below, remove_tree, write_once};
use super::kill::kill_listed;
use super::limits::{Setting, Step, plan_v1};
use super::mounts::{Controller, Mount};
use super::{V1Mount, system};
use crate::protocol::Failure;
use crate::spec::Resources;

/// The roots of the mounted hierarchies, pinned.
#[derive(Debug)]
pub(super) struct Hierarchies {
    list: Vec<Hierarchy>,
    /// The same, as containers see them.
    mounts: Vec<V1Mount>,
}

#[derive(Debug)]
struct Hierarchy {
    root: Dir,
    controllers: Vec<Controller>,
}

impl Hierarchies {
    pub(super) fn open(mounts: Vec<Mount>) -> Result<Self, Failure> {
        let mut all = Self { list: Vec::new(), mounts: Vec::new() };
        for Mount { point, options, controllers } in mounts {
            let root = Dir::open_host(&point)
                .map_err(|errno| system(format!("open {}", point.display()), errno))?;
            all.list.push(Hierarchy { root, controllers });
            all.mounts.push(V1Mount { directory: directory_name(&point, &options), options });
        }
        Ok(all)
    }

    /// Returns the root of the hierarchy that has the controller.
    pub(super) fn root(&self, controller: Controller) -> Option<&Dir> {
        self.index(controller).map(|at| &self.list[at].root)
    }

    fn index(&self, controller: Controller) -> Option<usize> {
        self.list.iter().position(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    fn label(&self, at: usize) -> &str {
        &self.mounts[at].options
    }
}

fn directory_name(point: &Path, options: &str) -> String {
    let name = point.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| options.trim_start_matches("name=").to_owned())
}

/// A group at the same path of every hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    all: Arc<Hierarchies>,
    path: String,
    /// One for each hierarchy, in order.
    tasks: Vec<OwnedFd>,
}

pub(super) fn create(
    all: &Arc<Hierarchies>,
    path: &str,
    resources: &Resources,
    rules: &Rules,
) -> Result<Group, Failure> {
    let mut group = Group { all: Arc::clone(all), path: path.to_owned(), tasks: Vec::new() };
    match group.make(resources, rules) {
        Ok(()) => Ok(group),
        Err(failure) => {
            // Empty groups are all that can be left; the next create of this path removes them.
            group.remove().unwrap_or(false);
            Err(failure)
        }
    }
}

pub(super) fn adopt(all: &Arc<Hierarchies>, path: &str) -> Result<Group, Failure> {
    let mut group = Group { all: Arc::clone(all), path: path.to_owned(), tasks: Vec::new() };
    for at in 0..all.list.len() {
        let dir = gone_is_none(all.list[at].root.open_dir(path))
            .map_err(|errno| group.failure("open", at, errno))?
            .ok_or(Failure::NotFound)?;
        let tasks = group.open_tasks(at, &dir)?;
        group.tasks.push(tasks);
    }
    Ok(group)
}

impl Group {
    pub(super) fn tasks(&self) -> &[OwnedFd] {
        &self.tasks
    }

    pub(super) fn mounts(&self) -> &[V1Mount] {
        &self.all.mounts
    }

    /// Opens the group in the hierarchy of a controller; `None` when none has it.
    pub(super) fn dir(&self, controller: Controller) -> Result<Option<Dir>, Failure> {
        let Some(at) = self.all.index(controller) else { return Ok(None) };
        match gone_is_none(self.all.list[at].root.open_dir(&self.path)) {
            Ok(Some(dir)) => Ok(Some(dir)),
            Ok(None) => Err(Failure::NotFound),
            Err(errno) => Err(self.failure("open", at, errno)),
        }
    }

    fn failure(&self, attempt: &str, at: usize, errno: Errno) -> Failure {
        system(format!("{attempt} cgroup {} ({})", self.path, self.all.label(at)), errno)
    }

    fn make(&mut self, resources: &Resources, rules: &Rules) -> Result<(), Failure> {
        let mut dirs = Vec::with_capacity(self.all.list.len());
        for at in 0..self.all.list.len() {
            let dir = self.make_in(at).map_err(|errno| self.failure("make", at, errno))?;
            self.tasks.push(self.open_tasks(at, &dir)?);
            dirs.push(dir);
        }
        self.apply(plan_v1(resources), |at| Ok(&dirs[at]))?;
        match self.all.index(Controller::Devices) {
            Some(at) => write_device_rules(&dirs[at], rules),
            // Nothing would enforce them.
            None if rules.v2_filter().is_some() => {
                Err(missing("device rules", Controller::Devices))
            }
            None => Ok(()),
        }
    }

    fn make_in(&self, at: usize) -> Result<Dir, Errno> {
        let Hierarchy { root, controllers } = &self.all.list[at];
        let is_cpuset = controllers.contains(&Controller::Cpuset);
        make_group(root, &self.path, is_cpuset)?;
        let dir = root.open_dir(&self.path)?;
        if is_cpuset {
            inherit_cpuset(root, &self.path, &dir)?;
        }
        Ok(dir)
    }

    fn open_tasks(&self, at: usize, dir: &Dir) -> Result<OwnedFd, Failure> {
        dir.open_file("tasks", OFlags::WRONLY)
            .map_err(|errno| self.failure("open tasks of", at, errno))
    }

    pub(super) fn update(&self, resources: &Resources) -> Result<(), Failure> {
        self.apply(plan_v1(resources), |at| {
            let dir = self.all.list[at].root.open_dir(&self.path);
            dir.map_err(|errno| self.failure("open", at, errno))
        })
    }

    fn apply<D: std::borrow::Borrow<Dir>>(
        &self,
        steps: Vec<Step>,
        dir: impl Fn(usize) -> Result<D, Failure>,
    ) -> Result<(), Failure> {
        let dir_of = |setting: &Setting| match self.all.index(setting.controller) {
            Some(at) => dir(at).map(Some),
            None if setting.optional => Ok(None),
            None => Err(missing(setting.limit, setting.controller)),
        };
        for step in steps {
            let (Step::Write(leader) | Step::Pair(leader, _)) = &step;
            if let Some(dir) = dir_of(leader)? {
                write_step(dir.borrow(), &step)?;
            }
        }
        Ok(())
    }

    pub(super) fn freeze(&self) -> Result<(), Failure> {
        let freezer = self.freezer()?;
        let step = |errno| system(format!("freeze cgroup {}", self.path), errno);
        let frozen = freeze(&freezer).map_err(step)?;
        if frozen {
            return Ok(());
        }
        freezer.write("freezer.state", "THAWED").map_err(step)?;
        Err(step(Errno::TIMEDOUT))
    }

    pub(super) fn thaw(&self) -> Result<(), Failure> {
        self.freezer()?
            .write("freezer.state", "THAWED")
            .map_err(|errno| system(format!("thaw cgroup {}", self.path), errno))
    }

    fn freezer(&self) -> Result<Dir, Failure> {
        self.dir(Controller::Freezer)?.ok_or_else(|| missing("pause", Controller::Freezer))
    }

    pub(super) fn kill_all(&self) -> Result<(), Failure> {
        let step = |errno| system(format!("kill cgroup {}", self.path), errno);
        let top = match self.listing_dir() {
            // Removed already: nobody is inside.
            Err(Failure::NotFound) => return Ok(()),
            other => other?,
        };
        let settled = kill_listed(8, || pids_below(&top)).map_err(step)?;
        let Some(freezer) = self.dir(Controller::Freezer)? else {
            return if settled { Ok(()) } else { Err(step(Errno::TIMEDOUT)) };
        };
        if !settled {
            // A fork bomb. Whether or not all of it stands still in time, less of it forks.
            freeze(&freezer).map_err(step)?;
            kill_listed(64, || pids_below(&top)).map_err(step)?;
        }
        // SIGKILL reaches frozen processes of v1 only when they are thawed.
        freezer.write("freezer.state", "THAWED").map_err(step)
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, Failure> {
        pids_below(&self.listing_dir()?)
            .map_err(|errno| system(format!("list cgroup {}", self.path), errno))
    }

    /// The hierarchy to ask who is inside: the one that can hold them still comes first.
    fn listing_dir(&self) -> Result<Dir, Failure> {
        use Controller::{Devices, Freezer, Memory, Pids};
        for controller in [Freezer, Devices, Pids, Memory] {
            if let Some(dir) = self.dir(controller)? {
                return Ok(dir);
            }
        }
        Err(missing("list of processes", Freezer))
    }

    pub(super) fn oom_kills(&self) -> u64 {
        let Ok(Some(dir)) = self.dir(Controller::Memory) else { return 0 };
        let text = dir.read("memory.oom_control").unwrap_or_default();
        super::stats::keyed(&text, "oom_kill").unwrap_or(0)
    }

    pub(super) fn oom_watch(&self) -> Result<OwnedFd, Failure> {
        use std::os::fd::AsRawFd;

        let dir = self
            .dir(Controller::Memory)?
            .ok_or_else(|| missing("out-of-memory watch", Controller::Memory))?;
        let register = || {
            let watch = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let control = dir.open_file("memory.oom_control", OFlags::RDONLY)?;
            let line = format!("{} {}", watch.as_raw_fd(), control.as_raw_fd());
            dir.write("cgroup.event_control", &line)?;
            Ok(watch)
        };
        register().map_err(|errno| system(format!("watch memory of cgroup {}", self.path), errno))
    }

    pub(super) fn remove(&self) -> Result<bool, Failure> {
        let mut empty = true;
        let mut failed = None;
        for (at, hierarchy) in self.all.list.iter().enumerate() {
            match remove_tree(&hierarchy.root, &self.path) {
                Ok(removed) => empty &= removed,
                Err(errno) => failed = failed.or_else(|| Some(self.failure("remove", at, errno))),
            }
        }
        failed.map_or(Ok(empty), Err)
    }
}

/// Makes `path` anew. What is there already was left by a crash, and goes if it is empty.
fn make_group(root: &Dir, path: &str, is_cpuset: bool) -> Result<(), Errno> {
    match root.make_dir(path) {
        Err(Errno::NOENT) => {
            make_parents(root, path, is_cpuset)?;
            root.make_dir(path)
        }
        Err(Errno::EXIST) => {
            if !remove_tree(root, path)? {
                return Err(Errno::EXIST);
            }
            root.make_dir(path)
        }
        other => other,
    }
}

fn make_parents(root: &Dir, path: &str, is_cpuset: bool) -> Result<(), Errno> {
    for parent in super::files::ancestors(path) {
        match root.make_dir(parent) {
            // Lets groups below be born with our CPUs instead of none.
            Ok(()) if is_cpuset => root.write(&format!("{parent}/cgroup.clone_children"), "1")?,
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A v1 cpuset starts empty and takes no process until both lists are filled.
fn inherit_cpuset(root: &Dir, path: &str, dir: &Dir) -> Result<(), Errno> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !dir.read(file)?.trim_ascii().is_empty() {
            continue;
        }
        let mut value = root.read(file)?;
        for group in super::files::ancestors(path).chain([path]) {
            let name = format!("{group}/{file}");
            let own = root.read(&name)?;
            if own.trim_ascii().is_empty() {
                root.write(&name, value.trim_ascii())?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

fn write_device_rules(dir: &Dir, rules: &Rules) -> Result<(), Failure> {
    let (first, file, lines) = rules.v1_lines();
    let write = || {
        if let Some(first) = first {
            dir.write(first, "a")?;
        }
        if lines.is_empty() {
            return Ok(());
        }
        let file = dir.open_file(file, OFlags::WRONLY)?;
        lines.iter().try_for_each(|line| write_once(&file, line))
    };
    write().map_err(|errno| system("write device rules", errno))
}

fn write_step(dir: &Dir, step: &Step) -> Result<(), Failure> {
    match step {
        Step::Write(setting) => write_setting(dir, setting),
        Step::Pair(first, second) => match write_setting(dir, first) {
            Err(Failure::System { errno, .. }) if errno == libc::EINVAL => {
                write_setting(dir, second)?;
                write_setting(dir, first)
            }
            Err(failure) => Err(failure),
            Ok(()) => write_setting(dir, second),
        },
    }
}

/// Writes to the first of the files that exists. The same for v1 and v2.
pub(super) fn write_setting(dir: &Dir, setting: &Setting) -> Result<(), Failure> {
    for (file, value) in &setting.choices {
        match dir.write(file, value) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(system(refused(dir, setting, file, value, errno), errno)),
        }
    }
    if setting.optional { Ok(()) } else { Err(missing_file(setting)) }
}

/// Names the limit, and for a memory limit below what is in use, how much that is.
fn refused(dir: &Dir, setting: &Setting, file: &str, value: &str, errno: Errno) -> String {
    let usage = || dir.read_number("memory.usage_in_bytes").ok();
    let peak = || dir.read_number("memory.max_usage_in_bytes").ok();
    if errno == Errno::BUSY
        && setting.controller == Controller::Memory
        && let (Some(usage), Some(peak)) = (usage(), peak())
    {
        return format!(
            "set {} limit to {value} (current usage: {usage}, peak usage: {peak})",
            setting.limit
        );
    }
    format!("set {} limit: write {value:?} to {file}", setting.limit)
}

pub(super) fn missing(limit: &str, controller: Controller) -> Failure {
    Failure::Invalid {
        text: format!("{limit}: this machine has no {} cgroup controller", controller.name()),
    }
}

fn missing_file(setting: &Setting) -> Failure {
    let files: Vec<_> = setting.choices.iter().map(|(file, _)| *file).collect();
    Failure::Invalid {
        text: format!("{}: this kernel has no {}", setting.limit, files.join(" or ")),
    }
}

/// Asks for a standstill and waits for it, at most half a second: the v1 freezer sends no event.
/// A task that forks while the group freezes may hold it up until asked again.
fn freeze(freezer: &Dir) -> Result<bool, Errno> {
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut pause = Duration::from_micros(20);
    loop {
        freezer.write("freezer.state", "FROZEN")?;
        if freezer.read("freezer.state")?.trim_ascii() == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
