//! One request on its way through the rate limit.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::{Caller, RateLimiter};
use crate::{
    errors::ApiError,
    store::{Admission, Bucket, StoreError},
};

/// A request of somebody, counted or about to be. Cheap to clone; it is counted once, however many hold it.
#[derive(Clone, Debug)]
pub struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limiter: RateLimiter,
    who: Caller,
    said: OnceLock<Admission>,
}

impl Call {
    pub(super) fn new(limiter: RateLimiter, who: Caller) -> Self {
        Self(Arc::new(Inner {
            limiter,
            who,
            said: OnceLock::new(),
        }))
    }

    /// Counts the request by that moment, if it has not been counted yet.
    ///
    /// # Errors
    /// `rate_limited` with `Retry-After` where the caller's bucket is empty; the store's errors.
    pub async fn count(&self, deadline: Instant) -> Result<(), ApiError> {
        if let Some(Bucket { key, quota }) = self.uncounted() {
            let store = self.0.limiter.store.by(deadline);
            match store.admit(&key, quota, 1).await {
                Ok(admission) => self.counted(admission),
                // A full store cannot count, and must still be read from: what writes is refused by the store itself.
                Err(StoreError::Full(_)) => self.counted(Admission {
                    allowed: true,
                    remaining: quota.burst,
                    reset_after: Duration::ZERO,
                    retry_after: Duration::ZERO,
                }),
                Err(error) => return Err(error.into()),
            }
        }
        self.verdict()
    }

    /// The bucket, if the request has not been counted yet: for whoever counts it together with what it writes, and
    /// says so by [`Self::counted`].
    pub fn uncounted(&self) -> Option<Bucket> {
        let Inner { limiter, who, .. } = &*self.0;
        self.0.said.get().is_none().then(|| limiter.bucket(who))
    }

    /// The request was counted, with that answer.
    pub fn counted(&self, admission: Admission) {
        // Counted twice, the first answer holds: it is the one that was acted upon.
        let _ = self.0.said.set(admission);
    }

    /// The request was counted and may pass, but the answer that said so was lost: looks at what is left.
    pub async fn passed(&self) {
        let Some(Bucket { key, quota }) = self.uncounted() else {
            return;
        };
        let nothing = Admission {
            allowed: true,
            remaining: 0,
            reset_after: quota.period,
            retry_after: Duration::ZERO,
        };
        let left = self.0.limiter.store.admit(&key, quota, 0).await;
        self.counted(Admission {
            allowed: true,
            ..left.unwrap_or(nothing)
        });
    }

    /// What the limit said; `Ok` also where it was not asked yet.
    ///
    /// # Errors
    /// `rate_limited` with `Retry-After`.
    pub fn verdict(&self) -> Result<(), ApiError> {
        match self.0.said.get() {
            Some(admission) if !admission.allowed => {
                Err(RateLimiter::refusal(&self.0.who, admission))
            }
            _ => Ok(()),
        }
    }

    /// Gives back what counting took: for a replay, which is no new work. Where the store does not take it, it stays
    /// counted.
    pub async fn give_back(&self) {
        let Inner { limiter, who, .. } = &*self.0;
        let Bucket { key, quota } = limiter.bucket(who);
        let _ = limiter.store.refund(&key, quota, 1).await;
    }

    /// Who is counted.
    pub(super) fn who(&self) -> &Caller {
        &self.0.who
    }

    /// What the limit said, for the headers of the answer.
    pub(super) fn admission(&self) -> Option<&Admission> {
        self.0.said.get()
    }
}
