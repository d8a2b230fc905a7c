//! Account records: `a:{user}:account`, and `i:{user}:state` beside it, always changed in one transaction.

use std::collections::HashMap;

use common::{
    identity::{AccountState, Owner, UserId, state},
    store::{Bytes, Check, Committed, Key, Op, Read, Snapshot, StoreError, Txn},
};

use super::{ERASE, Repository, number, text};
use crate::models::{Account, Standing};

/// The index of accounts.
const ACCOUNTS: &str = "a:accounts";

/// A [`Standing`], the store's clock, and whatever else was read with it.
pub struct Loaded {
    /// The store's clock: Unix milliseconds.
    pub now: i64,
    /// The account.
    pub standing: Standing,
    /// The further reads, beginning at 2.
    pub snapshot: Snapshot,
}

/// A transaction in one user's slot that is applied only if the account is as it was read.
pub struct Change {
    txn: Txn,
}

fn account_key(user: &UserId) -> Key {
    format!("a:{{{user}}}:account")
}

fn read_account(fields: &HashMap<String, Bytes>) -> Option<Account> {
    let whole = |name: &str| text(fields, name).and_then(|it| it.parse().ok());
    Some(Account {
        rev: whole("rev")?,
        created_at: text(fields, "created")?.parse().ok()?,
        password: text(fields, "password"),
        epoch: whole("epoch").unwrap_or(0),
        kept: text(fields, "kept").filter(|kept| !kept.is_empty()),
    })
}

impl Change {
    /// Nothing yet, on condition that `standing` still stands.
    pub fn of(standing: &Standing) -> Self {
        let user = &standing.user;
        let generation = match standing.has_state {
            true => {
                Check::FieldEquals(state(user), "gen".into(), number(standing.state.generation))
            }
            false => Check::Absent(state(user)),
        };
        let account = match &standing.account {
            Some(account) => {
                Check::FieldEquals(account_key(user), "rev".into(), number(account.rev))
            }
            None => Check::Absent(account_key(user)),
        };
        Self {
            txn: Txn::durable().check(generation).check(account),
        }
    }

    /// A further condition.
    pub fn check(mut self, check: Check) -> Self {
        self.txn.checks.push(check);
        self
    }

    /// A further change.
    pub fn op(mut self, op: Op) -> Self {
        self.txn.ops.push(op);
        self
    }

    /// Makes the account, or puts `account` in its place; `standing.account`'s revision is what it replaces.
    pub fn put(mut self, standing: &Standing, account: &Account) -> Self {
        let key = account_key(&standing.user);
        let rev = standing.account.as_ref().map_or(1, |old| old.rev + 1);
        let set = |field: &str, value: Bytes| Op::FieldSet(key.clone(), field.into(), value);
        self.txn.ops.extend([
            set("v", number(1)),
            set("rev", number(rev)),
            set("created", number(account.created_at)),
            set("epoch", number(account.epoch)),
            set(
                "kept",
                Bytes::from(account.kept.clone().unwrap_or_default()),
            ),
            match &account.password {
                Some(password) => set("password", Bytes::from(password.clone())),
                None => Op::FieldDelete(key.clone(), "password".into()),
            },
        ]);
        self.state(
            &standing.user,
            standing.state.generation,
            true,
            account.password.is_some(),
        )
    }

    /// Deletes the account: its id begins a new generation.
    pub fn delete(mut self, standing: &Standing) -> Self {
        self.txn.ops.push(Op::Delete(account_key(&standing.user)));
        self.state(&standing.user, standing.state.generation + 1, false, false)
    }

    fn state(mut self, user: &UserId, generation: u64, live: bool, has_password: bool) -> Self {
        let set = |field: &str, value: Bytes| Op::FieldSet(state(user), field.into(), value);
        self.txn.ops.extend([
            set("v", number(1)),
            set("gen", number(generation)),
            set("live", number(u8::from(live))),
            set("password", number(u8::from(has_password))),
        ]);
        self
    }
}

impl Repository {
    /// The account of an id, and what `reads` of the same slot find.
    pub async fn load(&self, user: &UserId, reads: Vec<Read>) -> Result<Loaded, StoreError> {
        let mut all = vec![Read::Fields(state(user)), Read::Fields(account_key(user))];
        all.extend(reads);
        let mut snapshot = self.store.read(all).await?;
        let fields = snapshot.fields(0);
        let standing = Standing {
            user: user.clone(),
            state: AccountState::read(&fields),
            has_state: !fields.is_empty(),
            account: read_account(&snapshot.fields(1)),
        };
        Ok(Loaded {
            now: snapshot.now,
            standing,
            snapshot,
        })
    }

    /// Commits a change; whether the account was as it had been read.
    pub async fn commit(&self, change: Change) -> Result<bool, StoreError> {
        Ok(self.store.commit(change.txn).await? == Committed::Applied)
    }

    /// Puts an id into the index of accounts. Done before the account is made: an index entry too many is filtered out
    /// when it is read, a missing one would hide an account.
    pub async fn enlist(&self, user: &UserId, now: i64) -> Result<(), StoreError> {
        let txn = Txn::durable().op(Op::MemberSet(ACCOUNTS.into(), user.to_string(), now));
        self.store.commit(txn).await.map(drop)
    }

    /// Every id of the index after `(score, id)`, by rising time.
    pub async fn enlisted(
        &self,
        since: i64,
        limit: usize,
    ) -> Result<Vec<(UserId, i64)>, StoreError> {
        let mut page = self
            .store
            .read(vec![Read::Since {
                key: ACCOUNTS.into(),
                score: since,
                limit,
            }])
            .await?;
        let members = page.members(0).into_iter();
        Ok(members
            .filter_map(|(user, at)| Some((UserId::parse(&user)?, at)))
            .collect())
    }

    /// Announces that the data of an account is to be erased. `chat` does it once the account's state says that this
    /// generation is over, so that it is safe to write this before the account is deleted.
    pub async fn announce_erasure(&self, owner: &Owner, now: i64) -> Result<(), StoreError> {
        let member = format!("{}:{}", owner.user, owner.generation);
        self.store
            .commit(Txn::durable().op(Op::MemberSet(ERASE.into(), member, now)))
            .await
            .map(drop)
    }

    /// The announced erasures that `chat` has not done yet, with when they were announced, and the store's clock.
    pub async fn erasures(&self, limit: usize) -> Result<(i64, Vec<(Owner, i64)>), StoreError> {
        let mut page = self
            .store
            .read(vec![Read::Since {
                key: ERASE.into(),
                score: 0,
                limit,
            }])
            .await?;
        let owner = |member: &str| {
            let (user, generation) = member.rsplit_once(':')?;
            Some(Owner {
                user: UserId::parse(user)?,
                generation: generation.parse().ok()?,
            })
        };
        let members = page.members(0).into_iter();
        Ok((
            page.now,
            members
                .filter_map(|(member, at)| Some((owner(&member)?, at)))
                .collect(),
        ))
    }

    /// Takes back an announcement.
    pub async fn withdraw_erasure(&self, owner: &Owner) -> Result<(), StoreError> {
        let member = format!("{}:{}", owner.user, owner.generation);
        self.store
            .commit(Txn::durable().op(Op::MemberDelete(ERASE.into(), member)))
            .await
            .map(drop)
    }

    /// Forgets revocations that were written before `before` (ms).
    pub async fn trim_revocations(&self, before: i64) -> Result<(), StoreError> {
        let txn = Txn::relaxed().op(Op::MembersBelow(common::identity::REVOKED.into(), before));
        self.store.commit(txn).await.map(drop)
    }
}
