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
            let account = loaded.current.account.clone().ok_or(AuthError::NotFound)?;
            // A first password: whoever logged in as this id while anybody could may have left keys.
            let is_first = account.password.is_none();
            let account = Account {
                password: Some(hash.clone()),
                ..account
            };
            if self
                .replace_password(&loaded, account, None, is_first)
                .await?
            {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Deletes an account.
    pub async fn delete_user(&self, user: &UserId) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(user).await?;
            if loaded.current.account.is_none() {
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
        let mut listed = Vec::new();
        for user in self.repository.enlisted().await? {
            let current = self.repository.load(&user, Vec::new()).await?.current;
            if let Some(account) = current.account {
                listed.push(Listed {
                    user,
                    created_at: account.created_at,
                    has_password: account.password.is_some(),
                });
            }
        }
        listed.sort_by(|a, b| (a.created_at, &a.user).cmp(&(b.created_at, &b.user)));
        Ok(listed)
    }
}
