//! How long an account waits after failed attempts to log in.

use std::time::Duration;

/// Attempts that may fail before the first wait.
pub const FREE_ATTEMPTS: u32 = 5;
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The attempts on an account, which need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The store's clock: Unix milliseconds.
    pub now: i64,
    /// How many have failed, or are running.
    pub failed: u32,
    /// When the next one may be made: Unix milliseconds.
    pub until: i64,
}

impl Attempts {
    /// How long the next attempt must wait; `None` where it need not.
    pub fn wait(&self) -> Option<Duration> {
        let left = Duration::from_millis(u64::try_from(self.until - self.now).ok()?);
        // More than the whole wait is left where the store's clock was set back: that must lock nobody out.
        (!left.is_zero() && left <= wait_after(self.failed)).then_some(left)
    }

    pub fn counted(&self) -> Self {
        let failed = self.failed.saturating_add(1);
        let wait = i64::try_from(wait_after(failed).as_millis()).unwrap_or(i64::MAX);
        Self { failed, until: self.now + wait, ..*self }
    }
}

fn wait_after(failed: u32) -> Duration {
    match failed.checked_sub(FREE_ATTEMPTS) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(6)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_then_waits_double_up_to_a_minute() {
        let waits: Vec<u64> = (1..=13).map(|failed| wait_after(failed).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let start = Attempts { now: 1_000_000, failed: 6, until: 0 };
        let counted = start.counted();
        assert_eq!(counted.wait(), Some(Duration::from_secs(4)));
        let at = |now| Attempts { now, ..counted }.wait();
        assert_eq!(at(counted.until - 1), Some(Duration::from_millis(1)));
        assert_eq!(at(counted.until), None);
        assert_eq!(at(start.now - 10_000), None);
    }
}
