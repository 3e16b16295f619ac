//! `docker stats`: figures from two readings of each container, shown once or refreshed.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::container::Listed;
use api_types::event::Event;
use api_types::stats::{BlkioEntry, CpuStats, MemoryStats, Stats};
use client::{Request, Response};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::app::{App, container_path};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::image::short_id;
use crate::output::{self, Column, Listing, header_default};
use crate::template::Value;

/// How often the screen is drawn.
const REFRESH: Duration = Duration::from_millis(500);

/// One container's latest reading; `None` until there is one.
#[derive(Debug, Clone)]
struct StatsRow {
    container: String,
    truncate: bool,
    stats: Option<Stats>,
}

impl StatsRow {
    fn show(&self, figure: impl Fn(&Stats) -> String) -> Value {
        Value::text(self.stats.as_ref().map_or_else(|| "--".to_owned(), figure))
    }

    fn id(&self) -> Value {
        self.show(|stats| match self.truncate {
            true => short_id(&stats.id).to_owned(),
            false => stats.id.clone(),
        })
    }
}

static STATS: Listing<StatsRow> = Listing {
    type_name: "*container.statsContext",
    columns: &[
        Column {
            name: "BlockIO",
            header: "BLOCK I/O",
            value: |row| row.show(|stats| pair(block_io(stats), spec::size::human_3)),
        },
        Column {
            name: "CPUPerc",
            header: "CPU %",
            value: |row| row.show(|stats| format!("{:.2}%", cpu_percent(stats))),
        },
        Column {
            name: "Container",
            header: "CONTAINER",
            value: |row| Value::text(row.container.as_str()),
        },
        Column { name: "ID", header: "CONTAINER ID", value: |row| row.id() },
        Column {
            name: "MemPerc",
            header: "MEM %",
            value: |row| row.show(|stats| format!("{:.2}%", memory_percent(&stats.memory_stats))),
        },
        Column {
            name: "MemUsage",
            header: "MEM USAGE / LIMIT",
            value: |row| {
                row.show(|stats| {
                    let memory = &stats.memory_stats;
                    let figures = (memory_usage(memory), memory.limit as f64);
                    pair(figures, spec::size::human_binary)
                })
            },
        },
        Column {
            name: "Name",
            header: "NAME",
            value: |row| row.show(|stats| stats.name.trim_start_matches('/').to_owned()),
        },
        Column {
            name: "NetIO",
            header: "NET I/O",
            value: |row| row.show(|stats| pair(network_io(stats), spec::size::human_3)),
        },
        Column {
            name: "PIDs",
            header: "PIDS",
            value: |row| row.show(|stats| stats.pids_stats.current.to_string()),
        },
    ],
    label: None,
};

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t\
                     {{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

fn pair((first, second): (f64, f64), size: fn(f64) -> String) -> String {
    format!("{} / {}", size(first), size(second))
}

/// Time of this container over time of the machine, times the CPUs.
fn cpu_percent(stats: &Stats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let delta = |figure: fn(&CpuStats) -> u64| figure(now) as f64 - figure(before) as f64;
    let used = delta(|cpu| cpu.cpu_usage.total_usage);
    let system = delta(|cpu| cpu.system_cpu_usage);
    let cpus = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        online => f64::from(online),
    };
    if used > 0.0 && system > 0.0 { used / system * cpus * 100.0 } else { 0.0 }
}

/// Usage without the page cache that can be dropped: `total_inactive_file` in cgroup v1,
/// `inactive_file` in v2.
fn memory_usage(memory: &MemoryStats) -> f64 {
    let name = match memory.stats.contains_key("total_inactive_file") {
        true => "total_inactive_file",
        false => "inactive_file",
    };
    let cache = memory.stats.get(name).copied().filter(|cache| *cache < memory.usage);
    (memory.usage - cache.unwrap_or(0)) as f64
}

fn memory_percent(memory: &MemoryStats) -> f64 {
    if memory.limit == 0 { 0.0 } else { memory_usage(memory) / memory.limit as f64 * 100.0 }
}

fn network_io(stats: &Stats) -> (f64, f64) {
    let networks = stats.networks.iter().flat_map(BTreeMap::values);
    networks.fold((0.0, 0.0), |(received, sent), network| {
        (received + network.rx_bytes as f64, sent + network.tx_bytes as f64)
    })
}

fn block_io(stats: &Stats) -> (f64, f64) {
    let entries = stats.blkio_stats.io_service_bytes_recursive.as_deref().unwrap_or_default();
    let sum = |letter: char| {
        let of_kind = |entry: &&BlkioEntry| entry.op.to_ascii_lowercase().starts_with(letter);
        entries.iter().filter(of_kind).map(|entry| entry.value as f64).sum()
    };
    (sum('r'), sum('w'))
}

/// `docker stats`.
pub(crate) async fn stats(app: &App, flags: &Parsed) -> Outcome {
    let format = match flags.text("format") {
        "" => app.config.stats_format.as_str(),
        given => given,
    };
    let view = View {
        format: header_default(format, TABLE).to_owned(),
        truncate: !flags.bool("no-trunc"),
    };
    if flags.bool("no-stream") {
        once(app, flags, &view).await
    } else {
        live(app, flags, &view).await
    }
}

#[derive(Debug)]
struct View {
    format: String,
    truncate: bool,
}

/// The containers to show: those named, or all that run (`-a`: all there are).
async fn containers(app: &App, flags: &Parsed) -> Outcome<Vec<String>> {
    if !flags.args.is_empty() {
        return Ok(flags.args.clone());
    }
    let request = Request::get("/containers/json").query_if(flags.bool("all"), "all", "1");
    let containers: Vec<Listed> = app.client.get(request).await?;
    Ok(containers.iter().map(|container| short_id(&container.id).to_owned()).collect())
}

async fn once(app: &App, flags: &Parsed, view: &View) -> Outcome {
    let names = containers(app, flags).await?;
    let named = !flags.args.is_empty();
    let readings = names.iter().map(|name| async move {
        let request = Request::get(container_path(name, "/stats")).query("stream", "0");
        (name, app.client.get::<Stats>(request).await)
    });
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (name, reading) in futures_util::future::join_all(readings).await {
        match reading {
            Ok(stats) => rows.push(StatsRow {
                container: name.clone(),
                truncate: view.truncate,
                stats: Some(stats),
            }),
            // A container of the list may have gone since; one that was named may not.
            Err(error) if named => failures.push(Failure::Client(error)),
            Err(_gone) => {}
        }
    }
    if failures.is_empty() || !rows.is_empty() {
        output::print(&STATS.render(&view.format, rows)?)?;
    }
    Failure::all(&failures)
}

/// What one container's stream brought.
enum News {
    Reading(String, Box<Stats>, Feed),
    Gone(String),
}

/// One container's stream of readings.
struct Feed {
    response: Response,
    pending: Vec<u8>,
}

impl Feed {
    async fn open(app: &App, name: &str) -> client::Result<Self> {
        let request = Request::get(container_path(name, "/stats")).query("stream", "1");
        Ok(Self { response: app.client.send(request).await?, pending: Vec::new() })
    }

    /// The next whole line, which is one reading.
    async fn next(mut self, name: String) -> News {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(stats) => return News::Reading(name, Box::new(stats), self),
                    Err(_damaged) => continue,
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.pending.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return News::Gone(name),
            }
        }
    }
}

