//! Health checks. A [`Monitor`] is a task beside the container's own that runs the probes; what
//! they mean is decided by [`judge`], and shown by the container's task.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_types::container::{Config, Health, HealthResult};
use api_types::exec;
use runtime::protocol::Request;
use spec::oci::Healthcheck;
use spec::time::rfc3339_nano;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::attach::socket_pair;
use super::snapshot::Container;
use super::task::Task;
use super::{Shared, exec as execs};
use crate::errors::Result;

const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: i64 = 3;
/// How many results inspect shows, and how much of each.
const LOG_ENTRIES: usize = 5;
const OUTPUT_MAX: usize = 4096;

/// One answer of a container's health check.
#[derive(Debug)]
pub(super) struct Probe {
    start: SystemTime,
    end: SystemTime,
    exit_code: i64,
    output: String,
}

/// The running probes of one container; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    results: mpsc::Receiver<Probe>,
    task: AbortHandle,
}

/// What is to be probed, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    command: Vec<String>,
    interval: Duration,
    start_interval: Duration,
    start_period: Duration,
    timeout: Duration,
    retries: i64,
}

impl Monitor {
    pub(super) async fn next(&mut self) -> Probe {
        match self.results.recv().await {
            Some(probe) => probe,
            // The prober gave up: the container is going down.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plan {
    fn of(config: &Config) -> Option<Self> {
        let check = config.healthcheck.as_ref()?;
        let command = command(check, config.shell.as_deref())?;
        let duration = |nanos: i64, default| match u64::try_from(nanos) {
            Ok(0) | Err(_) => default,
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        Some(Self {
            command,
            interval: duration(check.interval, INTERVAL),
            start_interval: duration(check.start_interval, START_INTERVAL),
            start_period: duration(check.start_period, Duration::ZERO),
            timeout: duration(check.timeout, TIMEOUT),
            retries: if check.retries > 0 { check.retries } else { RETRIES },
        })
    }

    /// The pause before the next probe.
    fn pause(&self, since_start: Duration, healthy: bool) -> Duration {
        if !healthy && since_start < self.start_period {
            self.start_interval.min(self.start_period - since_start)
        } else {
            self.interval
        }
    }
}

fn command(check: &Healthcheck, shell: Option<&[String]>) -> Option<Vec<String>> {
    let (kind, rest) = check.test.as_deref()?.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" if !rest.is_empty() => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
            Some(shell.iter().chain(rest).cloned().collect())
        }
        _ => None,
    }
}

impl Task {
    /// Called when the container runs and is not frozen.
    pub(super) fn start_health_checks(&mut self) {
        let Some(plan) = Plan::of(&self.state.definition.config) else { return };
        if self.health.is_some() || self.state.progress.paused {
            return;
        }
        let health = Health { status: "starting".to_owned(), ..Health::default() };
        self.state.health = Some(Arc::new(health));
        self.publish();
        let (sender, results) = mpsc::channel(1);
        let prober = Prober {
            shared: Arc::clone(&self.shared),
            container: Arc::clone(&self.container),
            plan,
        };
        let task = tokio::spawn(prober.run(sender)).abort_handle();
        self.health = Some(Monitor { results, task });
    }

    /// What no probe vouches for any more is unhealthy, as in Docker.
    pub(super) fn stop_health_checks(&mut self) {
        if self.health.take().is_none() {
            return;
        }
        if let Some(health) = &mut self.state.health {
            "unhealthy".clone_into(&mut Arc::make_mut(health).status);
        }
    }

    pub(super) fn take_probe(&mut self, probe: Probe) {
        let Some(plan) = Plan::of(&self.state.definition.config) else { return };
        let Some(health) = &mut self.state.health else { return };
        let started = self.state.progress.started_nanos;
        let start = probe.start.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let age = start.saturating_sub(Duration::from_nanos(started.unsigned_abs()));
        let changed = judge(Arc::make_mut(health), &plan, probe, age);
        self.container.publish(&self.state);
        if changed {
            let status = self.state.health.as_ref().map_or("", |health| health.status.as_str());
            let action = format!("health_status: {status}");
            self.state.emit(&self.shared.events, &action, []);
        }
    }
}

/// Adds a result. Says whether the status changed.
fn judge(health: &mut Health, plan: &Plan, probe: Probe, age: Duration) -> bool {
    let before = health.status.clone();
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        "healthy".clone_into(&mut health.status);
    } else if health.status != "starting" || age >= plan.start_period {
        health.failing_streak += 1;
        if health.failing_streak >= plan.retries {
            "unhealthy".clone_into(&mut health.status);
        }
    }
    let log = health.log.get_or_insert_default();
    if log.len() >= LOG_ENTRIES {
        log.drain(..=log.len() - LOG_ENTRIES);
    }
    log.push(HealthResult {
        start: rfc3339_nano(probe.start),
        end: rfc3339_nano(probe.end),
        exit_code: probe.exit_code,
        output: probe.output,
    });
    health.status != before
}

/// Runs the probes one after the other.
struct Prober {
    shared: Arc<Shared>,
    container: Arc<Container>,
    plan: Plan,
}

