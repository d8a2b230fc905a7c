//! Deleted accounts: which data are to be erased, who erases them, and what is left once their sessions are gone.

use std::time::Duration;

use common::{
    clock,
    identity::{
        AccountState, Owner, erase_index, erase_indexes, erase_member, erased_owner, state,
    },
    store::{Bytes, Check, Committed, Found, Op, Read, SHARDS, StoreError, Txn},
};

use crate::store::{
    StoreContext,
    keys::{self, Keys},
};

/// Accounts looked at in one round, of each slot.
const ROUND: usize = 100;

const PAGE: usize = 100;

/// When an account is erased once more. Until every instance knows that its tokens are refused, and while a message
/// still waits for the turns before it, something can be written for it that nobody would ever take away.
const ONCE_MORE_MS: i64 = 60_000;

/// How long the others leave an account to the instance that last said that it erases it.
const CLAIM: Duration = Duration::from_secs(3);

/// An account whose data are to be erased.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Erasure {
    pub owner: Owner,
    /// Whether it was erased before: this takes away what came late.
    pub is_second: bool,
}

/// Finds and erases the data of deleted accounts.
pub struct ErasureStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl ErasureStore<'_> {
    /// The accounts whose data are to be erased: announced by `auth`, and gone by their state; or erased a while ago. What a
    /// node that is away holds is found once it is back.
    pub async fn pending(&self) -> Result<Vec<Erasure>, StoreError> {
        let store = &self.context.store;
        let since = |key| Read::Since { key, score: 0, limit: ROUND };
        let indexes = erase_indexes().chain(keys::erased_indexes());
        let found = store.read_each(indexes.map(since).collect()).await?;
        let (mut announced, mut due, now) = (Vec::new(), Vec::new(), store.clock().now_ms());
        for (index, found) in found.into_iter().enumerate() {
            let Ok(Found::Members(members)) = found else { continue };
            for (member, at) in members {
                match erased_owner(&member) {
                    Some(owner) if index < usize::from(SHARDS) => announced.push(owner),
                    Some(owner) if at <= now => due.push(owner),
                    _ => {}
                }
            }
        }
        let mut erasures = self.gone(announced).await?;
        erasures.extend(due.into_iter().map(|owner| Erasure { owner, is_second: true }));
        Ok(erasures)
    }

    async fn gone(&self, announced: Vec<Owner>) -> Result<Vec<Erasure>, StoreError> {
        if announced.is_empty() {
            return Ok(Vec::new());
        }
        let states = announced.iter().map(|owner| Read::Fields(state(&owner.user))).collect();
        let states = self.context.store.read_each(states).await?;
        let gone = announced.into_iter().zip(states).filter_map(|(owner, found)| {
            let Ok(Found::Fields(fields)) = found else { return None };
            let is_gone = AccountState::read(&fields).generation > owner.generation;
            is_gone.then_some(Erasure { owner, is_second: false })
        });
        Ok(gone.collect())
    }

    /// Claims an account for this instance for 3 s; `false` where another one erases it. Claimed again, it is held longer.
    pub async fn claim(&self, erasure: &Erasure) -> Result<bool, StoreError> {
        let key = keys::erasure_claim(&erasure.owner);
        let instance = Bytes::copy_from_slice(self.context.instance.as_bytes());
        // A full store takes a step whose first operation removes something, as every step of an erasure has.
        let claim = [
            Op::Delete(key.clone()),
            Op::Set { key: key.clone(), value: instance.clone(), ttl: Some(CLAIM) },
        ];
        for free in [Check::Absent(key.clone()), Check::Equals(key, instance)] {
            let txn = Txn::relaxed().check(free).ops(claim.clone());
            if self.context.store.commit(txn).await? == Committed::Applied {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ids of an account's sessions after that place in the index, and the next place; none where there are no more.
    pub async fn session_ids(
        &self,
        owner: &Owner,
        after: Option<(i64, String)>,
    ) -> Result<(Vec<String>, Option<(i64, String)>), StoreError> {
        let read = Read::Newest { key: Keys::of(owner).sessions(), before: after, limit: PAGE };
        let members = self.context.store.read(vec![read]).await?.members(0);
        let next = members.last().map(|(id, at)| (*at, id.clone()));
        Ok((members.into_iter().map(|(id, _)| id).collect(), next))
    }

    /// Erases what is left of an account once its sessions are deleted, and takes the announcement back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: all of it is to be done again.
    pub async fn finish(&self, erasure: &Erasure) -> Result<(), StoreError> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let Erasure { owner, is_second } = erasure;
        let (keys, now) = (Keys::of(owner), clock::now_ms());
        let days = [now, now - DAY_MS].map(|at| keys.usage(&clock::utc_day(at)));
        let txn = Txn::durable().op(Op::Delete(keys.sessions())).ops(days.map(Op::Delete));
        self.context.store.commit(txn).await?;
        // Last, and each in another slot: whoever stops before one of them does all of it again.
        let (erased, member) = (keys::erased_index(&owner.user), erase_member(owner));
        let mut first = vec![Op::MemberDelete(erased.clone(), member.clone())];
        let mut last = vec![Op::Delete(keys::erasure_claim(owner))];
        if !is_second {
            let due = now.saturating_add(ONCE_MORE_MS);
            first.push(Op::MemberSet(erased, member.clone(), due));
            last.insert(0, Op::MemberDelete(erase_index(&owner.user), member));
        }
        self.context.store.commit(Txn::durable().ops(first)).await?;
        for op in last {
            self.context.store.commit(Txn::durable().op(op)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::{config::StoreUrl, identity::UserId, shutdown::Shutdown, store::Store};

    use super::*;
    use crate::store::ChatStore;

    #[tokio::test]
    async fn an_account_is_erased_by_one_instance_at_a_time() {
        let shutdown = Shutdown::new();
        let store = Store::open(&StoreUrl::Memory, &shutdown).unwrap();
        let instance = || ChatStore::new(store.clone(), None, Duration::from_secs(10));
        let (one, two) = (instance(), instance());
        let erasure = Erasure {
            owner: Owner { user: UserId::parse("alice").unwrap(), generation: 0 },
            is_second: false,
        };
        assert!(one.erasure().claim(&erasure).await.unwrap());
        assert!(one.erasure().claim(&erasure).await.unwrap(), "held longer");
        assert!(!two.erasure().claim(&erasure).await.unwrap());
        one.erasure().finish(&erasure).await.unwrap();
        assert!(two.erasure().claim(&erasure).await.unwrap());
    }
}
