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
//! * After one time-out, calls fail at once for 250 ms at a time, so that a frozen store costs no caller a full wait.

use std::{collections::HashMap, time::Duration};

pub use bytes::Bytes;

/// A key as it stands in the store: `family:{tag}:…`. Only repositories spell one.
pub type Key = String;

/// What a store call can fail with.
#[derive(Debug, thiserror::Error)]
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

/// One thing to read. An absent or expired key reads as empty.
#[derive(Clone, Debug)]
pub enum Read {
    /// A plain value: [`Snapshot::value`].
    Value(Key),
    /// All fields of a hash: [`Snapshot::fields`].
    Fields(Key),
    /// Items of a list from `start` to `stop`, both included; negative counts from the end (-1 is the last): [`Snapshot::items`].
    Items {
        /// The list.
        key: Key,
        /// First position.
        start: i64,
        /// Last position.
        stop: i64,
    },
    /// How many items a list has: [`Snapshot::count`].
    Length(Key),
    /// Members of an index by falling score (then falling member), below `before` if given: [`Snapshot::members`].
    Newest {
        /// The index.
        key: Key,
        /// Only members that come after this (score, member) in that order: the last of the page before.
        before: Option<(i64, String)>,
        /// At most that many.
        limit: usize,
    },
    /// Members of an index with a score of at least `score`, by rising score: [`Snapshot::members`].
    Since {
        /// The index.
        key: Key,
        /// Lowest score.
        score: i64,
        /// At most that many.
        limit: usize,
    },
}

/// What one [`Read`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Of [`Read::Value`].
    Value(Option<Bytes>),
    /// Of [`Read::Fields`]; empty where the key is absent.
    Fields(HashMap<String, Bytes>),
    /// Of [`Read::Items`].
    Items(Vec<Bytes>),
    /// Of [`Read::Length`].
    Count(u64),
    /// Of [`Read::Newest`] and [`Read::Since`]: (member, score).
    Members(Vec<(String, i64)>),
}

/// What was found, in the order asked, all at one moment of the store's clock.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's clock: milliseconds since the Unix epoch.
    pub now: i64,
    /// One entry for each [`Read`].
    pub found: Vec<Found>,
}

impl Snapshot {
    /// The plain value at position `i` of the reads; `None` where it is absent.
    pub fn value(&mut self, i: usize) -> Option<Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Value(value)) => value.take(),
            _ => None,
        }
    }

    /// The hash at position `i` of the reads; empty where it is absent.
    pub fn fields(&mut self, i: usize) -> HashMap<String, Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Fields(fields)) => std::mem::take(fields),
            _ => HashMap::new(),
        }
    }

    /// The list items at position `i` of the reads.
    pub fn items(&mut self, i: usize) -> Vec<Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Items(items)) => std::mem::take(items),
            _ => Vec::new(),
        }
    }

    /// The list length at position `i` of the reads.
    pub fn count(&self, i: usize) -> u64 {
        match self.found.get(i) {
            Some(Found::Count(count)) => *count,
            _ => 0,
        }
    }

    /// The index members at position `i` of the reads.
    pub fn members(&mut self, i: usize) -> Vec<(String, i64)> {
        match self.found.get_mut(i) {
            Some(Found::Members(members)) => std::mem::take(members),
            _ => Vec::new(),
        }
    }
}

/// What must hold for a [`Txn`] to be applied.
#[derive(Clone, Debug)]
pub enum Check {
    /// The key, of any type, is absent (or expired).
    Absent(Key),
    /// The key, of any type, exists.
    Exists(Key),
    /// The plain value is exactly this.
    Equals(Key, Bytes),
    /// The hash field is exactly this.
    FieldEquals(Key, String, Bytes),
    /// The hash, or that field of it, is absent.
    FieldAbsent(Key, String),
    /// The hash field, a whole number, 0 where absent, is at most this.
    FieldAtMost(Key, String, i64),
    /// The list has exactly that many items; an absent one has 0.
    LengthIs(Key, u64),
}

/// One change. Each is total: it cannot fail halfway through a transaction for the state that it finds.
#[derive(Clone, Debug)]
pub enum Op {
    /// Sets a plain value; it lives for `ttl`, or for ever. Replaces whatever the key held.
    Set {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// How long it lives.
        ttl: Option<Duration>,
    },
    /// Removes a key of any type.
    Delete(Key),
    /// Sets how long an existing key lives from now on; `None` for ever. Applied: whether the key existed.
    Expire(Key, Option<Duration>),
    /// Sets a hash field.
    FieldSet(Key, String, Bytes),
    /// Removes a hash field; a hash without fields is absent.
    FieldDelete(Key, String),
    /// Adds to a hash field that holds a whole number (0 where absent).
    FieldAdd(Key, String, i64),
    /// Appends to a list, which begins where it is absent.
    Push(Key, Bytes),
    /// Appends to a list that exists. Applied: whether it did.
    PushExisting(Key, Bytes),
    /// Replaces the item at that position (negative from the end). Applied: whether it was there.
    ItemSet(Key, i64, Bytes),
    /// Removes the last item of a list; a list without items is absent.
    Pop(Key),
    /// Puts a member into an index, or gives it a new score.
    MemberSet(Key, String, i64),
    /// Takes a member out of an index.
    MemberDelete(Key, String),
    /// Takes all members with a score below this out of an index.
    MembersBelow(Key, i64),
}

/// 'Compare, then apply': all checks, then all operations, as one.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What is then done, in order.
    pub ops: Vec<Op>,
    /// Whether the embedded store must have it on disk before it answers. Redis decides by its `appendfsync`.
    pub durable: bool,
}

impl Txn {
    /// An empty transaction that is on disk before it is answered.
    pub fn durable() -> Self {
        Self {
            durable: true,
            ..Self::default()
        }
    }

    /// An empty transaction that a crash of the machine may lose: for what can be found out again.
    pub fn relaxed() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds a change.
    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }
}

/// How a [`Txn`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Every check held; every operation is done.
    Applied,
    /// The check at this position (the first that failed) did not hold; nothing was done.
    Refused(usize),
}

/// A rate: a full bucket lets `burst` through at once and fills again over `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many at once, at least 1.
    pub burst: u32,
    /// How long an empty bucket takes to fill.
    pub period: Duration,
}

/// What the rate limit says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether it may pass; if not, nothing was taken.
    pub allowed: bool,
    /// How many more would pass now.
    pub remaining: u32,
    /// When the bucket is full again.
    pub reset_after: Duration,
    /// When the next one would pass; zero where one would pass now.
    pub retry_after: Duration,
}
