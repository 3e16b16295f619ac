//! What a group used, read from its files into one shape for v1 and v2. About a dozen small
//! files; one that a kernel lacks counts as zero.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::files::{Dir, gone_is_none};
use super::mounts::Controller;
use super::{system, v1, v2};
use crate::protocol::{Failure, Stats};

type Reader = fn(&Dir, &mut Stats) -> Result<(), Errno>;

/// Counts of one kind of I/O: major, minor, operation, value.
type IoCounts = Vec<(u64, u64, String, u64)>;

pub(super) fn of_v1(group: &v1::Group) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    let readers: [(Controller, Reader); 5] = [
        (Controller::Cpuacct, v1_cpuacct),
        (Controller::Cpu, v1_cpu),
        (Controller::Memory, v1_memory),
        (Controller::Pids, pids),
        (Controller::Blkio, v1_blkio),
    ];
    for (controller, read) in readers {
        if let Some(dir) = group.dir(controller)? {
            read(&dir, &mut stats).map_err(|errno| read_failure(controller.name(), errno))?;
        }
    }
    Ok(stats)
}

pub(super) fn of_v2(group: &v2::Group) -> Result<Stats, Failure> {
    let mut stats = Stats { cgroup_v2: true, ..Stats::default() };
    let readers: [(&str, Reader); 4] =
        [("cpu", v2_cpu), ("memory", v2_memory), ("pids", pids), ("io", v2_io)];
    for (name, read) in readers {
        read(group.dir(), &mut stats).map_err(|errno| read_failure(name, errno))?;
    }
    Ok(stats)
}

fn read_failure(what: &str, errno: Errno) -> Failure {
    match errno {
        // The group was removed between opening and reading.
        Errno::NODEV => Failure::NotFound,
        errno => system(format!("read {what} statistics"), errno),
    }
}

fn text(dir: &Dir, file: &str) -> Result<String, Errno> {
    gone_is_none(dir.read(file)).map(Option::unwrap_or_default)
}

fn number(dir: &Dir, file: &str) -> Result<u64, Errno> {
    gone_is_none(dir.read_number(file)).map(Option::unwrap_or_default)
}

fn v1_cpuacct(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    stats.cpu_usage = number(dir, "cpuacct.usage")?;
    let split = text(dir, "cpuacct.stat")?;
    stats.cpu_user = ticks_to_nanos(keyed(&split, "user").unwrap_or(0));
    stats.cpu_kernel = ticks_to_nanos(keyed(&split, "system").unwrap_or(0));
    let each = text(dir, "cpuacct.usage_percpu")?;
    stats.cpu_per_cpu = each.split_ascii_whitespace().filter_map(|one| one.parse().ok()).collect();
    Ok(())
}

/// The kernel shows ticks of 1/100 s (`USER_HZ`) on every architecture that Docker runs on.
const fn ticks_to_nanos(ticks: u64) -> u64 {
    ticks * 10_000_000
}

fn v1_cpu(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    let text = text(dir, "cpu.stat")?;
    stats.throttling_periods = keyed(&text, "nr_periods").unwrap_or(0);
    stats.throttled_periods = keyed(&text, "nr_throttled").unwrap_or(0);
    stats.throttled_time = keyed(&text, "throttled_time").unwrap_or(0);
    Ok(())
}

fn v1_memory(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    stats.memory_usage = number(dir, "memory.usage_in_bytes")?;
    stats.memory_max_usage = gone_is_none(dir.read_number("memory.max_usage_in_bytes"))?;
    stats.memory_limit = number(dir, "memory.limit_in_bytes")?;
    stats.memory_failcnt = number(dir, "memory.failcnt")?;
    stats.memory_stat = all_keyed(&text(dir, "memory.stat")?);
    Ok(())
}

/// The same files on v1 and v2.
fn pids(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    stats.pids_current = number(dir, "pids.current")?;
    stats.pids_limit = match number(dir, "pids.max")? {
        u64::MAX => 0,
        limit => limit,
    };
    Ok(())
}

