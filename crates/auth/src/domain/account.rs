//! Accounts, their API keys, and the tokens of a login.

use common::identity::{AccountState, ApiKeyRecord, Owner, UserId};

/// An account's record; which of its logins and keys count is in its [`AccountState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Unix milliseconds.
    pub created_at: i64,
    /// The password's PHC string; `None` for an account that only open logins have used.
    pub password: Option<String>,
    /// When the last of its logins is over at the latest: Unix milliseconds.
    pub logins_end_at: i64,
}

/// What is known of a user id at one moment.
#[derive(Clone, Debug)]
pub struct AccountSnapshot {
    pub user: UserId,
    pub state: AccountState,
    pub account: Option<Account>,
    /// By the store's clock: Unix milliseconds.
    pub now: i64,
}

impl AccountSnapshot {
    pub fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), generation: self.state.generation }
    }

    /// The account's password hash, if there is an account and it has one.
    pub fn password(&self) -> Option<&str> {
        self.account.as_ref()?.password.as_deref()
    }

    /// The account, if it is still that owner's.
    pub fn account_of(&self, owner: &Owner) -> Option<&Account> {
        self.account.as_ref().filter(|_| self.owner() == *owner)
    }

    /// Whether a login belongs to the account that the id has now, and was not ended with all others.
    pub fn counts_login(&self, owner: &Owner, login: &str) -> bool {
        self.account_of(owner).is_some() && self.state.counts_login(login)
    }
}

/// What a login or a refresh answers.
#[derive(Clone)]
pub struct TokenPair {
    pub access_token: String,
    /// Seconds.
    pub expires_in: i64,
    pub refresh_token: String,
}

/// An API key as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix seconds; `None` for never.
    pub expires_at: Option<i64>,
}

impl ApiKey {
    pub fn of(id: String, record: ApiKeyRecord) -> Self {
        let ApiKeyRecord { name, created_at, expires_at, .. } = record;
        Self { id, name, created_at, expires_at }
    }
}
