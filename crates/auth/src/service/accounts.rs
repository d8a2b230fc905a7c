//! An account's life: registered, given passwords, logged out, deleted.

use std::net::IpAddr;

use common::{
    config::Registration,
    identity::{Credential, Identity, Revocation, UserId},
};

use super::{Accounts, AuthError, ROUNDS, ending::own_account};
use crate::{
    models::Account,
    repository::{Change, Ended, Loaded, key_ids, key_ids_read},
};

/// The login of an identity that an access token proved.
pub(crate) fn login_of(identity: &Identity) -> Result<&str, AuthError> {
    match &identity.credential {
        Credential::Token { login, .. } => Ok(login),
        Credential::ApiKey { .. } | Credential::Open => Err(AuthError::TokenNeeded),
    }
}

impl Accounts {
    /// Registers an account. `claimed` is the identity that was sent along: it may give its own account, which only
    /// open logins have used so far, a first password.
    pub async fn register(
        &self,
        user: &UserId,
        password: &str,
        claimed: Option<&Identity>,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        if self.settings.registration == Registration::Closed {
            return Err(AuthError::RegistrationClosed);
        }
        self.passwords
            .accept(password, user)
            .map_err(AuthError::Password)?;
        let admitted = self.repository.admit_registration(from).await?;
        if !admitted.allowed {
            return Err(AuthError::TooManyAttempts(admitted.retry_after));
        }
        let kept = match claimed {
            Some(identity) => {
                self.live(identity).await?;
                Some(login_of(identity)?)
            }
            None => None,
        };
        self.first_password(user, password, claimed, kept).await
    }

    /// Ends a login, or all logins of its account. To end what has just ended is no failure: somebody who was not told
    /// how it went asks again.
    pub async fn logout(&self, identity: &Identity, all: bool) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        for _ in 0..ROUNDS {
            let (loaded, over) = self.standing_of(identity).await?;
            if let Some(entry) = over {
                let done = match &entry {
                    Revocation::Login(_) => !all,
                    Revocation::Logins { kept, .. } => all && kept.is_none(),
                    Revocation::Account(_) | Revocation::ApiKey(_) => false,
                };
                self.say(&identity.owner, vec![entry], loaded.now).await;
                return if done {
                    Ok(())
                } else {
                    Err(AuthError::Revoked)
                };
            }
            let standing = &loaded.standing;
            let account = own_account(standing, &identity.owner).ok_or(AuthError::Revoked)?;
            let (change, entry) = if all {
                let epoch = account.epoch + 1;
                let account = Account {
                    epoch,
                    kept: None,
                    ..account.clone()
                };
                let entry = Revocation::Logins {
                    owner: standing.owner(),
                    epoch,
                    kept: None,
                };
                (Change::of(standing).put(standing, &account), entry)
            } else {
                let change = Change::of(standing).end_login(&identity.owner, login, Ended::Logout);
                (change, Revocation::Login(login.to_owned()))
            };
            if self.end(&loaded, change, vec![entry]).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Deletes an account. Its data are erased by `chat`, which [`crate::repository::ERASE`] tells.
    pub async fn delete(
        &self,
        identity: &Identity,
        password: Option<&str>,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        login_of(identity)?;
        let (loaded, over) = self.standing_of(identity).await?;
        if let Some(entry) = over {
            // Deleted already, and not known here yet: whoever asked was not told how it went.
            let done = matches!(entry, Revocation::Account(_));
            self.say(&identity.owner, vec![entry], loaded.now).await;
            return if done {
                Ok(())
            } else {
                Err(AuthError::Revoked)
            };
        }
        let owner = &identity.owner;
        let mut attempt = None;
        let account = own_account(&loaded.standing, owner).ok_or(AuthError::Revoked)?;
        if account.password.is_some() {
            let password = password.ok_or(AuthError::PasswordRequired)?;
            self.passwords
                .bounded(password)
                .map_err(AuthError::Password)?;
            attempt = Some(self.begin_attempt(identity.user(), from).await?);
        }
        let mut verified = None;
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(identity.user()).await?;
            let account = own_account(&loaded.standing, owner).ok_or(AuthError::Revoked)?;
            if account.password.is_some() {
                let password = password.ok_or(AuthError::PasswordRequired)?;
                self.verify_once(password, account, &mut verified).await?;
            }
            if self.remove(&loaded, &keys).await? {
                if let Some(attempt) = attempt {
                    self.succeed(attempt).await;
                }
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Deletes the account that was read; false if it has changed meanwhile.
    pub(crate) async fn remove(&self, loaded: &Loaded, keys: &[String]) -> Result<bool, AuthError> {
        let (standing, owner) = (&loaded.standing, loaded.standing.owner());
        // Before: a crash after the deletion must not leave data behind. `chat` waits for the state to say so too.
        self.repository.announce_erasure(&owner, loaded.now).await?;
        let change = Change::of(standing)
            .delete(standing)
            .remove_keys(&owner, keys)
            .forget_attempts(&standing.user);
        let entries = vec![Revocation::Account(owner.clone())];
        if !self.end(loaded, change, entries).await? {
            return Ok(false);
        }
        // And after: an announcement that seemed to have come to nothing may have been taken back meanwhile.
        if let Err(error) = self.repository.announce_erasure(&owner, loaded.now).await {
            tracing::warn!(error = %error, "erasure not announced a second time");
        }
        Ok(true)
    }

    pub(crate) async fn load_with_keys(
        &self,
        user: &UserId,
    ) -> Result<(Loaded, Vec<String>), AuthError> {
        // Which generation's keys to read is known only once the state was; it hardly ever changes in between, and the
        // change that is based on both is refused if it does.
        let owner = self
            .repository
            .load(user, Vec::new())
            .await?
            .standing
            .owner();
        let mut loaded = self
            .repository
            .load(user, vec![key_ids_read(&owner)])
            .await?;
        let keys = key_ids(&mut loaded.snapshot, 2);
        let same = loaded.standing.owner() == owner;
        Ok((loaded, if same { keys } else { Vec::new() }))
    }
}
