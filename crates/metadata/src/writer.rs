//! The thread that commits.
//!
//! It takes the closures that wait in a bounded queue, runs them one after the other in a single
//! redb transaction, syncs once, and only then tells their callers. While it syncs, the next
//! batch gathers by itself: the more writers, the larger the batches.
//!
//! A crash before the sync leaves none of a batch, after it all of it. Relaxed writes are visible
//! at once and reach the disk with the next synced commit, [`RELAXED_DELAY`] later at most.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Durability;

use crate::error::StoreError;
use crate::store::Shared;
use crate::txn::WriteTxn;

/// How long a relaxed write may stay in memory only.
const RELAXED_DELAY: Duration = Duration::from_secs(1);
/// How many closures one commit may carry, and how many may wait for it.
const BATCH: usize = 256;

/// Runs inside the transaction, returns what is to be said once the commit is known.
type Run = Box<dyn FnOnce(&redb::WriteTransaction) -> (Outcome, Reply) + Send>;
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

enum Outcome {
    /// Nothing to commit: the closure only read, or failed by its own decision.
    Unchanged,
    /// By how many bytes the records grew.
    Changed(i64),
    /// redb failed half way through; the whole batch must be given up.
    Broken(StoreError),
}

pub(crate) struct Job {
    durable: bool,
    run: Run,
}

impl Job {
    /// Wraps a closure so that its result is handed to `reply` after the commit.
    pub(crate) fn new<R, E>(
        durable: bool,
        work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
        reply: impl FnOnce(Result<R, E>) + Send + 'static,
    ) -> Self
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let run = move |base: &redb::WriteTransaction| {
            let (outcome, result) = run_one(base, work);
            let reply: Reply = Box::new(move |committed| {
                reply(match (committed, result) {
                    (Ok(()), result) => result,
                    // The closure's own error tells more than that its neighbours failed.
                    (Err(_), Err(own)) => Err(own),
                    (Err(error), Ok(_)) => Err(error.into()),
                });
            });
            (outcome, reply)
        };
        Self { durable, run: Box::new(run) }
    }
}

fn run_one<R, E: From<StoreError>>(
    base: &redb::WriteTransaction,
    work: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E>,
) -> (Outcome, Result<R, E>) {
    let mut txn = WriteTxn::new(base);
    match catch_unwind(AssertUnwindSafe(|| work(&mut txn))) {
        Err(_panic) => (Outcome::Unchanged, Err(StoreError::Panicked.into())),
        Ok(Err(error)) => (Outcome::Unchanged, Err(error)),
        Ok(Ok(value)) => match txn.apply() {
            Ok(Some(growth)) => (Outcome::Changed(growth), Ok(value)),
            Ok(None) => (Outcome::Unchanged, Ok(value)),
            Err(error) => (Outcome::Broken(error), Ok(value)),
        },
    }
}

/// The sending end. Dropping it commits what is left and ends the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(BATCH);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("metadata".to_owned())
            .spawn(move || serve(&shared, &jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job; blocks while [`BATCH`] others wait.
    pub(crate) fn send(&self, job: Job) {
        let queue = self.queue.as_ref().expect("taken only by drop");
        let refused = match queue.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(job)) => queue.send(job).err().map(|error| error.0),
            Err(TrySendError::Disconnected(job)) => Some(job),
        };
        // The thread ends only with this handle; should it ever panic, the callers' channels
        // close with the job, which they report as `Closed`.
        drop(refused);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        // The last handle may be dropped by a callback, that is by the thread itself. A panic of
        // the thread has been reported by the panic hook already.
        let thread = self.thread.take();
        if let Some(thread) = thread.filter(|it| it.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

fn serve(shared: &Shared, jobs: &Receiver<Job>) {
    let mut relaxed_pending = false;
    loop {
        let first = if relaxed_pending {
            match jobs.recv_timeout(RELAXED_DELAY) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match jobs.recv() {
                Ok(job) => Some(job),
                Err(_closed) => return,
            }
        };
        let batch: Vec<Job> = first.into_iter().chain(jobs.try_iter().take(BATCH)).collect();
        relaxed_pending = commit(shared, batch, relaxed_pending);
    }
    commit(shared, Vec::new(), true);
}

/// Runs and commits one batch, answers everyone; says whether relaxed changes are still only in
/// memory. An empty batch brings those to the disk.
fn commit(shared: &Shared, batch: Vec<Job>, relaxed_pending: bool) -> bool {
    let flush = batch.is_empty();
    let mut replies = Vec::with_capacity(batch.len());
    let result = shared.with_database(|database| {
        let mut txn = database.begin_write().map_err(StoreError::access("write"))?;
        let (mut changed, mut durable, mut growth, mut broken) = (false, flush, 0, None);
        for job in batch {
            let (outcome, reply) = (job.run)(&txn);
            replies.push(reply);
            match outcome {
                Outcome::Unchanged => {}
                Outcome::Changed(by) => {
                    changed = true;
                    growth += by;
                    durable |= job.durable;
                }
                Outcome::Broken(error) => broken = Some(error),
            }
        }
        if let Some(error) = broken {
            txn.abort().map_err(StoreError::access("abort"))?;
            return Err(error);
        }
        if !changed && !flush {
            txn.abort().map_err(StoreError::access("abort"))?;
            return Ok(relaxed_pending);
        }
        let level = if durable { Durability::Immediate } else { Durability::None };
        txn.set_durability(level).map_err(StoreError::access("commit"))?;
        // Names and labels are chosen by strangers: they must not be able to craft a torn page
        // that passes the one-phase check.
        txn.set_two_phase_commit(durable);
        // The last room on the disk is for getting rid of things.
        shared.reserve.allow(growth <= 0);
        txn.commit().map_err(StoreError::access("commit"))?;
        Ok(!durable)
    });
    shared.reserve.allow(false);
    let (pending, answer) = match result {
        Ok(pending) => {
            shared.reserve.refill();
            (pending, Ok(()))
        }
        Err(error) => {
            // After a failed write (disk full) redb refuses everything until it is opened anew.
            shared.reopen();
            (false, Err(error))
        }
    };
    for reply in replies {
        let answer = answer.clone();
        // A panicking callback is its owner's bug; the others still want their answers.
        drop(catch_unwind(AssertUnwindSafe(|| reply(answer))));
    }
    pending
}
