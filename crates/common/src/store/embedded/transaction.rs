//! Transactions and operations on the tables, within one redb transaction.

use super::{
    entry::{Content, Entry, NEVER},
    fault::Fault,
    tables::{WriteTables, live},
};
use crate::store::{
    Bytes, Check, Committed, Op, StoreError, Txn,
    plan::{self, KeyType, Precondition},
};

/// Compares, then applies. `Err(Said)` leaves everything as it was.
pub(super) fn commit(tables: &mut WriteTables<'_>, txn: &Txn) -> Result<Committed, Fault> {
    for (at, check) in txn.checks.iter().enumerate() {
        if !holds(tables, check)? {
            return Ok(Committed::Refused(at));
        }
    }
    for guard in plan::guards(txn).map_err(Fault::Said)? {
        verify(tables, &guard)?;
    }
    for op in &txn.ops {
        execute(tables, op).map_err(Fault::halfway)?;
    }
    Ok(Committed::Applied)
}

fn holds(tables: &WriteTables<'_>, check: &Check) -> Result<bool, Fault> {
    Ok(match check {
        Check::Before(_, time) => tables.now < *time,
        Check::Absent(key) => live(&tables.keys, key, tables.now)?.is_none(),
        Check::Exists(key) => live(&tables.keys, key, tables.now)?.is_some(),
        Check::Equals(key, value) => value_of(tables, key)?.is_some_and(|held| held == value),
        Check::StartsWith(key, start) => {
            value_of(tables, key)?.is_some_and(|held| held.starts_with(start))
        }
        Check::FieldEquals(key, field, value) => {
            tables.field(key, field)?.is_some_and(|held| held == value)
        }
        Check::FieldAbsent(key, field) => tables.field(key, field)?.is_none(),
        Check::FieldAtMost(key, field, most) => tables.number(key, field)? <= *most,
        Check::LengthIs(key, length) => {
            tables.rows_of(key, KeyType::List)?.map_or(0, |(rows, _)| rows.count) == *length
        }
    })
}

fn value_of(tables: &WriteTables<'_>, key: &str) -> Result<Option<Bytes>, Fault> {
    match live(&tables.keys, key, tables.now)?.map(|entry| entry.held) {
        None => Ok(None),
        Some(Content::Value(held)) => Ok(Some(held)),
        Some(_) => Err(Fault::Said(plan::corrupt(key))),
    }
}

fn verify(tables: &WriteTables<'_>, guard: &Precondition<'_>) -> Result<(), Fault> {
    match guard {
        Precondition::Numbers(key, fields) => {
            fields.iter().try_for_each(|field| tables.number(key, field).map(|_| ()))
        }
        Precondition::KeyType(key, kind) => match live(&tables.keys, key, tables.now)? {
            Some(entry) if entry.held.kind() != *kind => Err(Fault::Said(plan::corrupt(key))),
            _ => Ok(()),
        },
    }
}

/// Independent operations, in order; one result for each.
pub(super) fn apply(
    tables: &mut WriteTables<'_>,
    ops: &[Op],
) -> Result<Vec<Result<bool, StoreError>>, Fault> {
    let mut applied = Vec::with_capacity(ops.len());
    for op in ops {
        let alone = Txn::relaxed().op(op.clone());
        let guarded = plan::guards(&alone)
            .map_err(Fault::Said)
            .and_then(|guards| guards.iter().try_for_each(|guard| verify(tables, guard)));
        match guarded {
            Ok(()) => applied.push(Ok(execute(tables, op).map_err(Fault::halfway)?)),
            Err(Fault::Said(error)) => applied.push(Err(error)),
            Err(broken) => return Err(broken),
        }
    }
    Ok(applied)
}

/// One operation, for whose key the guards hold. True: applied, as the operation defines it.
fn execute(tables: &mut WriteTables<'_>, op: &Op) -> Result<bool, Fault> {
    tables.changed = true;
    match op {
        Op::Set { key, value, ttl } => {
            let expires = ttl.map_or(NEVER, |ttl| tables.expiry(ttl));
            let held = Content::Value(value.clone());
            let new = Entry { expires, held }.encode();
            let old = tables.keys.insert(key.as_str(), &new[..])?;
            let old = old.and_then(|old| Entry::decode(old.value()));
            tables.tidy(key, old)?;
            tables.expire(key, expires)?;
        }
        Op::Delete(key) => tables.remove(key)?,
        Op::Expire(key, ttl) => {
            let Some(mut entry) = live(&tables.keys, key, tables.now)? else { return Ok(false) };
            tables.expiry.remove((entry.expires, key.as_str()))?;
            entry.expires = ttl.map_or(NEVER, |ttl| tables.expiry(ttl));
            tables.put(key, &entry)?;
            tables.expire(key, entry.expires)?;
        }
        Op::FieldSet(key, field, value) => tables.set_row(key, KeyType::Hash, field, value)?,
        Op::FieldDelete(key, field) => tables.delete_row(key, KeyType::Hash, field)?,
        Op::FieldAdd(key, field, by) => {
            let sum = tables.number(key, field)? + by;
            tables.set_row(key, KeyType::Hash, field, sum.to_string().as_bytes())?;
        }
        Op::Push(key, item) => tables.push(key, item)?,
        Op::PushExisting(key, item) => {
            if tables.rows_of(key, KeyType::List)?.is_none() {
                return Ok(false);
            }
            tables.push(key, item)?;
        }
        Op::ItemSet(key, at, item) => return tables.set_item(key, *at, item),
        Op::Pop(key) => tables.pop(key)?,
        Op::MemberSet(key, member, score) => tables.set_member(key, member, *score)?,
        Op::MemberDelete(key, member) => tables.delete_row(key, KeyType::Index, member)?,
        Op::MembersBelow(key, score) => tables.members_below(key, *score)?,
    }
    Ok(true)
}
