//! Account records: `a:{user}:account`, and `i:{user}:state` beside it, always changed in one transaction.

use std::collections::HashMap;

use common::{
    identity::{AccountState, Owner, UserId, erase_index, erase_indexes, state},
    store::{Bytes, Check, Committed, Key, Op, Read, SHARDS, Snapshot, StoreError, Txn, shard},
};

use super::{Repository, number, text};
use crate::models::{Account, AccountSnapshot};

/// An account and whatever else was read with it.
pub struct Loaded {
    /// The store's clock: Unix milliseconds.
    pub now: i64,
    pub current: AccountSnapshot,
    /// The further reads, beginning at 2.
    pub snapshot: Snapshot,
}

/// A transaction in one user's slot that is applied only if the account is unchanged since it was read.
pub struct Change {
    user: UserId,
    /// The state afterwards.
    state: AccountState,
    is_new_state: bool,
    txn: Txn,
}

fn account_key(user: &UserId) -> Key {
    format!("a:{{{user}}}:account")
}

fn accounts_index(shard: u8) -> Key {
    format!("a:accounts:{{{shard:02}}}")
}

fn read_account(fields: &HashMap<String, Bytes>) -> Option<Account> {
    Some(Account {
        created_at: text(fields, "created")?.parse().ok()?,
        password: text(fields, "password"),
    })
}

impl Change {
    /// Nothing yet, on condition that the account is still as `current` has it.
    pub fn of(current: &AccountSnapshot) -> Self {
        Self {
            user: current.user.clone(),
            state: current.state.clone(),
            is_new_state: false,
            txn: Txn::durable().check(current.state.unchanged(&current.user)),
        }
    }

    pub fn check(mut self, check: Check) -> Self {
        self.txn.checks.push(check);
        self
    }

    pub fn op(mut self, op: Op) -> Self {
        self.txn.ops.push(op);
        self
    }

    /// Creates or replaces the account's record.
    pub fn put(self, account: &Account) -> Self {
        let key = account_key(&self.user);
        let set = |field: &str, value: Bytes| Op::FieldSet(key.clone(), field.into(), value);
        let password = match &account.password {
            Some(password) => set("password", Bytes::from(password.clone())),
            None => Op::FieldDelete(key.clone(), "password".into()),
        };
        let (v, created) = (
            set("v", number(1)),
            set("created", number(account.created_at)),
        );
        let mut change = self.op(v).op(created).op(password).new_revision();
        change.state.live = true;
        change.state.has_password = account.password.is_some();
        change
    }

    /// Deletes the account; the id begins a new generation.
    pub fn delete(self) -> Self {
        let record = Op::Delete(account_key(&self.user));
        let mut change = self.op(record).new_revision();
        change.state = AccountState {
            generation: change.state.generation + 1,
            live: false,
            has_password: false,
            kept: None,
            ..change.state
        };
        change
    }

    /// Ends every login but one.
    pub fn end_logins(self, kept: Option<&str>) -> Self {
        let mut change = self.new_revision();
        change.state.epoch += 1;
        change.state.kept = kept.map(str::to_owned);
        change
    }

    /// Revokes every API key that exists when the change is applied.
    pub fn end_keys(self) -> Self {
        let mut change = self.new_revision();
        change.state.key_epoch += 1;
        change
    }

    /// Makes every process check the account's credentials again.
    pub fn new_revision(mut self) -> Self {
        if !self.is_new_state {
            self.is_new_state = true;
            self.state.revision += 1;
        }
        self
    }

    fn into_txn(self) -> Txn {
        let mut txn = self.txn;
        if self.is_new_state {
            // A full Redis applies a transaction whole if its first operation removes something.
            let key = state(&self.user);
            let is_ending = self.state.kept.is_none();
            let first = is_ending.then(|| Op::FieldDelete(key.clone(), "kept".into()));
            let fields = self.state.fields().into_iter();
            let set = fields.map(|(field, value)| Op::FieldSet(key.clone(), field.into(), value));
            txn.ops.extend(first.into_iter().chain(set));
        }
        txn
    }
}

