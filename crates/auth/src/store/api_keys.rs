//! Changes of API keys: one value a key, and an index of an account's keys.

use std::time::Duration;

use common::{
    identity::{ApiKeyRecord, Owner, REVOKED_KEY, api_key, api_keys_index},
    store::{Bytes, Check, Op},
};

use super::Change;

/// How long a revoked key is told from one that never existed.
const REVOKED_KEPT: Duration = Duration::from_secs(24 * 3600);
pub const MAX_KEYS: usize = 100;

impl Change {
    /// Adds a key that lives for `ttl`, or for ever. The new revision makes a change fail that has not read this key but ends all.
    pub fn add_key(
        self,
        owner: &Owner,
        id: &str,
        record: &ApiKeyRecord,
        ttl: Option<Duration>,
    ) -> Self {
        let (key, index) = (api_key(owner, id), api_keys_index(owner));
        let value = Bytes::from(serde_json::to_vec(record).unwrap_or_default());
        self.check(Check::Absent(key.clone()))
            .op(Op::Set { key, value, ttl })
            .op(Op::MemberSet(index, id.to_owned(), record.created_at))
            .new_revision()
    }

    /// Revokes keys of an account; for a while they are told from keys that never existed.
    pub fn remove_keys(self, owner: &Owner, ids: &[String]) -> Self {
        ids.iter().fold(self.new_revision(), |change, id| {
            change.op(Op::MemberDelete(api_keys_index(owner), id.clone())).op(Op::Set {
                key: api_key(owner, id),
                value: REVOKED_KEY,
                ttl: Some(REVOKED_KEPT),
            })
        })
    }
}
