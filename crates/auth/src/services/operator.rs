//! What an operator does from a shell, whatever the settings say of registration.

use common::{identity::UserId, store::Store};

use super::{ROUNDS, error::AuthError, lifecycle, passwords::PasswordHasher};
use crate::{
    domain::{account::Account, password::PasswordPolicy},
    store::AccountStore,
};

pub struct Operator {
    store: AccountStore,
    policy: PasswordPolicy,
    hasher: PasswordHasher,
}

impl Operator {
    pub fn new(store: Store, password_min: usize) -> Self {
        Self {
            store: AccountStore::new(store),
            policy: PasswordPolicy::new(password_min),
            hasher: PasswordHasher::default(),
        }
    }

    pub async fn add_user(&self, user: &UserId, password: &str) -> Result<(), AuthError> {
        let hash = self.hash(user, password).await?;
        lifecycle::create(&self.store, user, &hash, None).await
    }

    /// Gives an account another password, or its first; all of its logins end.
    pub async fn set_password(&self, user: &UserId, password: &str) -> Result<(), AuthError> {
        let hash = self.hash(user, password).await?;
        for _ in 0..ROUNDS {
            let owned = self.store.load_with_keys(user).await?;
            let account = owned.current.account.as_ref().ok_or(AuthError::NotFound)?;
            let changed =
                lifecycle::replace_password(&self.store, &owned, account, (&hash, None, false));
            if changed.await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    pub async fn delete_user(&self, user: &UserId) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let owned = self.store.load_with_keys(user).await?;
            if owned.current.account.is_none() {
                return Err(AuthError::NotFound);
            }
            if lifecycle::delete(&self.store, &owned).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Every account there is, the oldest first.
    pub async fn list_users(&self) -> Result<Vec<(UserId, Account)>, AuthError> {
        let mut listed = Vec::new();
        for user in self.store.accounts().await? {
            if let Some(account) = self.store.load(&user).await?.account {
                listed.push((user, account));
            }
        }
        listed.sort_by_key(|(user, account)| (account.created_at, user.clone()));
        Ok(listed)
    }

    async fn hash(&self, user: &UserId, password: &str) -> Result<String, AuthError> {
        self.policy.check(password, user)?;
        self.hasher.hash(password).await
    }
}
