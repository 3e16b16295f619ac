//! `docker stats`: a reading a second, from the supervisor, in Docker's shape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_types::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};
use runtime::protocol::{Reply, Request, Stats as Reading};
use spec::time::{ZERO, rfc3339_nano};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::snapshot::Container;
use super::{Containers, Shared};
use crate::errors::{Error, Result};
use crate::supervisor::SupervisorError;

const EVERY: Duration = Duration::from_secs(1);

impl Containers {
    /// `stream` false sends one sample and closes; `one_shot` does not wait for a second reading
    /// to fill `precpu_stats`.
    pub async fn stats(
        &self,
        reference: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<mpsc::Receiver<Stats>> {
        let container = self.shared.registry.find(reference)?;
        let (sender, receiver) = mpsc::channel(1);
        let sampler = Sampler { shared: Arc::clone(&self.shared), container, before: None };
        tokio::spawn(sampler.run(sender, stream, one_shot));
        Ok(receiver)
    }
}

/// Reads for one client until it goes away, or the container does.
struct Sampler {
    shared: Arc<Shared>,
    container: Arc<Container>,
    /// Time and processor figures of the reading before.
    before: Option<(String, CpuStats)>,
}

impl Sampler {
    async fn run(mut self, sender: mpsc::Sender<Stats>, stream: bool, one_shot: bool) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lifecycle = self.container.lifecycle();
        // The first reading only makes the second one meaningful.
        let mut skip = u32::from(!stream && !one_shot);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            if lifecycle.borrow().removed {
                return;
            }
            let sample = self.sample().await;
            let running = sample.read != ZERO;
            if skip > 0 && running {
                skip -= 1;
                continue;
            }
            if sender.send(sample).await.is_err() || !stream {
                return;
            }
        }
    }

    /// Zeros for a container that does not run.
    async fn sample(&mut self) -> Stats {
        let snapshot = self.container.snapshot();
        let mut stats = Stats {
            name: format!("/{}", snapshot.definition.name),
            id: self.container.id.to_string(),
            read: ZERO.to_owned(),
            preread: ZERO.to_owned(),
            ..Stats::default()
        };
        if !snapshot.progress.is_alive() {
            self.before = None;
            return stats;
        }
        match self.read().await {
            Ok(reading) => self.fill(&mut stats, *reading),
            // It ended a moment ago.
            Err(error) => tracing::debug!(container = %self.container.id, %error, "stats"),
        }
        stats
    }

    async fn read(&self) -> Result<Box<Reading>> {
        let request = Request::Stats { id: self.container.id.clone() };
        match self.shared.supervisor().request(request, Vec::new()).await {
            Ok((Reply::Stats(reading), _)) => Ok(reading),
            Ok(_) => Err(SupervisorError::Confused.into()),
            Err(error) => Err(Error::from(error)),
        }
    }

    fn fill(&mut self, stats: &mut Stats, reading: Reading) {
        stats.read = rfc3339_nano(SystemTime::now());
        let cpu = cpu(&reading, self.shared.sysinfo.ncpu);
        let now = (stats.read.clone(), cpu.clone());
        if let Some((read, cpu)) = self.before.replace(now) {
            stats.preread = read;
            stats.precpu_stats = cpu;
        }
        stats.cpu_stats = cpu;
        stats.pids_stats = PidsStats { current: reading.pids_current, limit: reading.pids_limit };
        stats.blkio_stats = blkio(&reading);
        if !reading.networks.is_empty() {
            stats.networks = Some(networks(&reading));
        }
        stats.memory_stats = memory(reading, crate::system::total_memory());
    }
}

fn cpu(reading: &Reading, processors: usize) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: reading.cpu_usage,
            percpu_usage: reading.cpu_per_cpu.clone(),
            usage_in_kernelmode: reading.cpu_kernel,
            usage_in_usermode: reading.cpu_user,
        },
        system_cpu_usage: system_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
        online_cpus: u32::try_from(processors).unwrap_or(u32::MAX),
        throttling_data: ThrottlingData {
            periods: reading.throttling_periods,
            throttled_periods: reading.throttled_periods,
            throttled_time: reading.throttled_time,
        },
    }
}

/// Nanoseconds that all processors together have spent: the first seven fields of `/proc/stat`.
fn system_cpu(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu")).unwrap_or_default();
    let fields = line.split_whitespace().take(7);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())
}

fn blkio(reading: &Reading) -> BlkioStats {
    let entries = |list: &[(u64, u64, String, u64)]| {
        let entry = |(major, minor, op, value): &(u64, u64, String, u64)| BlkioEntry {
            major: *major,
            minor: *minor,
            op: op.clone(),
            value: *value,
        };
        Some(list.iter().map(entry).collect())
    };
    // Version 2 has two of the lists; the others are null there and empty in version 1.
    let absent = (!reading.cgroup_v2).then(Vec::new);
    BlkioStats {
        io_service_bytes_recursive: entries(&reading.io_service_bytes),
        io_serviced_recursive: entries(&reading.io_serviced),
        io_queue_recursive: absent.clone(),
        io_service_time_recursive: absent.clone(),
        io_wait_time_recursive: absent.clone(),
        io_merged_recursive: absent.clone(),
        io_time_recursive: absent.clone(),
        sectors_recursive: absent,
    }
}

/// Without a limit of its own a container may use all the memory there is.
fn memory(reading: Reading, total: u64) -> MemoryStats {
    let limited = reading.memory_limit != 0 && reading.memory_limit < total;
    MemoryStats {
        usage: reading.memory_usage,
        max_usage: reading.memory_max_usage.unwrap_or_default(),
        stats: reading.memory_stat,
        failcnt: reading.memory_failcnt,
        limit: if limited { reading.memory_limit } else { total },
    }
}

fn networks(reading: &Reading) -> BTreeMap<String, NetworkStats> {
    let interfaces = reading.networks.iter();
    interfaces
        .map(|(name, received, sent)| {
            let [rx_bytes, rx_packets, rx_errors, rx_dropped] = *received;
            let [tx_bytes, tx_packets, tx_errors, tx_dropped] = *sent;
            let stats = NetworkStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            };
            (name.clone(), stats)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_time_is_the_sum_of_seven_fields() {
        let per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(system_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), 28 * per_tick);
        assert_eq!(system_cpu(""), 0);
    }

    #[test]
    fn memory_without_a_limit_is_the_machines() {
        let limit =
            |memory_limit| memory(Reading { memory_limit, ..Reading::default() }, 1000).limit;
        assert_eq!([limit(0), limit(500), limit(u64::MAX)], [1000, 500, 1000]);
    }
}
