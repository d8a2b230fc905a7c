//! An account's life: registered, given passwords, logged out, deleted.

use std::net::IpAddr;

use common::{
    config::Registration,
    identity::{Credential, Identity, Owner, UserId, login_epoch},
};

use super::{Accounts, AuthError, ROUNDS, count_ending};
use crate::repository::{Change, Ended, Loaded, key_ids, key_ids_read};

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
                self.recheck(identity).await?;
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
            let loaded = match self.load_for(identity, login).await {
                Err(AuthError::Revoked) if self.has_ended(identity, login, all).await? => {
                    return Ok(());
                }
                loaded => loaded?,
            };
            let change = Change::of(&loaded.current);
            let change = if all {
                change.end_logins(None)
            } else {
                let access_ttl = self.settings.access_ttl;
                change.end_login(&identity.owner, login, Ended::Logout, access_ttl)
            };
            if self.repository.commit(change).await? {
                count_ending(if all { "logins" } else { "login" });
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Whether a logout that is refused has been done before: of this login alone, or of all.
    async fn has_ended(
        &self,
        identity: &Identity,
        login: &str,
        all: bool,
    ) -> Result<bool, AuthError> {
        let loaded = self.repository.load(identity.user(), Vec::new()).await?;
        let state = &loaded.current.state;
        let same_account = loaded.current.owner() == identity.owner;
        let all_ended = login_epoch(login) < state.epoch && state.kept.is_none();
        let one_ended = state.counts_login(login);
        Ok(same_account && if all { all_ended } else { one_ended })
    }

    /// Deletes an account. `chat` erases its data: `i:erase` tells it to.
    pub async fn delete(
        &self,
        identity: &Identity,
        password: Option<&str>,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        let owner = &identity.owner;
        let loaded = match self.load_for(identity, login).await {
            Err(AuthError::Revoked) if self.is_gone(identity).await? => return Ok(()),
            loaded => loaded?,
        };
        let mut attempt = None;
        if loaded.current.password().is_some() {
            let password = password.ok_or(AuthError::PasswordRequired)?;
            self.passwords
                .bounded(password)
                .map_err(AuthError::Password)?;
            attempt = Some(self.begin_attempt(identity.user(), from).await?);
        }
        let mut verified = None;
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(identity.user()).await?;
            let account = loaded.current.account_of(owner).ok_or(AuthError::Revoked)?;
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

    /// Whether an account was deleted before: who asks again was not told.
    async fn is_gone(&self, identity: &Identity) -> Result<bool, AuthError> {
        let loaded = self.repository.load(identity.user(), Vec::new()).await?;
        Ok(loaded.current.state.generation > identity.owner.generation)
    }

    /// Deletes the account that was read; false if it has changed meanwhile.
    pub(crate) async fn remove(&self, loaded: &Loaded, keys: &[String]) -> Result<bool, AuthError> {
        let (current, owner) = (&loaded.current, loaded.current.owner());
        // Before: a crash after the deletion must not leave data behind. `chat` waits for the state to say so too.
        self.repository.announce_erasure(&owner, loaded.now).await?;
        let change = Change::of(current)
            .delete()
            .remove_keys(&owner, keys)
            .forget_attempts(&current.user);
        if !self.repository.commit(change).await? {
            return Ok(false);
        }
        count_ending("account");
        // And after: an announcement that seemed to have come to nothing may have been withdrawn meanwhile.
        if let Err(error) = self.repository.announce_erasure(&owner, loaded.now).await {
            tracing::warn!(error = %error, "erasure not announced a second time");
        }
        if let Err(error) = self.repository.delist(&current.user).await {
            tracing::warn!(error = %error, "deleted account not removed from the index");
        }
        self.prune_keys(&owner).await;
        Ok(true)
    }

    /// Removes the records of keys that do not count any more: some may have been made while others were being revoked.
    pub(crate) async fn prune_keys(&self, owner: &Owner) {
        let pruned = async {
            let loaded = self
                .repository
                .load(&owner.user, vec![key_ids_read(owner)])
                .await?;
            let Loaded {
                current,
                mut snapshot,
                ..
            } = loaded;
            let mut ids = key_ids(&mut snapshot, 2);
            if current.owner() == *owner {
                let epoch = current.state.key_epoch;
                let kept = self.repository.api_keys(owner, epoch, &ids).await?;
                ids.retain(|id| kept.iter().all(|key| key.id != *id));
            }
            let change = Change::of(&current).remove_keys(owner, &ids);
            self.repository.commit(change).await
        };
        if let Err(error) = pruned.await {
            tracing::warn!(error = %error, "records of revoked keys not removed");
        }
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
            .current
            .owner();
        let mut loaded = self
            .repository
            .load(user, vec![key_ids_read(&owner)])
            .await?;
        let keys = key_ids(&mut loaded.snapshot, 2);
        let same = loaded.current.owner() == owner;
        Ok((loaded, if same { keys } else { Vec::new() }))
    }
}
