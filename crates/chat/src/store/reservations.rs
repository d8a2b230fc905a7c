//! Tokens of a user's day: held before they are used, settled exactly once with what was used.
//!
//! Each running turn or stateless completion has an entry in the user's hash of reservations, and a lease under the same id that its
//! process renews. Entries whose lease has lapsed are settled by whoever looks at the day next.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{OpenTurn, Usage},
    store::{
        Context,
        codec::{decode, encode},
        counters::{count, hold, release},
        keys::Keys,
    },
};

/// How long a user's entries are kept after the last one was made: longer than any day counts.
const ENTRY_TTL: Duration = Duration::from_secs(48 * 3600);

/// How long a withdrawn reservation is barred: longer than any store delays a command.
const WITHDRAWN_TTL: Duration = Duration::from_secs(3600);

const WITHDRAWN: Bytes = Bytes::from_static(b"withdrawn");

/// Tokens held of a day's quota.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Never used twice.
    pub id: String,
    /// The day on which it counts (`YYYYMMDD`, UTC).
    pub day: String,
    pub tokens: u64,
    /// How many of them are the prompt's: what is counted if nobody is left to say what was used.
    pub prompt: u64,
}

/// What is stored of a reservation.
#[derive(Serialize, Deserialize)]
struct Entry {
    day: String,
    tokens: u64,
    prompt: u64,
}

/// How a reservation is entered in a transaction: which of its checks guards the quota.
pub(super) struct Entered {
    pub(super) quota_check: Option<usize>,
}

impl Reservation {
    /// The reservation of a turn.
    pub fn of_turn(open: &OpenTurn) -> Self {
        Self {
            id: open.id.to_string(),
            day: open.day.clone(),
            tokens: open.reserved,
            prompt: open.prompt,
        }
    }

    fn entry(&self) -> Result<Bytes, StoreError> {
        let Self {
            day,
            tokens,
            prompt,
            ..
        } = self;
        encode(&Entry {
            day: day.clone(),
            tokens: *tokens,
            prompt: *prompt,
        })
    }

    /// Adds what makes the entry and its lease.
    pub(super) fn enter(
        &self,
        context: &Context,
        keys: &Keys,
        quota: Option<u64>,
        txn: &mut Txn,
    ) -> Result<Entered, StoreError> {
        txn.ops.extend([
            context.lease_op(keys, &self.id),
            Op::FieldSet(keys.reservations(), self.id.clone(), self.entry()?),
            Op::Expire(keys.reservations(), Some(ENTRY_TTL)),
        ]);
        let quota_check = hold(keys, &self.day, self.tokens, quota, txn);
        Ok(Entered { quota_check })
    }

    /// That it is not settled yet.
    pub(super) fn is_held(&self, keys: &Keys) -> Result<Check, StoreError> {
        Ok(Check::FieldEquals(
            keys.reservations(),
            self.id.clone(),
            self.entry()?,
        ))
    }

    /// What removes the entry and its lease.
    pub(super) fn leave(&self, keys: &Keys) -> [Op; 2] {
        [
            Op::Delete(keys.lease(&self.id)),
            Op::FieldDelete(keys.reservations(), self.id.clone()),
        ]
    }
}

impl Context {
    fn lease_op(&self, keys: &Keys, id: &str) -> Op {
        Op::Set {
            key: keys.lease(id),
            value: Bytes::copy_from_slice(self.instance.as_bytes()),
            ttl: Some(self.lease),
        }
    }
}

/// Holds tokens for stateless completions, and settles reservations.
pub struct ReservationStore<'a> {
    pub(super) context: &'a Context,
}

