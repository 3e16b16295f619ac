//! `docker logs`: reads what the supervisor wrote.
//!
//! ```text
//! <id>-json.log     the newest; only this one grows
//! <id>-json.log.1   rotated, older with the number; .gz when compressed
//! ```
//!
//! [`files`] finds and opens them, [`tail`] finds where the last lines begin, [`format`] turns
//! records into what the client reads, [`follow`] waits for more.

mod files;
mod follow;
mod format;
mod tail;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::options::{LogOptions, LogStream};
use super::snapshot::{Container, Lifecycle};
use super::{Containers, validate};
use crate::errors::{ContainerError, Error, Result};
use files::{Driver, LogFile, Set};
use follow::Changes;
use format::{Formatter, Verdict};

/// A chunk is handed on when it is this long. Two wait for a slow client at most.
const CHUNK: usize = 64 << 10;
const WAITING: usize = 2;

impl Containers {
    pub async fn logs(&self, reference: &str, options: LogOptions) -> Result<LogStream> {
        let container = self.shared.registry.find(reference)?;
        if !options.stdout && !options.stderr {
            return Err(ContainerError::NoStream.into());
        }
        let snapshot = container.snapshot();
        let definition = &snapshot.definition;
        let kind = definition.host_config.log_config.kind.as_str();
        let directory = self.shared.directory(&definition.id);
        let path = validate::logging::log_path(kind, &directory, definition.id.as_str())
            .ok_or(ContainerError::LogsUnreadable)?;
        let driver = if kind == "local" { Driver::Local } else { Driver::JsonFile };
        let tty = definition.config.tty;
        let lifecycle = container.lifecycle();
        let running = snapshot.progress.is_running();
        let nanos = |time: std::time::SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        };
        let formatter = Formatter {
            tty,
            stdout: options.stdout,
            stderr: options.stderr,
            timestamps: options.timestamps,
            details: options.details,
            since: options.since.map_or(i64::MIN, nanos),
            until: options.until.map_or(i64::MAX, nanos),
            stamp: Default::default(),
        };
        let (sender, chunks) = mpsc::channel(WAITING);
        let reader = Reader {
            set: Set { path, driver },
            formatter,
            tail: options.tail,
            output: Vec::with_capacity(CHUNK + 1024),
            sender,
        };
        let begin = lifecycle.borrow().exits;
        let follow = (options.follow && running).then_some(End {
            begin,
            lifecycle,
            until: options.until,
            _container: Arc::clone(&container),
        });
        tokio::spawn(async move {
            if let Err(error) = reader.run(follow).await {
                tracing::warn!(container = %container.id, %error, "read the log");
            }
        });
        Ok(LogStream { tty, chunks })
    }
}

/// When following ends: with the run of the container, or at a moment.
struct End {
    lifecycle: watch::Receiver<Lifecycle>,
    begin: u64,
    until: Option<std::time::SystemTime>,
    /// Keeps the sender of `lifecycle` alive.
    _container: Arc<Container>,
}

impl End {
    fn is_reached(&self) -> bool {
        let now = self.lifecycle.borrow();
        !now.running || now.exits != self.begin || now.removed
    }

    async fn reached(&mut self) {
        let begin = self.begin;
        let over = |now: &Lifecycle| !now.running || now.exits != begin || now.removed;
        // An error would mean that the container is gone, which is an end as well.
        drop(self.lifecycle.wait_for(over).await);
    }
}

async fn time_is_up(until: Option<std::time::SystemTime>) {
    match until.map(|until| until.duration_since(std::time::SystemTime::now())) {
        Some(left) => tokio::time::sleep(left.unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

/// Serves one client.
struct Reader {
    set: Set,
    formatter: Formatter,
    tail: Option<usize>,
    /// Formatted and not sent.
    output: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

/// Why reading stops before the end of the log.
enum Stop {
    /// The client is gone, or everything up to `until` was sent.
    Enough,
    Failed(Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(Error::io("read")(error))
    }
}

impl Reader {
    async fn run(mut self, follow: Option<End>) -> Result<()> {
        let read = self.read(follow).await;
        match read {
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) | Err(Stop::Enough) => {
                // A client that is gone misses nothing.
                drop(self.flush().await);
                Ok(())
            }
        }
    }

    async fn read(&mut self, follow: Option<End>) -> Result<(), Stop> {
        // Watched from before the first look, so that no change is missed.
        let changes = match &follow {
            Some(_) => Some(Changes::watch(&self.set)?),
            None => None,
        };
        let mut files = self.set.open_all()?;
        if let Some(lines) = self.tail {
            tail::skip_to_last(&mut files, lines)?;
        }
        let mut newest = files.pop();
        for mut file in files {
            self.drain(&mut file).await?;
        }
        if let Some(file) = &mut newest {
            self.drain(file).await?;
        }
        match (follow, changes) {
            (Some(end), Some(changes)) => self.follow(newest, end, changes).await,
            _ => Ok(()),
        }
    }

    /// Waits for more until the end, which is looked at before the file: what was written before
    /// it is read.
    async fn follow(
        &mut self,
        mut file: Option<LogFile>,
        mut end: End,
        mut changes: Changes,
    ) -> Result<(), Stop> {
        loop {
            self.flush().await?;
            let over = end.is_reached();
            if let Some(file) = &mut file {
                self.drain(file).await?;
            }
            // Rotated: the old file is read to its end, then the new one from its start.
            let (old, new) = self.set.newer_than(file.as_ref())?;
            for mut between in old {
                self.drain(&mut between).await?;
            }
            if new.is_some() {
                file = new;
                continue;
            }
            if over {
                return Ok(());
            }
            self.flush().await?;
            let until = end.until;
            tokio::select! {
                changed = changes.next() => changed?,
                () = end.reached() => {}
                () = time_is_up(until) => return Err(Stop::Enough),
                () = self.sender.closed() => return Err(Stop::Enough),
            }
        }
    }

    /// Reads and formats to the present end of the file.
    async fn drain(&mut self, file: &mut LogFile) -> Result<(), Stop> {
        loop {
            let more = file.fill()?;
            let Self { formatter, output, .. } = self;
            let verdict = file.records(|entry| formatter.add(entry, output));
            if verdict == Verdict::Past {
                return Err(Stop::Enough);
            }
            if self.output.len() >= CHUNK {
                self.flush().await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.output.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.output, Vec::with_capacity(CHUNK + 1024));
        self.sender.send(chunk.into()).await.map_err(|_gone| Stop::Enough)
    }
}

#[cfg(test)]
mod tests;
