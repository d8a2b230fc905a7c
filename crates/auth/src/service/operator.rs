//! What an operator does by hand, whatever the settings say of registration.

use common::identity::UserId;

use super::{Accounts, AuthError, ROUNDS};
use crate::models::Account;

/// An account in the operator's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub user: UserId,
    /// When it was made: Unix milliseconds.
    pub created_at: i64,
    /// Whether it has a password.
    pub has_password: bool,
}

impl Accounts {
    /// Makes an account.
    pub async fn add_user(&self, user: &UserId, password: &str) -> Result<(), AuthError> {
        self.passwords
            .accept(password, user)
            .map_err(AuthError::Password)?;
        self.first_password(user, password, None, None).await
    }

    /// Gives an account another password, or its first; all of its logins end.
    pub async fn set_password(&self, user: &UserId, password: &str) -> Result<(), AuthError> {
        self.passwords
            .accept(password, user)
            .map_err(AuthError::Password)?;
        let hash = self.passwords.hash(password).await?;
        for _ in 0..ROUNDS {
            let loaded = self.repository.load(user, Vec::new()).await?;
            let account = loaded.standing.account.clone().ok_or(AuthError::NotFound)?;
            let account = Account {
                password: Some(hash.clone()),
                ..account
            };
            if self.replace_password(&loaded, account, None, &[]).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Deletes an account.
    pub async fn delete_user(&self, user: &UserId) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(user).await?;
            if loaded.standing.account.is_none() {
                return Err(AuthError::NotFound);
            }
            if self.remove(&loaded, &keys).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Every account there is, the oldest first.
    pub async fn list_users(&self) -> Result<Vec<Listed>, AuthError> {
        const PAGE: usize = 1000;
        let (mut listed, mut since, mut limit) = (Vec::<Listed>::new(), 0, PAGE);
        loop {
            let page = self.repository.enlisted(since, limit).await?;
            let last = page.last().map_or(since, |(_, at)| *at);
            let more = page.len() >= limit;
            for (user, _) in page {
                if listed
                    .iter()
                    .rev()
                    .take(limit)
                    .any(|seen| seen.user == user)
                {
                    continue;
                }
                let standing = self.repository.load(&user, Vec::new()).await?.standing;
                if let Some(account) = standing.account {
                    let has_password = account.password.is_some();
                    listed.push(Listed {
                        user,
                        created_at: account.created_at,
                        has_password,
                    });
                }
            }
            if !more {
                return Ok(listed);
            }
            limit = if last == since { limit * 2 } else { PAGE };
            since = last;
        }
    }
}