fn v1_blkio(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    // BFQ counts what went through it; the throttling layer sees every device.
    let read = |kind: &str| -> Result<IoCounts, Errno> {
        let counts = blkio_counts(&text(dir, &format!("blkio.bfq.{kind}_recursive"))?);
        if counts.is_empty() {
            return Ok(blkio_counts(&text(dir, &format!("blkio.throttle.{kind}_recursive"))?));
        }
        Ok(counts)
    };
    stats.io_service_bytes = read("io_service_bytes")?;
    stats.io_serviced = read("io_serviced")?;
    Ok(())
}

fn v2_cpu(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    let text = text(dir, "cpu.stat")?;
    let nanos = |key| keyed(&text, key).unwrap_or(0).saturating_mul(1000);
    stats.cpu_usage = nanos("usage_usec");
    stats.cpu_user = nanos("user_usec");
    stats.cpu_kernel = nanos("system_usec");
    stats.throttling_periods = keyed(&text, "nr_periods").unwrap_or(0);
    stats.throttled_periods = keyed(&text, "nr_throttled").unwrap_or(0);
    stats.throttled_time = nanos("throttled_usec");
    Ok(())
}

fn v2_memory(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    stats.memory_usage = number(dir, "memory.current")?;
    stats.memory_limit = number(dir, "memory.max")?;
    // Docker's reading: v2 has no count of failed charges, the nearest is "at the limit, and
    // reclaim did not help".
    stats.memory_failcnt = keyed(&text(dir, "memory.events")?, "oom").unwrap_or(0);
    stats.memory_stat = all_keyed(&text(dir, "memory.stat")?);
    Ok(())
}

fn v2_io(dir: &Dir, stats: &mut Stats) -> Result<(), Errno> {
    (stats.io_service_bytes, stats.io_serviced) = io_counts(&text(dir, "io.stat")?);
    Ok(())
}

/// Finds `key value` on a line of its own.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(known, _)| *known == key).map(|(_, value)| value)
}

fn all_keyed(text: &str) -> BTreeMap<String, u64> {
    pairs(text).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim_ascii().parse().ok()?))
    })
}

/// Parses lines such as `8:0 Read 4096`; the grand total at the end has no device.
fn blkio_counts(text: &str) -> IoCounts {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_ascii_lowercase();
        Some((major, minor, operation, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

/// Parses lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0` into bytes and
/// operations. Docker shows reads and writes only.
fn io_counts(text: &str) -> (IoCounts, IoCounts) {
    let (mut bytes, mut operations) = (IoCounts::new(), IoCounts::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let (counts, operation) = match key {
                "rbytes" => (&mut bytes, "read"),
                "wbytes" => (&mut bytes, "write"),
                "rios" => (&mut operations, "read"),
                "wios" => (&mut operations, "write"),
                _ => continue,
            };
            counts.extend(
                value.parse().ok().map(|value| (major, minor, operation.to_owned(), value)),
            );
        }
    }
    (bytes, operations)
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_values() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\nbroken\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "absent"), None);
        assert_eq!(all_keyed(text).len(), 3);
    }

    #[test]
    fn v1_io() {
        let text = "254:0 Read 4096\n254:0 Write 0\n254:0 Discard 0\nTotal 4096\n";
        let expect = [(254, 0, "read", 4096), (254, 0, "write", 0), (254, 0, "discard", 0)];
        assert_eq!(
            blkio_counts(text),
            expect.map(|(a, b, op, value)| (a, b, op.to_owned(), value))
        );
    }

    #[test]
    fn v2_io() {
        let text = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n";
        let (bytes, operations) = io_counts(text);
        assert_eq!(bytes, [(254, 0, "read".to_owned(), 1), (254, 0, "write".to_owned(), 2)]);
        assert_eq!(operations, [(254, 0, "read".to_owned(), 3), (254, 0, "write".to_owned(), 4)]);
    }
}
