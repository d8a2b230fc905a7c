//! Logging in: by a user id alone where that is open, else by password.

use std::net::IpAddr;

use common::{
    config::LoginMode,
    identity::{UserId, digest},
};

use super::{
    Accounts, AuthError, Passwords, ROUNDS,
    tokens::{first_refresh, random_bytes, random_id},
};
use crate::{
    models::{Account, AccountSnapshot, TokenPair},
    repository::{Change, LoginRecord},
};

impl Accounts {
    /// Begins a login. `from` is the address that failures are counted for.
    pub async fn login(
        &self,
        user: &UserId,
        password: Option<&str>,
        from: IpAddr,
    ) -> Result<TokenPair, AuthError> {
        match (password, self.settings.login) {
            (Some(password), _) => {
                self.passwords
                    .bounded(password)
                    .map_err(AuthError::Password)?;
                let attempt = self.begin_attempt(user, from).await?;
                let grant = self.password_login(user, password).await?;
                self.succeed(attempt).await;
                Ok(grant)
            }
            (None, LoginMode::Open) => self.open_login(user).await,
            (None, LoginMode::Password) => Err(AuthError::PasswordMissing),
        }
    }

    async fn open_login(&self, user: &UserId) -> Result<TokenPair, AuthError> {
        for _ in 0..ROUNDS {
            let loaded = self.repository.load(user, Vec::new()).await?;
            let current = loaded.current;
            if current.password().is_some() {
                return Err(AuthError::PasswordRequired);
            }
            let mut change = Change::of(&current);
            if current.account.is_none() {
                self.repository.enlist(user, loaded.now).await?;
                let account = Account {
                    created_at: loaded.now,
                    password: None,
                };
                change = change.put(&account);
            }
            if let Some(grant) = self.begin_login(change, &current, loaded.now).await? {
                return Ok(grant);
            }
        }
        Err(AuthError::Contended)
    }

    async fn password_login(&self, user: &UserId, password: &str) -> Result<TokenPair, AuthError> {
        let mut verified: Option<String> = None;
        for _ in 0..ROUNDS {
            let loaded = self.repository.load(user, Vec::new()).await?;
            let current = loaded.current;
            let stored = current.password();
            if verified.is_none() || verified.as_deref() != stored {
                if !self.passwords.verify(password, stored).await? {
                    return Err(AuthError::InvalidCredentials);
                }
                verified = stored.map(str::to_owned);
            }
            let (Some(account), Some(stored)) = (&current.account, stored) else {
                return Err(AuthError::InvalidCredentials);
            };
            let mut change = Change::of(&current).forget_attempts(user);
            if Passwords::is_outdated(stored) {
                let renewed = Account {
                    password: Some(self.passwords.hash(password).await?),
                    ..account.clone()
                };
                change = change.put(&renewed);
            }
            if let Some(grant) = self.begin_login(change, &current, loaded.now).await? {
                return Ok(grant);
            }
        }
        Err(AuthError::Contended)
    }

    /// Commits `change` together with a new login; `None` if the account is not as it was read any more.
    async fn begin_login(
        &self,
        change: Change,
        current: &AccountSnapshot,
        now: i64,
    ) -> Result<Option<TokenPair>, AuthError> {
        let owner = current.owner();
        let epoch = current.state.epoch;
        let (id, proof_key) = (format!("{epoch}-{}", random_id()), random_bytes());
        let refresh_token = first_refresh(&owner, &id, &proof_key);
        let (access_token, expires_in) = self.access_token(&owner, &id, now, now)?;
        let current = digest(&refresh_token);
        let record = LoginRecord {
            started_at: now,
            proof_key,
            current,
            previous: None,
            ended: None,
        };
        let change = change.begin_login(&owner, &id, &record, self.settings.refresh_ttl);
        let begun = self.repository.commit(change).await?;
        Ok(begun.then_some(TokenPair {
            access_token,
            expires_in,
            refresh_token,
        }))
    }
}
