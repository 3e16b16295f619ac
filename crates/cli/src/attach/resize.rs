//! The container's terminal is kept as large as ours.

use std::time::Duration;

use client::Request;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::terminal;

/// Whose terminal to resize.
#[derive(Debug, Clone)]
pub(crate) enum Resized {
    Container(String),
    Exec(String),
}

/// The process may not be there yet when we first try, so the first size is tried again.
const TRIES: u64 = 10;

impl Resized {
    async fn resize(&self, app: &App) -> bool {
        self.resize_to(app, terminal::size()).await
    }

    /// Makes a program that runs already draw its screen anew: by another size than it had.
    pub(crate) async fn redraw(&self, app: &App) {
        let (rows, columns) = terminal::size();
        if rows > 0 && columns > 0 {
            self.resize_to(app, (rows + 1, columns + 1)).await;
        }
    }

    async fn resize_to(&self, app: &App, (rows, columns): (u16, u16)) -> bool {
        if rows == 0 && columns == 0 {
            return true;
        }
        let path = match self {
            Self::Container(id) => format!("/containers/{id}/resize"),
            Self::Exec(id) => format!("/exec/{id}/resize"),
        };
        let request =
            Request::post(path).query("h", &rows.to_string()).query("w", &columns.to_string());
        app.client.call(request).await.is_ok()
    }
}

/// Resizes now and at every SIGWINCH; never returns. To be dropped when the session ends.
pub(crate) async fn follow_size(app: &App, target: Resized) {
    let changes = signal(SignalKind::window_change());
    for attempt in 1..=TRIES {
        if target.resize(app).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10 * attempt)).await;
    }
    let Ok(mut changes) = changes else { return std::future::pending().await };
    while changes.recv().await.is_some() {
        target.resize(app).await;
    }
    std::future::pending::<()>().await;
}
