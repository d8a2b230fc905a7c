//! API keys: made, listed and revoked by their account.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::identity::{API_KEY_PREFIX, ApiKeyRecord, Identity, Opaque, digest};

use super::{
    Accounts, AuthError, ROUNDS,
    accounts::login_of,
    count_ending,
    tokens::{random_bytes, seconds},
};
use crate::{
    models::ApiKey,
    repository::{Change, MAX_KEYS},
};

/// A key that was just made: the only time that it can be seen.
pub struct MadeKey {
    /// What is kept of it.
    pub about: ApiKey,
    /// The key.
    pub key: String,
}

impl Accounts {
    /// Makes a key that lives for `lifetime`, or for ever.
    pub async fn make_key(
        &self,
        identity: &Identity,
        name: &str,
        lifetime: Option<Duration>,
    ) -> Result<MadeKey, AuthError> {
        let login = login_of(identity)?;
        for _ in 0..ROUNDS {
            let now = self.load_for(identity, login).await?.now;
            let (loaded, ids) = self.load_with_keys(identity.user()).await?;
            if loaded.current.owner() != identity.owner {
                return Err(AuthError::Revoked);
            }
            let owner = &identity.owner;
            let kept = self
                .repository
                .api_keys(owner, loaded.current.state.key_epoch, &ids)
                .await?;
            if kept.len() >= MAX_KEYS {
                return Err(AuthError::TooManyKeys);
            }
            let expired: Vec<String> = ids
                .into_iter()
                .filter(|id| kept.iter().all(|key| key.id != *id))
                .collect();
            let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 9]>());
            let key = Opaque {
                owner: owner.clone(),
                id: id.clone(),
                secret: random_bytes().to_vec(),
            };
            let key = key.encode(API_KEY_PREFIX);
            let expires_at =
                lifetime.map(|span| now.div_euclid(1000).saturating_add(seconds(span)));
            let record = ApiKeyRecord {
                v: 1,
                digest: digest(&key),
                name: name.to_owned(),
                created_at: now,
                expires_at,
                key_epoch: loaded.current.state.key_epoch,
            };
            let change = Change::of(&loaded.current)
                .remove_keys(owner, &expired)
                .add_key(owner, &id, &record, lifetime);
            if self.repository.commit(change).await? {
                self.withdraw_beyond_limit(identity, &id).await?;
                let about = ApiKey {
                    id,
                    name: record.name,
                    created_at: now,
                    expires_at,
                };
                return Ok(MadeKey { about, key });
            }
        }
        Err(AuthError::Contended)
    }

    /// Takes a new key back where others that were made at the same time have used up the account's number: nobody has
    /// seen it. Whoever comes last sees all of them, so that too many never stay; of the last few, all may be refused.
    async fn withdraw_beyond_limit(&self, identity: &Identity, id: &str) -> Result<(), AuthError> {
        let owner = &identity.owner;
        for _ in 0..ROUNDS {
            let (loaded, ids) = self.load_with_keys(identity.user()).await?;
            let epoch = loaded.current.state.key_epoch;
            if self.repository.api_keys(owner, epoch, &ids).await?.len() <= MAX_KEYS {
                return Ok(());
            }
            let change = Change::of(&loaded.current).remove_keys(owner, &[id.to_owned()]);
            if self.repository.commit(change).await? {
                return Err(AuthError::TooManyKeys);
            }
        }
        Err(AuthError::Contended)
    }

    /// The account's keys, the newest first.
    pub async fn keys(&self, identity: &Identity) -> Result<Vec<ApiKey>, AuthError> {
        self.load_for(identity, login_of(identity)?).await?;
        let (loaded, ids) = self.load_with_keys(identity.user()).await?;
        let epoch = loaded.current.state.key_epoch;
        Ok(self
            .repository
            .api_keys(&identity.owner, epoch, &ids)
            .await?)
    }

    /// Revokes a key of the account.
    pub async fn revoke_key(&self, identity: &Identity, id: &str) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        for _ in 0..ROUNDS {
            self.load_for(identity, login).await?;
            let (loaded, ids) = self.load_with_keys(identity.user()).await?;
            if loaded.current.owner() != identity.owner {
                return Err(AuthError::Revoked);
            }
            if !ids.iter().any(|known| known == id) {
                return Err(AuthError::NotFound);
            }
            let change = Change::of(&loaded.current)
                .remove_keys(&identity.owner, &[id.to_owned()])
                .new_revision();
            if self.repository.commit(change).await? {
                count_ending("key");
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }
}
