//! An account's first password, and every other that follows: each ends what the one before let in.

use std::net::IpAddr;

use common::identity::{Identity, UserId};

use super::{Accounts, AuthError, ROUNDS, accounts::login_of, count_ending};
use crate::{
    models::Account,
    repository::{Change, Loaded},
};

impl Accounts {
    /// Makes an account with a password, or gives one without its first.
    pub(crate) async fn first_password(
        &self,
        user: &UserId,
        password: &str,
        claimed: Option<&Identity>,
        kept: Option<&str>,
    ) -> Result<(), AuthError> {
        let hash = self.passwords.hash(password).await?;
        for _ in 0..ROUNDS {
            let loaded = self.repository.load(user, Vec::new()).await?;
            let current = &loaded.current;
            let Some(account) = &current.account else {
                self.repository.enlist(user, loaded.now).await?;
                let account = Account {
                    created_at: loaded.now,
                    password: Some(hash.clone()),
                };
                if self
                    .repository
                    .commit(Change::of(current).put(&account))
                    .await?
                {
                    return Ok(());
                }
                continue;
            };
            let own = claimed.is_some_and(|identity| identity.owner == current.owner());
            if account.password.is_some() || !own {
                return Err(AuthError::UserExists);
            }
            // Whoever logged in as this id while anybody could, and whatever keys they made, are not its owner's.
            let account = Account {
                password: Some(hash.clone()),
                ..account.clone()
            };
            if self.replace_password(&loaded, account, kept, true).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Changes a password: every other login ends, and the API keys too where asked.
    pub async fn change_password(
        &self,
        identity: &Identity,
        (current, new): (&str, &str),
        revoke_keys: bool,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        if self.passwords.bounded(current).is_err() {
            return Err(AuthError::InvalidCredentials);
        }
        self.passwords
            .accept(new, identity.user())
            .map_err(AuthError::Password)?;
        self.load_for(identity, login).await?;
        let attempt = self.begin_attempt(identity.user(), from).await?;
        let (mut hash, mut verified) = (None, None);
        for _ in 0..ROUNDS {
            let loaded = self.load_for(identity, login).await?;
            let account = loaded.current.account.as_ref().ok_or(AuthError::Revoked)?;
            self.verify_once(current, account, &mut verified).await?;
            let hash = match &mut hash {
                Some(hash) => hash,
                none => none.insert(self.passwords.hash(new).await?),
            };
            let account = Account {
                password: Some(hash.clone()),
                ..account.clone()
            };
            if self
                .replace_password(&loaded, account, Some(login), revoke_keys)
                .await?
            {
                self.succeed(attempt).await;
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Commits a password change of the account that was read; false if it has changed meanwhile. All logins but `kept` end,
    /// and with `end_keys` every API key that exists at that moment.
    pub(crate) async fn replace_password(
        &self,
        loaded: &Loaded,
        account: Account,
        kept: Option<&str>,
        end_keys: bool,
    ) -> Result<bool, AuthError> {
        let current = &loaded.current;
        let mut change = Change::of(current)
            .forget_attempts(&current.user)
            .put(&account)
            .end_logins(kept);
        if end_keys {
            change = change.end_keys();
        }
        if !self.repository.commit(change).await? {
            return Ok(false);
        }
        count_ending("logins");
        if end_keys {
            self.prune_keys(&current.owner()).await;
        }
        Ok(true)
    }

    /// Verifies a password against the stored hash, unless it is the one verified before.
    pub(crate) async fn verify_once(
        &self,
        password: &str,
        account: &Account,
        verified: &mut Option<String>,
    ) -> Result<(), AuthError> {
        if account.password.is_some() && *verified == account.password {
            return Ok(());
        }
        if !self
            .passwords
            .verify(password, account.password.as_deref())
            .await?
        {
            return Err(AuthError::InvalidCredentials);
        }
        verified.clone_from(&account.password);
        Ok(())
    }
}