impl Repository {
    /// The account of an id, and what `reads` of the same slot find.
    pub async fn load(&self, user: &UserId, reads: Vec<Read>) -> Result<Loaded, StoreError> {
        let mut all = vec![Read::Fields(state(user)), Read::Fields(account_key(user))];
        all.extend(reads);
        let mut snapshot = self.store.read(all).await?;
        let fields = snapshot.fields(0);
        let current = AccountSnapshot {
            user: user.clone(),
            state: AccountState::read(&fields),
            account: read_account(&snapshot.fields(1)),
        };
        Ok(Loaded {
            now: snapshot.now,
            current,
            snapshot,
        })
    }

    /// Commits a change; whether the account was as it had been read.
    pub async fn commit(&self, change: Change) -> Result<bool, StoreError> {
        Ok(self.store.commit(change.into_txn()).await? == Committed::Applied)
    }

    /// Adds an id to the index of accounts. Done before the account is created: an entry too many is filtered out when it is
    /// read, a missing one would hide an account.
    pub async fn enlist(&self, user: &UserId, now: i64) -> Result<(), StoreError> {
        let index = accounts_index(shard(user.as_str()));
        let txn = Txn::durable().op(Op::MemberSet(index, user.to_string(), now));
        self.store.commit(txn).await.map(drop)
    }

    /// Removes an id from the index of accounts: its account is gone. An account that is created at the same time is
    /// missing in the list until its next login.
    pub async fn delist(&self, user: &UserId) -> Result<(), StoreError> {
        let index = accounts_index(shard(user.as_str()));
        let txn = Txn::relaxed().op(Op::MemberDelete(index, user.to_string()));
        self.store.commit(txn).await.map(drop)
    }

    /// Every id of the index, in no order.
    pub async fn enlisted(&self) -> Result<Vec<UserId>, StoreError> {
        const PAGE: usize = 1000;
        let mut users = Vec::new();
        for key in (0..SHARDS).map(accounts_index) {
            let mut before = None;
            loop {
                let read = Read::Newest {
                    key: key.clone(),
                    before,
                    limit: PAGE,
                };
                let page = self.store.read(vec![read]).await?.members(0);
                users.extend(page.iter().filter_map(|(user, _)| UserId::parse(user)));
                let Some((user, at)) = page.last().filter(|_| page.len() == PAGE) else {
                    break;
                };
                before = Some((*at, user.clone()));
            }
        }
        Ok(users)
    }

    /// Announces that the data of an account is to be erased. `chat` does it once the account's state says that this
    /// generation is over, so that it is safe to write this before the account is deleted.
    pub async fn announce_erasure(&self, owner: &Owner, now: i64) -> Result<(), StoreError> {
        let member = format!("{}:{}", owner.user, owner.generation);
        self.store
            .commit(Txn::durable().op(Op::MemberSet(erase_index(&owner.user), member, now)))
            .await
            .map(drop)
    }

    /// The announced erasures that `chat` has not done yet, at most `limit` a slot, with when they were announced, and the
    /// store's clock.
    pub async fn erasures(&self, limit: usize) -> Result<(i64, Vec<(Owner, i64)>), StoreError> {
        let since = |key| Read::Since {
            key,
            score: 0,
            limit,
        };
        let reads: Vec<Read> = erase_indexes().map(since).collect();
        let indexes = reads.len();
        let mut page = self.store.read_each(reads).await?;
        let owner = |member: &str| {
            let (user, generation) = member.rsplit_once(':')?;
            Some(Owner {
                user: UserId::parse(user)?,
                generation: generation.parse().ok()?,
            })
        };
        let members: Vec<_> = (0..indexes).flat_map(|i| page.members(i)).collect();
        let announced = members.iter();
        let announced = announced.filter_map(|(member, at)| Some((owner(member)?, *at)));
        Ok((page.now, announced.collect()))
    }

    /// Takes back an announcement.
    pub async fn withdraw_erasure(&self, owner: &Owner) -> Result<(), StoreError> {
        let member = format!("{}:{}", owner.user, owner.generation);
        self.store
            .commit(Txn::durable().op(Op::MemberDelete(erase_index(&owner.user), member)))
            .await
            .map(drop)
    }
}