async fn live(app: &App, flags: &Parsed, view: &View) -> Outcome {
    let mut events = match flags.args.is_empty() {
        true => Some(Lines::of_events(app).await?),
        false => None,
    };
    let mut rows: Vec<StatsRow> = Vec::new();
    let mut feeds = FuturesUnordered::new();
    for name in containers(app, flags).await? {
        let feed = Feed::open(app, &name).await?;
        rows.push(StatsRow { container: name.clone(), truncate: view.truncate, stats: None });
        feeds.push(feed.next(name));
    }
    let mut ticks = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                draw(view, &rows)?;
                if rows.is_empty() && events.is_none() {
                    return Ok(0);
                }
            }
            Some(news) = feeds.next(), if !feeds.is_empty() => match news {
                News::Gone(name) => rows.retain(|row| row.container != name),
                News::Reading(name, stats, feed) => {
                    if let Some(row) = rows.iter_mut().find(|row| row.container == name) {
                        row.stats = Some(*stats);
                    }
                    feeds.push(feed.next(name));
                }
            },
            event = next_event(&mut events), if events.is_some() => {
                let Some(event) = event? else { return Ok(0) };
                let name = short_id(&event.actor.id).to_owned();
                let wanted = match flags.bool("all") {
                    true => event.action == "create",
                    false => event.action == "start",
                };
                if wanted && !rows.iter().any(|row| row.container == name)
                    && let Ok(feed) = Feed::open(app, &name).await
                {
                    rows.push(StatsRow {
                        container: name.clone(),
                        truncate: view.truncate,
                        stats: None,
                    });
                    feeds.push(feed.next(name));
                } else if event.action == "destroy" || (event.action == "die" && !flags.bool("all")) {
                    rows.retain(|row| row.container != name);
                }
            }
        }
    }
}

