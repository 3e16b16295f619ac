//! From limits as Docker counts them to the control files of v1 and v2: pure planning.
//!
//! 0 means "not set" wherever Docker's API says so; -1 is "unlimited".

use super::mounts::Controller;
use crate::protocol::Failure;
use crate::spec::Resources;

/// One limit and where to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: Controller,
    /// What the user calls it, for errors.
    pub(super) limit: &'static str,
    /// File and value; later ones are for kernels that lack the earlier files.
    pub(super) choices: Vec<(&'static str, String)>,
    /// Asks for what a kernel without the file does anyway.
    pub(super) optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Write(Setting),
    /// The kernel checks each of the two against the other's present value: when the first is
    /// refused with EINVAL, the other order is right.
    Pair(Setting, Setting),
}

/// Values in force that some v2 limits are computed from.
pub(super) trait Current {
    fn memory_max(&self) -> Result<Option<u64>, Failure>;
    /// The quota part of `cpu.max`.
    fn cpu_quota(&self) -> Result<String, Failure>;
}

fn setting(
    controller: Controller,
    limit: &'static str,
    file: &'static str,
    value: impl ToString,
) -> Setting {
    let choices = vec![(file, value.to_string())];
    Setting { controller, limit, choices, optional: false }
}

/// Writes what is set; both in one go when both are, in an order that the kernel accepts.
fn pair(steps: &mut Vec<Step>, first: Option<Setting>, second: Option<Setting>) {
    match (first, second) {
        (Some(first), Some(second)) => steps.push(Step::Pair(first, second)),
        (Some(only), None) | (None, Some(only)) => steps.push(Step::Write(only)),
        (None, None) => {}
    }
}

/// `None` for absent and for Docker's 0.
fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

pub(super) fn plan_v1(resources: &Resources) -> Vec<Step> {
    let mut steps = Vec::new();
    v1_memory(resources, &mut steps);
    v1_cpu(resources, &mut steps);
    cpuset(resources, &mut steps);
    pids(resources, &mut steps);
    v1_blkio(resources, &mut steps);
    steps
}

fn v1_memory(resources: &Resources, steps: &mut Vec<Step>) {
    use Controller::Memory;
    let memory = set(resources.memory)
        .map(|bytes| setting(Memory, "memory", "memory.limit_in_bytes", bytes));
    let swap = set(resources.memory_swap).map(|bytes| Setting {
        optional: bytes < 0,
        ..setting(Memory, "memory+swap", "memory.memsw.limit_in_bytes", bytes)
    });
    pair(steps, memory, swap);
    if let Some(bytes) = set(resources.memory_reservation) {
        let file = "memory.soft_limit_in_bytes";
        steps.push(Step::Write(setting(Memory, "memory reservation", file, bytes)));
    }
    if let Some(percent) = swappiness(resources) {
        steps.push(Step::Write(setting(Memory, "memory swappiness", "memory.swappiness", percent)));
    }
    if resources.oom_kill_disable {
        steps.push(Step::Write(setting(Memory, "OOM kill disable", "memory.oom_control", 1)));
    }
}

/// Unlike the other limits, 0 is a value here and -1 means "not set".
fn swappiness(resources: &Resources) -> Option<i64> {
    resources.memory_swappiness.filter(|percent| *percent != -1)
}

fn v1_cpu(resources: &Resources, steps: &mut Vec<Step>) {
    use Controller::Cpu;
    if let Some(shares) = set(resources.cpu_shares) {
        steps.push(Step::Write(setting(Cpu, "CPU shares", "cpu.shares", shares)));
    }
    pair(
        steps,
        set(resources.cpu_period)
            .map(|period| setting(Cpu, "CPU CFS period", "cpu.cfs_period_us", period)),
        set(resources.cpu_quota)
            .map(|quota| setting(Cpu, "CPU CFS quota", "cpu.cfs_quota_us", quota)),
    );
    pair(
        steps,
        set(resources.cpu_rt_period)
            .map(|period| setting(Cpu, "CPU real-time period", "cpu.rt_period_us", period)),
        set(resources.cpu_rt_runtime)
            .map(|runtime| setting(Cpu, "CPU real-time runtime", "cpu.rt_runtime_us", runtime)),
    );
}

