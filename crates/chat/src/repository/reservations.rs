//! What a completion costs its user's day: reserved before it runs, settled whatever ends it, each exactly once.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use super::{
    Repository,
    keys::Keys,
    sessions::signed,
    turns::{reserve, settle},
};
use crate::models::Usage;

/// How long a reservation is remembered: longer than any completion, so that settling it late still finds it.
const OPEN_TTL: Duration = Duration::from_secs(25 * 3600);

/// How long a withdrawn reservation is barred: longer than any store holds a command back.
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

const OPEN: Bytes = Bytes::from_static(b"open");
const WITHDRAWN: Bytes = Bytes::from_static(b"withdrawn");

/// Tokens set aside of a day.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Its id, never used twice.
    pub id: String,
    /// The day on which it counts (`YYYYMMDD`, UTC).
    pub day: String,
    /// How many.
    pub tokens: u64,
}

impl Repository {
    /// Counts a request and sets its tokens aside; `false` where the day's `quota` does not hold them, and then nothing
    /// is counted. Safe to repeat.
    pub async fn reserve_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<bool, StoreError> {
        let keys = Keys::of(owner);
        let marker = keys.reservation(&reservation.id);
        let mut txn = Txn::relaxed().check(Check::Absent(marker.clone()));
        txn.ops.push(Op::Set {
            key: marker,
            value: OPEN,
            ttl: Some(OPEN_TTL),
        });
        let guard = reserve(&keys, &reservation.day, reservation.tokens, quota, &mut txn);
        Ok(match self.store.commit(txn).await? {
            Committed::Applied => true,
            // Otherwise the mark is there: this is a repetition of what was done.
            Committed::Refused(check) => Some(check) != guard,
        })
    }

    /// Puts what was spent in the place of what was reserved. Safe to repeat.
    pub async fn settle_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        usage: Usage,
    ) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let marker = keys.reservation(&reservation.id);
        let mut txn = Txn::relaxed()
            .check(Check::Equals(marker.clone(), OPEN))
            // The account of a deleted user is gone, and stays so.
            .check(Check::Exists(keys.usage(&reservation.day)));
        txn.ops.push(Op::Delete(marker.clone()));
        settle(&keys, &reservation.day, reservation.tokens, usage, &mut txn);
        match self.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It was settled by a try whose answer was lost, or there is nothing to settle.
            Committed::Refused(_) => self.store.apply(vec![Op::Delete(marker)]).await.map(drop),
        }
    }

    /// Takes back a reservation whose outcome is unknown, or bars it from coming late. Safe to repeat.
    pub async fn withdraw_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
    ) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let marker = keys.reservation(&reservation.id);
        let bar = Op::Set {
            key: marker.clone(),
            value: WITHDRAWN,
            ttl: Some(TOMBSTONE_TTL),
        };
        let day = keys.usage(&reservation.day);
        let undo = Txn::relaxed()
            .check(Check::Equals(marker.clone(), OPEN))
            .op(bar.clone())
            .op(Op::FieldAdd(
                day.clone(),
                "held".into(),
                -signed(reservation.tokens),
            ))
            .op(Op::FieldAdd(day, "requests".into(), -1));
        if self.store.commit(undo).await? == Committed::Applied {
            return Ok(());
        }
        let txn = Txn::relaxed().check(Check::Absent(marker.clone())).op(bar);
        if self.store.commit(txn).await? == Committed::Applied {
            return Ok(());
        }
        match self.store.read(vec![Read::Value(marker)]).await?.value(0) {
            Some(value) if value == WITHDRAWN => Ok(()),
            // It came between the two: the next try takes it back.
            _ => Err(StoreError::Unavailable("a reservation came late".into())),
        }
    }
}