/// Draws from the top left, clearing the rest of every line and of the screen: no flicker.
fn draw(view: &View, rows: &[StatsRow]) -> Outcome<()> {
    let text = STATS.render(&view.format, rows.iter().cloned())?;
    if !crate::terminal::stdout_is_terminal() {
        return Ok(output::print(&text)?);
    }
    let lines = text.replace('\n', "\u{1b}[K\n");
    Ok(output::print(&format!("\u{1b}[H{lines}\u{1b}[J"))?)
}

/// The daemon's events on containers, a line each.
struct Lines {
    response: Response,
    pending: Vec<u8>,
}

impl Lines {
    async fn of_events(app: &App) -> Outcome<Self> {
        let mut filters = spec::Filters::default();
        filters.add("type", "container");
        let request = Request::get("/events").query("filters", &filters.to_json());
        Ok(Self { response: app.client.send(request).await?, pending: Vec::new() })
    }
}

async fn next_event(events: &mut Option<Lines>) -> Outcome<Option<Event>> {
    let Some(lines) = events else { return std::future::pending().await };
    loop {
        if let Some(end) = lines.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.pending.drain(..=end).collect();
            return serde_json::from_slice(&line)
                .map(Some)
                .map_err(|source| client::Error::Decode { source }.into());
        }
        match lines.response.chunk().await? {
            Some(chunk) => lines.pending.extend_from_slice(&chunk),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_differences() {
        let mut stats = Stats::default();
        stats.cpu_stats.cpu_usage.total_usage = 300;
        stats.precpu_stats.cpu_usage.total_usage = 100;
        stats.cpu_stats.system_cpu_usage = 2000;
        stats.precpu_stats.system_cpu_usage = 1000;
        stats.cpu_stats.online_cpus = 2;
        assert!((cpu_percent(&stats) - 40.0).abs() < 1e-9);
        stats.precpu_stats = stats.cpu_stats.clone();
        assert!(cpu_percent(&stats) < 1e-9);
    }

    #[test]
    fn memory_is_counted_without_droppable_cache() {
        let mut memory = MemoryStats { usage: 1000, limit: 4000, ..MemoryStats::default() };
        memory.stats.insert("inactive_file".to_owned(), 200);
        assert!((memory_usage(&memory) - 800.0).abs() < 1e-9);
        assert!((memory_percent(&memory) - 20.0).abs() < 1e-9);
        memory.stats.insert("total_inactive_file".to_owned(), 5000);
        assert!((memory_usage(&memory) - 1000.0).abs() < 1e-9);
    }
}
