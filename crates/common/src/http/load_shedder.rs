//! Refuses what an instance cannot take, before any work is done for it.
//!
//! The number of requests in flight is limited while tasks wait too long to be polled ([`crate::scheduling_delay`]), so that those that
//! were let in are served at the best rate. Below that nothing is limited, however many requests only wait for a model server.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;

use crate::{
    errors::{ApiError, Code},
    scheduling_delay,
};

/// The delay that the limit is held to.
const TARGET: Duration = Duration::from_millis(25);

/// A burst makes tasks late for a moment; only what lasts so long is overload.
const SUSTAINED: Duration = Duration::from_millis(250);

const INTERVAL: Duration = Duration::from_millis(50);

/// So many requests are in flight without being refused, however late they are served: a burst of one program, or a few slow
/// requests, are no overload.
const FLOOR: f64 = 256.0;

/// No limit: more than there can be connections.
const CEILING: f64 = 1_000_000.0;

const SHRINK: f64 = 0.9;
const GROW: f64 = 1.05;

/// Callers with little in flight may exceed the limit by this factor.
const RESERVE: f64 = 1.25;

/// How long refusals wait before they are answered, in turn. A client that repeats at once, whatever `Retry-After` says, would
/// otherwise take the CPU from those who are served. Half of the refusals are to be answered within 50 ms, nearly all within 500.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(20), Duration::from_millis(300)];

const LOG_INTERVAL: Duration = Duration::from_secs(1);

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whoever sends a credential, or comes from an address: known by a hash, since nothing is verified for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerHash(u64);

/// The requests in flight on one listener. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct LoadShedder(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hasher: RandomState,
    refusals: AtomicUsize,
    state: Mutex<State>,
}

/// One request in flight, until this is dropped.
#[derive(Debug)]
pub struct RequestPermit {
    shared: Arc<Shared>,
    caller: CallerHash,
}

#[derive(Debug)]
struct State {
    limit: f64,
    in_flight: u32,
    by_caller: HashMap<CallerHash, u32>,
    adjusted: Instant,
    late_since: Option<Instant>,
    refused: u64,
    logged: Instant,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            limit: CEILING,
            in_flight: 0,
            by_caller: HashMap::new(),
            adjusted: now,
            late_since: None,
            refused: 0,
            logged: now,
        }
    }
}

impl State {
    /// Lowers the limit while tasks are late, and raises it while they are not.
    fn adjust(&mut self, delay: Duration, now: Instant) {
        let intervals =
            now.saturating_duration_since(self.adjusted).as_millis() / INTERVAL.as_millis();
        if intervals == 0 {
            return;
        }
        self.adjusted = now;
        let is_late = delay > TARGET;
        let late_since = *self.late_since.get_or_insert(now);
        if !is_late {
            self.late_since = None;
        }
        self.limit = if is_late {
            if now.saturating_duration_since(late_since) < SUSTAINED {
                return;
            }
            // Never far below what is in flight: streams last, and nobody could enter for as long as the limit took to grow.
            let fewer = (f64::from(self.in_flight) * SHRINK).max(FLOOR);
            self.limit.min(fewer)
        } else {
            // Nobody was refused, or the limit is found again, within seconds.
            let intervals = i32::try_from(intervals.min(1000)).unwrap_or(1000);
            (self.limit * GROW.powi(intervals)).min(CEILING)
        };
    }

    /// Whether one more request of a caller may be taken. Past the limit those who have least in flight still may, up to a
    /// reserve: whoever has half of what callers have on the average, or less.
    fn may_enter(&self, caller: CallerHash) -> bool {
        let in_flight = f64::from(self.in_flight);
        if in_flight < self.limit {
            return true;
        }
        let its = f64::from(self.by_caller.get(&caller).copied().unwrap_or(0) + 1);
        let callers = f64::from(u32::try_from(self.by_caller.len()).unwrap_or(u32::MAX));
        its * 2.0 * callers <= in_flight && in_flight < self.limit * RESERVE
    }

    fn enter(&mut self, caller: CallerHash, delay: Duration, now: Instant) -> bool {
        self.adjust(delay, now);
        if self.may_enter(caller) {
            self.in_flight += 1;
            *self.by_caller.entry(caller).or_default() += 1;
            return true;
        }
        self.refused += 1;
        if now.saturating_duration_since(self.logged) >= LOG_INTERVAL {
            self.logged = now;
            let refused = std::mem::take(&mut self.refused);
            tracing::warn!(
                refused,
                in_flight = self.in_flight,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "overloaded: requests were refused"
            );
        }
        false
    }

