//! Deleted accounts: which data are to be erased, and erasing them.

use common::{
    clock,
    identity::{AccountState, Owner, UserId, erase_index, erase_indexes, state},
    store::{Op, Read, StoreError, Txn},
};

use crate::store::{Context, keys::Keys};

/// Announcements looked at in one round.
const ROUND: usize = 100;

/// Index: accounts that are erased and will be once more, by when that is due.
const ERASED: &str = "c:erased";

/// When an account is erased once more. Until every instance knows that its tokens are refused, and while a message
/// still waits for the turns before it, something can be written for it that nobody would ever take away.
const ONCE_MORE_MS: i64 = 60_000;

/// An account whose data are to be erased.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// The account.
    pub owner: Owner,
    /// Whether it was erased before: this takes away what came late.
    pub is_second: bool,
}

/// Finds and erases the data of deleted accounts.
pub struct ErasureStore<'a> {
    pub(super) context: &'a Context,
}

impl ErasureStore<'_> {
    /// The accounts whose data are to be erased: announced by `auth`, and gone by their state; or erased a while ago.
    pub async fn pending(&self) -> Result<Vec<Erasure>, StoreError> {
        let since = |key: &str| Read::Since {
            key: key.to_owned(),
            score: 0,
            limit: ROUND,
        };
        let reads: Vec<Read> = erase_indexes().map(|key| since(&key)).collect();
        let indexes = reads.len();
        let mut found = self.context.store.read_each(reads).await?;
        let announced: Vec<_> = (0..indexes).flat_map(|i| found.members(i)).collect();
        let mut erasures = Vec::new();
        for owner in announced
            .iter()
            .filter_map(|(member, _)| owner_from(member))
        {
            let found = self
                .context
                .store
                .read(vec![Read::Fields(state(&owner.user))])
                .await?
                .fields(0);
            if AccountState::read(&found).generation > owner.generation {
                erasures.push(Erasure {
                    owner,
                    is_second: false,
                });
            }
        }
        let mut erased = self.context.store.read(vec![since(ERASED)]).await?;
        let now = erased.now;
        let due = erased.members(0).into_iter().filter(|(_, at)| *at <= now);
        erasures.extend(due.filter_map(|(member, _)| {
            Some(Erasure {
                owner: owner_from(&member)?,
                is_second: true,
            })
        }));
        Ok(erasures)
    }

    /// Erases what is left of an account once its sessions are deleted, and takes the announcement back.
    pub async fn finish(&self, erasure: &Erasure) -> Result<(), StoreError> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let Erasure { owner, is_second } = erasure;
        let (keys, now) = (Keys::of(owner), clock::now_ms());
        let days = [now, now - DAY_MS].map(|at| keys.usage(&clock::utc_day(at)));
        let mut txn = Txn::durable()
            .op(Op::Delete(keys.sessions()))
            .op(Op::Delete(keys.recent()))
            .op(Op::Delete(keys.reservations()));
        txn.ops.extend(days.map(Op::Delete));
        self.context.store.commit(txn).await?;
        // Last, and each in another slot: whoever stops before one of them does all of it again.
        let member = format!("{}:{}", owner.user, owner.generation);
        let last = if *is_second {
            vec![Op::MemberDelete(ERASED.to_owned(), member)]
        } else {
            let due = now.saturating_add(ONCE_MORE_MS);
            vec![
                Op::MemberSet(ERASED.to_owned(), member.clone(), due),
                Op::MemberDelete(erase_index(&owner.user), member),
            ]
        };
        for op in last {
            self.context.store.commit(Txn::durable().op(op)).await?;
        }
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
