//! What `auth` speaks about: accounts, logins, grants, API keys.

use common::identity::{AccountState, Owner, UserId};

/// An account as its record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Grows with every change; a decision holds only while it stays.
    pub rev: u64,
    /// When it was made: Unix milliseconds.
    pub created_at: i64,
    /// The password's PHC string; `None` for an account that only open logins have used.
    pub password: Option<String>,
    /// Logins that began in an earlier epoch have ended.
    pub epoch: u64,
    /// The one login of an earlier epoch that has not.
    pub kept: Option<String>,
}

impl Account {
    /// A new account.
    pub fn new(created_at: i64, password: Option<String>) -> Self {
        Self {
            rev: 1,
            created_at,
            password,
            epoch: 0,
            kept: None,
        }
    }

    /// Whether a login of that id is one of those that still count.
    pub fn counts(&self, login: &str) -> bool {
        common::identity::login_epoch(login) >= self.epoch || self.kept.as_deref() == Some(login)
    }
}

/// A user id with what is known of its account at one moment.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The id.
    pub user: UserId,
    /// Its state.
    pub state: AccountState,
    /// Whether the state was ever written.
    pub has_state: bool,
    /// The account, if there is one.
    pub account: Option<Account>,
}

impl Standing {
    /// The id's present life.
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
}

/// What a login or a refresh gives.
#[derive(Clone)]
pub struct Grant {
    /// The access token.
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The refresh token.
    pub refresh_token: String,
}

/// An API key as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made: Unix milliseconds.
    pub created_at: i64,
    /// When it expires: Unix seconds; `None` for never.
    pub expires_at: Option<i64>,
}
