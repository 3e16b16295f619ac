//! A container's streams joined to ours: what `run`, `attach`, `exec` and `start -a` share.

mod demux;
mod detach;
mod resize;
mod signals;

use std::io;

use client::Hijacked;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::failure::{Failure, Outcome};
use crate::terminal::{RawMode, Sink, Stdin};

use demux::copy_output;

pub(crate) use demux::Demux;
pub(crate) use detach::DetachKeys;
pub(crate) use resize::{Resized, follow_size};
pub(crate) use signals::{fatal, forward_signals};

/// Which streams to join, and how.
#[derive(Debug)]
pub(crate) struct Session {
    pub stdin: bool,
    /// False when only stdin is attached.
    pub output: bool,
    pub tty: bool,
    pub detach_keys: DetachKeys,
    /// Signals are not forwarded, so they end us: the terminal must be restored first.
    pub signals_end_it: bool,
}

/// Why joining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Finished,
    /// The user typed the detach keys.
    Detached,
}

impl Session {
    /// Copies until the container's output ends (or, without output, our input).
    ///
    /// In a session with a terminal, stdin is raw for as long as this runs.
    pub(crate) async fn join(&self, connection: Hijacked) -> Outcome<Ended> {
        let raw = (self.tty && self.stdin).then(RawMode::enter).flatten();
        let fatal = signals::fatal(raw.is_some() && self.signals_end_it);
        let (reader, writer) = tokio::io::split(connection.io);
        let output = copy_output(reader, self.tty);
        let input = self.copy_input(writer);
        tokio::pin!(output, input, fatal);
        let mut input_open = self.stdin;
        if !self.output && !input_open {
            return Ok(Ended::Finished);
        }
        loop {
            tokio::select! {
                outcome = &mut output, if self.output => {
                    outcome?;
                    return Ok(Ended::Finished);
                }
                outcome = &mut input, if input_open => {
                    input_open = false;
                    match outcome {
                        Ok(Ended::Detached) => return Ok(Ended::Detached),
                        Ok(Ended::Finished) if self.output => {}
                        Ok(Ended::Finished) => return Ok(Ended::Finished),
                        // The container closed its stdin; its output decides when we end.
                        Err(error) if is_closed(&error) && self.output => {}
                        Err(error) => return Err(Failure::Output(error)),
                    }
                }
                code = &mut fatal => return Err(Failure::Silent(code)),
            }
        }
    }

    async fn copy_input(&self, mut writer: impl AsyncWrite + Unpin) -> io::Result<Ended> {
        let stdin = Stdin;
        let mut keys = self.detach_keys.matcher();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = stdin.read(&mut buffer).await?;
            if count == 0 {
                writer.shutdown().await?;
                return Ok(Ended::Finished);
            }
            if !self.tty {
                writer.write_all(&buffer[..count]).await?;
                continue;
            }
            let (bytes, detached) = keys.feed(&buffer[..count]);
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            if detached {
                return Ok(Ended::Detached);
            }
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

/// Copies raw bytes to stdout.
async fn copy_raw(mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            count => Sink::Stdout.write_all(&buffer[..count]).await?,
        }
    }
}
