//! What a completion costs its user's day: reserved before it runs, settled whatever ends it, each exactly once. A lease
//! says that it runs; one whose lease has lapsed died with its process, and whoever next looks at the day settles it.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::Usage,
    store::{
        Repository, encode,
        keys::Keys,
        usage::{release, reserve, settle},
    },
};

/// How long a user's open completions are remembered after the last began: longer than any day counts.
const OPEN_TTL: Duration = Duration::from_secs(48 * 3600);

/// How long a withdrawn reservation is barred: longer than any store holds a command back.
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

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
    /// How many of them are the prompt's: what is counted where nobody is left to say what was spent.
    pub prompt: u64,
}

/// What is stored of a completion that runs.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    day: String,
    tokens: u64,
    prompt: u64,
    instance: String,
}

impl Repository {
    fn open(&self, reservation: &Reservation) -> Result<Bytes, StoreError> {
        encode(&Open {
            day: reservation.day.clone(),
            tokens: reservation.tokens,
            prompt: reservation.prompt,
            instance: self.instance().to_owned(),
        })
    }

    fn lease_of(&self, key: String) -> Op {
        Op::Set {
            key,
            value: Bytes::copy_from_slice(self.instance().as_bytes()),
            ttl: Some(self.lease()),
        }
    }

    /// Sets a request's tokens aside; `false` where the day's `quota` does not hold them, and then nothing is. Safe to repeat.
    pub async fn reserve_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        quota: Option<u64>,
    ) -> Result<bool, StoreError> {
        if self.try_reserve(owner, reservation, quota).await? {
            return Ok(true);
        }
        // What the dead have set aside is in nobody's way.
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
        let (lease, open) = (keys.reservation(&reservation.id), keys.completions());
        let mut txn = Txn::relaxed()
            .check(Check::Absent(lease.clone()))
            .check(Check::FieldAbsent(open.clone(), reservation.id.clone()))
            .op(self.lease_of(lease))
            .op(Op::FieldSet(
                open.clone(),
                reservation.id.clone(),
                self.open(reservation)?,
            ))
            .op(Op::Expire(open, Some(OPEN_TTL)));
        let guard = reserve(&keys, &reservation.day, reservation.tokens, quota, &mut txn);
        Ok(match self.store.commit(txn).await? {
            Committed::Applied => true,
            // Otherwise it is there: this is a repetition of what was done.
            Committed::Refused(check) => Some(check) != guard,
        })
    }

    /// Says that a completion still runs. Safe to repeat.
    pub async fn renew_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
    ) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let is_open = Check::FieldEquals(
            keys.completions(),
            reservation.id.clone(),
            self.open(reservation)?,
        );
        let renewal = self.lease_of(keys.reservation(&reservation.id));
        self.store
            .commit(Txn::relaxed().check(is_open).op(renewal))
            .await
            .map(drop)
    }

    /// Puts what was spent in the place of what was reserved. Safe to repeat.
    pub async fn settle_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
        usage: Usage,
    ) -> Result<(), StoreError> {
        let (keys, open) = (Keys::of(owner), self.open(reservation)?);
        let Reservation {
            id, day, tokens, ..
        } = reservation;
        self.close(&keys, (id, open), (day, *tokens), usage).await
    }

    /// Settles the completions of processes that died, with what is known of them; how many there were. Safe to repeat.
    pub async fn settle_dead(&self, owner: &Owner) -> Result<usize, StoreError> {
        let keys = Keys::of(owner);
        let read = vec![Read::Fields(keys.completions())];
        let open = self.store.read(read).await?.fields(0);
        self.settle_dead_of(&keys, open).await
    }

    /// The same of these, which were read as open.
    pub(crate) async fn settle_dead_of(
        &self,
        keys: &Keys,
        open: HashMap<String, Bytes>,
    ) -> Result<usize, StoreError> {
        if open.is_empty() {
            return Ok(0);
        }
        let open: Vec<_> = open.into_iter().collect();
        let leases = open
            .iter()
            .map(|(id, _)| Read::Value(keys.reservation(id)))
            .collect();
        let mut leases = self.store.read(leases).await?;
        let mut dead = 0;
        for (at, (id, stored)) in open.into_iter().enumerate() {
            let Ok(record) = serde_json::from_slice::<Open>(&stored) else {
                let gone = Op::FieldDelete(keys.completions(), id);
                self.store.apply(vec![gone]).await?;
                continue;
            };
            if leases.value(at).is_some() && self.may_live(&record.instance) {
                continue;
            }
            let usage = Usage {
                prompt_tokens: record.prompt,
                completion_tokens: 0,
            };
            self.close(keys, (&id, stored), (&record.day, record.tokens), usage)
                .await?;
            dead += 1;
        }
        Ok(dead)
    }

    async fn close(
        &self,
        keys: &Keys,
        (id, open): (&str, Bytes),
        (day, tokens): (&str, u64),
        usage: Usage,
    ) -> Result<(), StoreError> {
        let over = [
            Op::FieldDelete(keys.completions(), id.to_owned()),
            Op::Delete(keys.reservation(id)),
        ];
        let mut txn = Txn::relaxed()
            .check(Check::FieldEquals(keys.completions(), id.to_owned(), open))
            // The account of a deleted user is gone, and stays so.
            .check(Check::Exists(keys.usage(day)));
        txn.ops.extend(over.clone());
        txn.ops.extend(settle(keys, day, tokens, usage));
        match self.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It was settled by a try whose answer was lost, or there is nothing to settle.
            Committed::Refused(_) => self.store.apply(over.to_vec()).await.map(drop),
        }
    }

    /// Takes back a reservation whose outcome is unknown, or bars it from coming late. Safe to repeat.
    pub async fn withdraw_usage(
        &self,
        owner: &Owner,
        reservation: &Reservation,
    ) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let (open, id) = (keys.completions(), reservation.id.clone());
        let bar = Op::Set {
            key: keys.reservation(&id),
            value: WITHDRAWN,
            ttl: Some(TOMBSTONE_TTL),
        };
        let mut undo = Txn::relaxed()
            .check(Check::FieldEquals(
                open.clone(),
                id.clone(),
                self.open(reservation)?,
            ))
            .op(Op::FieldDelete(open.clone(), id.clone()))
            .op(bar.clone());
        undo.ops
            .extend(release(&keys, &reservation.day, reservation.tokens));
        if self.store.commit(undo).await? == Committed::Applied {
            return Ok(());
        }
        let txn = Txn::relaxed().check(Check::FieldAbsent(open, id)).op(bar);
        match self.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It came between the two: the next try takes it back.
            Committed::Refused(_) => Err(StoreError::Unavailable("a reservation came late".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{config::StoreUrl, identity::UserId, shutdown::Shutdown, store::Store};

    use super::*;
    use crate::store::usage::DayUsage;

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
            prompt: 20,
        }
    }

    /// Another process on the same store.
    fn other(repository: &Repository) -> Repository {
        Repository::new(repository.store.clone(), None, Duration::from_secs(10))
    }

    const DEAD: DayUsage = DayUsage {
        prompt: 20,
        completion: 0,
        requests: 1,
        held: 20,
    };

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

    #[tokio::test]
    async fn what_a_dead_process_set_aside_is_settled_by_whoever_looks() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        let it = reservation("it");
        repository.reserve_usage(&owner, &it, None).await.unwrap();
        let counted = repository.usage(&owner, DAY).await.unwrap();
        assert_eq!(counted.held, 60, "its own process is not dead");
        // Nothing but this process can have the store open: whoever was there before is dead.
        let other = other(&repository);
        for _ in 0..2 {
            assert_eq!(other.usage(&owner, DAY).await.unwrap(), DEAD);
        }
        // Whoever was taken for dead is not counted twice.
        repository.settle_usage(&owner, &it, SPENT).await.unwrap();
        assert_eq!(other.usage(&owner, DAY).await.unwrap(), DEAD);
    }

    #[tokio::test]
    async fn what_a_dead_process_set_aside_is_in_nobodys_way() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        let (it, next) = (reservation("it"), reservation("next"));
        repository.reserve_usage(&owner, &it, None).await.unwrap();
        let fits = repository.reserve_usage(&owner, &next, Some(100)).await;
        assert!(!fits.unwrap(), "60 of 100 are held, and it lives");
        let fits = other(&repository)
            .reserve_usage(&owner, &next, Some(100))
            .await;
        assert!(fits.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_is_renewed_does_not_lapse() {
        let shutdown = Shutdown::new();
        let (repository, owner) = repository(&shutdown);
        let it = reservation("it");
        repository.reserve_usage(&owner, &it, None).await.unwrap();
        let lapse = Op::Delete(Keys::of(&owner).reservation("it"));
        repository.store.apply(vec![lapse.clone()]).await.unwrap();
        repository.renew_usage(&owner, &it).await.unwrap();
        assert_eq!(repository.settle_dead(&owner).await.unwrap(), 0);
        repository.store.apply(vec![lapse]).await.unwrap();
        assert_eq!(repository.settle_dead(&owner).await.unwrap(), 1);
        repository.renew_usage(&owner, &it).await.unwrap();
        assert_eq!(repository.usage(&owner, DAY).await.unwrap(), DEAD);
    }
}
