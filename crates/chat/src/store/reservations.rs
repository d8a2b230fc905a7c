//! Tokens of a user's day: held before they are used, settled exactly once with what was used.
//!
//! Each running turn or stateless completion has an entry in the hash of the user's day, and a lease under its id that its process
//! renews. Entries whose lease has lapsed are settled by whoever looks at the day next.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::{Identity, Owner},
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::Usage,
    store::{
        ATTEMPTS, IDENTITY_CHECK, StoreContext,
        codec::decode,
        keys::Keys,
        reservation::{Reservation, ReservationRecord},
        turns::LeaseHolder,
    },
};

/// How long a withdrawn reservation is barred: longer than any store delays a command.
const WITHDRAWN_TTL: Duration = Duration::from_secs(3600);

const WITHDRAWN: Bytes = Bytes::from_static(b"withdrawn");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    Yes,
    QuotaExceeded(QuotaExceeded),
    /// The account changed since the credential was checked: check it again.
    AccountChanged,
}

/// Too little is left of the day's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaExceeded {
    /// It would be enough without what running answers hold, most of which they give back.
    pub is_held: bool,
}

/// Holds tokens for stateless completions, and settles reservations.
pub struct ReservationStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl ReservationStore<'_> {
    /// Holds a completion's tokens, fewer where less is left of the day's `quota`; all or nothing. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be held, now or later; see [`Self::withdraw`].
    pub async fn reserve(
        &self,
        identity: &Identity,
        reservation: &mut Reservation,
        quota: Option<u64>,
    ) -> Result<Reserved, StoreError> {
        let mut reserved = Reserved::Yes;
        for _ in 0..ATTEMPTS {
            reserved = self.try_reserve(identity, reservation, quota).await?;
            if !matches!(reserved, Reserved::QuotaExceeded(_)) {
                break;
            }
            match self.fit(&identity.owner, reservation, quota).await? {
                Ok(fitted) => *reservation = fitted,
                Err(exceeded) => return Ok(Reserved::QuotaExceeded(exceeded)),
            }
        }
        Ok(reserved)
    }

    /// A reservation that the quota has refused, as far as it allows it now. Reservations of dead processes hold nothing.
    pub async fn fit(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<Result<Reservation, QuotaExceeded>, StoreError> {
        let usage = self.usage(owner, &reservation.day).await?;
        let fitted = |taken| reservation.fitted(quota.unwrap_or(u64::MAX).saturating_sub(taken));
        let is_held = fitted(usage.prompt.saturating_add(usage.completion)).is_some();
        Ok(fitted(usage.held).ok_or(QuotaExceeded { is_held }))
    }

    async fn try_reserve(
        &self,
        identity: &Identity,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<Reserved, StoreError> {
        let keys = Keys::of(&identity.owner);
        let mut txn = Txn::relaxed()
            .check(identity.is_current())
            .check(Check::Absent(keys.lease(&reservation.id)))
            .check(reservation.is_absent(&keys));
        let entered = reservation.enter(self.context, &keys, quota, &mut txn)?;
        Ok(match self.context.store.commit(txn).await? {
            Committed::Refused(IDENTITY_CHECK) => Reserved::AccountChanged,
            Committed::Refused(check) if Some(check) == entered.quota_check => {
                Reserved::QuotaExceeded(QuotaExceeded { is_held: true })
            }
            // Where another check failed it exists: this repeats what was done.
            Committed::Applied | Committed::Refused(_) => Reserved::Yes,
        })
    }

    /// Renews the lease of a completion. Safe to repeat.
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
        self.close(Txn::relaxed(), &Keys::of(owner), reservation, Some(usage)).await
    }

    /// Settles the reservations of processes that died, with what is known of them; returns how many. Safe to repeat.
    pub(super) async fn settle_dead(
        &self,
        keys: &Keys,
        day: &str,
        fields: &HashMap<String, Bytes>,
    ) -> Result<usize, StoreError> {
        let ids = fields.iter().map(|(field, stored)| (Reservation::id_of(field), stored));
        let entries: Vec<_> = ids.filter_map(|(id, stored)| Some((id?, stored))).collect();
        if entries.is_empty() {
            return Ok(0);
        }
        let leases = entries.iter().map(|(id, _)| Read::Value(keys.lease(id))).collect();
        let mut leases = self.context.store.read(leases).await?;
        let mut dead = 0;
        for (at, (id, stored)) in entries.into_iter().enumerate() {
            let record = decode(stored).unwrap_or(ReservationRecord { tokens: 0, prompt: 0 });
            let ReservationRecord { tokens, prompt } = record;
            let lease = leases.value(at).and_then(|holder| String::from_utf8(holder.to_vec()).ok());
            if self.context.holder(keys, lease) != LeaseHolder::Nobody {
                continue;
            }
            let usage = Usage { prompt_tokens: prompt, completion_tokens: 0 };
            let reservation =
                Reservation { id: id.to_owned(), day: day.to_owned(), tokens, prompt };
            let mut txn = Txn::relaxed();
            if self.context.store.is_shared() {
                // Its process may have been slow, and have renewed it since.
                txn.checks.push(Check::Absent(keys.lease(id)));
            }
            self.close(txn, keys, &reservation, Some(usage)).await?;
            dead += 1;
        }
        Ok(dead)
    }

    /// Settles a reservation where the checks of the transaction hold.
    async fn close(
        &self,
        mut txn: Txn,
        keys: &Keys,
        reservation: &Reservation,
        usage: Option<Usage>,
    ) -> Result<(), StoreError> {
        let settled = reservation.settle(keys, usage, &mut txn)?;
        match self.context.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            Committed::Refused(check) if check != settled => Ok(()),
            // It was settled by a try whose answer was lost, or there is nothing to settle.
            Committed::Refused(_) => {
                self.context.store.apply(reservation.leave(keys).to_vec()).await.map(drop)
            }
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
        self.close(Txn::relaxed(), &keys, reservation, None).await?;
        let bar = Txn::relaxed().check(reservation.is_absent(&keys)).op(Op::Set {
            key: keys.lease(&reservation.id),
            value: WITHDRAWN,
            ttl: Some(WITHDRAWN_TTL),
        });
        match self.context.store.commit(bar).await? {
            Committed::Applied => Ok(()),
            // It came between the two: the next try takes it back.
            Committed::Refused(_) => Err(StoreError::Unavailable("a reservation came late".into())),
        }
    }
}

#[cfg(test)]
mod tests;
