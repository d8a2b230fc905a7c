//! What can be changed in one step: checks, operations, and how the step went.

use std::time::Duration;

use super::{Bytes, Key};

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
///
/// A full Redis refuses it where its first operation grows something, and takes all of it where that removes something:
/// so what begins something new says that first, and what ends something begins with what it takes away.
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
