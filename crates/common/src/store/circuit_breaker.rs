//! The breaker that makes calls fail at once while the store does not answer, so that few callers pay a full wait.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long calls fail at once after a time-out, before one may try again.
const OPEN_FOR: Duration = Duration::from_millis(250);

/// A call that waited less says nothing about the store: its caller came with too little time.
const FAIR_WAIT: Duration = Duration::from_millis(250);

/// Open, or shut until a moment; then one call at a time (each 250 ms) goes through and decides.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    born: Instant,
    /// Milliseconds after `born`; 0 is open.
    open_until: AtomicU64,
    /// When a look last found the store away, likewise; 0 is never.
    unreachable_at: AtomicU64,
}

impl CircuitBreaker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            born: now,
            open_until: AtomicU64::new(0),
            unreachable_at: AtomicU64::new(0),
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        // One is added so that no moment is the 0 that means open.
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX - 1)
            + 1
    }

    /// Whether a call may go to the store now.
    pub(super) fn allow(&self, now: Instant) -> bool {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let at = self.ms(now);
        // Whoever moves the end is the one that tries; the others see the breaker shut again.
        at >= until
            && self
                .open_until
                .compare_exchange(
                    until,
                    self.ms(now + OPEN_FOR),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    fn is_open(&self) -> bool {
        self.open_until.load(Ordering::Relaxed) != 0
    }

    /// Somebody tries until then; nobody else has to, if the breaker is shut.
    pub(super) fn reserve_probe(&self, until: Instant) {
        if self.is_open() {
            self.open_until.fetch_max(self.ms(until), Ordering::Relaxed);
        }
    }

    /// A look found the store away.
    pub(super) fn record_unreachable(&self, now: Instant) {
        self.unreachable_at.store(self.ms(now), Ordering::Relaxed);
    }

    /// Whether a look found it away so lately.
    pub(super) fn unreachable_within(&self, time: Duration, now: Instant) -> bool {
        let unreachable_at = self.unreachable_at.load(Ordering::Relaxed);
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        unreachable_at > 0 && self.ms(now).saturating_sub(unreachable_at) < time
    }

    /// The store record_reply something.
    pub(super) fn record_reply(&self) {
        if self.is_open() {
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    /// A call that began at `begun` had no answer by `now`.
    pub(super) fn record_timeout(&self, begun: Instant, now: Instant) {
        if now.saturating_duration_since(begun) >= FAIR_WAIT {
            self.open_until
                .fetch_max(self.ms(now + OPEN_FOR), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn after_a_time_out_one_call_goes_through_each_quarter_second() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        assert!(breaker.allow(start));
        breaker.record_timeout(start, start + ms(1000));
        assert!(!breaker.allow(start + ms(1001)));
        assert!(!breaker.allow(start + ms(1249)));
        assert!(breaker.allow(start + ms(1250)));
        assert!(!breaker.allow(start + ms(1250)));
        assert!(!breaker.allow(start + ms(1499)));
        assert!(breaker.allow(start + ms(1500)));
        breaker.record_reply();
        assert!(breaker.allow(start + ms(1501)));
        assert!(breaker.allow(start + ms(1501)));
    }

    #[test]
    fn while_somebody_tries_no_caller_has_to() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.reserve_probe(start + ms(1000));
        assert!(breaker.allow(start), "it was open");
        breaker.record_timeout(start, start + ms(1000));
        breaker.reserve_probe(start + ms(2500));
        assert!(!breaker.allow(start + ms(1300)));
        assert!(breaker.allow(start + ms(2500)));
    }

    #[test]
    fn a_caller_who_came_with_too_little_time_shuts_nothing() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_timeout(start, start + ms(40));
        assert!(breaker.allow(start + ms(41)));
    }
}
