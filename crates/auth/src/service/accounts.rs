//! An account's life: registered, given passwords, logged out, deleted.

use std::net::IpAddr;

use common::{
    config::Registration,
    identity::{ApiKeyRecord, Credential, Identity, Owner, Revocation, UserId, api_key},
    store::Read,
};

use super::{Accounts, AuthError, ROUNDS};
use crate::{
    models::{Account, Standing},
    repository::{Change, Ended, Loaded, LoginRecord, key_ids, key_ids_read},
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

    /// Ends a login, or all logins of its account.
    pub async fn logout(&self, identity: &Identity, all: bool) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        for _ in 0..ROUNDS {
            let loaded = self.live(identity).await?;
            let standing = &loaded.standing;
            let account = own_account(standing, identity)?;
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
            if self.repository.commit(change).await? {
                return self.revoke(loaded.now, vec![entry]).await;
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
        let loaded = self.live(identity).await?;
        let mut attempt = None;
        if own_account(&loaded.standing, identity)?.password.is_some() {
            let password = password.ok_or(AuthError::PasswordRequired)?;
            self.passwords
                .bounded(password)
                .map_err(AuthError::Password)?;
            attempt = Some(self.begin_attempt(identity.user(), from).await?);
        }
        let mut verified = None;
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(identity.user()).await?;
            let account = own_account(&loaded.standing, identity)?;
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
        if !self.repository.commit(change).await? {
            return Ok(false);
        }
        // And after: an announcement that seemed to have come to nothing may have been taken back meanwhile.
        self.repository.announce_erasure(&owner, loaded.now).await?;
        self.revoke(loaded.now, vec![Revocation::Account(owner)])
            .await?;
        Ok(true)
    }

    /// The account of an identity, if the store says that its login or key still counts. What does not is published
    /// again: whoever revoked it may have died before everybody knew.
    pub async fn live(&self, identity: &Identity) -> Result<Loaded, AuthError> {
        let owner = &identity.owner;
        let reads = match &identity.credential {
            Credential::Token { login, .. } => LoginRecord::reads(owner, login),
            Credential::ApiKey { id, .. } => vec![Read::Value(api_key(owner, id))],
            Credential::Open => Vec::new(),
        };
        let mut loaded = self.repository.load(&owner.user, reads).await?;
        match over(&mut loaded, identity) {
            None => Ok(loaded),
            Some(entry) => {
                self.revoke(loaded.now, entry.into_iter().collect()).await?;
                Err(AuthError::Revoked)
            }
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

/// The account that the identity is of, if the id still has that one.
pub(super) fn own_account<'a>(
    standing: &'a Standing,
    identity: &Identity,
) -> Result<&'a Account, AuthError> {
    let own = standing.owner() == identity.owner;
    standing
        .account
        .as_ref()
        .filter(|_| own)
        .ok_or(AuthError::Revoked)
}

/// Whether an identity does not count any more, and what to publish so that everybody knows.
fn over(loaded: &mut Loaded, identity: &Identity) -> Option<Option<Revocation>> {
    let owner: &Owner = &identity.owner;
    if loaded.standing.state.generation > owner.generation {
        return Some(Some(Revocation::Account(owner.clone())));
    }
    let Ok(account) = own_account(&loaded.standing, identity) else {
        return Some(None);
    };
    match &identity.credential {
        Credential::Token { login, .. } => {
            if !account.counts(login) {
                let (epoch, kept) = (account.epoch, account.kept.clone());
                return Some(Some(Revocation::Logins {
                    owner: owner.clone(),
                    epoch,
                    kept,
                }));
            }
            match LoginRecord::found(&mut loaded.snapshot).0 {
                Some(record) if record.ended.is_none() => None,
                _ => Some(Some(Revocation::Login(login.clone()))),
            }
        }
        Credential::ApiKey { id, .. } => {
            let record = loaded.snapshot.value(2);
            let record: Option<ApiKeyRecord> =
                record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if record.is_some() {
                None
            } else {
                Some(Some(Revocation::ApiKey(id.clone())))
            }
        }
        Credential::Open => None,
    }
}
