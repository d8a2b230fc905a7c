//! What each instance runs and has waiting at a provider whose `max_concurrency` all instances share.

use common::{
    identity::UserId,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{InstanceLoad, Lane, UserLoad, random_text},
    store::{
        StoreContext,
        codec::{decode, encode},
        keys,
    },
};

/// The field that changes whenever an instance takes slots.
const TAKEN: &str = "taken";

#[derive(Serialize, Deserialize)]
struct Lease {
    /// Unix milliseconds; then the instance is taken for dead.
    until: i64,
    load: Vec<((Lane, UserId), UserLoad)>,
}

/// What all other instances that live have published.
pub struct Ledger {
    pub others: Vec<InstanceLoad>,
    taken: Option<Bytes>,
    expired: Vec<(String, Bytes)>,
}

/// Leases slots of model servers: what an instance has published holds for `chat.lease`.
pub struct ConcurrencyStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl ConcurrencyStore<'_> {
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn read(&self, provider: &str) -> Result<Ledger, StoreError> {
        let read = Read::Fields(keys::concurrency(provider));
        let mut snapshot = self.context.store.read(vec![read]).await?;
        let mut fields = snapshot.fields(0);
        fields.remove(&*self.context.instance);
        let taken = fields.remove(TAKEN);
        let (mut others, mut expired) = (Vec::new(), Vec::new());
        for (instance, value) in fields {
            match decode::<Lease>(&value) {
                Some(lease) if lease.until > snapshot.now => {
                    others.push(lease.load.into_iter().collect());
                }
                Some(_) => expired.push((instance, value)),
                None => {}
            }
        }
        Ok(Ledger { others, taken, expired })
    }

    /// Publishes what this instance runs and has waiting; where it takes slots that were free in a ledger, only if no other instance
    /// took slots meanwhile, else `false`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may have been published.
    pub async fn publish(
        &self,
        provider: &str,
        load: &InstanceLoad,
        taking: Option<&Ledger>,
    ) -> Result<bool, StoreError> {
        let (key, lease) = (keys::concurrency(provider), self.context.lease);
        let instance = self.context.instance.to_string();
        let mut txn = Txn::relaxed();
        if let Some(ledger) = taking {
            txn = txn.check(match &ledger.taken {
                Some(taken) => Check::FieldEquals(key.clone(), TAKEN.to_owned(), taken.clone()),
                None => Check::FieldAbsent(key.clone(), TAKEN.to_owned()),
            });
            txn = txn.op(Op::FieldSet(key.clone(), TAKEN.to_owned(), random_text(16).into()));
            for (dead, value) in &ledger.expired {
                // It may only have been slow, and be back.
                let check = Check::FieldEquals(key.clone(), dead.clone(), value.clone());
                txn = txn.check(check).op(Op::FieldDelete(key.clone(), dead.clone()));
            }
        }
        // First, where nothing is taken: so a full Redis takes it.
        txn = txn.op(Op::FieldDelete(key.clone(), instance.clone()));
        if !load.is_empty() {
            let now = self.context.store.clock().now_ms();
            let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            let load = load.clone().into_iter().collect();
            let value = encode(&Lease { until: now.saturating_add(lease_ms), load })?;
            let set = Op::FieldSet(key.clone(), instance, value);
            txn = txn.ops([set, Op::Expire(key, Some(lease))]);
        }
        Ok(self.context.store.commit(txn).await? == Committed::Applied)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use common::{
        clock::Clock,
        config::{Durability, StoreUrl},
        shutdown::Shutdown,
        store::Store,
    };

    use super::*;
    use crate::store::ChatStore;

    const LEASE: Duration = Duration::from_secs(10);

    fn two_instances() -> (ChatStore, ChatStore, Clock) {
        let (shutdown, clock) = (Shutdown::new(), Clock::manual(1_000_000));
        let url = StoreUrl::Memory;
        let store = Store::open_with(&url, Durability::Local, clock.clone(), &shutdown).unwrap();
        let instance = || ChatStore::new(store.clone(), None, LEASE);
        (instance(), instance(), clock)
    }

    fn load(user: &str, running: usize) -> InstanceLoad {
        let user = UserId::parse(user).unwrap();
        [((Lane::Answers, user), UserLoad { running, waiting: 1, turn: 5 })].into()
    }

    #[tokio::test]
    async fn slots_that_another_instance_took_meanwhile_are_not_taken() {
        let (one, two, _) = two_instances();
        let (one, two) = (one.concurrency(), two.concurrency());
        let (seen, also_seen) =
            (one.read("ollama").await.unwrap(), two.read("ollama").await.unwrap());
        assert!(one.publish("ollama", &load("alice", 1), Some(&seen)).await.unwrap());
        assert!(!two.publish("ollama", &load("bob", 1), Some(&also_seen)).await.unwrap());
        let seen = two.read("ollama").await.unwrap();
        assert_eq!(seen.others, [load("alice", 1)]);
        // What others only publish frees slots, and takes none.
        one.publish("ollama", &load("alice", 0), None).await.unwrap();
        assert!(two.publish("ollama", &load("bob", 1), Some(&seen)).await.unwrap());
        assert_eq!(one.read("ollama").await.unwrap().others, [load("bob", 1)]);
        assert!(one.read("openai").await.unwrap().others.is_empty());
        two.publish("ollama", &InstanceLoad::new(), None).await.unwrap();
        assert!(one.read("ollama").await.unwrap().others.is_empty());
    }

    #[tokio::test]
    async fn the_slots_of_a_dead_instance_come_back_with_its_lease() {
        let (one, two, clock) = two_instances();
        let (dead, alive) = (one.concurrency(), two.concurrency());
        dead.publish("ollama", &load("alice", 3), None).await.unwrap();
        clock.advance(LEASE - Duration::from_millis(1));
        alive.publish("ollama", &load("bob", 0), None).await.unwrap();
        assert_eq!(alive.read("ollama").await.unwrap().others, [load("alice", 3)]);
        clock.advance(Duration::from_millis(1));
        let ledger = alive.read("ollama").await.unwrap();
        assert!(ledger.others.is_empty());
        // It was only slow, and is back.
        dead.publish("ollama", &load("alice", 3), None).await.unwrap();
        assert!(!alive.publish("ollama", &load("bob", 1), Some(&ledger)).await.unwrap());
        assert_eq!(alive.read("ollama").await.unwrap().others, [load("alice", 3)]);
        clock.advance(LEASE - Duration::from_millis(1));
        alive.publish("ollama", &load("bob", 0), None).await.unwrap();
        clock.advance(Duration::from_millis(1));
        let ledger = alive.read("ollama").await.unwrap();
        assert!(alive.publish("ollama", &load("bob", 1), Some(&ledger)).await.unwrap());
        assert_eq!(fields(&two).await.len(), 2, "the dead one's entry is gone");
        clock.advance(LEASE);
        assert!(fields(&two).await.is_empty(), "without anybody alive the key goes");
    }

    async fn fields(store: &ChatStore) -> HashMap<String, Bytes> {
        let read = Read::Fields(keys::concurrency("ollama"));
        store.context.store.read(vec![read]).await.unwrap().fields(0)
    }
}