impl Prober {
    async fn run(self, results: mpsc::Sender<Probe>) {
        let begin = tokio::time::Instant::now();
        let mut healthy = false;
        loop {
            tokio::time::sleep(self.plan.pause(begin.elapsed(), healthy)).await;
            let probe = self.probe().await;
            healthy |= probe.exit_code == 0;
            if results.send(probe).await.is_err() {
                return;
            }
        }
    }

    async fn probe(&self) -> Probe {
        let start = SystemTime::now();
        let (exit_code, output) = match self.execute().await {
            Ok(result) => result,
            Err(error) => (-1, error.to_string()),
        };
        Probe { start, end: SystemTime::now(), exit_code, output }
    }

    async fn execute(&self) -> Result<(i64, String)> {
        let request = exec::CreateRequest {
            attach_stdout: true,
            attach_stderr: true,
            cmd: Some(self.plan.command.clone()),
            ..exec::CreateRequest::default()
        };
        let exec = execs::create(&self.shared, Arc::clone(&self.container), request)?;
        let (ours, theirs) = socket_pair()?;
        execs::start(&self.shared, &exec, Some(theirs), None).await?;
        let mut output = Output::default();
        let finished = tokio::time::timeout(self.plan.timeout, async {
            output.gather(ours).await;
            exec.wait().await
        });
        if let Ok(code) = finished.await {
            return Ok((code, output.text()));
        }
        let kill = Request::Signal { id: exec.id().clone(), signal: crate::signal::KILL };
        if let Err(error) = self.shared.supervisor().order(kill).await {
            tracing::debug!(container = %self.container.id, %error, "end a slow probe");
        }
        let timeout = go_duration(self.plan.timeout);
        Ok((-1, format!("Health check exceeded timeout ({timeout}): {}", output.text())))
    }
}

/// `1.5s`, `2m0s`
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", duration.as_secs() / 60, seconds % 60.0),
        _ => format!(
            "{}h{}m{}s",
            duration.as_secs() / 3600,
            duration.as_secs() / 60 % 60,
            seconds % 60.0
        ),
    }
}

/// The first bytes of what a probe says.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    /// Reads stdcopy frames until the end.
    async fn gather(&mut self, mut stream: UnixStream) {
        use api_types::stream::{HEADER_LEN, parse_header};
        let mut header = [0; HEADER_LEN];
        let mut buffer = [0; 1024];
        while stream.read_exact(&mut header).await.is_ok() {
            let Some((_, mut left)) = parse_header(header) else { return };
            while left > 0 {
                let most = buffer.len().min(left as usize);
                match stream.read(&mut buffer[..most]).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        left -= read as u32;
                        self.keep(&buffer[..read]);
                    }
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config { healthcheck: serde_json::from_str(json).unwrap(), ..Config::default() }
    }

    #[test]
    fn commands_are_read() {
        let check = |json: &str, expect: Option<&[&str]>| {
            let command = Plan::of(&config(json)).map(|plan| plan.command);
            let expect = expect.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(command, expect, "{json}");
        };
        check(r#"{"Test":["CMD","a","b"]}"#, Some(&["a", "b"]));
        check(r#"{"Test":["CMD-SHELL","a b"]}"#, Some(&["/bin/sh", "-c", "a b"]));
        check(r#"{"Test":["NONE"]}"#, None);
        check(r#"{"Test":["CMD"]}"#, None);
        check("{}", None);
    }

    fn probe(exit_code: i64) -> Probe {
        let now = SystemTime::UNIX_EPOCH;
        Probe { start: now, end: now, exit_code, output: String::new() }
    }

    #[test]
    fn three_failures_make_it_unhealthy_and_one_success_healthy() {
        let plan = Plan::of(&config(r#"{"Test":["CMD","a"],"StartPeriod":10000000000}"#)).unwrap();
        let mut health = Health { status: "starting".to_owned(), ..Health::default() };
        let mut results = |exit_code, age| {
            judge(&mut health, &plan, probe(exit_code), Duration::from_secs(age));
            (health.status.clone(), health.failing_streak, health.log.as_ref().unwrap().len())
        };
        // In the start period failures do not count.
        assert_eq!(results(1, 1), ("starting".to_owned(), 0, 1));
        assert_eq!(results(1, 11), ("starting".to_owned(), 1, 2));
        assert_eq!(results(1, 12), ("starting".to_owned(), 2, 3));
        assert_eq!(results(1, 13), ("unhealthy".to_owned(), 3, 4));
        assert_eq!(results(0, 14), ("healthy".to_owned(), 0, 5));
        assert_eq!(results(1, 15), ("healthy".to_owned(), 1, 5));
    }

    #[test]
    fn probing_is_denser_while_it_starts() {
        let plan = Plan::of(&config(
            r#"{"Test":["CMD","a"],"StartPeriod":10000000000,"Interval":60000000000}"#,
        ))
        .unwrap();
        let pause = |age, healthy| plan.pause(Duration::from_secs(age), healthy).as_secs();
        assert_eq!((pause(0, false), pause(8, false)), (5, 2));
        assert_eq!((pause(0, true), pause(11, false)), (60, 60));
    }

    #[test]
    fn durations_read_as_gos() {
        let text = |millis| go_duration(Duration::from_millis(millis));
        assert_eq!([text(5000), text(1500), text(90_000)], ["5s", "1.5s", "1m30s"]);
    }
}
