//! What users do with their own accounts: register, change the password, delete.

use std::{net::IpAddr, sync::Arc};

use common::{
    config::Registration,
    identity::{Identity, UserId},
};

use super::{
    ROUNDS, authorize, error::AuthError, lifecycle, login_of, passwords::PasswordHasher,
    throttle::LoginThrottle,
};
use crate::{
    domain::password::{self, PasswordPolicy},
    store::AccountStore,
};

pub struct AccountService {
    registration: Registration,
    store: AccountStore,
    policy: PasswordPolicy,
    throttle: Arc<LoginThrottle>,
    hasher: Arc<PasswordHasher>,
}

impl AccountService {
    pub fn new(
        registration: Registration,
        policy: PasswordPolicy,
        store: AccountStore,
        throttle: Arc<LoginThrottle>,
        hasher: Arc<PasswordHasher>,
    ) -> Self {
        Self { registration, store, policy, throttle, hasher }
    }

    /// Registers an account. `claimed` is the identity that was sent along: it may give its own account, which only
    /// open logins have used so far, a first password.
    pub async fn register(
        &self,
        user: &UserId,
        password: &str,
        claimed: Option<&Identity>,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        if self.registration == Registration::Closed {
            return Err(AuthError::RegistrationClosed);
        }
        self.policy.check(password, user)?;
        self.throttle.register(from).await?;
        match claimed {
            Some(claimed) if claimed.user() == user => drop(authorize(&self.store, claimed).await?),
            Some(_) if self.store.load(user).await?.account.is_some() => {
                return Err(AuthError::UserExists);
            }
            Some(_) => return Err(AuthError::OtherUser),
            None => {}
        }
        let hash = self.hasher.hash(password).await?;
        lifecycle::create(&self.store, user, &hash, claimed).await
    }

    /// Changes a password: every other login ends, and the API keys too where asked.
    pub async fn change_password(
        &self,
        identity: &Identity,
        (old, new): (&str, &str),
        end_keys: bool,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        if password::check_length(old).is_err() {
            return Err(AuthError::InvalidCredentials);
        }
        self.policy.check(new, identity.user())?;
        authorize(&self.store, identity).await?;
        let attempt = self.throttle.begin(identity.user(), from).await?;
        let (mut hash, mut verified) = (None, None);
        for _ in 0..ROUNDS {
            let owned = authorize(&self.store, identity).await?;
            let account = owned.current.account.as_ref().ok_or(AuthError::Revoked)?;
            let stored = account.password.as_deref();
            self.hasher.verify_once(old, stored, &mut verified).await?;
            let hash = match &mut hash {
                Some(hash) => hash,
                none => none.insert(self.hasher.hash(new).await?),
            };
            let how = (hash.as_str(), Some(login), end_keys);
            if lifecycle::replace_password(&self.store, &owned, account, how).await? {
                self.throttle.succeed(attempt).await;
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Deletes an account. `chat` erases its data.
    pub async fn delete(
        &self,
        identity: &Identity,
        password: Option<&str>,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        let owned = match authorize(&self.store, identity).await {
            Err(AuthError::Revoked) if self.is_deleted(identity).await? => return Ok(()),
            owned => owned?,
        };
        let mut attempt = None;
        if owned.current.password().is_some() {
            let password = password.ok_or(AuthError::PasswordRequired)?;
            password::check_length(password)?;
            attempt = Some(self.throttle.begin(identity.user(), from).await?);
        }
        let mut verified = None;
        for _ in 0..ROUNDS {
            let owned = self.store.load_owner(&identity.owner, None).await?;
            let account = owned.current.account_of(&identity.owner);
            let account = account.ok_or(AuthError::Revoked)?;
            if let Some(stored) = &account.password {
                let password = password.ok_or(AuthError::PasswordRequired)?;
                self.hasher.verify_once(password, Some(stored), &mut verified).await?;
            }
            if lifecycle::delete(&self.store, &owned).await? {
                if let Some(attempt) = attempt {
                    self.throttle.succeed(attempt).await;
                }
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Whether an account was deleted before: a caller who got no answer asks again.
    async fn is_deleted(&self, identity: &Identity) -> Result<bool, AuthError> {
        let current = self.store.load(identity.user()).await?;
        Ok(current.state.generation > identity.owner.generation)
    }
}
