//! Which limits this machine can enforce: what `docker info` shows, and what the engine checks
//! before it passes a limit on.

use super::files::Dir;
use super::mounts::Controller;
use super::{v1, v2};

/// Named as in Docker's `/info` where it has a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent facts")]
pub struct Features {
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub memory_reservation: bool,
    pub memory_swappiness: bool,
    pub oom_kill_disable: bool,
    pub kernel_memory: bool,
    pub kernel_memory_tcp: bool,
    pub cpu_shares: bool,
    pub cpu_cfs_period: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub blkio_weight: bool,
    pub blkio_weight_device: bool,
    pub blkio_read_bps_device: bool,
    pub blkio_write_bps_device: bool,
    pub blkio_read_iops_device: bool,
    pub blkio_write_iops_device: bool,
    pub devices: bool,
    pub freezer: bool,
}

/// Asks a fresh group whether it has a file.
struct Probe<'a>(&'a dyn Fn(Controller, &str) -> bool);

impl Probe<'_> {
    fn any(&self, controller: Controller, files: &[&str]) -> bool {
        files.iter().any(|file| (self.0)(controller, file))
    }
}

pub(super) fn probe_v1(all: &v1::Hierarchies) -> Features {
    let name = probe_name();
    let probed = |controller, file: &str| {
        let Some(root) = all.root(controller) else { return false };
        root.has(&format!("{name}/{file}")) || root.has(file)
    };
    let roots: Vec<&Dir> =
        [Controller::Memory, Controller::Cpu, Controller::Cpuset, Controller::Pids]
            .into_iter()
            .chain([Controller::Blkio, Controller::Devices, Controller::Freezer])
            .filter_map(|controller| all.root(controller))
            .collect();
    // Where no group can be made, the root's own files have to answer.
    let made: Vec<&&Dir> = roots.iter().filter(|root| root.make_dir(&name).is_ok()).collect();
    let features = v1_features(&Probe(&probed));
    for root in made {
        // Nobody else knows the name, so the group is empty and goes.
        root.remove_dir(name.as_str()).unwrap_or_default();
    }
    features
}

fn v1_features(probe: &Probe<'_>) -> Features {
    use Controller::{Blkio, Cpu, Cpuset, Devices, Freezer, Memory, Pids};
    let has = |controller, file: &str| probe.any(controller, &[file]);
    Features {
        memory_limit: has(Memory, "memory.limit_in_bytes"),
        swap_limit: has(Memory, "memory.memsw.limit_in_bytes"),
        memory_reservation: has(Memory, "memory.soft_limit_in_bytes"),
        memory_swappiness: has(Memory, "memory.swappiness"),
        oom_kill_disable: has(Memory, "memory.oom_control"),
        kernel_memory: has(Memory, "memory.kmem.limit_in_bytes"),
        kernel_memory_tcp: has(Memory, "memory.kmem.tcp.limit_in_bytes"),
        cpu_shares: has(Cpu, "cpu.shares"),
        cpu_cfs_period: has(Cpu, "cpu.cfs_period_us"),
        cpu_cfs_quota: has(Cpu, "cpu.cfs_quota_us"),
        cpu_realtime: has(Cpu, "cpu.rt_runtime_us"),
        cpuset: has(Cpuset, "cpuset.cpus"),
        pids_limit: has(Pids, "pids.max"),
        blkio_weight: probe.any(Blkio, &["blkio.weight", "blkio.bfq.weight"]),
        blkio_weight_device: probe.any(Blkio, &["blkio.weight_device", "blkio.bfq.weight_device"]),
        blkio_read_bps_device: has(Blkio, "blkio.throttle.read_bps_device"),
        blkio_write_bps_device: has(Blkio, "blkio.throttle.write_bps_device"),
        blkio_read_iops_device: has(Blkio, "blkio.throttle.read_iops_device"),
        blkio_write_iops_device: has(Blkio, "blkio.throttle.write_iops_device"),
        devices: has(Devices, "devices.allow"),
        freezer: has(Freezer, "freezer.state"),
    }
}

pub(super) fn probe_v2(tree: &v2::Hierarchy) -> Features {
    let name = probe_name();
    // A container's group is a child of a group of the root; making it enables the controllers.
    let Ok(dir) = tree.make(&name) else { return Features::default() };
    let features = v2_features(&|file: &str| dir.has(file));
    tree.root().remove_dir(name.as_str()).unwrap_or_default();
    features
}

fn v2_features(has: &dyn Fn(&str) -> bool) -> Features {
    let io_max = has("io.max");
    Features {
        memory_limit: has("memory.max"),
        swap_limit: has("memory.swap.max"),
        memory_reservation: has("memory.low"),
        memory_swappiness: false,
        oom_kill_disable: false,
        kernel_memory: false,
        kernel_memory_tcp: false,
        cpu_shares: has("cpu.weight"),
        cpu_cfs_period: has("cpu.max"),
        cpu_cfs_quota: has("cpu.max"),
        cpu_realtime: false,
        cpuset: has("cpuset.cpus"),
        pids_limit: has("pids.max"),
        blkio_weight: has("io.bfq.weight") || has("io.weight"),
        blkio_weight_device: has("io.bfq.weight") || has("io.weight"),
        blkio_read_bps_device: io_max,
        blkio_write_bps_device: io_max,
        blkio_read_iops_device: io_max,
        blkio_write_iops_device: io_max,
        // A BPF program, which every kernel with v2 can be given.
        devices: true,
        freezer: has("cgroup.freeze"),
    }
}

fn probe_name() -> String {
    let random = u64::from_le_bytes(sys::random::bytes());
    format!("boxship-probe-{random:016x}")
}