impl ReservationStore<'_> {
    /// Holds a completion's tokens; `false` where the day's `quota` does not allow it, and then nothing is held. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be held, now or later; see [`Self::withdraw`].
    pub async fn reserve(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<bool, StoreError> {
        if self.try_reserve(owner, reservation, quota).await? {
            return Ok(true);
        }
        // Dead processes must not hold quota.
        Ok(self.settle_dead(owner).await? > 0
            && self.try_reserve(owner, reservation, quota).await?)
    }

    async fn try_reserve(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<bool, StoreError> {
        let keys = Keys::of(owner);
        let mut txn = Txn::relaxed()
            .check(Check::Absent(keys.lease(&reservation.id)))
            .check(Check::FieldAbsent(
                keys.reservations(),
                reservation.id.clone(),
            ));
        let entered = reservation.enter(self.context, &keys, quota, &mut txn)?;
        Ok(match self.context.store.commit(txn).await? {
            Committed::Applied => true,
            // Otherwise it exists: this repeats what was done.
            Committed::Refused(check) => Some(check) != entered.quota_check,
        })
    }

    /// Renews the lease of a completion. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew(&self, owner: &Owner, reservation: &Reservation) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let txn = Txn::relaxed()
            .check(reservation.is_held(&keys)?)
            .op(self.context.lease_op(&keys, &reservation.id));
        self.context.store.commit(txn).await.map(drop)
    }

    /// Replaces what was held by what was used. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be settled, now or later.
    pub async fn settle(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        usage: Usage,
    ) -> Result<(), StoreError> {
        self.close(&Keys::of(owner), reservation, usage).await
    }

    /// Settles the reservations of processes that died, with what is known of them; returns how many. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn settle_dead(&self, owner: &Owner) -> Result<usize, StoreError> {
        let keys = Keys::of(owner);
        let read = vec![Read::Fields(keys.reservations())];
        let entries = self.context.store.read(read).await?.fields(0);
        self.settle_dead_of(&keys, entries).await
    }

    pub(super) async fn settle_dead_of(
        &self,
        keys: &Keys,
        entries: HashMap<String, Bytes>,
    ) -> Result<usize, StoreError> {
        if entries.is_empty() {
            return Ok(0);
        }
        let entries: Vec<_> = entries.into_iter().collect();
        let leases = entries
            .iter()
            .map(|(id, _)| Read::Value(keys.lease(id)))
            .collect();
        let mut leases = self.context.store.read(leases).await?;
        let mut dead = 0;
        for (at, (id, stored)) in entries.into_iter().enumerate() {
            let Some(Entry {
                day,
                tokens,
                prompt,
            }) = decode(&stored)
            else {
                let gone = Op::FieldDelete(keys.reservations(), id);
                self.context.store.apply(vec![gone]).await?;
                continue;
            };
            let holder = leases
                .value(at)
                .and_then(|holder| String::from_utf8(holder.to_vec()).ok());
            if holder.is_some_and(|holder| self.context.may_live(&holder)) {
                continue;
            }
            let usage = Usage {
                prompt_tokens: prompt,
                completion_tokens: 0,
            };
            let reservation = Reservation {
                id,
                day,
                tokens,
                prompt,
            };
            self.close(keys, &reservation, usage).await?;
            dead += 1;
        }
        Ok(dead)
    }

    async fn close(
        &self,
        keys: &Keys,
        reservation: &Reservation,
        usage: Usage,
    ) -> Result<(), StoreError> {
        let Reservation { day, tokens, .. } = reservation;
        let mut txn = Txn::relaxed()
            .check(reservation.is_held(keys)?)
            // The usage of an erased account is gone, and stays so.
            .check(Check::Exists(keys.usage(day)));
        txn.ops.extend(reservation.leave(keys));
        txn.ops.extend(count(keys, day, *tokens, usage));
        match self.context.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It was settled by a try whose answer was lost, or there is nothing to settle.
            Committed::Refused(_) => self
                .context
                .store
                .apply(reservation.leave(keys).to_vec())
                .await
                .map(drop),
        }
    }

    /// Takes back a reservation whose outcome is unknown, or bars it from being made later. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: to be repeated.
    pub async fn withdraw(
        &self,
        owner: &Owner,
        reservation: &Reservation,
    ) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let id = &reservation.id;
        let bar = Op::Set {
            key: keys.lease(id),
            value: WITHDRAWN,
            ttl: Some(WITHDRAWN_TTL),
        };
        let mut undo = Txn::relaxed()
            .check(reservation.is_held(&keys)?)
            .op(Op::FieldDelete(keys.reservations(), id.clone()))
            .op(bar.clone());
        undo.ops
            .extend(release(&keys, &reservation.day, reservation.tokens));
        if self.context.store.commit(undo).await? == Committed::Applied {
            return Ok(());
        }
        let txn = Txn::relaxed()
            .check(Check::FieldAbsent(keys.reservations(), id.clone()))
            .op(bar);
        match self.context.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It came between the two: the next try takes it back.
            Committed::Refused(_) => Err(StoreError::Unavailable("a reservation came late".into())),
        }
    }
}

#[cfg(test)]
mod tests;
