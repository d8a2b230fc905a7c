//! Spares a server that does not work: after enough outages in a row it is left alone, then tried once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a server is left alone.
const REST: Duration = Duration::from_secs(5);

/// What one attempt said about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It accepted the request.
    Works,
    /// No connection, or 502, 503, 504.
    Outage,
    /// It failed otherwise, which says that it is there.
    Other,
}

/// The breaker of one provider.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// Outages in a row that open it; 0 for never.
    limit: u32,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { outages: u32 },
    Open { until: Instant },
    Probing,
}

/// Leave to try once. Dropped without a classify_error (the caller left), it lets the next one try.
#[derive(Debug)]
pub(super) struct Attempt {
    breaker: Arc<CircuitBreaker>,
    probe: bool,
    began: Instant,
}

impl CircuitBreaker {
    pub(super) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::new(State::Closed { outages: 0 }),
        })
    }

    /// Whether an attempt would be let through now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match *self.state() {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::Probing => false,
        }
    }

    /// Leave to try, if the breaker gives it.
    pub(super) fn attempt(self: &Arc<Self>, now: Instant) -> Option<Attempt> {
        let mut state = self.state();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                *state = State::Probing;
                true
            }
            State::Open { .. } | State::Probing => return None,
        };
        drop(state);
        Some(Attempt {
            breaker: self.clone(),
            probe,
            began: now,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Says how it went.
    pub(super) fn judged(mut self, classify_error: Verdict, now: Instant) {
        let probe = std::mem::take(&mut self.probe);
        let mut state = self.breaker.state();
        *state = match (*state, classify_error) {
            (_, Verdict::Works) => State::Closed { outages: 0 },
            (State::Closed { outages }, Verdict::Outage) => match outages.saturating_add(1) {
                outages if self.breaker.limit > 0 && outages >= self.breaker.limit => rest(now),
                outages => State::Closed { outages },
            },
            (_, Verdict::Outage) if probe => rest(now),
            (_, Verdict::Other) if probe => State::Closed { outages: 0 },
            (state, _) => state,
        };
    }
}

fn rest(now: Instant) -> State {
    State::Open { until: now + REST }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.probe {
            *self.breaker.state() = State::Open { until: self.began };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(breaker: &Arc<CircuitBreaker>, now: Instant, verdicts: &[Verdict]) {
        for classify_error in verdicts {
            breaker.attempt(now).unwrap().judged(*classify_error, now);
        }
    }

    use Verdict::{Other, Outage, Works};

    #[test]
    fn it_opens_after_outages_in_a_row_and_then_lets_one_probe_through() {
        let (breaker, start) = (CircuitBreaker::new(3), Instant::now());
        tell(
            &breaker,
            start,
            &[Outage, Outage, Works, Outage, Outage, Other],
        );
        assert!(breaker.allows(start));
        tell(&breaker, start, &[Outage]);
        assert!(!breaker.allows(start) && breaker.attempt(start).is_none());
        let later = start + REST;
        let probe = breaker.attempt(later).unwrap();
        assert!(!breaker.allows(later) && breaker.attempt(later).is_none());
        probe.judged(Outage, later);
        assert!(!breaker.allows(later));
        tell(&breaker, later + REST, &[Works, Outage, Outage]);
        assert!(breaker.allows(later + REST));
    }

    #[test]
    fn a_probe_whose_caller_left_lets_the_next_one_try() {
        let (breaker, start) = (CircuitBreaker::new(1), Instant::now());
        tell(&breaker, start, &[Outage]);
        let later = start + REST;
        drop(breaker.attempt(later).unwrap());
        assert!(breaker.attempt(later).is_some());
    }

    #[test]
    fn zero_switches_it_off() {
        let (breaker, now) = (CircuitBreaker::new(0), Instant::now());
        tell(&breaker, now, &[Outage; 100]);
        assert!(breaker.allows(now));
    }
}
