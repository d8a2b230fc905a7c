//! Circuit breaker: after enough outages in a row a server gets no requests for a while, then one as a probe.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::llm::error::ProviderError;

const OPEN_TIME: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Success,
    /// No connection, or 502, 503, 504.
    Outage,
    /// It failed otherwise, which says that it is there.
    OtherFailure,
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// Outages in a row that open it; 0 for never.
    limit: u32,
    state: Mutex<BreakerState>,
}

#[derive(Clone, Copy, Debug)]
enum BreakerState {
    Closed { outages: u32 },
    Open { until: Instant },
    Probing,
}

/// Permission for one call. Dropped without an outcome (the caller left), it lets the next one probe.
#[derive(Debug)]
pub(super) struct CallPermit {
    breaker: Arc<CircuitBreaker>,
    probe: bool,
    began: Instant,
}

impl CallOutcome {
    pub(super) fn of<T>(result: &Result<T, ProviderError>) -> Self {
        match result {
            Ok(_) => Self::Success,
            Err(error) if error.is_outage() => Self::Outage,
            Err(_) => Self::OtherFailure,
        }
    }
}

impl CircuitBreaker {
    pub(super) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::new(BreakerState::Closed { outages: 0 }) })
    }

    /// Whether a call would be let through now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match *self.state.lock() {
            BreakerState::Closed { .. } => true,
            BreakerState::Open { until } => now >= until,
            BreakerState::Probing => false,
        }
    }

    /// Permission for a call, unless the breaker is open.
    pub(super) fn try_acquire(self: &Arc<Self>, now: Instant) -> Option<CallPermit> {
        let mut state = self.state.lock();
        let probe = match *state {
            BreakerState::Closed { .. } => false,
            BreakerState::Open { until } if now >= until => {
                *state = BreakerState::Probing;
                true
            }
            BreakerState::Open { .. } | BreakerState::Probing => return None,
        };
        drop(state);
        Some(CallPermit { breaker: self.clone(), probe, began: now })
    }
}

impl CallPermit {
    pub(super) fn record(mut self, outcome: CallOutcome, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        let mut state = self.breaker.state.lock();
        *state = match (*state, outcome) {
            (_, CallOutcome::Success) => BreakerState::Closed { outages: 0 },
            (BreakerState::Closed { outages }, CallOutcome::Outage) => {
                match outages.saturating_add(1) {
                    outages if self.breaker.limit > 0 && outages >= self.breaker.limit => open(now),
                    outages => BreakerState::Closed { outages },
                }
            }
            (_, CallOutcome::Outage) if probe => open(now),
            (_, CallOutcome::OtherFailure) if probe => BreakerState::Closed { outages: 0 },
            (state, _) => state,
        };
    }
}

fn open(now: Instant) -> BreakerState {
    BreakerState::Open { until: now + OPEN_TIME }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.probe {
            *self.breaker.state.lock() = BreakerState::Open { until: self.began };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(breaker: &Arc<CircuitBreaker>, now: Instant, outcomes: &[CallOutcome]) {
        for outcome in outcomes {
            breaker.try_acquire(now).unwrap().record(*outcome, now);
        }
    }

    use CallOutcome::{OtherFailure, Outage, Success};

    #[test]
    fn it_opens_after_outages_in_a_row_and_then_lets_one_probe_through() {
        let (breaker, start) = (CircuitBreaker::new(3), Instant::now());
        record(&breaker, start, &[Outage, Outage, Success, Outage, Outage, OtherFailure]);
        assert!(breaker.allows(start));
        record(&breaker, start, &[Outage]);
        assert!(!breaker.allows(start) && breaker.try_acquire(start).is_none());
        let later = start + OPEN_TIME;
        let probe = breaker.try_acquire(later).unwrap();
        assert!(!breaker.allows(later) && breaker.try_acquire(later).is_none());
        probe.record(Outage, later);
        assert!(!breaker.allows(later));
        record(&breaker, later + OPEN_TIME, &[Success, Outage, Outage]);
        assert!(breaker.allows(later + OPEN_TIME));
    }

    #[test]
    fn a_probe_whose_caller_left_lets_the_next_one_try() {
        let (breaker, start) = (CircuitBreaker::new(1), Instant::now());
        record(&breaker, start, &[Outage]);
        let later = start + OPEN_TIME;
        drop(breaker.try_acquire(later).unwrap());
        assert!(breaker.try_acquire(later).is_some());
    }

    #[test]
    fn zero_switches_it_off() {
        let (breaker, now) = (CircuitBreaker::new(0), Instant::now());
        record(&breaker, now, &[Outage; 100]);
        assert!(breaker.allows(now));
    }
}