    fn leave(&mut self, caller: CallerHash) {
        self.in_flight -= 1;
        if let Some(its) = self.by_caller.get_mut(&caller) {
            *its -= 1;
            if *its == 0 {
                self.by_caller.remove(&caller);
            }
        }
    }
}

impl LoadShedder {
    /// Whose request this is: its credential's, else its address's.
    pub fn caller(&self, headers: &HeaderMap, address: IpAddr) -> CallerHash {
        let credential = headers.get(header::AUTHORIZATION).or_else(|| headers.get(X_API_KEY));
        CallerHash(match credential {
            Some(credential) => self.0.hasher.hash_one(credential.as_bytes()),
            None => self.0.hasher.hash_one(address),
        })
    }

    /// Lets a request in, until its permit is dropped.
    ///
    /// # Errors
    /// `overloaded`, where this instance has more to do than it can.
    pub fn enter(&self, caller: CallerHash) -> Result<RequestPermit, ApiError> {
        let delay = scheduling_delay::current();
        if self.0.state.lock().enter(caller, delay, Instant::now()) {
            return Ok(RequestPermit { shared: Arc::clone(&self.0), caller });
        }
        let detail = "This instance has more to do than it can; wait for Retry-After.";
        Err(ApiError::new(Code::Overloaded, detail))
    }

    pub(super) async fn pause(&self) {
        let number = self.0.refusals.fetch_add(1, Ordering::Relaxed);
        let pause = PAUSES.get(number % PAUSES.len()).copied();
        tokio::time::sleep(pause.unwrap_or_default()).await;
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.shared.state.lock().leave(self.caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TIME: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(40);
    const SUSTAINED_INTERVALS: u32 = 5;

    fn full(state: &mut State, caller: u64, count: u32) -> u32 {
        let now = state.adjusted;
        (0..count)
            .filter(|_| state.enter(CallerHash(caller), IN_TIME, now))
            .count()
            .try_into()
            .unwrap()
    }

    fn after(state: &mut State, delay: Duration, intervals: u32) {
        let now = state.adjusted + INTERVAL * intervals;
        state.adjust(delay, now);
    }

    #[test]
    fn nothing_is_limited_while_tasks_are_in_time() {
        let mut state = State::default();
        assert_eq!(full(&mut state, 1, 20_000), 20_000);
    }

    #[test]
    fn late_tasks_limit_what_is_in_flight_and_time_takes_the_limit_away() {
        let mut state = State::default();
        full(&mut state, 1, 1000);
        after(&mut state, LATE, 1);
        assert!(state.may_enter(CallerHash(1)), "a burst is no overload");
        after(&mut state, LATE, SUSTAINED_INTERVALS);
        assert!(!state.may_enter(CallerHash(1)));
        for _ in 0..200 {
            state.leave(CallerHash(1));
        }
        assert_eq!(full(&mut state, 1, 1000), 100, "nine tenths of 1000");
        for _ in 0..100 {
            after(&mut state, LATE, 1);
        }
        assert!(state.limit >= FLOOR);
        after(&mut state, IN_TIME, 200);
        assert_eq!(full(&mut state, 1, 20_000), 20_000, "10 s later");
    }

    #[test]
    fn a_few_requests_are_never_too_many() {
        let mut state = State::default();
        full(&mut state, 1, 40);
        for _ in 0..100 {
            after(&mut state, LATE, 1);
        }
        assert_eq!(full(&mut state, 1, 1000), 216);
    }

    #[test]
    fn who_has_most_in_flight_is_refused_first() {
        let mut state = State::default();
        full(&mut state, 1, 990);
        for small in 2..12 {
            assert_eq!(full(&mut state, small, 1), 1);
        }
        after(&mut state, LATE, 1);
        after(&mut state, LATE, SUSTAINED_INTERVALS);
        assert!(!state.may_enter(CallerHash(1)), "it has nearly all");
        assert!(state.may_enter(CallerHash(2)) && state.may_enter(CallerHash(99)));
        let mut equal = State::default();
        for each in 0..1000 {
            full(&mut equal, each, 1);
        }
        after(&mut equal, LATE, 1);
        after(&mut equal, LATE, SUSTAINED_INTERVALS);
        assert!(!equal.may_enter(CallerHash(5)) && !equal.may_enter(CallerHash(5000)));
    }
}
