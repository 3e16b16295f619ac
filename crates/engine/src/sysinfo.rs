//! What this kernel can limit, looked up once at start: the source of the warnings of `/info` and
//! of create.

use std::path::Path;

/// The control files that exist, and the processors and memory nodes we may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SysInfo {
    pub cgroup_v2: bool,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub memory_reservation: bool,
    pub oom_kill_disable: bool,
    pub swappiness: bool,
    pub cpu_shares: bool,
    pub cpu_cfs: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    pub cpus: String,
    pub mems: String,
    pub pids_limit: bool,
    pub blkio_weight: bool,
    pub blkio_weight_device: bool,
    pub blkio_throttle: bool,
    pub cgroup_namespaces: bool,
    pub apparmor: bool,
    pub ncpu: usize,
}

impl SysInfo {
    /// Looks below `/sys/fs/cgroup`.
    pub(crate) fn detect() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut info = if has_v1_memory(&mounts) {
            Self::version_1(&mounts)
        } else {
            Self::version_2(Path::new("/sys/fs/cgroup"))
        };
        info.cgroup_namespaces = Path::new("/proc/self/ns/cgroup").exists();
        info.apparmor = read("/sys/module/apparmor/parameters/enabled").starts_with('Y');
        info.ncpu = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        info
    }

    fn version_1(mountinfo: &str) -> Self {
        let dir = |controller| v1_mount(mountinfo, controller).unwrap_or_default();
        let has = |controller: &str, file: &str| {
            v1_mount(mountinfo, controller).is_some_and(|dir| Path::new(&dir).join(file).exists())
        };
        Self {
            cgroup_v2: false,
            memory_limit: has("memory", "memory.limit_in_bytes"),
            swap_limit: has("memory", "memory.memsw.limit_in_bytes"),
            memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
            oom_kill_disable: has("memory", "memory.oom_control"),
            swappiness: has("memory", "memory.swappiness"),
            cpu_shares: has("cpu", "cpu.shares"),
            cpu_cfs: has("cpu", "cpu.cfs_quota_us"),
            cpu_realtime: has("cpu", "cpu.rt_runtime_us"),
            cpuset: has("cpuset", "cpuset.cpus"),
            cpus: read(format!("{}/cpuset.cpus", dir("cpuset"))),
            mems: read(format!("{}/cpuset.mems", dir("cpuset"))),
            pids_limit: has("pids", ""),
            blkio_weight: has("blkio", "blkio.weight"),
            blkio_weight_device: has("blkio", "blkio.weight_device"),
            blkio_throttle: has("blkio", "blkio.throttle.read_bps_device"),
            ..Self::default()
        }
    }

    fn version_2(root: &Path) -> Self {
        let controllers = read(root.join("cgroup.controllers"));
        let has = |name: &str| controllers.split(' ').any(|controller| controller == name);
        Self {
            cgroup_v2: true,
            memory_limit: has("memory"),
            swap_limit: has("memory") && Path::new("/proc/swaps").exists(),
            memory_reservation: has("memory"),
            // Neither exists in version 2.
            oom_kill_disable: false,
            swappiness: false,
            cpu_realtime: false,
            cpu_shares: has("cpu"),
            cpu_cfs: has("cpu"),
            cpuset: has("cpuset"),
            cpus: read(root.join("cpuset.cpus.effective")),
            mems: read(root.join("cpuset.mems.effective")),
            pids_limit: has("pids"),
            blkio_weight: has("io"),
            blkio_weight_device: has("io"),
            blkio_throttle: has("io"),
            ..Self::default()
        }
    }

    /// The warnings of `/info`, in Docker's order.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let absent = [
            (self.memory_limit, "No memory limit support"),
            (self.swap_limit, "No swap limit support"),
            (self.oom_kill_disable || self.cgroup_v2, "No oom kill disable support"),
            (self.cpu_cfs, "No cpu cfs quota support"),
            (self.cpu_cfs, "No cpu cfs period support"),
            (self.cpu_shares, "No cpu shares support"),
            (self.cpuset, "No cpuset support"),
        ];
        let blkio: &[(bool, &str)] = if self.cgroup_v2 {
            &[
                (self.blkio_weight, "No io.weight support"),
                (self.blkio_weight_device, "No io.weight (per device) support"),
                (self.blkio_throttle, "No io.max (rbps) support"),
                (self.blkio_throttle, "No io.max (wbps) support"),
                (self.blkio_throttle, "No io.max (riops) support"),
                (self.blkio_throttle, "No io.max (wiops) support"),
            ]
        } else {
            &[
                (self.blkio_weight, "No blkio weight support"),
                (self.blkio_weight_device, "No blkio weight_device support"),
                (self.blkio_throttle, "No blkio throttle.read_bps_device support"),
                (self.blkio_throttle, "No blkio throttle.write_bps_device support"),
                (self.blkio_throttle, "No blkio throttle.read_iops_device support"),
                (self.blkio_throttle, "No blkio throttle.write_iops_device support"),
            ]
        };
        let all = absent.iter().chain(blkio);
        all.filter(|(present, _)| !present).map(|(_, text)| *text).collect()
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn has_v1_memory(mountinfo: &str) -> bool {
    v1_mount(mountinfo, "memory").is_some()
}

/// Where the version 1 hierarchy of `controller` is mounted.
fn v1_mount(mountinfo: &str, controller: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        let options = after.nth(1)?;
        let here = kind == "cgroup" && options.split(',').any(|option| option == controller);
        here.then(|| before.split(' ').nth(4).map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let line = "33 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:14 - cgroup cgroup \
                    rw,cpu,cpuacct\n";
        assert_eq!(v1_mount(line, "cpu").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(v1_mount(line, "memory"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let all = SysInfo {
            memory_limit: true,
            swap_limit: true,
            oom_kill_disable: true,
            cpu_cfs: true,
            cpu_shares: true,
            cpuset: true,
            blkio_weight: true,
            blkio_weight_device: true,
            blkio_throttle: true,
            ..SysInfo::default()
        };
        assert_eq!(all.warnings(), Vec::<&str>::new());
        let some = SysInfo { swap_limit: false, blkio_weight: false, ..all };
        assert_eq!(some.warnings(), ["No swap limit support", "No blkio weight support"]);
    }
}
