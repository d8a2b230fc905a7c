//! Deleted accounts: which data are to be erased, and erasing them.

use common::{
    clock,
    identity::{AccountState, ERASE, Owner, UserId, state},
    store::{Op, Read, StoreError, Txn},
};

use super::{Repository, keys::Keys};

/// Announcements looked at in one round.
const ROUND: usize = 100;

impl Repository {
    /// The accounts whose data are to be erased: announced by `auth`, and gone by their state.
    pub async fn erasures(&self) -> Result<Vec<Owner>, StoreError> {
        let read = Read::Since {
            key: ERASE.to_owned(),
            score: 0,
            limit: ROUND,
        };
        let announced = self.store.read(vec![read]).await?.members(0);
        let mut gone = Vec::new();
        for owner in announced
            .iter()
            .filter_map(|(member, _)| owner_from(member))
        {
            let found = self
                .store
                .read(vec![Read::Fields(state(&owner.user))])
                .await?
                .fields(0);
            if AccountState::read(&found).generation > owner.generation {
                gone.push(owner);
            }
        }
        Ok(gone)
    }

    /// Erases what is left of an account once its sessions are deleted, and takes the announcement back.
    pub async fn erase_rest(&self, owner: &Owner) -> Result<(), StoreError> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let (keys, now) = (Keys::of(owner), clock::now_ms());
        let days = [now, now - DAY_MS].map(|at| keys.usage(&clock::utc_day(at)));
        let mut txn = Txn::durable()
            .op(Op::Delete(keys.sessions()))
            .op(Op::Delete(keys.recent()))
            .op(Op::Delete(keys.completions()));
        txn.ops.extend(days.map(Op::Delete));
        self.store.commit(txn).await?;
        // Last, and in another slot: whoever stops before it does all of it again.
        let member = format!("{}:{}", owner.user, owner.generation);
        self.store
            .commit(Txn::durable().op(Op::MemberDelete(ERASE.to_owned(), member)))
            .await?;
        Ok(())
    }
}

fn owner_from(member: &str) -> Option<Owner> {
    let (user, generation) = member.rsplit_once(':')?;
    Some(Owner {
        user: UserId::parse(user)?,
        generation: generation.parse().ok()?,
    })
}
