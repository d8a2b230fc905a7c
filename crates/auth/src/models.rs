//! The types of `auth`: accounts, token pairs, API keys.

use common::identity::{AccountState, Owner, UserId};

/// An account's record; which of its logins and keys count is in its [`AccountState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Unix milliseconds.
    pub created_at: i64,
    /// The password's PHC string; `None` for an account that only open logins have used.
    pub password: Option<String>,
}

/// What is known of a user id at one moment.
#[derive(Clone, Debug)]
pub struct AccountSnapshot {
    pub user: UserId,
    pub state: AccountState,
    pub account: Option<Account>,
}

impl AccountSnapshot {
    /// The id's present generation.
    pub fn owner(&self) -> Owner {
        Owner {
            user: self.user.clone(),
            generation: self.state.generation,
        }
    }

    /// The account's password hash, if there is an account and it has one.
    pub fn password(&self) -> Option<&str> {
        self.account
            .as_ref()
            .and_then(|account| account.password.as_deref())
    }

    /// The account, if it is still that owner's.
    pub fn account_of(&self, owner: &Owner) -> Option<&Account> {
        self.account.as_ref().filter(|_| self.owner() == *owner)
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
