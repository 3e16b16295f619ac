//! Signals we get, passed on to the container.

use std::task::Poll;

use client::Request;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;

/// All that can be caught and mean something to another process. SIGWINCH is the terminal's
/// business, SIGCHLD and SIGPIPE are ours.
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (5, "TRAP"),
    (6, "ABRT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// Catches from now on; the signals of the time before the container starts are kept.
#[derive(Debug)]
pub(crate) struct Caught(Vec<(&'static str, Signal)>);

impl Caught {
    fn all() -> Self {
        let catch = |(number, name): &(i32, &'static str)| {
            signal(SignalKind::from_raw(*number)).ok().map(|stream| (*name, stream))
        };
        Self(FORWARDED.iter().filter_map(catch).collect())
    }

    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (name, stream) in &mut self.0 {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Forwards every signal to the container; never returns. To be dropped when the session ends.
///
/// Catching begins with the call, not with the first poll.
pub(crate) fn forward_signals(app: &App, id: &str) -> impl Future<Output = ()> {
    let mut caught = Caught::all();
    let path = format!("/containers/{id}/kill");
    async move {
        loop {
            let name = caught.next().await;
            let request = Request::post(path.clone()).query("signal", name);
            // A container that is gone or not yet running cannot be signalled; that is no failure
            // of the session, whose end is reported by the wait.
            if let Err(error) = app.client.call(request).await
                && app.debug
            {
                crate::output::complain(&format!("forwarding SIG{name}: {error}"));
            }
        }
    }
}

/// Resolves to a shell's exit code for the first signal that would end us; never unless `wanted`.
pub(crate) fn fatal(wanted: bool) -> impl Future<Output = u8> {
    let catch = |number: u8| {
        signal(SignalKind::from_raw(i32::from(number))).ok().map(|stream| (128 + number, stream))
    };
    let mut caught: Vec<_> =
        if wanted { [1, 2, 3, 15].into_iter().filter_map(catch).collect() } else { Vec::new() };
    std::future::poll_fn(move |cx| {
        for (code, stream) in &mut caught {
            if stream.poll_recv(cx).is_ready() {
                return Poll::Ready(*code);
            }
        }
        Poll::Pending
    })
}
