//! `docker wait`, which `docker run` opens before it starts the container.

use api_types::container::{WaitError, WaitResponse};
use tokio::sync::watch;

use super::Containers;
use super::options::{WaitCondition, WaitHandle};
use super::snapshot::Lifecycle;
use crate::errors::Result;

impl Containers {
    /// Checks at once, so that headers can be flushed; the handle then waits.
    pub async fn wait(&self, reference: &str, condition: WaitCondition) -> Result<WaitHandle> {
        let container = self.shared.registry.find(reference)?;
        let mut lifecycle = container.lifecycle();
        let begin = lifecycle.borrow_and_update().exits;
        let wait = async move {
            // The handle keeps the sender alive.
            let container = container;
            let response = match condition {
                WaitCondition::NotRunning => not_running(&mut lifecycle, begin).await,
                WaitCondition::NextExit => next_exit(&mut lifecycle, begin).await,
                WaitCondition::Removed => removed(&mut lifecycle).await,
            };
            drop(container);
            response
        };
        Ok(WaitHandle(Box::pin(wait)))
    }
}

async fn not_running(lifecycle: &mut watch::Receiver<Lifecycle>, begin: u64) -> WaitResponse {
    let over = |now: &Lifecycle| !now.running || now.exits != begin || now.removed;
    answer(lifecycle.wait_for(over).await)
}

async fn next_exit(lifecycle: &mut watch::Receiver<Lifecycle>, begin: u64) -> WaitResponse {
    answer(lifecycle.wait_for(|now| now.exits != begin || now.removed).await)
}

async fn removed(lifecycle: &mut watch::Receiver<Lifecycle>) -> WaitResponse {
    let seen = lifecycle.wait_for(|now| now.removed || now.stuck.is_some()).await;
    let stuck = seen.as_ref().ok().and_then(|now| now.stuck.clone());
    let mut response = answer(seen);
    if let Some(message) = stuck {
        response.error = Some(WaitError { message });
    }
    response
}

fn answer(seen: Result<watch::Ref<'_, Lifecycle>, watch::error::RecvError>) -> WaitResponse {
    match seen {
        Ok(now) => WaitResponse {
            error: (!now.error.is_empty()).then(|| WaitError { message: now.error.clone() }),
            status_code: now.exit_code,
        },
        // Only when the container's handle is gone, which we hold.
        Err(_closed) => WaitResponse::default(),
    }
}
