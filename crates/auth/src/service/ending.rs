//! Ending logins, keys and accounts so that every process hears of it, whatever dies or fails in between.
//!
//! An ending is announced, then committed in the user's slot, then published, then the announcement is struck out. Once
//! it is committed the caller is told that it is done: from there on it will be published, here or by the sweeper of
//! whatever instance is there, as soon as the store takes it.

use common::{
    identity::{ApiKeyRecord, Credential, Identity, Owner, Revocation, api_key},
    store::Read,
};

use super::{Accounts, AuthError};
use crate::{
    models::{Account, Standing},
    repository::{Announced, Change, Loaded, LoginRecord},
};

/// An announcement this old, of something that goes on, was given up: milliseconds.
pub(super) const GIVEN_UP_MS: i64 = 60_000;
/// Announcements looked at in one sweep.
pub(super) const BATCH: usize = 200;

impl Accounts {
    /// Commits a change that ends something, and makes known what; false if the account is not as it was read any more.
    pub(crate) async fn end(
        &self,
        loaded: &Loaded,
        change: Change,
        entries: Vec<Revocation>,
    ) -> Result<bool, AuthError> {
        let owner = loaded.standing.owner();
        self.repository
            .announce(&owner, &entries, loaded.now)
            .await?;
        if !self.repository.commit(change).await? {
            return Ok(false);
        }
        for entry in &entries {
            metrics::counter!("auth_revocations_total", "kind" => entry.kind()).increment(1);
        }
        self.say(&owner, entries, loaded.now).await;
        Ok(true)
    }

    /// Publishes what has ended. Where that fails the sweeper does it: it has been announced.
    pub(crate) async fn say(&self, owner: &Owner, entries: Vec<Revocation>, now: i64) {
        let said = async {
            self.revoke(now, entries.clone()).await?;
            Ok::<_, AuthError>(self.repository.strike(owner, &entries).await?)
        };
        if let Err(error) = said.await {
            tracing::warn!(error = %error, "revocation not published yet");
        }
    }

    /// Finishes what was announced and has come true; takes back what came to nothing.
    pub(super) async fn finish_announced(&self) -> Result<(), AuthError> {
        let (now, announced) = self.repository.announced(BATCH).await?;
        for announced in announced {
            // One that cannot be finished must not keep the others waiting.
            if let Err(error) = self.finish(announced, now).await {
                tracing::warn!(error = %error, "revocation not published yet");
            }
        }
        Ok(())
    }

    async fn finish(&self, announced: Announced, now: i64) -> Result<(), AuthError> {
        let Announced { owner, entry, at } = announced;
        let reads = reads_of(&owner, &entry);
        let mut loaded = self.repository.load(&owner.user, reads).await?;
        match ended(&mut loaded, &owner, &entry) {
            Some(true_now) => self.revoke(now, vec![true_now]).await?,
            None if now - at <= GIVEN_UP_MS => return Ok(()),
            None => {}
        }
        Ok(self.repository.strike(&owner, &[entry]).await?)
    }

    /// The account of an identity, and what to publish if the store says that its login or key is over.
    pub(crate) async fn standing_of(
        &self,
        identity: &Identity,
    ) -> Result<(Loaded, Option<Revocation>), AuthError> {
        let owner = &identity.owner;
        let proof = proof_of(identity);
        let reads = proof
            .as_ref()
            .map_or_else(Vec::new, |proof| reads_of(owner, proof));
        let mut loaded = self.repository.load(&owner.user, reads).await?;
        let proof = proof.unwrap_or_else(|| Revocation::Account(owner.clone()));
        let over = ended(&mut loaded, owner, &proof);
        Ok((loaded, over))
    }

    /// The account of an identity, if the store says that its login or key still counts. What does not is published
    /// again: whoever revoked it may have died before everybody knew.
    pub async fn live(&self, identity: &Identity) -> Result<Loaded, AuthError> {
        let (loaded, over) = self.standing_of(identity).await?;
        match over {
            None => Ok(loaded),
            Some(entry) => {
                self.say(&identity.owner, vec![entry], loaded.now).await;
                Err(AuthError::Revoked)
            }
        }
    }
}

/// What would have to be revoked for an identity to be refused, but for its account.
fn proof_of(identity: &Identity) -> Option<Revocation> {
    match &identity.credential {
        Credential::Token { login, .. } => Some(Revocation::Login(login.clone())),
        Credential::ApiKey { id, .. } => Some(Revocation::ApiKey(id.clone())),
        Credential::Open => None,
    }
}

/// The reads that [`ended`] looks at.
fn reads_of(owner: &Owner, what: &Revocation) -> Vec<Read> {
    match what {
        Revocation::Login(login) => LoginRecord::reads(owner, login),
        Revocation::ApiKey(id) => vec![Read::Value(api_key(owner, id))],
        Revocation::Account(_) | Revocation::Logins { .. } => Vec::new(),
    }
}

/// The account that an owner has, if the id still has that one.
pub(super) fn own_account<'a>(standing: &'a Standing, owner: &Owner) -> Option<&'a Account> {
    standing
        .account
        .as_ref()
        .filter(|_| standing.owner() == *owner)
}

/// Whether something is over by the store's word, and the entry that says so to everybody.
fn ended(loaded: &mut Loaded, owner: &Owner, what: &Revocation) -> Option<Revocation> {
    if loaded.standing.state.generation > owner.generation {
        return Some(Revocation::Account(owner.clone()));
    }
    let account = own_account(&loaded.standing, owner);
    let all = |account: &Account| Revocation::Logins {
        owner: owner.clone(),
        epoch: account.epoch,
        kept: account.kept.clone(),
    };
    match what {
        Revocation::Account(_) => None,
        Revocation::Logins { epoch, .. } => account.filter(|it| it.epoch >= *epoch).map(all),
        Revocation::Login(login) => {
            if let Some(account) = account.filter(|it| !it.counts(login)) {
                return Some(all(account));
            }
            let gone = account.is_none();
            let record = LoginRecord::found(&mut loaded.snapshot).0;
            let lives = record.is_some_and(|record| record.ended.is_none());
            (gone || !lives).then(|| what.clone())
        }
        Revocation::ApiKey(_) => {
            let gone = account.is_none();
            let record = loaded.snapshot.value(2);
            let record: Option<ApiKeyRecord> =
                record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            (gone || record.is_none()).then(|| what.clone())
        }
    }
}
