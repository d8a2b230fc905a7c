//! The clock of the embedded store: this machine's, but never seen to go backwards.

use std::sync::atomic::{AtomicI64, Ordering};

/// Remembers the latest moment that it told.
#[derive(Debug, Default)]
pub(super) struct Clock {
    latest: AtomicI64,
}

impl Clock {
    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> i64 {
        let now = crate::clock::now_ms();
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }
}
