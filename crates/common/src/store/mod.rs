//! The storage seam: a handful of primitives with one 'compare, then apply' transaction, over Redis or the embedded store.
//!
//! Repositories read a [`Snapshot`], decide in Rust, and [`Store::commit`] a [`Txn`] whose checks fail if what they
//! decided on has changed meanwhile; then they read again. So each rule is written once, and a backend is small.
//!
//! Promises of every backend, held by the contract suite:
//! * A [`Txn`] is applied whole or not at all; its checks and operations see no other writer in between.
//! * An expired key is absent, whether or not anybody swept it; expiry goes by the store's clock.
//! * All keys of one [`Read`] and of one [`Txn`] must share one hash tag (`{…}`), so that they share a Redis Cluster slot.
//! * Every call ends within its deadline (1 s unless [`Store::by`] says otherwise). [`StoreError::Unavailable`] from a
//!   write means *unknown*: it may have been applied, now or later. Every write must be safe to repeat.
//! * Numbers in hash fields ([`Op::FieldAdd`], [`Check::FieldAtMost`]) are whole and of at most 15 digits; anything else there is
//!   [`StoreError::Corrupt`]. Scores are exact within ±2^53. A transaction uses one key as one type, unless it is
//!   deleted or set in between. A time to live counts in whole milliseconds, at least 1.
//! * After one time-out, calls fail at once for 250 ms at a time, so that a frozen store costs no caller a full wait.

mod circuit_breaker;
mod embedded;
mod eviction;

mod plan;
mod quota;
mod redis;
mod shard;
mod snapshot;
mod txn;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

pub use bytes::Bytes;

use self::{circuit_breaker::CircuitBreaker, embedded::Embedded, redis::Redis};
pub use self::{
    eviction::Eviction,
    quota::{Admission, Bucket, Quota},
    shard::{SHARDS, shard},
    snapshot::{Found, Read, Snapshot},
    txn::{Check, Committed, Op, Txn},
};
use crate::{clock::Clock, config::StoreUrl, shutdown::Shutdown};

/// A key as it stands in the store: `family:{tag}:…`. Only repositories spell one.
pub type Key = String;

/// What a store call can fail with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, did not answer in time, is loading, read-only, or refuses us. For a write: unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It refuses writes for want of memory or disk; nothing was applied.
    #[error("the store is full: {0}")]
    Full(String),
    /// A value has another type or shape than ours (somebody else wrote it).
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
}

/// How long a call may take, unless [`Store::by`] says less.
pub const CALL_LIMIT: Duration = Duration::from_secs(1);

/// The store. Cheap to clone; all clones share one connection or one file.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    breaker: Arc<CircuitBreaker>,
    clock: Clock,
    deadline: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Backend {
    Redis(Redis),
    Embedded(Embedded),
}

impl Store {
    /// Opens the store; must be called within a Tokio runtime. It never waits for Redis: one that is down, now or later, is
    /// [`StoreError::Unavailable`] call by call, and found again within 2 s. `shutdown` ends the background look at it;
    /// calls work on after that.
    ///
    /// # Errors
    /// A Redis address that is none; an embedded file that cannot be made, is damaged, or is held by another process.
    /// No error text holds a password.
    pub fn open(url: &StoreUrl, shutdown: &Shutdown) -> Result<Self, StoreError> {
        Self::open_with_clock(url, Clock::system(), shutdown)
    }

    /// As [`Self::open`], by that clock: the embedded store goes by it; where Redis is used, it is set by Redis' time.
    pub fn open_with_clock(
        url: &StoreUrl,
        clock: Clock,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let breaker = Arc::new(CircuitBreaker::new(Instant::now()));
        let backend = match url {
            StoreUrl::Redis(url) => Backend::Redis(Redis::open(url, breaker.clone(), shutdown)?),
            StoreUrl::Embedded(dir) => Backend::Embedded(Embedded::open(dir, clock.clone())?),
            StoreUrl::Memory => Backend::Embedded(Embedded::memory(clock.clone())?),
        };
        Ok(Self {
            backend,
            breaker,
            clock,
            deadline: None,
        })
    }