/// The files have the same names on both versions.
fn cpuset(resources: &Resources, steps: &mut Vec<Step>) {
    let sets = [
        (&resources.cpuset_cpus, "cpuset CPUs", "cpuset.cpus"),
        (&resources.cpuset_mems, "cpuset memory nodes", "cpuset.mems"),
    ];
    for (value, limit, file) in sets {
        if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
            steps.push(Step::Write(setting(Controller::Cpuset, limit, file, list)));
        }
    }
}

fn pids(resources: &Resources, steps: &mut Vec<Step>) {
    if let Some(limit) = resources.pids_limit {
        let unlimited = limit <= 0;
        let value = max_or(if unlimited { -1 } else { limit });
        let write = setting(Controller::Pids, "pids", "pids.max", value);
        steps.push(Step::Write(Setting { optional: unlimited, ..write }));
    }
}

fn v1_blkio(resources: &Resources, steps: &mut Vec<Step>) {
    use Controller::Blkio;
    // CFQ's names until kernel 5.0, BFQ's since.
    let either = |limit, old: &'static str, new: &'static str, value: String| {
        let choices = vec![(old, value.clone()), (new, value)];
        Step::Write(Setting { controller: Blkio, limit, choices, optional: false })
    };
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        steps.push(either(
            "block IO weight",
            "blkio.weight",
            "blkio.bfq.weight",
            weight.to_string(),
        ));
    }
    for (major, minor, weight) in &resources.blkio_weight_device {
        let value = format!("{major}:{minor} {weight}");
        let (old, new) = ("blkio.weight_device", "blkio.bfq.weight_device");
        steps.push(either("block IO weight of a device", old, new, value));
    }
    for (rates, limit, file, _) in throttles(resources) {
        for (major, minor, rate) in rates {
            steps.push(Step::Write(setting(Blkio, limit, file, format!("{major}:{minor} {rate}"))));
        }
    }
}

type Throttle<'a> = (&'a [(u32, u32, u64)], &'static str, &'static str, &'static str);

/// Rates per device, their name, v1 file, and key in v2's `io.max`.
fn throttles(resources: &Resources) -> [Throttle<'_>; 4] {
    [
        (&resources.blkio_read_bps, "block IO read rate", "blkio.throttle.read_bps_device", "rbps"),
        (
            &resources.blkio_write_bps,
            "block IO write rate",
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            &resources.blkio_read_iops,
            "block IO read operations rate",
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            &resources.blkio_write_iops,
            "block IO write operations rate",
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ]
}

pub(super) fn plan_v2(resources: &Resources, current: &dyn Current) -> Result<Vec<Step>, Failure> {
    refuse_v1_only(resources)?;
    let mut steps = Vec::new();
    v2_memory(resources, current, &mut steps)?;
    v2_cpu(resources, current, &mut steps)?;
    cpuset(resources, &mut steps);
    pids(resources, &mut steps);
    v2_io(resources, &mut steps);
    Ok(steps)
}

fn refuse_v1_only(resources: &Resources) -> Result<(), Failure> {
    let asked = [
        (swappiness(resources).is_some(), "memory swappiness"),
        (resources.oom_kill_disable, "OOM kill disable"),
        (set(resources.cpu_rt_runtime).is_some(), "CPU real-time runtime"),
        (set(resources.cpu_rt_period).is_some(), "CPU real-time period"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, limit)) => {
            Err(Failure::Invalid { text: format!("{limit}: cgroup v2 does not have this limit") })
        }
        None => Ok(()),
    }
}

fn v2_memory(
    resources: &Resources,
    current: &dyn Current,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    use Controller::Memory;
    // Swap goes first: lowering memory while swap is unlimited would push the group out to disk.
    if let Some(total) = set(resources.memory_swap) {
        let swap = swap_alone(total, set(resources.memory), current)?;
        // Without swap accounting there is nothing to forbid or allow.
        let optional = swap <= 0;
        let write = setting(Memory, "memory+swap", "memory.swap.max", max_or(swap));
        steps.push(Step::Write(Setting { optional, ..write }));
    }
    if let Some(bytes) = set(resources.memory) {
        steps.push(Step::Write(setting(Memory, "memory", "memory.max", max_or(bytes))));
    }
    if let Some(bytes) = set(resources.memory_reservation) {
        steps.push(Step::Write(setting(Memory, "memory reservation", "memory.low", max_or(bytes))));
    }
    Ok(())
}

