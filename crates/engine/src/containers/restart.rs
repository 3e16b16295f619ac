//! Restart policies: whether and when a container that exited is started again. Pure.

use std::time::Duration;

use api_types::host_config::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run this long was no failure to start: the back-off begins anew.
const STEADY: Duration = Duration::from_secs(10);

/// Where a container is in its back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    next: Duration,
    failures: u32,
}

impl Backoff {
    /// Decides after an exit: how long to wait before the next start, or `None` to stay down.
    pub(crate) fn after_exit(
        &mut self,
        policy: &RestartPolicy,
        exit_code: i64,
        manually_stopped: bool,
        ran_for: Duration,
    ) -> Option<Duration> {
        // A user's stop ends it for all policies, until the next start.
        if manually_stopped || !self.wants(policy, exit_code) {
            return None;
        }
        if ran_for >= STEADY || self.next.is_zero() {
            self.next = FIRST;
        } else {
            self.next = (self.next * 2).min(LONGEST);
        }
        self.failures += 1;
        Some(self.next)
    }

    fn wants(&self, policy: &RestartPolicy, exit_code: i64) -> bool {
        match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let limit = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
                exit_code != 0 && (limit == 0 || self.failures < limit)
            }
            _ => false,
        }
    }
}

/// Whether a container that is down is started with the daemon.
pub(crate) fn at_boot(policy: &RestartPolicy, exit_code: i64, manually_stopped: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !manually_stopped,
        "on-failure" => exit_code != 0 && !manually_stopped,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, maximum_retry_count: i64) -> RestartPolicy {
        RestartPolicy { name: name.to_owned(), maximum_retry_count }
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_starts_anew() {
        let mut backoff = Backoff::default();
        let mut next = |ran: u64| {
            let ran = Duration::from_secs(ran);
            backoff.after_exit(&policy("always", 0), 0, false, ran).unwrap().as_millis()
        };
        let waits: Vec<_> = (0..12).map(|_| next(0)).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[9..], [51_200, 60_000, 60_000]);
        assert_eq!(next(10), 100);
        assert_eq!(next(0), 200);
    }

    #[test]
    fn policies_decide() {
        let check = |name, code, stopped, expect| {
            let wait =
                Backoff::default().after_exit(&policy(name, 0), code, stopped, Duration::ZERO);
            assert_eq!(wait.is_some(), expect, "{name} {code} {stopped}");
        };
        check("", 1, false, false);
        check("no", 1, false, false);
        check("always", 0, false, true);
        check("always", 0, true, false);
        check("unless-stopped", 0, false, true);
        check("on-failure", 0, false, false);
        check("on-failure", 3, false, true);
        check("on-failure", 3, true, false);
    }

    #[test]
    fn retries_are_counted() {
        let mut backoff = Backoff::default();
        let twice = policy("on-failure", 2);
        let mut again = || backoff.after_exit(&twice, 1, false, Duration::ZERO).is_some();
        assert_eq!([again(), again(), again()], [true, true, false]);
    }

    #[test]
    fn boot_respects_a_users_stop() {
        assert!(at_boot(&policy("always", 0), 0, true));
        assert!(!at_boot(&policy("unless-stopped", 0), 0, true));
        assert!(at_boot(&policy("unless-stopped", 0), 0, false));
        assert!(!at_boot(&policy("no", 0), 1, false));
        assert!(at_boot(&policy("on-failure", 0), 1, false));
    }
}
