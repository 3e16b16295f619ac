//! Limits: from the API's words to the runtime's, and `docker update`.

use std::os::unix::fs::MetadataExt;

use api_types::host_config::{Resources, ThrottleDevice, WeightDevice};
use runtime::spec;

use crate::errors::{Result, StartError};

/// Zero and empty mean that the kernel's default stays.
pub(crate) fn to_runtime(resources: &Resources) -> Result<spec::Resources> {
    let set = |value: i64| (value != 0).then_some(value);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    let (quota, period) = match resources.nano_cpus {
        0 => (set(resources.cpu_quota), set(resources.cpu_period)),
        // A period of 100 ms.
        nano => (Some(nano / 10_000), Some(100_000)),
    };
    Ok(spec::Resources {
        memory: set(resources.memory),
        memory_reservation: set(resources.memory_reservation),
        memory_swap: set(resources.memory_swap),
        memory_swappiness: resources.memory_swappiness.filter(|value| *value != -1),
        oom_kill_disable: resources.oom_kill_disable.unwrap_or_default(),
        cpu_shares: set(resources.cpu_shares),
        cpu_quota: quota,
        cpu_period: period,
        cpu_rt_runtime: set(resources.cpu_realtime_runtime),
        cpu_rt_period: set(resources.cpu_realtime_period),
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        pids_limit: resources.pids_limit,
        blkio_weight: (resources.blkio_weight != 0).then_some(resources.blkio_weight),
        blkio_weight_device: weights(resources.blkio_weight_device.as_deref())?,
        blkio_read_bps: throttles(resources.blkio_device_read_bps.as_deref())?,
        blkio_write_bps: throttles(resources.blkio_device_write_bps.as_deref())?,
        blkio_read_iops: throttles(resources.blkio_device_read_iops.as_deref())?,
        blkio_write_iops: throttles(resources.blkio_device_write_iops.as_deref())?,
    })
}

type DeviceValues = Vec<(u32, u32, u64)>;

fn weights(devices: Option<&[WeightDevice]>) -> Result<DeviceValues> {
    let value = |device: &WeightDevice| {
        let (major, minor) = number(&device.path)?;
        Ok((major, minor, u64::from(device.weight)))
    };
    devices.unwrap_or_default().iter().map(value).collect()
}

fn throttles(devices: Option<&[ThrottleDevice]>) -> Result<DeviceValues> {
    let value = |device: &ThrottleDevice| {
        let (major, minor) = number(&device.path)?;
        Ok((major, minor, device.rate))
    };
    devices.unwrap_or_default().iter().map(value).collect()
}

fn number(path: &str) -> Result<(u32, u32)> {
    let metadata = std::fs::metadata(path).map_err(|error| StartError::BlockDevice {
        path: path.to_owned(),
        reason: runtime::protocol::errno_text(error.raw_os_error().unwrap_or(libc::EIO)),
    })?;
    Ok((rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())))
}

/// Puts the limits that `change` names over `current`, or says why they do not go together.
pub(crate) fn apply(current: &mut Resources, change: &Resources) -> Result<(), UpdateConflict> {
    fn number<T: Copy + Default + PartialEq>(current: &mut T, change: T) {
        if change != T::default() {
            *current = change;
        }
    }
    conflict(current, change)?;
    number(&mut current.cpu_shares, change.cpu_shares);
    number(&mut current.nano_cpus, change.nano_cpus);
    number(&mut current.cpu_period, change.cpu_period);
    number(&mut current.cpu_quota, change.cpu_quota);
    number(&mut current.cpu_realtime_period, change.cpu_realtime_period);
    number(&mut current.cpu_realtime_runtime, change.cpu_realtime_runtime);
    number(&mut current.blkio_weight, change.blkio_weight);
    number(&mut current.memory_reservation, change.memory_reservation);
    number(&mut current.memory, change.memory);
    number(&mut current.memory_swap, change.memory_swap);
    if !change.cpuset_cpus.is_empty() {
        current.cpuset_cpus.clone_from(&change.cpuset_cpus);
    }
    if !change.cpuset_mems.is_empty() {
        current.cpuset_mems.clone_from(&change.cpuset_mems);
    }
    if change.pids_limit.is_some() {
        current.pids_limit = change.pids_limit;
    }
    Ok(())
}

/// Two settings of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpdateConflict {
    #[error(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap \
         at the same time"
    )]
    MemoryAboveSwap,
    #[error("Conflicting options: CPU {what} cannot be updated as NanoCPUs has already been set")]
    NanoCpusSet { what: &'static str },
    #[error("Conflicting options: Nano CPUs cannot be updated as CPU {what} has already been set")]
    CpuSet { what: &'static str },
}

fn conflict(current: &Resources, change: &Resources) -> Result<(), UpdateConflict> {
    let limited = current.memory_swap != -1;
    if change.memory > current.memory_swap && change.memory_swap == 0 && limited {
        return Err(UpdateConflict::MemoryAboveSwap);
    }
    if current.nano_cpus > 0 && change.cpu_period > 0 {
        return Err(UpdateConflict::NanoCpusSet { what: "Period" });
    }
    if current.nano_cpus > 0 && change.cpu_quota > 0 {
        return Err(UpdateConflict::NanoCpusSet { what: "Quota" });
    }
    if change.nano_cpus > 0 && current.cpu_period > 0 {
        return Err(UpdateConflict::CpuSet { what: "Period" });
    }
    if change.nano_cpus > 0 && current.cpu_quota > 0 {
        return Err(UpdateConflict::CpuSet { what: "Quota" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_become_quota_and_period() {
        let half = Resources { nano_cpus: 500_000_000, ..Resources::default() };
        let runtime = to_runtime(&half).unwrap();
        assert_eq!((runtime.cpu_quota, runtime.cpu_period), (Some(50_000), Some(100_000)));
        assert_eq!(to_runtime(&Resources::default()).unwrap(), spec::Resources::default());
    }

    #[test]
    fn updates_touch_what_they_name() {
        let mut current = Resources {
            memory: 20 << 20,
            memory_swap: 40 << 20,
            cpu_shares: 5,
            ..Resources::default()
        };
        let memory = |memory, memory_swap| Resources { memory, memory_swap, ..Default::default() };
        assert_eq!(apply(&mut current, &memory(30 << 20, 0)), Ok(()));
        let too_much = memory(50 << 20, 0);
        assert_eq!(apply(&mut current, &too_much), Err(UpdateConflict::MemoryAboveSwap));
        assert_eq!(apply(&mut current, &memory(50 << 20, -1)), Ok(()));
        assert_eq!(apply(&mut current, &memory(60 << 20, 0)), Ok(()));
        assert_eq!((current.memory, current.memory_swap, current.cpu_shares), (60 << 20, -1, 5));
        current.nano_cpus = 1;
        let period = Resources { cpu_period: 5000, ..Resources::default() };
        assert_eq!(
            apply(&mut current, &period).unwrap_err().to_string(),
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"
        );
    }
}
