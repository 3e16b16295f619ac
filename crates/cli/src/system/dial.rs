//! `docker system dial-stdio`: the far end of `ssh://`, see `client::SshTarget`.

use client::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::options::files::errno_text;
use crate::terminal::{Sink, Stdin};

const PIECE: usize = 64 * 1024;

/// Joins our standard streams to a connection to the daemon until the daemon closes it.
pub(crate) async fn dial_stdio(app: &App, _flags: &Parsed) -> Outcome {
    let connection = app.client.dial().await.map_err(|error| not_open(app, &error))?;
    let (mut from_daemon, mut to_daemon) = tokio::io::split(connection);
    let input = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match Stdin.read(&mut buffer).await? {
                0 => break,
                count => to_daemon.write_all(&buffer[..count]).await?,
            }
        }
        to_daemon.shutdown().await?;
        Ok::<(), Failure>(())
    };
    let output = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match from_daemon.read(&mut buffer).await? {
                0 => return Ok::<(), Failure>(()),
                count => Sink::Stdout.write_all(&buffer[..count]).await?,
            }
        }
    };
    tokio::pin!(input, output);
    let ended = tokio::select! {
        outcome = &mut output => Some(outcome),
        outcome = &mut input => { outcome?; None }
    };
    match ended {
        Some(outcome) => outcome?,
        None => output.await?,
    }
    Ok(0)
}

fn not_open(app: &App, error: &Error) -> Failure {
    let reason = match error {
        Error::Connect { source, .. } | Error::Permission { source, .. } => {
            let (scheme, address) = app.client.host().split_once("://").unwrap_or_default();
            format!("dial {scheme} {address}: connect: {}", errno_text(source))
        }
        other => other.to_string(),
    };
    Failure::new(format!("failed to open the raw stream connection: {reason}"))
}
