//! Indexes over all users, each split over 64 slots: accounts, those that may be idle, and those whose data `chat` is to erase.

use common::{
    identity::{Owner, UserId, erase_index, erase_indexes, erase_member, erased_owner},
    store::{Found, Key, Op, Read, SHARDS, StoreError, Txn, shard},
};

use super::AccountStore;

const PAGE: usize = 1000;

fn accounts_index(shard: u8) -> Key {
    format!("a:accounts:{{{shard:02}}}")
}

fn idle_index(shard: u8) -> Key {
    format!("a:idle:{{{shard:02}}}")
}

/// The indexes lie in other slots than the accounts, so each is changed in a step of its own.
impl AccountStore {
    async fn apply(&self, ops: impl IntoIterator<Item = Op>) -> Result<(), StoreError> {
        let mut txn = Txn::durable();
        txn.ops.extend(ops);
        self.store.commit(txn).await.map(drop)
    }

    /// Adds an id to the index of accounts and, where there is no password, to that of accounts that may be idle at `check_at`. Done
    /// before the account is created: an entry too many is filtered out when it is read, a missing one would hide an account.
    pub async fn add_account(
        &self,
        user: &UserId,
        created_at: i64,
        check_at: Option<i64>,
    ) -> Result<(), StoreError> {
        let (shard, user) = (shard(user.as_str()), user.to_string());
        let account = Op::MemberSet(accounts_index(shard), user.clone(), created_at);
        let idle = check_at.map(|at| Op::MemberSet(idle_index(shard), user, at));
        self.apply([account].into_iter().chain(idle)).await
    }

    /// Removes an id from both indexes: its account is gone. An account that is created at the same time is missing in the
    /// list until its id is added again, at a later login.
    pub async fn remove_account(&self, user: &UserId) -> Result<(), StoreError> {
        let (shard, user) = (shard(user.as_str()), user.to_string());
        let account = Op::MemberDelete(accounts_index(shard), user.clone());
        let idle = Op::MemberDelete(idle_index(shard), user);
        self.apply([account, idle]).await
    }

    /// Looks at an account that may be idle again at `check_at`, or never.
    pub async fn check_again(
        &self,
        user: &UserId,
        check_at: Option<i64>,
    ) -> Result<(), StoreError> {
        let (key, user) = (idle_index(shard(user.as_str())), user.to_string());
        self.apply([match check_at {
            Some(at) => Op::MemberSet(key, user, at),
            None => Op::MemberDelete(key, user),
        }])
        .await
    }

    /// The accounts that may be idle, at most `limit` a slot.
    pub async fn idle_accounts(&self, limit: usize) -> Result<Vec<UserId>, StoreError> {
        let members = self.oldest((0..SHARDS).map(idle_index), 0, limit).await?;
        Ok(members.iter().filter_map(|it| UserId::parse(it)).collect())
    }

    /// The members of indexes with a score that is at least `age_ms` ago, at most `limit` of each.
    async fn oldest(
        &self,
        indexes: impl Iterator<Item = Key>,
        age_ms: i64,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let read = |key| Read::Since { key, score: 0, limit };
        let found = self.store.read_each(indexes.map(read).collect()).await?;
        // What a node that is away holds is found once it is back.
        let latest = self.store.clock().now_ms() - age_ms;
        let members = found.into_iter().filter_map(|found| match found {
            Ok(Found::Members(members)) => Some(members),
            _ => None,
        });
        let due = members.flatten().filter(|(_, at)| *at <= latest);
        Ok(due.map(|(member, _)| member).collect())
    }

    /// Every id of the index of accounts, in no order.
    pub async fn accounts(&self) -> Result<Vec<UserId>, StoreError> {
        let mut users = Vec::new();
        for key in (0..SHARDS).map(accounts_index) {
            let mut before = None;
            loop {
                let read = Read::Newest { key: key.clone(), before, limit: PAGE };
                let page = self.store.read(vec![read]).await?.members(0);
                users.extend(page.iter().filter_map(|(user, _)| UserId::parse(user)));
                let Some((user, at)) = page.last().filter(|_| page.len() == PAGE) else { break };
                before = Some((*at, user.clone()));
            }
        }
        Ok(users)
    }

    /// Announces that the data of an account is to be erased. `chat` does it once the account's state says that this
    /// generation is over, so that it is safe to write this before the account is deleted.
    pub async fn announce_erasure(&self, owner: &Owner, now: i64) -> Result<(), StoreError> {
        let index = erase_index(&owner.user);
        let member = erase_member(owner);
        // A full store takes a step whose first operation removes something: an account must go although nothing more fits.
        let first = Op::MemberDelete(index.clone(), member.clone());
        self.apply([first, Op::MemberSet(index, member, now)]).await
    }

    pub async fn withdraw_erasure(&self, owner: &Owner) -> Result<(), StoreError> {
        let index = erase_index(&owner.user);
        self.apply([Op::MemberDelete(index, erase_member(owner))]).await
    }

    /// The announced erasures that `chat` has not done yet and that are older than `age_ms`, at most `limit` a slot.
    pub async fn erasures(&self, age_ms: i64, limit: usize) -> Result<Vec<Owner>, StoreError> {
        let members = self.oldest(erase_indexes(), age_ms, limit).await?;
        Ok(members.iter().filter_map(|it| erased_owner(it)).collect())
    }
}
