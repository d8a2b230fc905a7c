//! Circuit breaker: after enough outages in a row a server gets no requests for a while, then one as a probe.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::llm::error::ProviderError;

const OPEN_TIME: Duration = Duration::from_secs(5);

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
    /// Takes how the call went. A failure that is no outage says that the server is there.
    pub(super) fn record<T>(mut self, result: &Result<T, ProviderError>, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        let is_outage = result.as_ref().is_err_and(|error| error.is_outage());
        let mut state = self.breaker.state.lock();
        *state = match *state {
            _ if result.is_ok() => BreakerState::Closed { outages: 0 },
            BreakerState::Closed { outages } if is_outage => match outages.saturating_add(1) {
                outages if self.breaker.limit > 0 && outages >= self.breaker.limit => open(now),
                outages => BreakerState::Closed { outages },
            },
            _ if probe && is_outage => open(now),
            _ if probe => BreakerState::Closed { outages: 0 },
            state => state,
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
    use crate::llm::error::ErrorKind;

    const SUCCESS: Option<ErrorKind> = None;
    const OUTAGE: Option<ErrorKind> = Some(ErrorKind::Outage);
    const OTHER_FAILURE: Option<ErrorKind> = Some(ErrorKind::Failed);

    fn result(failure: Option<ErrorKind>) -> Result<(), ProviderError> {
        failure.map_or(Ok(()), |kind| Err(ProviderError::new(kind, "")))
    }

    fn record(breaker: &Arc<CircuitBreaker>, now: Instant, failures: &[Option<ErrorKind>]) {
        for failure in failures {
            breaker.try_acquire(now).unwrap().record(&result(*failure), now);
        }
    }

    #[test]
    fn it_opens_after_outages_in_a_row_and_then_lets_one_probe_through() {
        let (breaker, start) = (CircuitBreaker::new(3), Instant::now());
        record(&breaker, start, &[OUTAGE, OUTAGE, SUCCESS, OUTAGE, OUTAGE, OTHER_FAILURE]);
        assert!(breaker.allows(start));
        record(&breaker, start, &[OUTAGE]);
        assert!(!breaker.allows(start) && breaker.try_acquire(start).is_none());
        let later = start + OPEN_TIME;
        let probe = breaker.try_acquire(later).unwrap();
        assert!(!breaker.allows(later) && breaker.try_acquire(later).is_none());
        probe.record(&result(OUTAGE), later);
        assert!(!breaker.allows(later));
        record(&breaker, later + OPEN_TIME, &[SUCCESS, OUTAGE, OUTAGE]);
        assert!(breaker.allows(later + OPEN_TIME));
    }

    #[test]
    fn a_probe_whose_caller_left_lets_the_next_one_try() {
        let (breaker, start) = (CircuitBreaker::new(1), Instant::now());
        record(&breaker, start, &[OUTAGE]);
        let later = start + OPEN_TIME;
        drop(breaker.try_acquire(later).unwrap());
        assert!(breaker.try_acquire(later).is_some());
    }

    #[test]
    fn zero_switches_it_off() {
        let (breaker, now) = (CircuitBreaker::new(0), Instant::now());
        record(&breaker, now, &[OUTAGE; 100]);
        assert!(breaker.allows(now));
    }
}