/// v2 limits swap by itself, where Docker counts memory and swap together.
fn swap_alone(total: i64, memory: Option<i64>, current: &dyn Current) -> Result<i64, Failure> {
    if total < 0 {
        return Ok(-1);
    }
    let memory = match memory {
        Some(bytes) => u64::try_from(bytes).ok(),
        None => current.memory_max()?,
    };
    let invalid = |text: &str| Failure::Invalid { text: text.to_owned() };
    let memory = memory
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| invalid("memory+swap: cannot be limited without a memory limit"))?;
    match total - memory {
        swap if swap < 0 => Err(invalid("memory+swap: must not be less than the memory limit")),
        swap => Ok(swap),
    }
}

fn v2_cpu(
    resources: &Resources,
    current: &dyn Current,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    use Controller::Cpu;
    if let Some(shares) = set(resources.cpu_shares) {
        steps.push(Step::Write(setting(Cpu, "CPU shares", "cpu.weight", weight_of_shares(shares))));
    }
    // A quota alone keeps the period that is in force; a period needs the quota beside it.
    let bandwidth = match (set(resources.cpu_quota), set(resources.cpu_period)) {
        (None, None) => return Ok(()),
        (Some(quota), None) => max_or(quota),
        (Some(quota), Some(period)) => format!("{} {period}", max_or(quota)),
        (None, Some(period)) => format!("{} {period}", current.cpu_quota()?),
    };
    steps.push(Step::Write(setting(Cpu, "CPU CFS quota and period", "cpu.max", bandwidth)));
    Ok(())
}

/// Maps shares (2 to 262144, default 1024) to a weight (1 to 10000, default 100). This is the
/// curve of runc 1.4 and crun 1.23, a quadratic in the logarithms that meets minimum, default and
/// maximum; the older line `1 + (shares - 2) * 9999 / 262142` made 39 of the default.
fn weight_of_shares(shares: i64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// `io.weight` runs from 1 to 10000, Docker's and BFQ's from 10 to 1000.
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9_999 / 990
}

