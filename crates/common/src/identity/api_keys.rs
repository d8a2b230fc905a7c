//! Looks up API keys: one read in the key's own slot, remembered for a few seconds.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Credential, Identity,
    account::{self, AccountState, ApiKeyRecord},
    cache::Cache,
    opaque::{Opaque, digest},
};
use crate::store::{Read, Store, StoreError};

/// How an API key begins.
pub const API_KEY_PREFIX: &str = "cbk_";
/// How long a good key is believed without asking again.
const REMEMBERED: Duration = Duration::from_secs(4);

/// The lookup and its memory.
pub(super) struct ApiKeys {
    store: Store,
    lately: Cache<(Instant, Identity)>,
}

/// What a lookup found.
pub(super) enum Lookup {
    Good(Identity),
    /// It was a key of an account that is gone.
    Gone,
    Expired,
    Unknown,
}

impl ApiKeys {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            lately: Cache::new(5_000),
        }
    }

    /// Whose key that is. `now` is the time (Unix seconds) for one that is remembered; else the store says it.
    pub async fn find(
        &self,
        text: &str,
        now: i64,
        deadline: Instant,
    ) -> Result<Lookup, StoreError> {
        let Some(key) = Opaque::decode(API_KEY_PREFIX, text) else {
            return Ok(Lookup::Unknown);
        };
        let remembered_as: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some((at, identity)) = self.lately.get(&remembered_as)
            && at.elapsed() < REMEMBERED
        {
            return Ok(if has_expired(&identity, now) {
                Lookup::Expired
            } else {
                Lookup::Good(identity)
            });
        }
        let asked = Instant::now();
        let reads = vec![
            Read::Value(account::api_key(&key.owner, &key.id)),
            Read::Fields(account::state(&key.owner.user)),
        ];
        let mut found = self.store.by(deadline).read(reads).await?;
        let state = AccountState::read(&found.fields(1));
        let record: Option<ApiKeyRecord> = found
            .value(0)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(record) =
            record.filter(|it| bool::from(it.digest.as_bytes().ct_eq(digest(text).as_bytes())))
        else {
            return Ok(if state.generation > key.owner.generation {
                Lookup::Gone
            } else {
                Lookup::Unknown
            });
        };
        if state.generation != key.owner.generation || !state.live {
            return Ok(Lookup::Gone);
        }
        let credential = Credential::ApiKey {
            id: key.id,
            expires_at: record.expires_at,
        };
        let identity = Identity {
            owner: key.owner,
            credential,
        };
        if has_expired(&identity, found.now.div_euclid(1000)) {
            return Ok(Lookup::Expired);
        }
        self.lately.put(remembered_as, (asked, identity.clone()));
        Ok(Lookup::Good(identity))
    }
}

fn has_expired(identity: &Identity, now: i64) -> bool {
    matches!(identity.credential, Credential::ApiKey { expires_at: Some(at), .. } if now >= at)
}
