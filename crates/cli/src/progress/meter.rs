//! One line on a terminal for what takes long and says nothing by itself: bytes on their way, or a
//! wait. Nothing is shown for what is done within half a second, or anywhere but on a terminal;
//! the line is gone before the command prints its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{output, terminal};

const BEFORE_FIRST: Duration = Duration::from_millis(500);
const BETWEEN: Duration = Duration::from_millis(100);

const WIDTH: u64 = 50;
const ERASE: &str = "\r\u{1b}[K";

/// Counts bytes and shows them.
#[derive(Debug)]
pub(crate) struct Meter {
    label: &'static str,
    total: u64,
    count: Arc<AtomicU64>,
    next: Instant,
    on: bool,
    shown: bool,
}

impl Meter {
    /// `total` is 0 when nobody knows it; `quiet` only counts.
    pub(crate) fn new(label: &'static str, total: u64, quiet: bool) -> Self {
        Self {
            label,
            total,
            count: Arc::default(),
            next: Instant::now() + BEFORE_FIRST,
            on: !quiet && terminal::stderr_is_terminal(),
            shown: false,
        }
    }

    /// The count, for when the meter is gone.
    pub(crate) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        let count = self.count.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if self.on && Instant::now() >= self.next {
            self.next = Instant::now() + BETWEEN;
            self.shown = true;
            show(&line(self.label, count, self.total));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown {
            show("");
        }
    }
}

fn show(text: &str) {
    // A terminal that is gone needs no progress.
    let _gone = output::write_all(rustix::stdio::stderr(), format!("{ERASE}{text}").as_bytes());
}

fn line(label: &str, count: u64, total: u64) -> String {
    let size = |bytes: u64| spec::size::human(bytes as f64);
    if total == 0 {
        return format!("{label} - {}", size(count));
    }
    let done = usize::try_from((count.min(total) * WIDTH).checked_div(total).unwrap_or(0));
    let done = done.unwrap_or_default();
    let bar = format!("{}>{}", "=".repeat(done), " ".repeat(WIDTH as usize - done));
    format!("{label} [{bar}] {}/{}", size(count), size(total))
}

/// Says what is waited for, once that takes long.
pub(crate) async fn while_waiting<T>(label: &str, work: impl Future<Output = T>) -> T {
    if !terminal::stderr_is_terminal() {
        return work.await;
    }
    let began = Instant::now();
    let mut shown = false;
    let work = Box::pin(work);
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut work => break outcome,
            () = tokio::time::sleep(BEFORE_FIRST) => {
                shown = true;
                show(&format!("{label} ({} s)", began.elapsed().as_secs()));
            }
        }
    };
    if shown {
        show("");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_what_is_known() {
        assert_eq!(line("Copying to container", 2050, 0), "Copying to container - 2.05kB");
        let bar = format!("{}>{}", "=".repeat(25), " ".repeat(25));
        assert_eq!(line("Importing", 500, 1000), format!("Importing [{bar}] 500B/1kB"));
        assert!(line("Importing", 5000, 1000).contains(&"=".repeat(50)));
    }

    #[test]
    fn counting_needs_no_terminal() {
        let mut meter = Meter::new("x", 0, true);
        let count = meter.count();
        meter.add(3);
        meter.add(4);
        drop(meter);
        assert_eq!(count.load(Ordering::Relaxed), 7);
    }
}
