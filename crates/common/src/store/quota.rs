//! Rate limits: the quota, what the limit says of one request, and the arithmetic of the embedded store.

use std::time::Duration;

use super::Key;

/// A rate: a full bucket lets `burst` through at once and fills again over `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many at once, at least 1.
    pub burst: u32,
    /// How long an empty bucket takes to fill.
    pub period: Duration,
}

/// What counts the requests of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub key: Key,
    pub quota: Quota,
}

/// What the rate limit says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether it may pass; if not, nothing was taken.
    pub allowed: bool,
    pub remaining: u32,
    pub reset_after: Duration,
    /// When the next one of the same cost would pass; zero where it would pass now.
    pub retry_after: Duration,
}

/// Longest period of a quota; a longer one counts as this. Keeps every number of the arithmetic far below 2^53.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Quota {
    pub(super) fn burst(&self) -> i64 {
        i64::from(self.burst.max(1))
    }

    /// Microseconds in which one is refilled, rounded down, at least 1.
    pub(super) fn step(&self) -> i64 {
        let period = i64::try_from(self.period.min(LONGEST).as_micros()).unwrap_or(i64::MAX);
        (period / self.burst()).max(1)
    }

    /// A cost as it is counted: what asks for more than the bucket holds needs the full bucket.
    pub(super) fn cost(&self, cost: u32) -> i64 {
        i64::from(cost).min(self.burst())
    }

    /// What `admit.lua` does: `held` is when the bucket is full again and `now` the time, both in microseconds; a negative
    /// `cost` gives back. Returns the new `held` and the answer.
    pub(super) fn decide(&self, held: i64, now: i64, cost: i64) -> (i64, Admission) {
        let step = self.step();
        let limit = now + self.burst() * step;
        let mut full = held.clamp(now, limit);
        let next = (full + cost * step).max(now);
        let allowed = next <= limit;
        if allowed {
            full = next;
        }
        let retry_after = full + cost.max(1) * step - limit;
        (full, admission(allowed, (limit - full) / step, full - now, retry_after))
    }
}

/// The answer from its numbers; times in microseconds.
pub(super) fn admission(
    allowed: bool,
    remaining: i64,
    reset_after: i64,
    retry_after: i64,
) -> Admission {
    let micros = |n: i64| Duration::from_micros(u64::try_from(n).unwrap_or(0));
    Admission {
        allowed,
        remaining: u32::try_from(remaining.max(0)).unwrap_or(u32::MAX),
        reset_after: micros(reset_after),
        retry_after: micros(retry_after),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bucket told step by step: a level in units of microseconds that drains with time.
    struct Bucket {
        level: i64,
        at: i64,
    }

    proptest! {
        #[test]
        fn the_arithmetic_equals_a_bucket_that_drains(
            burst in 1u32..50, period_ms in 1u64..100_000,
            steps in proptest::collection::vec((0i64..3_000_000, -3i64..5), 1..100),
        ) {
            let quota = Quota { burst, period: Duration::from_millis(period_ms) };
            let (size, step) = (quota.burst() * quota.step(), quota.step());
            let (mut held, mut now) = (0, 1_700_000_000_000_000);
            let mut bucket = Bucket { level: 0, at: now };
            for (wait, cost) in steps {
                let cost = cost.min(quota.burst());
                now += wait;
                bucket.level = (bucket.level - (now - bucket.at)).max(0);
                bucket.at = now;
                let fits = bucket.level + cost * step <= size;
                if fits {
                    bucket.level = (bucket.level + cost * step).max(0);
                }
                let (next, said) = quota.decide(held, now, cost);
                held = next;
                prop_assert_eq!(said.allowed, fits);
                prop_assert_eq!(i64::from(said.remaining), (size - bucket.level) / step);
                prop_assert_eq!(said.reset_after.as_micros() as i64, bucket.level);
                let wait = (bucket.level + cost.max(1) * step - size).max(0);
                prop_assert_eq!(said.retry_after.as_micros() as i64, wait);
            }
        }

        #[test]
        fn a_refused_one_passes_exactly_when_it_was_told_to(burst in 1u32..20, period_ms in 20u64..100_000, cost in 1u32..5) {
            let quota = Quota { burst, period: Duration::from_millis(period_ms) };
            let (now, cost) = (1_700_000_000_000_000, quota.cost(cost));
            let (held, _) = quota.decide(0, now, quota.burst());
            let (held, refused) = quota.decide(held, now, cost);
            prop_assert!(!refused.allowed);
            let wait = refused.retry_after.as_micros() as i64;
            prop_assert!(!quota.decide(held, now + wait - 1, cost).1.allowed);
            prop_assert!(quota.decide(held, now + wait, cost).1.allowed);
        }
    }
}
