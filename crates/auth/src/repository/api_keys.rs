//! API key records: one value a key, and an index of an account's keys.

use std::time::Duration;

use common::{
    identity::{ApiKeyRecord, Owner, api_key, api_keys_index},
    store::{Bytes, Check, Op, Read, Snapshot, StoreError},
};

use super::{Change, Repository};
use crate::models::ApiKey;

/// Most keys that an account may have.
pub const MAX_KEYS: usize = 100;

impl Change {
    /// Adds a key that lives for `ttl`, or for ever.
    pub fn add_key(
        self,
        owner: &Owner,
        id: &str,
        record: &ApiKeyRecord,
        ttl: Option<Duration>,
    ) -> Self {
        let value = Bytes::from(serde_json::to_vec(record).unwrap_or_default());
        self.check(Check::Absent(api_key(owner, id)))
            .op(Op::Set {
                key: api_key(owner, id),
                value,
                ttl,
            })
            .op(Op::MemberSet(
                api_keys_index(owner),
                id.to_owned(),
                record.created_at,
            ))
    }

    /// Removes keys of an account.
    pub fn remove_keys(self, owner: &Owner, ids: &[String]) -> Self {
        ids.iter().fold(self, |change, id| {
            change
                .op(Op::Delete(api_key(owner, id)))
                .op(Op::MemberDelete(api_keys_index(owner), id.clone()))
        })
    }
}

/// The read that [`key_ids`] looks at.
pub fn key_ids_read(owner: &Owner) -> Read {
    Read::Newest {
        key: api_keys_index(owner),
        before: None,
        limit: 10 * MAX_KEYS,
    }
}

/// The ids of an account's keys from position `i` of what was read, the newest first.
pub fn key_ids(snapshot: &mut Snapshot, i: usize) -> Vec<String> {
    snapshot.members(i).into_iter().map(|(id, _)| id).collect()
}

impl Repository {
    /// The keys of those ids that have not expired, in that order.
    pub async fn api_keys(&self, owner: &Owner, ids: &[String]) -> Result<Vec<ApiKey>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reads = ids
            .iter()
            .map(|id| Read::Value(api_key(owner, id)))
            .collect();
        let mut found = self.store.read(reads).await?;
        let mut keys = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let record: Option<ApiKeyRecord> = found
                .value(i)
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(record) = record {
                let ApiKeyRecord {
                    name,
                    created_at,
                    expires_at,
                    ..
                } = record;
                keys.push(ApiKey {
                    id: id.clone(),
                    name,
                    created_at,
                    expires_at,
                });
            }
        }
        Ok(keys)
    }
}
