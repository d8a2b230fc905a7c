//! What can be changed in one step: checks, operations, and how the step went.

use std::time::Duration;

use super::{Bytes, Key};

/// What must hold for a [`Txn`] to be applied.
#[derive(Clone, Debug)]
pub enum Check {
    /// The key, of any type, is absent (or expired).
    Absent(Key),
    Exists(Key),
    Equals(Key, Bytes),
    /// The value begins with these bytes, of which there is at least one: a record whose revision stands at its head need not be
    /// sent whole.
    StartsWith(Key, Bytes),
    FieldEquals(Key, String, Bytes),
    /// The hash, or that field of it, is absent.
    FieldAbsent(Key, String),
    /// The hash field, a whole number, 0 where absent, is at most this.
    FieldAtMost(Key, String, i64),
    /// The list has exactly that many items; an absent one has 0.
    LengthIs(Key, u64),
    /// The store's clock is before this time (Unix milliseconds): a transaction that waited for a frozen store until its caller
    /// had given it up is not applied any more. The key only says where.
    Before(Key, i64),
}

/// One change. Each is total: it cannot fail halfway through a transaction for the state that it finds.
#[derive(Clone, Debug)]
pub enum Op {
    /// Sets a plain value; it lives for `ttl`, or for ever. Replaces whatever the key held.
    Set {
        key: Key,
        value: Bytes,
        ttl: Option<Duration>,
    },
    Delete(Key),
    /// Sets how long an existing key lives from now on; `None` for ever. Applied: whether the key existed.
    Expire(Key, Option<Duration>),
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
    pub checks: Vec<Check>,
    pub ops: Vec<Op>,
    /// Whether the embedded store must have it on disk before it answers, and with `store.durability = "replicated"` every replica.
    /// Redis decides by its `appendfsync`.
    pub durable: bool,
}

impl Check {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Absent(key)
            | Self::Exists(key)
            | Self::Equals(key, _)
            | Self::StartsWith(key, _)
            | Self::FieldEquals(key, ..)
            | Self::FieldAbsent(key, _)
            | Self::FieldAtMost(key, ..)
            | Self::LengthIs(key, _)
            | Self::Before(key, _) => key,
        }
    }
}

impl Txn {
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let checks = self.checks.iter().map(Check::key);
        checks.chain(self.ops.iter().map(Op::key))
    }

    /// An empty transaction that is on disk before it is answered.
    pub fn durable() -> Self {
        Self { durable: true, ..Self::default() }
    }

    /// An empty transaction that a crash of the machine may lose: for what can be found out again.
    pub fn relaxed() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    #[must_use]
    pub fn ops(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.ops.extend(ops);
        self
    }

    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Every check held; every operation is done.
    Applied,
    /// The check at this position (the first that failed) did not hold; nothing was done.
    Refused(usize),
}
