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
//! * After one time-out of a node, calls to it fail at once for 250 ms at a time, so that a frozen one costs no caller a full wait.
//!   Calls to other nodes go on.

mod call;
mod circuit_breaker;
mod durability;
mod embedded;
mod error;
mod eviction;
mod format;
mod plan;
mod quota;
mod redis;
mod shard;
mod snapshot;
mod txn;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use bytes::Bytes;

use self::{
    call::{Call, any_of, call, one_slot},
    circuit_breaker::CircuitBreaker,
    embedded::{Embedded, File},
    redis::Redis,
};
pub use self::{
    durability::fsync_problem,
    error::StoreError,
    eviction::{Eviction, eviction_warning},
    format::{FormatError, NewStore, check_format, start},
    quota::{Admission, Bucket, Quota},
    shard::{SHARDS, shard},
    snapshot::{Found, Read, Snapshot, counter},
    txn::{Check, Committed, Op, Txn},
};
use crate::{
    clock::Clock,
    config::{Durability, StoreUrl},
    shutdown::Shutdown,
};

/// A key as it stands in the store: `family:{tag}:…`. Only repositories spell one.
pub type Key = String;

/// How long a call may take, unless [`Store::by`] says less.
pub const CALL_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    Whole,
    /// Some nodes do not answer: which, and why.
    Degraded(String),
}

/// The store. Cheap to clone; all clones share their connections or one file.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    clock: Clock,
    deadline: Option<Instant>,
}

#[derive(Clone)]
enum Backend {
    Redis(Redis),
    Embedded(Embedded, Arc<CircuitBreaker>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
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
        Self::open_with(url, Durability::Local, Clock::system(), shutdown)
    }

    /// As [`Self::open`], by that clock: the embedded store goes by it; where Redis is used, it is set by Redis' time.
    /// [`Durability`] says when a durable transaction counts.
    pub fn open_with(
        url: &StoreUrl,
        durability: Durability,
        clock: Clock,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let embedded = |embedded| {
            let breaker = CircuitBreaker::new(Instant::now());
            Backend::Embedded(embedded, Arc::new(breaker))
        };
        let backend = match url {
            StoreUrl::Redis(url) => Backend::Redis(Redis::open(url, durability, shutdown)?),
            StoreUrl::Embedded(dir) => embedded(Embedded::on(File::open(dir)?, clock.clone())?),
            StoreUrl::Memory => embedded(Embedded::on(File::memory()?, clock.clone())?),
        };
        Ok(Self { backend, clock, deadline: None })
    }

