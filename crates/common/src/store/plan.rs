//! What must be looked at before the first operation of a transaction, so that none can fail after it.

use foldhash::HashMap;

use super::{Check, Op, StoreError, Txn};

/// Numbers in hash fields stay below this in size, so that every backend computes them exactly.
pub(super) const NUMBER_LIMIT: i64 = 1_000_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyType {
    Value,
    Hash,
    List,
    Index,
}

/// One thing that must be so, or a stored value is not ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precondition<'a> {
    /// The key is absent or of this kind.
    KeyType(&'a str, KeyType),
    /// The key is absent or a hash, and each of these fields is absent or a whole number within [`NUMBER_LIMIT`].
    Numbers(&'a str, Vec<&'a str>),
}

/// What is known of a key from the operations before.
struct KeyState<'a> {
    /// What it must be, and now is if it exists; `None` after a deletion.
    kind: Option<KeyType>,
    /// Nothing from before the transaction is left in it.
    fresh: bool,
    /// Fields written by this transaction: what each holds.
    fields: HashMap<&'a str, Option<&'a [u8]>>,
    numbers: Option<usize>,
}

/// Reads a stored number: in the one spelling that every backend writes, and within [`NUMBER_LIMIT`].
pub(super) fn whole(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.abs() < NUMBER_LIMIT && number.to_string() == text).then_some(number)
}

pub(super) fn corrupt(key: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "{} is of another type than expected, or not a number",
        family(key)
    ))
}

/// A key without what follows its first part: errors are logged, and keys hold user ids.
pub(super) fn family(key: &str) -> &str {
    key.split(':').next().unwrap_or_default()
}

impl Op {
    pub(super) fn key(&self) -> &str {
        match self {
            Op::Set { key, .. }
            | Op::Delete(key)
            | Op::Expire(key, _)
            | Op::FieldSet(key, ..)
            | Op::FieldDelete(key, _)
            | Op::FieldAdd(key, ..)
            | Op::Push(key, _)
            | Op::PushExisting(key, _)
            | Op::ItemSet(key, ..)
            | Op::Pop(key)
            | Op::MemberSet(key, ..)
            | Op::MemberDelete(key, _)
            | Op::MembersBelow(key, _) => key,
        }
    }

    /// What the key must hold if it exists; `None` where any kind will do.
    pub(super) fn needs(&self) -> Option<KeyType> {
        match self {
            Op::Set { .. } | Op::Delete(_) | Op::Expire(..) => None,
            Op::FieldSet(..) | Op::FieldDelete(..) | Op::FieldAdd(..) => Some(KeyType::Hash),
            Op::Push(..) | Op::PushExisting(..) | Op::ItemSet(..) | Op::Pop(_) => {
                Some(KeyType::List)
            }
            Op::MemberSet(..) | Op::MemberDelete(..) | Op::MembersBelow(..) => Some(KeyType::Index),
        }
    }
}

impl Check {
    /// What looking at it proves, with its key.
    fn proves(&self) -> Option<(&str, KeyState<'_>)> {
        let (key, kind) = match self {
            Check::Absent(key) => return Some((key, KeyState::of(None, true))),
            Check::Exists(_) | Check::Before(..) => return None,
            Check::Equals(key, _) | Check::StartsWith(key, _) => (key, KeyType::Value),
            Check::FieldEquals(key, ..)
            | Check::FieldAbsent(key, _)
            | Check::FieldAtMost(key, ..) => (key, KeyType::Hash),
            Check::LengthIs(key, _) => (key, KeyType::List),
        };
        Some((key, KeyState::of(Some(kind), false)))
    }
}

/// The guards of a transaction, or what is wrong with it in itself.
pub(super) fn guards(txn: &Txn) -> Result<Vec<Precondition<'_>>, StoreError> {
    let mut guards = Vec::new();
    let mut keys: HashMap<&str, KeyState<'_>> = HashMap::default();
    keys.reserve(txn.checks.len() + txn.ops.len());
    for (key, known) in txn.checks.iter().filter_map(Check::proves) {
        keys.entry(key).or_insert(known);
    }
    for op in &txn.ops {
        let key = op.key();
        match op {
            Op::Set { .. } => {
                keys.insert(key, KeyState::of(Some(KeyType::Value), true));
            }
            Op::Delete(_) => {
                keys.insert(key, KeyState::of(None, true));
            }
            _ => {}
        }
        let Some(kind) = op.needs() else { continue };
        let known = keys.entry(key).or_insert_with(|| {
            // Looking at a number says what kind its key is.
            if !matches!(op, Op::FieldAdd(..)) {
                guards.push(Precondition::KeyType(key, kind));
            }
            KeyState::of(Some(kind), false)
        });
        if *known.kind.get_or_insert(kind) != kind {
            return Err(corrupt(key));
        }
        known.note(op, &mut guards)?;
    }
    Ok(guards)
}

impl<'a> KeyState<'a> {
    fn of(kind: Option<KeyType>, fresh: bool) -> Self {
        Self { kind, fresh, fields: HashMap::default(), numbers: None }
    }

    fn look_at(&mut self, key: &'a str, field: &'a str, guards: &mut Vec<Precondition<'a>>) {
        match self.numbers.and_then(|at| guards.get_mut(at)) {
            Some(Precondition::Numbers(_, fields)) => fields.push(field),
            _ => {
                self.numbers = Some(guards.len());
                guards.push(Precondition::Numbers(key, vec![field]));
            }
        }
    }

    /// Follows the fields that a [`Op::FieldAdd`] may meet.
    fn note(&mut self, op: &'a Op, guards: &mut Vec<Precondition<'a>>) -> Result<(), StoreError> {
        match op {
            Op::FieldSet(_, field, value) => {
                self.fields.insert(field, Some(value));
            }
            Op::FieldDelete(_, field) => {
                self.fields.insert(field, None);
            }
            Op::FieldAdd(key, field, by) => {
                let number = match self.fields.get(field.as_str()) {
                    Some(Some(written)) => whole(written).is_some(),
                    Some(None) => true,
                    None => {
                        if !self.fresh {
                            self.look_at(key, field, guards);
                        }
                        self.fields.insert(field, None);
                        true
                    }
                };
                if !number || by.unsigned_abs() >= NUMBER_LIMIT.unsigned_abs() {
                    return Err(corrupt(key));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