    /// Whether other processes may use it at the same time: Redis; never the embedded store.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Redis(_))
    }

    /// Whether the store was away within that time, as far as was seen from here: what others had to write meanwhile may be
    /// missing.
    pub fn was_away(&self, time: Duration) -> bool {
        self.breaker.unreachable_within(time, Instant::now())
    }

    /// The same store; calls through this handle end by then (and after 1 s at the latest).
    #[must_use]
    pub fn by(&self, deadline: Instant) -> Self {
        Self {
            deadline: Some(self.deadline.map_or(deadline, |own| own.min(deadline))),
            ..self.clone()
        }
    }

    /// The store's clock as far as this process knows it: every read corrects it.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reads, all at one moment of the store's clock, in one round trip. All keys share one hash tag.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Corrupt`] where a key has another type than is read.
    pub async fn read(&self, reads: Vec<Read>) -> Result<Snapshot, StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.read(&reads, true).await,
                Backend::Embedded(embedded) => embedded.read(reads).await,
            }
        };
        self.call_read("read", Box::pin(call)).await
    }

    /// Independent reads in one round trip, each at a moment of its own; their keys may lie in any slot.
    ///
    /// # Errors
    /// As of [`Self::read`]; the first that there was.
    pub async fn read_each(&self, reads: Vec<Read>) -> Result<Snapshot, StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.read(&reads, false).await,
                Backend::Embedded(embedded) => embedded.read(reads).await,
            }
        };
        self.call_read("read_each", Box::pin(call)).await
    }

    async fn call_read(
        &self,
        op: &'static str,
        call: Pin<Box<dyn Future<Output = Result<Snapshot, StoreError>> + Send + '_>>,
    ) -> Result<Snapshot, StoreError> {
        let asked = self.clock.elapsed();
        let snapshot = self.call(op, call).await?;
        if self.is_shared() {
            self.clock.follow(snapshot.now, asked);
        }
        Ok(snapshot)
    }

    /// Applies a transaction whole, or not at all.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: whether it was or will be applied is unknown. [`StoreError::Full`] and
    /// [`StoreError::Corrupt`] (a key of another type, a field that is no number): nothing was applied.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.commit(&txn).await,
                Backend::Embedded(embedded) => embedded.commit(txn).await,
            }
        };
        self.call("commit", Box::pin(call)).await
    }

    /// Does independent operations in one round trip, in order but not as one; their keys may be anywhere. One bool
    /// for each: what the operation says of `Applied`, and true for those that say nothing.
    ///
    /// # Errors
    /// The first that there was; the other operations may have been applied.
    pub async fn apply(&self, ops: Vec<Op>) -> Result<Vec<bool>, StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.apply(&ops).await,
                Backend::Embedded(embedded) => embedded.apply(ops).await,
            }
        };
        self.call("apply", Box::pin(call)).await
    }

    /// Lets one request of that cost through the bucket `key`, or not; a refused one takes nothing. A cost of 0 only
    /// looks; one above the burst counts as the burst. The embedded store forgets buckets at a restart.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the cost may have been taken.
    pub async fn admit(&self, key: &str, quota: Quota, cost: u32) -> Result<Admission, StoreError> {
        self.take("admit", key, quota, quota.cost(cost)).await
    }

    /// Gives back what a request took; a bucket is never fuller than full.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may have been given back; not to be repeated.
    pub async fn refund(&self, key: &str, quota: Quota, cost: u32) -> Result<(), StoreError> {
        self.take("refund", key, quota, -quota.cost(cost))
            .await
            .map(|_| ())
    }

    /// Lets one request through the bucket, as [`Self::admit`] does with a cost of 1, and applies the transaction if it passes:
    /// both in one round trip. `None`: it did not pass, and nothing else was done. The bucket's key must share the
    /// transaction's hash tag.
    ///
    /// # Errors
    /// As of [`Self::commit`]; after every error but [`StoreError::Full`] the request may have been counted.
    pub async fn admit_and_commit(
        &self,
        bucket: &Bucket,
        txn: Txn,
    ) -> Result<(Admission, Option<Committed>), StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.admit_and_commit(bucket, &txn).await,
                Backend::Embedded(embedded) => embedded.admit_and_commit(bucket, txn).await,
            }
        };
        self.call("admit_and_commit", Box::pin(call)).await
    }

    async fn take(
        &self,
        op: &'static str,
        key: &str,
        quota: Quota,
        cost: i64,
    ) -> Result<Admission, StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.admit(key, quota, cost).await,
                Backend::Embedded(embedded) => Ok(embedded.admit(key, quota, cost)),
            }
        };
        self.call(op, Box::pin(call)).await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the reason.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let call = async {
            match &self.backend {
                Backend::Redis(redis) => redis.ping().await,
                Backend::Embedded(embedded) => embedded.ping().await,
            }
        };
        self.call("ping", Box::pin(call)).await
    }

    /// A sentence for the log if the store may throw data away to make room (Redis' `maxmemory-policy`); `None` also
    /// where it cannot be asked.
    pub async fn eviction_warning(&self) -> Option<String> {
        let policy = self.eviction_policy().await.ok()??;
        (policy != "noeviction").then(|| {
            format!("Redis may throw away conversations to make room: maxmemory-policy is {policy}, set it to noeviction")
        })
    }

    /// What the store does when it is full, as Redis names it; `None` where it has no such policy.
    async fn eviction_policy(&self) -> Result<Option<String>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => self.call("info", Box::pin(redis.eviction_policy())).await,
            Backend::Embedded(_) => Ok(None),
        }
    }

    /// The frame round every call: the breaker, one deadline over everything that it does, and the metrics. The call is boxed:
    /// every future that waits for the store would otherwise have room for it, twice over for each one that it is passed
    /// through, and most of them wait for something else most of the time.
    async fn call<T>(
        &self,
        op: &'static str,
        call: Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + '_>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let end = self
            .deadline
            .map_or(begun + CALL_LIMIT, |end| end.min(begun + CALL_LIMIT));
        let result = if end <= begun {
            // Nothing may go out for a caller who has no time left to hear of it.
            Err(StoreError::Unavailable("no time was left".into()))
        } else if self.breaker.allow(begun) {
            match tokio::time::timeout_at(end.into(), call).await {
                Ok(result) => {
                    self.breaker.record_reply();
                    result
                }
                Err(_) => {
                    self.breaker.record_timeout(begun, Instant::now());
                    Err(StoreError::Unavailable("no answer in time".into()))
                }
            }
        } else {
            Err(StoreError::Unavailable("it did not answer lately".into()))
        };
        metrics::counter!("store_calls_total", "op" => op, "result" => outcome(&result))
            .increment(1);
        metrics::histogram!("store_call_duration_seconds", "op" => op)
            .record(begun.elapsed().as_secs_f64());
        result
    }
}

/// The `result` label of a call.
fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Full(_)) => "full",
        Err(StoreError::Corrupt(_)) => "corrupt",
    }
}
