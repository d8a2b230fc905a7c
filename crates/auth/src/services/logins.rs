//! Logging in, by a user id alone where that is open and by password elsewhere, and logging out.

use std::{net::IpAddr, sync::Arc};

use common::{
    config::LoginMode,
    identity::{Identity, UserId, login_epoch},
};

use super::{
    ROUNDS, authorize,
    error::AuthError,
    login_of,
    passwords::{PasswordHasher, is_outdated},
    throttle::LoginThrottle,
    tokens::TokenService,
};
use crate::{
    domain::{
        account::{Account, TokenPair},
        login::EndReason,
        password,
    },
    metrics::count_revocation,
    store::{AccountStore, Change},
};

/// How much later than its last login an account without a password expires: milliseconds.
pub(super) const IDLE_MARGIN_MS: i64 = 24 * 3600 * 1000;
/// How often an open login adds its account to the indexes again: milliseconds.
const INDEXED_EVERY_MS: i64 = 24 * 3600 * 1000;

pub struct LoginService {
    mode: LoginMode,
    store: AccountStore,
    tokens: TokenService,
    throttle: Arc<LoginThrottle>,
    hasher: Arc<PasswordHasher>,
}

impl LoginService {
    pub fn new(
        mode: LoginMode,
        store: AccountStore,
        tokens: TokenService,
        throttle: Arc<LoginThrottle>,
        hasher: Arc<PasswordHasher>,
    ) -> Self {
        Self { mode, store, tokens, throttle, hasher }
    }

    /// Begins a login. `from` is the address for which failures are counted.
    pub async fn login(
        &self,
        user: &UserId,
        password: Option<&str>,
        from: IpAddr,
    ) -> Result<TokenPair, AuthError> {
        match (password, self.mode) {
            (Some(password), _) => {
                password::check_length(password)?;
                let attempt = self.throttle.begin(user, from).await?;
                let pair = self.login_with_password(user, password).await?;
                self.throttle.succeed(attempt).await;
                Ok(pair)
            }
            (None, LoginMode::Open) => self.login_openly(user).await,
            (None, LoginMode::Password) => Err(AuthError::PasswordMissing),
        }
    }

    async fn login_openly(&self, user: &UserId) -> Result<TokenPair, AuthError> {
        for _ in 0..ROUNDS {
            let current = self.store.load(user).await?;
            if current.password().is_some() {
                return Err(AuthError::PasswordRequired);
            }
            let new = || Account { created_at: current.now, password: None, logins_end_at: 0 };
            let mut account = current.account.clone().unwrap_or_else(new);
            let end = self.tokens.login_end(current.now);
            // Not at every login: the indexes lie in another slot.
            if end - account.logins_end_at > INDEXED_EVERY_MS {
                let check_at = Some(end.saturating_add(IDLE_MARGIN_MS));
                let created_at = account.created_at;
                self.store.add_account(user, created_at, check_at).await?;
            }
            account.logins_end_at = account.logins_end_at.max(end);
            let change = Change::of(&current);
            let change = match &current.account {
                None => change.put(&account),
                Some(_) => change.extend_logins(account.logins_end_at),
            };
            let (change, pair) = self.tokens.begin_login(change, &current)?;
            if self.store.commit(change).await? {
                return Ok(pair);
            }
        }
        Err(AuthError::Contended)
    }

    async fn login_with_password(
        &self,
        user: &UserId,
        password: &str,
    ) -> Result<TokenPair, AuthError> {
        let mut verified = None;
        for _ in 0..ROUNDS {
            let current = self.store.load(user).await?;
            let stored = current.password();
            self.hasher.verify_once(password, stored, &mut verified).await?;
            let (Some(account), Some(stored)) = (&current.account, stored) else {
                return Err(AuthError::InvalidCredentials);
            };
            let mut change = Change::of(&current).forget_attempts();
            if is_outdated(stored) {
                change = change.put(&Account {
                    password: Some(self.hasher.hash(password).await?),
                    ..account.clone()
                });
            }
            let (change, pair) = self.tokens.begin_login(change, &current)?;
            if self.store.commit(change).await? {
                return Ok(pair);
            }
        }
        Err(AuthError::Contended)
    }

    /// Ends a login, or all logins of its account. Ending what has already ended succeeds: a caller who got no answer asks again.
    pub async fn logout(&self, identity: &Identity, all: bool) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        for _ in 0..ROUNDS {
            let current = match authorize(&self.store, identity).await {
                Err(AuthError::Revoked) if self.has_ended(identity, login, all).await? => {
                    return Ok(());
                }
                owned => owned?.current,
            };
            let change = Change::of(&current);
            let change = if all {
                change.end_logins(None)
            } else {
                let owner = &identity.owner;
                self.tokens.end_login(change, owner, login, EndReason::Logout)
            };
            if self.store.commit(change).await? {
                count_revocation(if all { "logins" } else { "login" });
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Whether a logout that is refused was done before: of this login alone, or of all.
    async fn has_ended(
        &self,
        identity: &Identity,
        login: &str,
        all: bool,
    ) -> Result<bool, AuthError> {
        let current = self.store.load(identity.user()).await?;
        let state = &current.state;
        let ended = if all {
            login_epoch(login) < state.epoch && state.kept.is_none()
        } else {
            // It is refused although its epoch counts: it was ended alone.
            state.counts_login(login)
        };
        Ok(ended && current.owner() == identity.owner)
    }
}
