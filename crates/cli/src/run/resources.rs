//! Limits, for `run`, `create` and `update`.

use api_types::host_config::{DeviceMapping, DeviceRequest, Resources, Ulimit};

use crate::flags::{
    Parsed, parse_byte_rate, parse_device_weight, parse_nano_cpus, parse_rate, parse_ulimit,
};

/// Go's nil slice for an empty list.
pub(super) fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}

pub(super) fn resources(
    flags: &Parsed,
    devices: Vec<DeviceMapping>,
    requests: Vec<DeviceRequest>,
) -> Result<Resources, String> {
    let swappiness = flags.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    let common = update_resources(flags)?;
    Ok(Resources {
        cgroup_parent: flags.text("cgroup-parent").to_owned(),
        blkio_weight_device: each(flags, "blkio-weight-device", parse_device_weight)?,
        blkio_device_read_bps: each(flags, "device-read-bps", parse_byte_rate)?,
        blkio_device_write_bps: each(flags, "device-write-bps", parse_byte_rate)?,
        blkio_device_read_iops: each(flags, "device-read-iops", parse_rate)?,
        blkio_device_write_iops: each(flags, "device-write-iops", parse_rate)?,
        devices: Some(devices),
        device_cgroup_rules: flags.list_or_null("device-cgroup-rule"),
        device_requests: list(requests),
        memory_swappiness: Some(swappiness),
        oom_kill_disable: Some(flags.bool("oom-kill-disable")),
        pids_limit: Some(flags.int("pids-limit")),
        ulimits: Some(ulimits(flags)?),
        ..common
    })
}

/// By name; the last of equal names wins.
fn ulimits(flags: &Parsed) -> Result<Vec<Ulimit>, String> {
    let mut limits = std::collections::BTreeMap::new();
    for text in flags.list("ulimit") {
        let limit = parse_ulimit(text)?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

/// The limits that a container can be given later as well.
pub(crate) fn update_resources(flags: &Parsed) -> Result<Resources, String> {
    Ok(Resources {
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        nano_cpus: flags.given("cpus").map_or(Ok(0), parse_nano_cpus)?,
        blkio_weight: u16::try_from(flags.int("blkio-weight")).unwrap_or(u16::MAX),
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").to_owned(),
        cpuset_mems: flags.text("cpuset-mems").to_owned(),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: flags.bytes("memory-swap"),
        ..Resources::default()
    })
}

fn each<T>(
    flags: &Parsed,
    name: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    flags.list(name).iter().map(|text| parse(text)).collect::<Result<Vec<T>, String>>().map(Some)
}
