//! The circuit breaker that makes calls fail at once while the store does not answer, so that few callers pay a full wait.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::StoreError;
use crate::scheduling_delay;

/// How long it stays open after a time-out before one call may probe the store.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// A call that waited less says nothing about the store: its caller came with too little time.
const FAIR_WAIT: Duration = Duration::from_millis(250);

/// Closed (calls pass), or open (calls fail at once). An open one lets a single call through as a probe every 250 ms; its answer
/// closes the breaker.
pub(super) struct CircuitBreaker {
    born: Instant,
    /// When the next probe may pass: milliseconds after `born`; 0 while closed.
    next_probe: AtomicU64,
    /// When a health check last found the store unreachable, likewise; 0 is never.
    unreachable_at: AtomicU64,
}

impl CircuitBreaker {
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, next_probe: AtomicU64::new(0), unreachable_at: AtomicU64::new(0) }
    }

    /// Runs a call until `end`. Fails at once while the breaker is open; a time-out opens it, an answer closes it.
    pub(super) async fn guard<T, E: From<StoreError>>(
        &self,
        end: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        self.run(end, call, || self.record_timeout(begun, Instant::now())).await
    }

    /// The same for a call that waits for others than the store, too: a time-out says nothing.
    pub(super) async fn guard_waiting<T, E: From<StoreError>>(
        &self,
        end: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.run(end, call, || {}).await
    }

    async fn run<T, E: From<StoreError>>(
        &self,
        end: Instant,
        call: impl Future<Output = Result<T, E>>,
        record_timeout: impl FnOnce(),
    ) -> Result<T, E> {
        if !self.allow(Instant::now()) {
            return Err(StoreError::Unavailable("it did not answer lately".into()).into());
        }
        match tokio::time::timeout_at(end.into(), call).await {
            Ok(result) => {
                self.record_reply();
                result
            }
            Err(_) => {
                record_timeout();
                Err(StoreError::Unavailable("no answer in time".into()).into())
            }
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        // One is added so that no moment is the 0 that means closed.
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX - 1)
            + 1
    }

    /// Whether a call may go to the store now: always while closed, as a probe while open.
    pub(super) fn allow(&self, now: Instant) -> bool {
        let until = self.next_probe.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let at = self.ms(now);
        // Whoever moves the moment is the probe; the others still see an open breaker.
        at >= until
            && self
                .next_probe
                .compare_exchange(
                    until,
                    self.ms(now + PROBE_INTERVAL),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    fn is_open(&self) -> bool {
        self.next_probe.load(Ordering::Relaxed) != 0
    }

    /// Holds the probe of an open breaker until then: callers need not pay for it while a health check runs.
    pub(super) fn reserve_probe(&self, until: Instant) {
        if self.is_open() {
            self.next_probe.fetch_max(self.ms(until), Ordering::Relaxed);
        }
    }

    pub(super) fn record_unreachable(&self, now: Instant) {
        self.unreachable_at.store(self.ms(now), Ordering::Relaxed);
    }

    /// Whether a health check found the store unreachable within that time.
    pub(super) fn unreachable_within(&self, time: Duration, now: Instant) -> bool {
        let unreachable_at = self.unreachable_at.load(Ordering::Relaxed);
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        unreachable_at > 0 && self.ms(now).saturating_sub(unreachable_at) < time
    }

    pub(super) fn record_reply(&self) {
        if self.is_open() {
            self.next_probe.store(0, Ordering::Relaxed);
        }
    }

    /// A call that began at `begun` had no answer by `now`.
    pub(super) fn record_timeout(&self, begun: Instant, now: Instant) {
        let is_fair = now.saturating_duration_since(begun) >= FAIR_WAIT;
        // A reply that was there, and that nobody here had the time to read, says nothing about the store.
        if is_fair && !scheduling_delay::late_since(begun) {
            self.next_probe.fetch_max(self.ms(now + PROBE_INTERVAL), Ordering::Relaxed);
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
    fn while_open_one_call_passes_each_quarter_second() {
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
    fn while_a_health_check_probes_no_caller_does() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.reserve_probe(start + ms(1000));
        assert!(breaker.allow(start), "it was closed");
        breaker.record_timeout(start, start + ms(1000));
        breaker.reserve_probe(start + ms(2500));
        assert!(!breaker.allow(start + ms(1300)));
        assert!(breaker.allow(start + ms(2500)));
    }

    #[test]
    fn a_caller_who_came_with_too_little_time_opens_nothing() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_timeout(start, start + ms(40));
        assert!(breaker.allow(start + ms(41)));
    }
}
