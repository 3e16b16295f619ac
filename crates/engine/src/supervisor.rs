//! The daemon's end of the conversation with the supervisor.
//!
//! Requests are sent from whoever has one, answers and events are read by one task. When the
//! connection breaks that task connects again, starting a new supervisor if there is none, says
//! up to where it has seen exits and asks what runs: the [`Listener`] then puts the containers
//! right. Requests that were under way answer [`SupervisorError::Lost`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::connection::{Connection, socket_path, spawn_detached};
use runtime::protocol::{
    Envelope, Event, Failure, FromSupervisor, Reply, Request, Running, VERSION,
};
use spec::{ErrorKind, Kinded};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch as state};

use crate::watched::{Watched, watch};

/// Docker waits at most so long for a signal to be delivered; we, for any answer.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, thiserror::Error)]
pub enum SupervisorError {
    #[error("the supervisor is not reachable: {reason}")]
    Unreachable { reason: String },
    #[error("the supervisor went away during the request")]
    Lost,
    #[error("the supervisor did not answer for {} seconds", PATIENCE.as_secs())]
    Silent,
    #[error("the supervisor gave an answer that does not fit the request")]
    Confused,
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Kinded for SupervisorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(Failure::Invalid { .. }) => ErrorKind::InvalidArgument,
            Self::Failed(Failure::NotRunning | Failure::NotFound) => ErrorKind::Conflict,
            Self::Failed(_) | Self::Confused => ErrorKind::Internal,
            Self::Unreachable { .. } | Self::Lost | Self::Silent => ErrorKind::Unavailable,
        }
    }
}

/// Between two attempts to greet a supervisor that refuses us.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);

/// Who hears of what happens. Never blocks.
pub(crate) trait Listener: Send + Sync + 'static {
    fn event(&self, event: Event);
    /// A (new) connection was made; this runs. Exits that were missed come as events before.
    fn list(&self, running: Vec<Running>);
    /// Up to where in `exits.log` everything was heard.
    fn exits_seen(&self) -> u64;
}

#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Arc<Inner>);

struct Inner {
    executable: PathBuf,
    config: runtime::supervisor::Config,
    sequence: AtomicU64,
    link: Mutex<Link>,
    /// Counts connections; odd while connected.
    epoch: state::Sender<u64>,
    /// Told to end: the loss of the connection is what was asked for.
    dismissed: AtomicBool,
}

#[derive(Default)]
struct Link {
    connection: Option<Arc<AsyncFd<Watched<Connection>>>>,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
}

/// Told once, how the first greeting went.
type Ready = oneshot::Sender<Result<(), SupervisorError>>;
type Answer = Result<(Reply, Vec<OwnedFd>), Failure>;

impl Supervisor {
    /// Connects, starting a supervisor when none answers, and leaves a task behind that keeps the
    /// connection. Everything that was missed has been told to `listener` when this returns.
    pub(crate) async fn connect(
        executable: PathBuf,
        config: runtime::supervisor::Config,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, SupervisorError> {
        let supervisor = Self(Arc::new(Inner {
            executable,
            config,
            sequence: AtomicU64::new(1),
            link: Mutex::default(),
            epoch: state::Sender::new(0),
            dismissed: AtomicBool::new(false),
        }));
        let connection = supervisor.open().await?;
        let reader = Reader { supervisor: supervisor.clone(), listener };
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(reader.run(connection, ready));
        match is_ready.await {
            Ok(result) => result.map(|()| supervisor),
            Err(_dropped) => Err(SupervisorError::Lost),
        }
    }

    /// Sends a request with its descriptors and waits for the answer.
    pub(crate) async fn request(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), SupervisorError> {
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let connection = {
            let mut link = self.link();
            let connection = link.connection.clone().ok_or_else(not_connected)?;
            link.pending.insert(sequence, answer);
            connection
        };
        let envelope = Envelope { sequence, request };
        if let Err(error) = send(&connection, &envelope, descriptors).await {
            self.link().pending.remove(&sequence);
            return Err(SupervisorError::Unreachable { reason: error.to_string() });
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_dropped)) => Err(SupervisorError::Lost),
            Err(_elapsed) => {
                self.link().pending.remove(&sequence);
                Err(SupervisorError::Silent)
            }
        }
    }

    /// A request whose answer is only that it was done.
    pub(crate) async fn order(&self, request: Request) -> Result<(), SupervisorError> {
        self.request(request, Vec::new()).await.map(drop)
    }

    /// Lets the supervisor end, if nothing runs in it: a daemon that stops leaves no process
    /// behind. While containers run it stays for the next daemon.
    pub(crate) async fn dismiss(&self) {
        self.0.dismissed.store(true, Ordering::Release);
        match self.order(Request::Stop).await {
            Ok(()) => {}
            Err(SupervisorError::Failed(Failure::Busy)) => {
                self.0.dismissed.store(false, Ordering::Release);
            }
            Err(error) => tracing::debug!(%error, "dismiss the supervisor"),
        }
    }

    /// Odd while connected; changes with every loss and every new connection.
    pub(crate) fn epoch(&self) -> state::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Arc<AsyncFd<Watched<Connection>>>, SupervisorError> {
        let inner = Arc::clone(&self.0);
        let unreachable =
            |error: io::Error| SupervisorError::Unreachable { reason: error.to_string() };
        // Starting a process takes milliseconds and blocks.
        let opened = tokio::task::spawn_blocking(move || open(&inner)).await;
        let connection = opened.map_err(|_join| SupervisorError::Lost)?.map_err(unreachable)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        watch(connection, both).map(Arc::new).map_err(unreachable)
    }
}

