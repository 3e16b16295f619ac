//! Memory, processors, block devices, ulimits: ranges, and what this kernel cannot do.

use api_types::host_config::Resources;
use spec::kernel::ULIMITS;

use crate::errors::ValidationError;
use crate::sysinfo::SysInfo;

const MINIMUM_MEMORY: i64 = 6 << 20;
const CPU_MAX: u32 = 8192;

/// Checks the limits of create. A limit that the kernel lacks makes a warning.
pub(in crate::containers) fn check(
    resources: &Resources,
    sysinfo: &SysInfo,
    warnings: &mut Vec<String>,
) -> Result<(), ValidationError> {
    memory(resources)?;
    memory_warnings(resources, sysinfo, warnings);
    processors(resources, sysinfo)?;
    cpusets(resources, sysinfo)?;
    // Also where the kernel lacks it and only a warning would follow.
    if resources.blkio_weight != 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return Err(ValidationError::BlkioWeight);
    }
    for ulimit in resources.ulimits.iter().flatten() {
        if !ULIMITS.contains(&ulimit.name.as_str()) {
            return Err(ValidationError::UlimitName { name: ulimit.name.clone() });
        }
        // -1 is unlimited.
        if ulimit.hard >= 0 && (ulimit.soft > ulimit.hard || ulimit.soft < 0) {
            let (name, soft, hard) = (ulimit.name.clone(), ulimit.soft, ulimit.hard);
            return Err(ValidationError::UlimitOrder { name, soft, hard });
        }
    }
    other_warnings(resources, sysinfo, warnings);
    Ok(())
}

fn memory(resources: &Resources) -> Result<(), ValidationError> {
    let (memory, swap) = (resources.memory, resources.memory_swap);
    if memory != 0 && memory < MINIMUM_MEMORY {
        return Err(ValidationError::MemoryTooLow);
    }
    if memory > 0 && swap > 0 && swap < memory {
        return Err(ValidationError::SwapBelowMemory);
    }
    if memory == 0 && swap > 0 {
        return Err(ValidationError::SwapWithoutMemory);
    }
    if let Some(value) = resources.memory_swappiness
        && !(-1..=100).contains(&value)
    {
        return Err(ValidationError::Swappiness { value });
    }
    let reservation = resources.memory_reservation;
    if reservation != 0 && reservation < MINIMUM_MEMORY {
        return Err(ValidationError::ReservationTooLow);
    }
    if memory > 0 && reservation > memory {
        return Err(ValidationError::MemoryBelowReservation);
    }
    Ok(())
}

fn processors(resources: &Resources, sysinfo: &SysInfo) -> Result<(), ValidationError> {
    let nano = resources.nano_cpus;
    if nano != 0 {
        if resources.cpu_period != 0 {
            return Err(ValidationError::NanoCpusConflict { other: "Period" });
        }
        if resources.cpu_quota != 0 {
            return Err(ValidationError::NanoCpusConflict { other: "Quota" });
        }
        let most = i64::try_from(sysinfo.ncpu).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        if nano < 0 || nano > most {
            return Err(ValidationError::NanoCpus { cpus: sysinfo.ncpu });
        }
    }
    if resources.cpu_period != 0 && !(1_000..=1_000_000).contains(&resources.cpu_period) {
        return Err(ValidationError::CpuPeriod);
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1_000 {
        return Err(ValidationError::CpuQuota);
    }
    match resources.cpu_shares {
        value if value < 0 => Err(ValidationError::CpuShares { value }),
        1 => Err(ValidationError::CpuSharesTooLow),
        value if value > 262_144 => Err(ValidationError::CpuSharesTooHigh),
        _ => Ok(()),
    }
}

fn cpusets(resources: &Resources, sysinfo: &SysInfo) -> Result<(), ValidationError> {
    let parse = |what, text: &str| {
        parse_list(text).map_err(|reason| ValidationError::Cpuset {
            what,
            value: text.to_owned(),
            reason,
        })
    };
    let within = |wanted: &[u32], available: &str| {
        let available = parse_list(available).unwrap_or_default();
        wanted.iter().all(|number| available.contains(number))
    };
    let cpus = parse("cpus", &resources.cpuset_cpus)?;
    if !within(&cpus, &sysinfo.cpus) {
        let value = resources.cpuset_cpus.clone();
        return Err(ValidationError::CpusUnavailable { value, available: sysinfo.cpus.clone() });
    }
    let mems = parse("mems", &resources.cpuset_mems)?;
    if !within(&mems, &sysinfo.mems) {
        let value = resources.cpuset_mems.clone();
        return Err(ValidationError::MemsUnavailable { value, available: sysinfo.mems.clone() });
    }
    Ok(())
}

/// Reads `0-2,5`. Numbers have a ceiling, so that a range costs nothing.
fn parse_list(text: &str) -> Result<Vec<u32>, String> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let invalid = |_bad| format!("invalid format: {part}");
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u64, u64) =
            (low.parse().map_err(invalid)?, high.parse().map_err(invalid)?);
        if high > u64::from(CPU_MAX) || low > high {
            return Err(format!("value of out range, maximum is {CPU_MAX}"));
        }
        numbers.extend((low..=high).map(|number| number as u32));
    }
    Ok(numbers)
}

