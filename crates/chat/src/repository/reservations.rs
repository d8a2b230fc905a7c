//! What a completion costs its user's day: reserved before it runs, settled whatever ends it, each exactly once.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use super::{
    Repository,
    keys::Keys,
    usage::{release, reserve, settle},
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
    /// Sets a request's tokens aside; `false` where the day's `quota` does not hold them, and then nothing is. Safe to repeat.
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
        txn.ops
            .extend(settle(&keys, &reservation.day, reservation.tokens, usage));
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
        let mut undo = Txn::relaxed()
            .check(Check::Equals(marker.clone(), OPEN))
            .op(bar.clone());
        undo.ops
            .extend(release(&keys, &reservation.day, reservation.tokens));
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

#[cfg(test)]
mod tests {
    use common::{config::StoreUrl, identity::UserId, shutdown::Shutdown, store::Store};

    use super::*;
    use crate::repository::usage::DayUsage;

    const DAY: &str = "20260102";

    fn repository(shutdown: &Shutdown) -> (Repository, Owner) {
        let store = Store::open(&StoreUrl::Memory, shutdown).unwrap();
        let owner = Owner {
            user: UserId::parse("alice").unwrap(),
            generation: 0,
        };
        (Repository::new(store, None, Duration::from_secs(10)), owner)
    }

    fn reservation(id: &str) -> Reservation {
        Reservation {
            id: id.to_owned(),
            day: DAY.to_owned(),
            tokens: 60,
        }
    }

    const SPENT: Usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 4,
    };

    #[tokio::test]
    async fn what_is_repeated_is_counted_once() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        let one = reservation("one");
        for _ in 0..2 {
            assert!(
                repository
                    .reserve_usage(&owner, &one, Some(100))
                    .await
                    .unwrap()
            );
        }
        let other = reservation("other");
        let fits = repository.reserve_usage(&owner, &other, Some(100)).await;
        assert!(!fits.unwrap(), "60 of 100 are held");
        for _ in 0..2 {
            repository.settle_usage(&owner, &one, SPENT).await.unwrap();
        }
        let counted = DayUsage {
            prompt: 3,
            completion: 4,
            requests: 1,
            held: 7,
        };
        assert_eq!(repository.usage(&owner, DAY).await.unwrap(), counted);
    }

    #[tokio::test]
    async fn what_is_withdrawn_never_counts_however_late_it_comes() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        for (id, came) in [("before", true), ("after", false)] {
            let it = reservation(id);
            if came {
                repository.reserve_usage(&owner, &it, None).await.unwrap();
            }
            for _ in 0..2 {
                repository.withdraw_usage(&owner, &it).await.unwrap();
            }
            repository.reserve_usage(&owner, &it, None).await.unwrap();
            let counted = repository.usage(&owner, DAY).await.unwrap();
            assert_eq!(counted, DayUsage::default(), "{id}");
        }
    }

    #[tokio::test]
    async fn nothing_is_settled_for_an_account_that_was_erased() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        let it = reservation("it");
        repository.reserve_usage(&owner, &it, None).await.unwrap();
        let erase = Op::Delete(Keys::of(&owner).usage(DAY));
        repository.store.apply(vec![erase]).await.unwrap();
        repository.settle_usage(&owner, &it, SPENT).await.unwrap();
        let counted = repository.usage(&owner, DAY).await.unwrap();
        assert_eq!(counted, DayUsage::default());
    }
}