/// Connects to the supervisor that is there, or starts one.
fn open(inner: &Inner) -> io::Result<Connection> {
    let socket = socket_path(&inner.config.exec_root);
    if let Ok(connection) = Connection::connect(&socket) {
        return Ok(connection);
    }
    crate::reaper::shielded(|| spawn_detached(&inner.executable, &inner.config))?;
    Connection::connect(&socket)
}

fn not_connected() -> SupervisorError {
    SupervisorError::Unreachable { reason: "it is being started again".to_owned() }
}

async fn send(
    connection: &AsyncFd<Watched<Connection>>,
    envelope: &Envelope,
    descriptors: Vec<OwnedFd>,
) -> io::Result<()> {
    loop {
        // A packet that the socket has no room for is lost with its descriptors.
        let copies = descriptors.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        match connection.get_ref().0.send(envelope, copies) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.writable().await?.clear_ready();
            }
            sent => return sent,
        }
    }
}

struct Reader {
    supervisor: Supervisor,
    listener: Arc<dyn Listener>,
}

impl Reader {
    async fn run(self, mut connection: Arc<AsyncFd<Watched<Connection>>>, ready: Ready) {
        let mut ready = Some(ready);
        loop {
            self.supervisor.link().connection = Some(Arc::clone(&connection));
            self.serve(&connection, &mut ready).await;
            let broken = std::mem::take(&mut *self.supervisor.link());
            drop(broken);
            if self.supervisor.0.dismissed.load(Ordering::Acquire) {
                return;
            }
            tracing::warn!("the connection to the supervisor broke");
            connection = self.reopen().await;
        }
    }

    /// Greets and reads until the connection breaks.
    async fn serve(&self, connection: &AsyncFd<Watched<Connection>>, ready: &mut Option<Ready>) {
        let greeting = self.greet();
        let reading = self.read(connection);
        tokio::pin!(greeting, reading);
        // Answers to the greeting come through the reading.
        let greeted = tokio::select! {
            () = &mut reading => Err(SupervisorError::Lost),
            greeted = &mut greeting => greeted,
        };
        let epoch = &self.supervisor.0.epoch;
        let connected = greeted.is_ok();
        match &greeted {
            Ok(()) => epoch.send_modify(|epoch| *epoch += 1),
            Err(error) => tracing::warn!(%error, "the supervisor refused the greeting"),
        }
        if let Some(ready) = ready.take() {
            // Whoever waited may have given up.
            drop(ready.send(greeted));
        }
        if connected {
            reading.await;
            epoch.send_modify(|epoch| *epoch += 1);
        } else {
            tokio::time::sleep(AFTER_REFUSAL).await;
        }
    }

    async fn greet(&self) -> Result<(), SupervisorError> {
        let exits_seen = self.listener.exits_seen();
        let hello = Request::Hello { version: VERSION, exits_seen };
        let greeted = self.supervisor.order(hello).await;
        if let Err(SupervisorError::Failed(Failure::Version { ours, theirs })) = &greeted {
            tracing::warn!(ours, theirs, "a supervisor of another version is asked to upgrade");
            let path = self.supervisor.0.executable.display().to_string();
            self.supervisor.order(Request::ReExec { path }).await?;
        }
        greeted?;
        match self.supervisor.request(Request::List, Vec::new()).await? {
            (Reply::List(running), _) => {
                self.listener.list(running);
                Ok(())
            }
            _ => Err(SupervisorError::Confused),
        }
    }

    /// Returns when the connection broke.
    async fn read(&self, connection: &AsyncFd<Watched<Connection>>) {
        loop {
            let Ok(mut ready) = connection.readable().await else { return };
            loop {
                match connection.get_ref().0.recv() {
                    Ok(Some((message, descriptors))) => self.dispatch(message, descriptors),
                    Ok(None) => return,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::warn!(%error, "read from the supervisor");
                        return;
                    }
                }
            }
            ready.clear_ready();
        }
    }

    fn dispatch(&self, message: FromSupervisor, descriptors: Vec<OwnedFd>) {
        match message {
            FromSupervisor::Reply { sequence, result } => {
                let waiting = self.supervisor.link().pending.remove(&sequence);
                if let Some(waiting) = waiting {
                    // Whoever asked may have given up.
                    drop(waiting.send(result.map(|reply| (reply, descriptors))));
                }
            }
            FromSupervisor::Event(event) => self.listener.event(event),
        }
    }

    async fn reopen(&self) -> Arc<AsyncFd<Watched<Connection>>> {
        let mut wait = Duration::from_millis(10);
        loop {
            match self.supervisor.open().await {
                Ok(connection) => return connection,
                Err(error) => tracing::error!(%error, "start the supervisor again"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("config", &self.config).finish_non_exhaustive()
    }
}
