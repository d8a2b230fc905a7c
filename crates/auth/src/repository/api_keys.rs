//! API key records: one value a key, and an index of an account's keys.

use std::time::Duration;

use common::{
    identity::{ApiKeyRecord, Owner, REVOKED_KEY, api_key, api_keys_index},
    store::{Bytes, Check, Op, Read, Snapshot, StoreError},
};

use super::{Change, Repository};
use crate::models::ApiKey;

/// How long a revoked key is told from one that never existed.
const REVOKED_KEPT: Duration = Duration::from_secs(24 * 3600);
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

    /// Removes keys of an account; for a while it is known that they were revoked.
    pub fn remove_keys(self, owner: &Owner, ids: &[String]) -> Self {
        ids.iter().fold(self, |change, id| {
            change
                .op(Op::MemberDelete(api_keys_index(owner), id.clone()))
                .op(Op::Set {
                    key: api_key(owner, id),
                    value: REVOKED_KEY,
                    ttl: Some(REVOKED_KEPT),
                })
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
    /// The keys of those ids that count at that key epoch, in that order.
    pub async fn api_keys(
        &self,
        owner: &Owner,
        key_epoch: u64,
        ids: &[String],
    ) -> Result<Vec<ApiKey>, StoreError> {
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
            let record = found.value(i);
            let record = record.and_then(|bytes| ApiKeyRecord::decode(&bytes));
            if let Some(record) = record.filter(|it| it.key_epoch >= key_epoch) {
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