fn v2_io(resources: &Resources, steps: &mut Vec<Step>) {
    use Controller::Blkio;
    let mut weight = |limit, target: String, weight: u64| {
        let choices = vec![
            ("io.bfq.weight", format!("{target} {weight}")),
            ("io.weight", format!("{target} {}", io_weight(weight))),
        ];
        steps.push(Step::Write(Setting { controller: Blkio, limit, choices, optional: false }));
    };
    if let Some(all) = resources.blkio_weight.filter(|weight| *weight != 0) {
        weight("block IO weight", "default".to_owned(), u64::from(all));
    }
    for (major, minor, one) in &resources.blkio_weight_device {
        weight("block IO weight of a device", format!("{major}:{minor}"), *one);
    }
    for (rates, limit, _, key) in throttles(resources) {
        for (major, minor, rate) in rates {
            // 0 lifts the limit, as it does on v1.
            let rate = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
            let value = format!("{major}:{minor} {key}={rate}");
            steps.push(Step::Write(setting(Blkio, limit, "io.max", value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct InForce;

    impl Current for InForce {
        fn memory_max(&self) -> Result<Option<u64>, Failure> {
            Ok(Some(100))
        }

        fn cpu_quota(&self) -> Result<String, Failure> {
            Ok("max".to_owned())
        }
    }

    /// One line a step: `file=value`, alternatives after `|`, the second of a pair after `&`,
    /// `?` when optional.
    fn show(steps: &[Step]) -> String {
        let one = |setting: &Setting| {
            let choices: Vec<_> =
                setting.choices.iter().map(|(file, value)| format!("{file}={value}")).collect();
            choices.join("|") + if setting.optional { "?" } else { "" }
        };
        let steps: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Write(setting) => one(setting),
                Step::Pair(first, second) => format!("{} & {}", one(first), one(second)),
            })
            .collect();
        steps.join("\n")
    }

    #[track_caller]
    fn check(resources: Resources, v1: &str, v2: &str) {
        assert_eq!(show(&plan_v1(&resources)), v1);
        let planned = plan_v2(&resources, &InForce);
        assert_eq!(planned.map_or_else(|failure| failure.to_string(), |steps| show(&steps)), v2);
    }

    #[test]
    fn memory() {
        let base = Resources::default();
        check(base.clone(), "", "");
        check(
            Resources { memory: Some(64), memory_swap: Some(128), ..base.clone() },
            "memory.limit_in_bytes=64 & memory.memsw.limit_in_bytes=128",
            "memory.swap.max=64\nmemory.max=64",
        );
        check(
            Resources { memory: Some(64), memory_swap: Some(64), ..base.clone() },
            "memory.limit_in_bytes=64 & memory.memsw.limit_in_bytes=64",
            "memory.swap.max=0?\nmemory.max=64",
        );
        check(
            Resources { memory_swap: Some(-1), memory_reservation: Some(9), ..base.clone() },
            "memory.memsw.limit_in_bytes=-1?\nmemory.soft_limit_in_bytes=9",
            "memory.swap.max=max?\nmemory.low=9",
        );
        check(
            Resources { memory_swap: Some(150), ..base.clone() },
            "memory.memsw.limit_in_bytes=150",
            "memory.swap.max=50",
        );
        check(
            Resources { memory_swap: Some(50), ..base.clone() },
            "memory.memsw.limit_in_bytes=50",
            "memory+swap: must not be less than the memory limit",
        );
        check(
            Resources { memory: Some(-1), memory_swap: Some(50), ..base.clone() },
            "memory.limit_in_bytes=-1 & memory.memsw.limit_in_bytes=50",
            "memory+swap: cannot be limited without a memory limit",
        );
        check(
            Resources { memory_swappiness: Some(0), ..base.clone() },
            "memory.swappiness=0",
            "memory swappiness: cgroup v2 does not have this limit",
        );
        check(Resources { memory_swappiness: Some(-1), ..base.clone() }, "", "");
        check(
            Resources { oom_kill_disable: true, ..base },
            "memory.oom_control=1",
            "OOM kill disable: cgroup v2 does not have this limit",
        );
    }

    #[test]
    fn cpu() {
        let base = Resources::default();
        check(
            Resources { cpu_shares: Some(1024), ..base.clone() },
            "cpu.shares=1024",
            "cpu.weight=100",
        );
        check(
            Resources { cpu_quota: Some(50_000), cpu_period: Some(100_000), ..base.clone() },
            "cpu.cfs_period_us=100000 & cpu.cfs_quota_us=50000",
            "cpu.max=50000 100000",
        );
        check(
            Resources { cpu_quota: Some(-1), ..base.clone() },
            "cpu.cfs_quota_us=-1",
            "cpu.max=max",
        );
        check(
            Resources { cpu_period: Some(20_000), ..base.clone() },
            "cpu.cfs_period_us=20000",
            "cpu.max=max 20000",
        );
        check(
            Resources { cpu_rt_runtime: Some(950), ..base.clone() },
            "cpu.rt_runtime_us=950",
            "CPU real-time runtime: cgroup v2 does not have this limit",
        );
        let sets = Resources {
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some(String::new()),
            ..base
        };
        check(sets, "cpuset.cpus=0-1", "cpuset.cpus=0-1");
    }

    #[test]
    fn shares_to_weight() {
        for (shares, weight) in
            [(1, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (300_000, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn pids_and_io() {
        let base = Resources::default();
        check(Resources { pids_limit: Some(7), ..base.clone() }, "pids.max=7", "pids.max=7");
        check(Resources { pids_limit: Some(-1), ..base.clone() }, "pids.max=max?", "pids.max=max?");
        check(Resources { pids_limit: Some(0), ..base.clone() }, "pids.max=max?", "pids.max=max?");
        check(
            Resources { blkio_weight: Some(500), ..base.clone() },
            "blkio.weight=500|blkio.bfq.weight=500",
            "io.bfq.weight=default 500|io.weight=default 4950",
        );
        check(
            Resources {
                blkio_weight_device: vec![(8, 0, 10)],
                blkio_read_bps: vec![(8, 0, 1)],
                blkio_write_iops: vec![(8, 16, 0)],
                ..base
            },
            "blkio.weight_device=8:0 10|blkio.bfq.weight_device=8:0 10\n\
             blkio.throttle.read_bps_device=8:0 1\n\
             blkio.throttle.write_iops_device=8:16 0",
            "io.bfq.weight=8:0 10|io.weight=8:0 1\nio.max=8:0 rbps=1\nio.max=8:16 wiops=max",
        );
    }
}