fn memory_warnings(resources: &Resources, sysinfo: &SysInfo, warnings: &mut Vec<String>) {
    let swappiness = resources.memory_swappiness.is_some_and(|value| value != -1);
    let oom = resources.oom_kill_disable == Some(true);
    let lacking = [
        (
            resources.memory > 0 && !sysinfo.memory_limit,
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. \
             Limitation discarded.",
        ),
        (
            resources.memory > 0 && resources.memory_swap != -1 && !sysinfo.swap_limit,
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. \
             Memory limited without swap.",
        ),
        (
            swappiness && !sysinfo.swappiness,
            "Your kernel does not support memory swappiness capabilities or the cgroup is not \
             mounted. Memory swappiness discarded.",
        ),
        (
            resources.memory_reservation > 0 && !sysinfo.memory_reservation,
            "Your kernel does not support memory soft limit capabilities or the cgroup is not \
             mounted. Limitation discarded.",
        ),
        (
            oom && !sysinfo.oom_kill_disable,
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        ),
        (
            oom && sysinfo.oom_kill_disable && resources.memory == 0,
            "OOM killer is disabled for the container, but no memory limit is set, this can \
             result in the system running out of resources.",
        ),
    ];
    push(warnings, &lacking);
}

fn other_warnings(resources: &Resources, sysinfo: &SysInfo, warnings: &mut Vec<String>) {
    fn some<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    let quota = resources.cpu_period != 0 || resources.cpu_quota != 0 || resources.nano_cpus != 0;
    let throttle = !sysinfo.blkio_throttle;
    let lacking = [
        (
            resources.pids_limit.is_some_and(|limit| limit > 0) && !sysinfo.pids_limit,
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. \
             PIDs limit discarded.",
        ),
        (
            resources.cpu_shares > 0 && !sysinfo.cpu_shares,
            "Your kernel does not support CPU shares or the cgroup is not mounted. Shares \
             discarded.",
        ),
        (
            quota && !sysinfo.cpu_cfs,
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        ),
        (
            (!resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty())
                && !sysinfo.cpuset,
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
        ),
        (
            resources.blkio_weight > 0 && !sysinfo.blkio_weight,
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight \
             discarded.",
        ),
        (
            some(&resources.blkio_weight_device) && !sysinfo.blkio_weight_device,
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. \
             Weight-device discarded.",
        ),
        (
            some(&resources.blkio_device_read_bps) && throttle,
            "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. \
             Block I/O BPS read limit discarded.",
        ),
        (
            some(&resources.blkio_device_write_bps) && throttle,
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. \
             Block I/O BPS write limit discarded.",
        ),
        (
            some(&resources.blkio_device_read_iops) && throttle,
            "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. \
             Block I/O IOPS read limit discarded.",
        ),
        (
            some(&resources.blkio_device_write_iops) && throttle,
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. \
             Block I/O IOPS write limit discarded.",
        ),
    ];
    push(warnings, &lacking);
}

fn push(warnings: &mut Vec<String>, lacking: &[(bool, &str)]) {
    let texts = lacking.iter().filter(|(lacks, _)| *lacks).map(|(_, text)| (*text).to_owned());
    warnings.extend(texts);
}
