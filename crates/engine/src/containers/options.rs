//! The parameters and answers of container operations that are not JSON of their own.

use std::time::SystemTime;

use api_types::container::WaitResponse;
use bytes::Bytes;
use spec::Filters;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    /// The newest so many, running or not; implies `all`.
    pub limit: Option<usize>,
    pub size: bool,
    pub filters: Filters,
}

#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    pub signal: Option<String>,
    /// Seconds until SIGKILL; -1 waits for ever, `None` is the container's own.
    pub timeout: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    pub volumes: bool,
    pub link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// A wait that was accepted: await it for the answer. Dropping it gives up.
pub struct WaitHandle(pub(crate) futures_util::future::BoxFuture<'static, WaitResponse>);

#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stream: bool,
    pub logs: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: Option<String>,
}

/// An attached client. The container's words arrive on `stream` ready to be sent (stdcopy frames,
/// or raw bytes of a tty), and what is written to it is the container's stdin.
#[derive(Debug)]
pub struct AttachHandle {
    pub tty: bool,
    pub stream: Option<UnixStream>,
    /// Past output (`logs=1`), to be sent before the stream.
    pub logs: Option<LogStream>,
    pub keys: super::detach::DetachKeys,
    pub detached: Detached,
}

#[derive(Debug)]
pub struct ExecHandle {
    pub tty: bool,
    /// `None` when the exec was started detached.
    pub stream: Option<UnixStream>,
    pub keys: super::detach::DetachKeys,
    pub detached: Detached,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
    pub timestamps: bool,
    /// The last so many lines; `None` is all.
    pub tail: Option<usize>,
    pub details: bool,
}

/// Log lines as the client wants them: stdcopy frames, or raw bytes when the container has a tty.
#[derive(Debug)]
pub struct LogStream {
    pub tty: bool,
    pub chunks: mpsc::Receiver<Bytes>,
}

/// Tells the event watchers that a client left by its detach keys.
#[derive(Debug)]
pub struct Detached(pub(crate) super::detach::Notice);

impl WaitCondition {
    /// Reads the query parameter; an empty text is the default.
    pub fn parse(text: &str) -> Result<Self, crate::errors::ContainerError> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(crate::errors::ContainerError::WaitCondition { condition: text.to_owned() }),
        }
    }
}

impl Future for WaitHandle {
    type Output = WaitResponse;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<WaitResponse> {
        self.0.as_mut().poll(context)
    }
}

impl std::fmt::Debug for WaitHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitHandle")
    }
}
