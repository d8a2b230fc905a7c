//! API keys: made, listed and revoked by their account.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::identity::{API_KEY_PREFIX, ApiKeyRecord, Identity, Opaque, digest};

use super::{ROUNDS, authorize, error::AuthError, seconds};
use crate::{
    domain::{account::ApiKey, refresh_token::random_secret},
    metrics::count_revocation,
    store::{AccountStore, Change, MAX_KEYS},
};

pub struct ApiKeyService {
    store: AccountStore,
}

impl ApiKeyService {
    pub fn new(store: AccountStore) -> Self {
        Self { store }
    }

    /// Makes a key that lives for `lifetime`, or for ever. Returns its record and the key itself, which cannot be read again.
    pub async fn create(
        &self,
        identity: &Identity,
        name: &str,
        lifetime: Option<Duration>,
    ) -> Result<(ApiKey, String), AuthError> {
        let owner = &identity.owner;
        for _ in 0..ROUNDS {
            let owned = authorize(&self.store, identity).await?;
            let (now, mut expired) = (owned.current.now, owned.key_ids);
            let live = self.store.api_keys(owner, &expired).await?;
            if live.len() >= MAX_KEYS {
                return Err(AuthError::TooManyKeys);
            }
            expired.retain(|id| live.iter().all(|key| key.id != *id));
            let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 9]>());
            let secret = Opaque { owner: owner.clone(), id: id.clone(), secret: random_secret() };
            let secret = secret.encode(API_KEY_PREFIX);
            let end = |span| now.div_euclid(1000).saturating_add(seconds(span));
            let record = ApiKeyRecord {
                v: 1,
                digest: digest(&secret),
                name: name.to_owned(),
                created_at: now,
                expires_at: lifetime.map(end),
            };
            let change = Change::of(&owned.current)
                .remove_keys(owner, &expired)
                .add_key(owner, &id, &record, lifetime);
            if self.store.commit(change).await? {
                return Ok((ApiKey::of(id, record), secret));
            }
        }
        Err(AuthError::Contended)
    }

    pub async fn list(&self, identity: &Identity) -> Result<Vec<ApiKey>, AuthError> {
        let owned = authorize(&self.store, identity).await?;
        Ok(self.store.api_keys(&identity.owner, &owned.key_ids).await?)
    }

    pub async fn revoke(&self, identity: &Identity, id: &str) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let owned = authorize(&self.store, identity).await?;
            if !owned.key_ids.iter().any(|known| known == id) {
                return Err(AuthError::NotFound);
            }
            let change = Change::of(&owned.current).remove_keys(&identity.owner, &[id.to_owned()]);
            if self.store.commit(change).await? {
                count_revocation("key");
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }
}
