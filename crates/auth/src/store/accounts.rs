//! Account records: `a:{user}:account`, and `i:{user}:state` beside it, always changed in one transaction.

use std::collections::HashMap;

use common::{
    identity::{
        AccountState, ApiKeyRecord, Owner, UserId, api_key, api_keys_index, ended_login, state,
    },
    store::{Bytes, Committed, Key, Read, Snapshot, Store, StoreError},
};

use super::{Change, MAX_KEYS, logins, text};
use crate::domain::{
    account::{Account, AccountSnapshot, ApiKey},
    login::LoginRecord,
};

/// Reads and changes accounts with their logins and API keys, and the indexes of accounts. Cheap to clone.
#[derive(Clone)]
pub struct AccountStore {
    pub(super) store: Store,
}

/// An account, and what there is of one generation of its id.
pub struct OwnedAccount {
    pub current: AccountSnapshot,
    /// The ids of the generation's API keys, the newest first; some may have expired or been revoked.
    pub key_ids: Vec<String>,
    /// Whether the login that was asked for has ended by itself.
    pub login_ended: bool,
}

pub(super) fn account_key(user: &UserId) -> Key {
    format!("a:{{{user}}}:account")
}

impl AccountStore {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub async fn load(&self, user: &UserId) -> Result<AccountSnapshot, StoreError> {
        self.read(user, Vec::new()).await.map(|(current, _)| current)
    }

    /// The account of an id, the API keys of that owner, and whether that login of it has ended.
    pub async fn load_owner(
        &self,
        owner: &Owner,
        login: Option<&str>,
    ) -> Result<OwnedAccount, StoreError> {
        let mut reads =
            vec![Read::Newest { key: api_keys_index(owner), before: None, limit: 10 * MAX_KEYS }];
        reads.extend(login.map(|login| Read::Value(ended_login(owner, login))));
        let (current, mut found) = self.read(&owner.user, reads).await?;
        Ok(OwnedAccount {
            current,
            key_ids: found.members(2).into_iter().map(|(id, _)| id).collect(),
            login_ended: found.value(3).is_some(),
        })
    }

    /// The account of an id with the API keys of its present generation.
    pub async fn load_with_keys(&self, user: &UserId) -> Result<OwnedAccount, StoreError> {
        let mut owner = Owner { user: user.clone(), generation: 0 };
        loop {
            let owned = self.load_owner(&owner, None).await?;
            if owned.current.owner() == owner {
                return Ok(owned);
            }
            owner = owned.current.owner();
        }
    }

    /// The account of an id, a login of that owner, and the nonce of its last rotation.
    pub async fn load_login(
        &self,
        owner: &Owner,
        login: &str,
    ) -> Result<(AccountSnapshot, Option<LoginRecord>, Option<Vec<u8>>), StoreError> {
        let reads = logins::reads(owner, login);
        let (current, mut found) = self.read(&owner.user, reads).await?;
        let record = logins::parse(&found.fields(2));
        Ok((current, record, found.value(3).map(|it| it.to_vec())))
    }

    /// The account, and what `reads` of the same slot find, from position 2 on.
    async fn read(
        &self,
        user: &UserId,
        reads: Vec<Read>,
    ) -> Result<(AccountSnapshot, Snapshot), StoreError> {
        let mut all = vec![Read::Fields(state(user)), Read::Fields(account_key(user))];
        all.extend(reads);
        let mut found = self.store.read(all).await?;
        let current = AccountSnapshot {
            user: user.clone(),
            state: AccountState::read(&found.fields(0)),
            account: parse_account(&found.fields(1)),
            now: found.now,
        };
        Ok((current, found))
    }

    /// The keys of those ids that have neither expired nor been revoked, in that order.
    pub async fn api_keys(&self, owner: &Owner, ids: &[String]) -> Result<Vec<ApiKey>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reads = ids.iter().map(|id| Read::Value(api_key(owner, id)));
        let mut found = self.store.read(reads.collect()).await?;
        let keys = ids.iter().enumerate().filter_map(|(i, id)| {
            let record = ApiKeyRecord::decode(&found.value(i)?)?;
            Some(ApiKey::of(id.clone(), record))
        });
        Ok(keys.collect())
    }

    /// Commits a change; false if the account is not as it was read any more.
    pub async fn commit(&self, change: Change) -> Result<bool, StoreError> {
        Ok(self.store.commit(change.into_txn()).await? == Committed::Applied)
    }
}

fn parse_account(fields: &HashMap<String, Bytes>) -> Option<Account> {
    Some(Account {
        created_at: text(fields, "created")?.parse().ok()?,
        password: text(fields, "password"),
        logins_end_at: text(fields, "logins_end").and_then(|it| it.parse().ok()).unwrap_or(0),
    })
}
