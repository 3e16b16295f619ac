//! The daemon as a program: settings, sockets, signals, start and end. Enter at [`main`].
//!
//! Order of the start: settings are checked; the log, the pid file and the lock on the data root
//! are taken; sockets are bound (before any thread exists, see [`crate::listen`]); the engine
//! starts; only then are clients answered, who until then wait in the sockets' queues.

mod config;
mod directives;
mod exclusive;
mod logging;
mod notify;
mod settings;

mod values;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Gid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use config::{ConfigError, DaemonConfig};
use exclusive::{ExclusiveError, PidFile};
use logging::LevelHandle;
use settings::{Settings, SettingsError};

use crate::address::Address;
use crate::answer::text_with_causes;
use crate::listen::{self, ListenError, Listener, SocketFile};
use crate::router::{Api, Router};
use crate::serve::{self, Service};
use crate::tls::{self, TlsError};

/// Threads that run the API; containers' work is elsewhere.
const WORKERS: usize = 2;
/// Threads for blocking work, made when needed and ended when idle.
const BLOCKING_THREADS: usize = 64;
const ARENAS: u32 = 2;
/// How long open requests may take to end once the daemon stops.
const GRACE: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Exclusive(#[from] ExclusiveError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("group {0} not found")]
    Group(String),
    #[error("start the daemon's threads")]
    Runtime(#[source] std::io::Error),
}

/// Runs the daemon until a signal ends it. `arguments` are without the program's name. The
/// process must have one thread.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Settings(SettingsError::Usage(usage))) => {
            // Help goes to stdout, complaints to stderr; nothing is left to do if that fails.
            drop(usage.print());
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(1))
        }
        Err(error) => {
            complain(&text_with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// For people at a terminal, who have no use for the log's form.
#[expect(clippy::print_stderr, reason = "this is the program's rim")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "this is the program's rim")]
fn say(text: &str) {
    println!("{text}");
}

fn run(arguments: Vec<OsString>) -> Result<(), DaemonError> {
    let settings = Settings::load(arguments)?;
    let config = DaemonConfig::new(&settings)?;
    let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
    if config.validate {
        say("configuration OK");
        return Ok(());
    }
    let level = logging::start(config.log);
    sys::malloc::limit_arenas(ARENAS);
    let _pidfile = PidFile::write(&config.pidfile)?;
    let _lock = exclusive::lock_data_root(&config.engine.data_root)?;
    let listeners = bind(&config, tls)?;
    let _files: Vec<SocketFile> = socket_files(&config.hosts).collect();
    let descriptors = raise_descriptor_limit();
    for warning in &config.engine.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = start_runtime().map_err(DaemonError::Runtime)?;
    let daemon = Daemon { settings, level, connections: descriptors / 2 };
    let ended = runtime.block_on(daemon.run(config, listeners));
    // What is left in blocking threads must not hold the process.
    runtime.shutdown_timeout(GRACE);
    tracing::info!("daemon stopped");
    ended
}

fn start_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("boxship")
        .enable_all()
        .build()
}

fn bind(
    config: &DaemonConfig,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Result<Vec<Listener>, DaemonError> {
    let options = listen::Options {
        group: group(config.group.as_deref())?,
        tls,
        tls_verify: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let mut listeners = Vec::new();
    for host in &config.hosts {
        listeners.extend(listen::bind(host, &options)?);
    }
    Ok(listeners)
}

fn socket_files(hosts: &[Address]) -> impl Iterator<Item = SocketFile> {
    hosts.iter().filter_map(|host| match host {
        Address::Unix(path) => Some(SocketFile::new(path.clone())),
        _ => None,
    })
}

/// The group of Unix sockets. `docker` need not exist, a group that was asked for must.
fn group(asked: Option<&str>) -> Result<Option<Gid>, DaemonError> {
    let name = asked.unwrap_or("docker");
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match (find_group(&groups, name), asked) {
        (Some(number), _) => Ok(Some(Gid::from_raw(number))),
        (None, Some(_)) => Err(DaemonError::Group(name.to_owned())),
        (None, None) => Ok(None),
    }
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Raises the soft limit to the hard one; returns how many descriptors there may be.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "limit of open files not raised");
            limit.current
        }
    };
    let count = current.and_then(|count| usize::try_from(count).ok());
    count.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

struct Daemon {
    settings: Settings,
    level: LevelHandle,
    /// How many clients there may be at once.
    connections: usize,
}

impl Daemon {
    async fn run(self, config: DaemonConfig, listeners: Vec<Listener>) -> Result<(), DaemonError> {
        let mut signals = Signals::new().map_err(DaemonError::Runtime)?;
        let engine = engine::Engine::start(config.engine).await?;
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            app: Arc::new(Router::new(Api { engine: engine.clone() })),
            connections: Arc::new(Semaphore::new(self.connections)),
            stop: stopped,
        };
        let mut accepting = JoinSet::new();
        for listener in listeners {
            tracing::info!("API listen on {}", listener.name);
            accepting.spawn(serve::accept(listener, service.clone()));
        }
        notify::tell("READY=1");
        tracing::info!("daemon has completed initialization");
        while !signals.is_over(|| self.reload(&engine)).await {}
        notify::tell("STOPPING=1");
        // No new clients; who waits for a container to end still hears of it.
        stop.send_replace(true);
        engine.shutdown().await;
        let rest = async { while accepting.join_next().await.is_some() {} };
        // Whoever still watches events or follows a log is cut off when `accepting` is dropped.
        drop(tokio::time::timeout(GRACE, rest).await);
        Ok(())
    }

    /// A file that cannot be read leaves everything as it is.
    fn reload(&self, engine: &engine::Engine) {
        let reload = || -> Result<(), DaemonError> {
            let settings = self.settings.reload()?;
            let level = config::log_level(&settings)?;
            let change = config::reload(&settings)?;
            self.level.set(level);
            engine.reload(change);
            tracing::info!(file = %settings::file_of(&settings).display(), "configuration reloaded");
            Ok(())
        };
        if let Err(error) = reload() {
            tracing::error!(error = text_with_causes(&error), "configuration not reloaded");
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// dockerd writes its stacks on this one; it must not end us.
    user: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for a signal; true for one that ends the daemon.
    async fn is_over(&mut self, reload: impl FnOnce()) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => { reload(); false }
            _ = self.user.recv() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found() {
        let groups = "root:x:0:\ndocker:x:998:a,b\nx:x:y:\n";
        assert_eq!(find_group(groups, "docker"), Some(998));
        assert_eq!(find_group(groups, "dock"), None);
        assert_eq!(find_group(groups, "x"), None);
        assert_eq!(group(Some("77")).unwrap(), Some(Gid::from_raw(77)));
        assert_eq!(
            group(Some("no such group")).unwrap_err().to_string(),
            "group no such group not found"
        );
    }
}
