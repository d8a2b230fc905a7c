//! One request's place in the rate limit: counted at most once, however many hold the ticket.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::{Caller, RateLimiter};
use crate::store::{Admission, Bucket, Quota, StoreError};

/// How many replays are free for each request that the limit allows.
const REPLAYS_PER_REQUEST: u32 = 10;

#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    #[error("too many requests")]
    Limited {
        /// Whether the caller is an address without identity, not a user.
        by_address: bool,
        retry_after: Duration,
    },
    /// The bucket cannot be read; the request may have been counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A request of one caller, counted or about to be. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RateLimitTicket(pub(super) Arc<TicketState>);

#[derive(Debug)]
pub(super) struct TicketState {
    limiter: RateLimiter,
    pub(super) caller: Caller,
    pub(super) admission: OnceLock<Admission>,
}

impl RateLimitTicket {
    pub(super) fn new(limiter: RateLimiter, caller: Caller) -> Self {
        Self(Arc::new(TicketState { limiter, caller, admission: OnceLock::new() }))
    }

    /// Counts the request by `deadline`, unless it has been counted already.
    pub async fn check(&self, deadline: Instant) -> Result<(), RateLimitError> {
        if let Some(Bucket { key, quota }) = self.pending_bucket() {
            let store = self.0.limiter.store.by(deadline);
            match store.admit(&key, quota, 1).await {
                Ok(admission) => self.record(admission),
                // A full store cannot count but can still be read from; it refuses writes by itself.
                Err(StoreError::Full(_)) => self.record(passed(quota.burst, Duration::ZERO)),
                Err(error) => return Err(error.into()),
            }
        }
        self.result()
    }

    /// The bucket, if the request has not been counted yet: for a caller that counts it together with its first write
    /// ([`crate::store::Store::admit_and_commit`]) and then calls [`Self::record`].
    pub fn pending_bucket(&self) -> Option<Bucket> {
        let TicketState { limiter, caller, .. } = &*self.0;
        self.0.admission.get().is_none().then(|| limiter.bucket(caller))
    }

    pub fn record(&self, admission: Admission) {
        // If it was counted twice, the first result stands: the request was already decided by it.
        let _ = self.0.admission.set(admission);
    }

    /// Records that the request was admitted but the answer was lost; reads what is left in the bucket for the headers.
    pub async fn record_lost(&self) {
        let Some(Bucket { key, quota }) = self.pending_bucket() else { return };
        let left = self.0.limiter.store.admit(&key, quota, 0).await;
        let left = left.unwrap_or_else(|_| passed(0, quota.period));
        self.record(Admission { allowed: true, ..left });
    }

    /// The decision so far; `Ok` also where the request has not been counted yet.
    pub fn result(&self) -> Result<(), RateLimitError> {
        match self.0.admission.get() {
            Some(admission) if !admission.allowed => Err(RateLimitError::Limited {
                by_address: matches!(self.0.caller, Caller::Address(_)),
                retry_after: admission.retry_after,
            }),
            _ => Ok(()),
        }
    }

    /// Gives back what counting took, for a replay, which is no new work: as long as there are no more than ten times as many replays
    /// as the limit allows requests, since each costs what it reads and sends. If the store fails, the request stays counted.
    pub async fn refund_replay(&self) {
        let TicketState { limiter, caller, .. } = &*self.0;
        let Bucket { key, quota } = limiter.bucket(caller);
        let replays = Quota { burst: quota.burst.saturating_mul(REPLAYS_PER_REQUEST), ..quota };
        let admitted = limiter.store.admit(&format!("{key}:replays"), replays, 1).await;
        if admitted.is_ok_and(|admission| admission.allowed) {
            let _ = limiter.store.refund(&key, quota, 1).await;
        }
    }
}

fn passed(remaining: u32, reset_after: Duration) -> Admission {
    Admission { allowed: true, remaining, reset_after, retry_after: Duration::ZERO }
}
