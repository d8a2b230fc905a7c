//! Tokens held of a user's day, as they are entered, and settled exactly once.

use common::store::{Bytes, Check, Op, StoreError, Txn};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{OpenTurn, Usage},
    store::{
        StoreContext,
        codec::encode,
        counters::{USAGE_TTL, count, hold, release},
        keys::Keys,
    },
};

/// The beginning of the name of an entry's field, beside the counters of its day.
const ENTRY: &str = "r:";

/// Fewest tokens that must be left of a quota for an answer that could be longer.
const LEAST_LEFT: u64 = 256;

#[derive(Clone, Debug)]
pub struct Reservation {
    pub id: String,
    /// The day on which it counts (`YYYYMMDD`, UTC).
    pub day: String,
    pub tokens: u64,
    /// How many of them are the prompt's: what is counted if nobody is left to say what was used.
    pub prompt: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReservationRecord {
    pub(super) tokens: u64,
    pub(super) prompt: u64,
}

/// How a reservation is entered in a transaction: which of its checks guards the quota.
pub(super) struct Entered {
    pub(super) quota_check: Option<usize>,
}

impl Reservation {
    pub fn of_turn(open: &OpenTurn) -> Self {
        Self {
            id: open.id.to_string(),
            day: open.day.clone(),
            tokens: open.reserved,
            prompt: open.prompt,
        }
    }

    /// The same with an answer for which `left` tokens of the quota are enough; `None` where too few are left to begin.
    pub(super) fn fitted(&self, left: u64) -> Option<Self> {
        let fits = self.tokens <= left;
        (fits || (left >= LEAST_LEFT && left > self.prompt))
            .then(|| Self { tokens: self.tokens.min(left), ..self.clone() })
    }

    /// The id of a reservation by the name of its field; `None` for a counter.
    pub(super) fn id_of(field: &str) -> Option<&str> {
        field.strip_prefix(ENTRY)
    }

    fn field(&self) -> String {
        format!("{ENTRY}{}", self.id)
    }

    fn entry(&self) -> Result<Bytes, StoreError> {
        encode(&ReservationRecord { tokens: self.tokens, prompt: self.prompt })
    }

    /// Adds what makes the entry and its lease.
    pub(super) fn enter(
        &self,
        context: &StoreContext,
        keys: &Keys,
        quota: Option<u64>,
        txn: &mut Txn,
    ) -> Result<Entered, StoreError> {
        let quota_check = hold(keys, &self.day, self.tokens, quota, txn);
        let usage = keys.usage(&self.day);
        txn.ops.extend([
            // Behind what is held, which is a field of the same key: one command sets both.
            Op::FieldSet(usage.clone(), self.field(), self.entry()?),
            Op::Expire(usage, Some(USAGE_TTL)),
            context.lease_op(keys, &self.id),
        ]);
        Ok(Entered { quota_check })
    }

    /// Adds what replaces the tokens held by what was used, or by nothing where it never took place; returns the check that fails
    /// where somebody else has settled it, or the day is gone with its account: then [`Self::leave`] is all that is left to do.
    pub(super) fn settle(
        &self,
        keys: &Keys,
        usage: Option<Usage>,
        txn: &mut Txn,
    ) -> Result<usize, StoreError> {
        txn.checks.push(self.is_held(keys)?);
        txn.ops.extend(self.leave(keys));
        match usage {
            Some(usage) => txn.ops.extend(count(keys, &self.day, self.tokens, usage)),
            None => txn.ops.extend(release(keys, &self.day, self.tokens)),
        }
        Ok(txn.checks.len() - 1)
    }

    pub(super) fn is_held(&self, keys: &Keys) -> Result<Check, StoreError> {
        Ok(Check::FieldEquals(keys.usage(&self.day), self.field(), self.entry()?))
    }

    pub(super) fn is_absent(&self, keys: &Keys) -> Check {
        Check::FieldAbsent(keys.usage(&self.day), self.field())
    }

    pub(super) fn leave(&self, keys: &Keys) -> [Op; 2] {
        [Op::Delete(keys.lease(&self.id)), Op::FieldDelete(keys.usage(&self.day), self.field())]
    }
}

impl StoreContext {
    pub(super) fn lease_op(&self, keys: &Keys, id: &str) -> Op {
        Op::Set {
            key: keys.lease(id),
            value: Bytes::copy_from_slice(self.instance.as_bytes()),
            ttl: Some(self.lease),
        }
    }
}
