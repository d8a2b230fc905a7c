//! Transactions and operations on the tables, within one redb transaction.

use super::{
    entry::{Entry, Held, NEVER},
    file::Fault,
    tables::{Tables, index, live, position},
};
use crate::store::{
    Check, Committed, Op, StoreError, Txn,
    plan::{self, Guard, Kind},
};

impl Tables<'_> {
    /// Compares, then applies. `Err(Said)` leaves everything as it was.
    pub(super) fn commit(&mut self, txn: &Txn) -> Result<Committed, Fault> {
        for (at, check) in txn.checks.iter().enumerate() {
            if !self.holds(check)? {
                return Ok(Committed::Refused(at));
            }
        }
        for guard in plan::guards(txn).map_err(Fault::Said)? {
            self.guard(&guard)?;
        }
        for op in &txn.ops {
            self.op(op).map_err(Fault::halfway)?;
        }
        Ok(Committed::Applied)
    }

    fn holds(&self, check: &Check) -> Result<bool, Fault> {
        Ok(match check {
            Check::Absent(key) => live(&self.keys, key, self.now)?.is_none(),
            Check::Exists(key) => live(&self.keys, key, self.now)?.is_some(),
            Check::Equals(key, value) => {
                match live(&self.keys, key, self.now)?.map(|entry| entry.held) {
                    None => false,
                    Some(Held::Value(held)) => held == value,
                    Some(_) => return Err(Fault::Said(plan::corrupt(key))),
                }
            }
            Check::FieldEquals(key, field, value) => {
                self.field(key, field)?.is_some_and(|held| held == value)
            }
            Check::FieldAbsent(key, field) => self.field(key, field)?.is_none(),
            Check::FieldAtMost(key, field, most) => self.number(key, field)? <= *most,
            Check::LengthIs(key, length) => {
                self.rows_of(key, Kind::List)?
                    .map_or(0, |(rows, _)| rows.count)
                    == *length
            }
        })
    }

    fn guard(&self, guard: &Guard<'_>) -> Result<(), Fault> {
        match guard {
            Guard::Numbers(key, fields) => fields
                .iter()
                .try_for_each(|field| self.number(key, field).map(|_| ())),
            Guard::Kind(key, kind) => match live(&self.keys, key, self.now)? {
                Some(entry) if entry.held.kind() != *kind => Err(Fault::Said(plan::corrupt(key))),
                _ => Ok(()),
            },
        }
    }

    /// Independent operations, in order.
    pub(super) fn apply(&mut self, ops: &[Op]) -> Result<Result<Vec<bool>, StoreError>, Fault> {
        let (mut applied, mut wrong) = (Vec::with_capacity(ops.len()), None);
        for op in ops {
            let alone = Txn::relaxed().op(op.clone());
            let guarded = plan::guards(&alone)
                .map_err(Fault::Said)
                .and_then(|guards| guards.iter().try_for_each(|guard| self.guard(guard)));
            match guarded {
                Ok(()) => applied.push(self.op(op).map_err(Fault::halfway)?),
                Err(Fault::Said(error)) => wrong = wrong.or(Some(error)),
                Err(broken) => return Err(broken),
            }
        }
        Ok(wrong.map_or(Ok(applied), Err))
    }

    /// One operation, for whose key the guards hold. True: applied, as the operation defines it.
    fn op(&mut self, op: &Op) -> Result<bool, Fault> {
        self.changed = true;
        match op {
            Op::Set { key, value, ttl } => {
                let expires = ttl.map_or(NEVER, |ttl| self.expiry(ttl));
                let held = Held::Value(value.clone());
                let new = Entry { expires, held }.encode();
                let old = self.keys.insert(key.as_str(), &new[..])?;
                let old = old.and_then(|old| Entry::decode(old.value()));
                self.tidy(key, old)?;
                self.expire(key, expires)?;
            }
            Op::Delete(key) => self.remove(key)?,
            Op::Expire(key, ttl) => {
                let Some(mut entry) = live(&self.keys, key, self.now)? else {
                    return Ok(false);
                };
                self.expiry.remove((entry.expires, key.as_str()))?;
                entry.expires = ttl.map_or(NEVER, |ttl| self.expiry(ttl));
                self.put(key, &entry)?;
                self.expire(key, entry.expires)?;
            }
            Op::FieldSet(key, field, value) => self.set_row(key, Kind::Hash, field, value)?,
            Op::FieldDelete(key, field) => self.delete_row(key, Kind::Hash, field)?,
            Op::FieldAdd(key, field, by) => {
                let sum = self.number(key, field)? + by;
                self.set_row(key, Kind::Hash, field, sum.to_string().as_bytes())?;
            }
            Op::Push(key, item) => self.push(key, item)?,
            Op::PushExisting(key, item) => {
                if self.rows_of(key, Kind::List)?.is_none() {
                    return Ok(false);
                }
                self.push(key, item)?;
            }
            Op::ItemSet(key, at, item) => {
                let Some((rows, _)) = self.rows_of(key, Kind::List)? else {
                    return Ok(false);
                };
                let Some(at) = index(*at, rows.count) else {
                    return Ok(false);
                };
                self.rows.insert((rows.id, &position(at)[..]), &item[..])?;
            }
            Op::Pop(key) => {
                if let Some((rows, expires)) = self.rows_of(key, Kind::List)? {
                    self.rows.remove((rows.id, &position(rows.count - 1)[..]))?;
                    self.count(key, rows, expires, rows.count - 1)?;
                }
            }
            Op::MemberSet(key, member, score) => {
                let (rows, expires) = self.begin(key, Kind::Index)?;
                self.unorder(rows, member)?;
                self.order.insert((rows.id, *score, member.as_str()), ())?;
                let new = self
                    .rows
                    .insert((rows.id, member.as_bytes()), &score.to_le_bytes()[..])?
                    .is_none();
                if new {
                    self.count(key, rows, expires, rows.count + 1)?;
                }
            }
            Op::MemberDelete(key, member) => self.delete_row(key, Kind::Index, member)?,
            Op::MembersBelow(key, score) => self.members_below(key, *score)?,
        }
        Ok(true)
    }
}
