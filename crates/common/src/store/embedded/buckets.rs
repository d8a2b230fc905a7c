//! Rate limit buckets, in memory: a restart fills them all.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::{
    clock::Clock,
    store::{Admission, Quota},
};

/// Full buckets are thrown away when there are twice as many as were left the last time, and at least this many.
const SWEEP_AT_LEAST: usize = 1024;

/// When each bucket is full again, in microseconds of [`Clock::elapsed`].
pub(super) struct Buckets {
    clock: Clock,
    held: Mutex<BucketTable>,
}

struct BucketTable {
    full_at: HashMap<String, i64>,
    sweep_at: usize,
}

impl Buckets {
    pub(super) fn new(clock: Clock) -> Self {
        let held = BucketTable { full_at: HashMap::new(), sweep_at: SWEEP_AT_LEAST };
        Self { clock, held: Mutex::new(held) }
    }

    /// Lets one through, or not; a negative cost gives back.
    pub(super) fn take(&self, key: &str, quota: Quota, cost: i64) -> Admission {
        let now = i64::try_from(self.clock.elapsed().as_micros()).unwrap_or(i64::MAX / 2);
        let mut held = self.held.lock();
        let before = held.full_at.get(key).copied().unwrap_or(now);
        let (full, admission) = quota.decide(before, now, cost);
        if full <= now {
            held.full_at.remove(key);
        } else if let Some(slot) = held.full_at.get_mut(key) {
            *slot = full;
        } else {
            held.full_at.insert(key.to_owned(), full);
        }
        if held.full_at.len() >= held.sweep_at {
            held.full_at.retain(|_, full| *full > now);
            held.sweep_at = (held.full_at.len() * 2).max(SWEEP_AT_LEAST);
        }
        admission
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.lock().full_at.len()
    }
}