    /// Whether other processes may use it at the same time: Redis; never the embedded store.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Redis(_))
    }

    /// Whether the node that holds the key was away within that time, as far as was seen from here, or took over from another one: what
    /// others had to write meanwhile may be missing.
    pub fn was_away(&self, key: &str, time: Duration) -> bool {
        match &self.backend {
            Backend::Redis(redis) => redis.was_away(key, time),
            Backend::Embedded(..) => false,
        }
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
        self.read_as("read", reads, false).await
    }

    /// As [`Self::read`], for a large answer: it comes over a connection of its own, so that no small call waits behind it.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub async fn read_bulk(&self, reads: Vec<Read>) -> Result<Snapshot, StoreError> {
        self.read_as("read_bulk", reads, true).await
    }

    async fn read_as(
        &self,
        op: &'static str,
        reads: Vec<Read>,
        is_large: bool,
    ) -> Result<Snapshot, StoreError> {
        one_slot(reads.iter().map(Read::key))?;
        let (asked, end) = (self.clock.elapsed(), self.end());
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => {
                Box::pin(async move { redis.read(&reads, is_large, end).await })
            }
            Backend::Embedded(store, breaker) => {
                Box::pin(breaker.guard(end, async move { store.read(reads).await }))
            }
        };
        let snapshot = call(op, end, future).await?;
        if self.is_shared() {
            self.clock.follow(snapshot.now, asked);
        }
        Ok(snapshot)
    }

    /// Independent reads, in one round trip to each node; their keys may lie in any slot, and each is read at a moment of its own:
    /// what one node does not answer spoils nothing of the others.
    ///
    /// # Errors
    /// As of [`Self::read`], where nothing could be read.
    pub async fn read_each(
        &self,
        reads: Vec<Read>,
    ) -> Result<Vec<Result<Found, StoreError>>, StoreError> {
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => {
                Box::pin(async move { any_of(redis.read_each(&reads, end).await) })
            }
            Backend::Embedded(store, breaker) => Box::pin(breaker.guard(end, async move {
                Ok(store.read(reads).await?.found.into_iter().map(Ok).collect())
            })),
        };
        call("read_each", end, future).await
    }

    /// Applies a transaction whole, or not at all.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: whether it was or will be applied is unknown. [`StoreError::Full`] and
    /// [`StoreError::Corrupt`] (a key of another type, a field that is no number): nothing was applied.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        one_slot(txn.keys())?;
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => Box::pin(async move { redis.commit(&txn, end).await }),
            Backend::Embedded(store, breaker) => {
                Box::pin(breaker.guard(end, async move { store.commit(txn).await }))
            }
        };
        call("commit", end, future).await
    }

    /// Does independent operations in one round trip, in order but not as one; their keys may be anywhere. One bool
    /// for each: what the operation says of `Applied`, and true for those that say nothing.
    ///
    /// # Errors
    /// The first that there was; the other operations may have been applied.
    pub async fn apply(&self, ops: Vec<Op>) -> Result<Vec<bool>, StoreError> {
        self.apply_each(ops).await?.into_iter().collect()
    }

    /// As [`Self::apply`], with a result for each: what one node does not answer, or one key refuses, spoils nothing of the others.
    ///
    /// # Errors
    /// The first, where none could be applied.
    pub async fn apply_each(
        &self,
        ops: Vec<Op>,
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => {
                Box::pin(async move { any_of(redis.apply_each(&ops, end).await) })
            }
            Backend::Embedded(store, breaker) => {
                Box::pin(breaker.guard(end, async move { any_of(store.apply_each(ops).await?) }))
            }
        };
        call("apply", end, future).await
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
        self.take("refund", key, quota, -quota.cost(cost)).await.map(|_| ())
    }

    /// Lets one request through the bucket, as [`Self::admit`] does with a cost of 1, and applies the transaction if it passes: both in
    /// one round trip. `None`: it did not pass, and nothing else was done. The bucket's key must share the transaction's hash tag.
    ///
    /// # Errors
    /// As of [`Self::commit`]; after every error but [`StoreError::Full`] the request may have been counted.
    pub async fn admit_and_commit(
        &self,
        bucket: &Bucket,
        txn: Txn,
    ) -> Result<(Admission, Option<Committed>), StoreError> {
        one_slot(txn.keys().chain([bucket.key.as_str()]))?;
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => {
                Box::pin(async move { redis.admit_and_commit(bucket, &txn, end).await })
            }
            Backend::Embedded(store, breaker) => Box::pin(
                breaker.guard(end, async move { store.admit_and_commit(bucket, txn).await }),
            ),
        };
        call("admit_and_commit", end, future).await
    }

    async fn take(
        &self,
        op: &'static str,
        key: &str,
        quota: Quota,
        cost: i64,
    ) -> Result<Admission, StoreError> {
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => Box::pin(redis.admit(key, quota, cost, end)),
            Backend::Embedded(store, _) => {
                Box::pin(async move { Ok(store.admit(key, quota, cost)) })
            }
        };
        call(op, end, future).await
    }

    /// Asks every node for a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the reason, where none answers.
    pub async fn ping(&self) -> Result<StoreHealth, StoreError> {
        let end = self.end();
        let future: Call<'_, _> = match &self.backend {
            Backend::Redis(redis) => Box::pin(redis.ping(end)),
            Backend::Embedded(store, breaker) => Box::pin(
                breaker.guard(end, async move { store.ping().await.map(|()| StoreHealth::Whole) }),
            ),
        };
        call("ping", end, future).await
    }

    /// When a call that begins now must have ended.
    pub fn end(&self) -> Instant {
        let limit = Instant::now() + CALL_LIMIT;
        self.deadline.map_or(limit, |deadline| deadline.min(limit))
    }
}
