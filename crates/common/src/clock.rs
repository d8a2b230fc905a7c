//! The wall clock behind a type that tests can advance; no other module reads it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A clock. Cheap to clone; clones are one clock.
///
/// It counts by the monotonic clock, so that neither a step of the machine's time nor one of the store's makes it stand still. A system
/// clock jumps forward with the machine's time and never back; one that follows a store is set by what is read there.
#[derive(Clone, Debug)]
pub struct Clock(Arc<ClockState>);

#[derive(Debug)]
struct ClockState {
    source: Source,
    /// The Unix time in milliseconds at which `source` was 0.
    epoch_ms: AtomicI64,
    follows: AtomicBool,
}

#[derive(Debug)]
enum Source {
    System(Instant),
    Manual(AtomicU64),
}

impl Clock {
    pub fn system() -> Self {
        Self(Arc::new(ClockState {
            source: Source::System(Instant::now()),
            epoch_ms: AtomicI64::new(now_ms()),
            follows: AtomicBool::new(false),
        }))
    }

    /// A clock that stands at `start_ms` until it is advanced, for tests.
    pub fn manual(start_ms: i64) -> Self {
        Self(Arc::new(ClockState {
            source: Source::Manual(AtomicU64::new(0)),
            epoch_ms: AtomicI64::new(start_ms),
            follows: AtomicBool::new(true),
        }))
    }

    /// Moves a manual clock forward; a system clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) = &self.0.source {
            let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            micros.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        let elapsed = self.elapsed_ms();
        let ClockState { epoch_ms, follows, .. } = &*self.0;
        if follows.load(Ordering::Relaxed) {
            return elapsed + epoch_ms.load(Ordering::Relaxed);
        }
        let epoch = now_ms() - elapsed;
        elapsed + epoch_ms.fetch_max(epoch, Ordering::Relaxed).max(epoch)
    }

    /// Seconds since the Unix epoch.
    pub fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// Time since the clock was made; never goes back.
    pub fn elapsed(&self) -> Duration {
        match &self.0.source {
            Source::System(start) => start.elapsed(),
            Source::Manual(micros) => Duration::from_micros(micros.load(Ordering::Relaxed)),
        }
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Sets the clock by another one that showed `now_ms` between `asked` (of [`Self::elapsed`]) and this moment. It moves no
    /// further than that interval proves, so that the time of a round trip does not make it jitter.
    pub(crate) fn follow(&self, now_ms: i64, asked: Duration) {
        let latest = now_ms - i64::try_from(asked.as_millis()).unwrap_or(i64::MAX / 2);
        let earliest = (now_ms - self.elapsed_ms()).min(latest);
        let epoch = &self.0.epoch_ms;
        let known = epoch.load(Ordering::Relaxed);
        let proved = if self.0.follows.swap(true, Ordering::Relaxed) {
            known.clamp(earliest, latest)
        } else {
            earliest.midpoint(latest)
        };
        if proved != known {
            epoch.store(proved, Ordering::Relaxed);
        }
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock. Prefer a [`Clock`] that was passed in.
#[expect(clippy::disallowed_methods, reason = "this is the clock's home")]
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds since the Unix epoch, by this machine's clock. Prefer a [`Clock`] that was passed in.
pub fn now_s() -> i64 {
    now_ms().div_euclid(1000)
}

/// An RFC 3339 time in UTC with milliseconds.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// The day of a time in UTC, as `YYYYMMDD`.
pub fn utc_day(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y%m%d").to_string())
}

/// When the day after that of a time begins in UTC.
pub fn next_utc_day(ms: i64) -> i64 {
    (ms.div_euclid(DAY_MS) + 1) * DAY_MS
}

pub fn until_utc_midnight() -> Duration {
    let now = now_ms();
    Duration::from_millis(u64::try_from(next_utc_day(now) - now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_it_is_told_to() {
        let clock = Clock::manual(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        clock.clone().advance(Duration::from_millis(2_500));
        assert_eq!((clock.now_ms(), clock.now_s()), (3_500, 3));
        assert_eq!(clock.elapsed(), Duration::from_millis(2_500));
    }

    #[test]
    fn following_moves_no_further_than_the_answer_proves() {
        let clock = Clock::manual(10_000);
        clock.advance(Duration::from_millis(300));
        // Asked at 0: the other clock showed 10,200 some time within these 300 ms, which ours agrees with.
        clock.follow(10_200, Duration::ZERO);
        assert_eq!(clock.now_ms(), 10_300);
        clock.follow(20_000, Duration::from_millis(250));
        assert_eq!(clock.now_ms(), 20_000);
        clock.follow(5_000, Duration::from_millis(250));
        assert_eq!(clock.now_ms(), 5_050, "it also goes back");
    }

    #[test]
    fn a_system_clock_shows_this_machines_time() {
        assert!((Clock::system().now_ms() - now_ms()).abs() < 1_000);
    }
}
