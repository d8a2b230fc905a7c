//! Login records: one hash a login, in which its refresh tokens replace one another.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::{Owner, ended_login},
    store::{Bytes, Check, Key, Op, Read},
};

use super::{Change, number, set_field, text};
use crate::domain::login::{EndReason, LoginRecord};

/// How much longer than its access tokens the ending of a login is known: the leeway, and clocks that differ.
const MARGIN: Duration = Duration::from_secs(90);

fn login_key(owner: &Owner, id: &str) -> Key {
    format!("a:{{{}}}:{}:login:{id}", owner.user, owner.generation)
}

fn nonce_key(owner: &Owner, id: &str) -> Key {
    format!("a:{{{}}}:{}:nonce:{id}", owner.user, owner.generation)
}

/// The login's hash, and the nonce of its last rotation.
pub(super) fn reads(owner: &Owner, id: &str) -> Vec<Read> {
    vec![Read::Fields(login_key(owner, id)), Read::Value(nonce_key(owner, id))]
}

pub(super) fn parse(fields: &HashMap<String, Bytes>) -> Option<LoginRecord> {
    Some(LoginRecord {
        started_at: text(fields, "started")?.parse().ok()?,
        proof_key: fields.get("proof")?.to_vec(),
        current: text(fields, "current")?,
        previous: text(fields, "previous"),
        ended: text(fields, "ended").map(|reason| match reason.as_str() {
            "reused" => EndReason::Reused,
            _ => EndReason::Logout,
        }),
    })
}

impl Change {
    /// Begins a login that lives for `ttl`.
    pub fn begin_login(self, owner: &Owner, id: &str, record: LoginRecord, ttl: Duration) -> Self {
        let key = login_key(owner, id);
        self.op(set_field(&key, "v", number(1)))
            .op(set_field(&key, "started", number(record.started_at)))
            .op(set_field(&key, "proof", record.proof_key))
            .op(set_field(&key, "current", record.current))
            .op(Op::Expire(key, Some(ttl)))
    }

    /// Replaces the refresh token with the digest `current` by the one with the digest `next`; the nonce is kept for `grace`.
    pub fn rotate(
        self,
        owner: &Owner,
        id: &str,
        (current, next): (String, String),
        (nonce, grace): (Vec<u8>, Duration),
    ) -> Self {
        let key = login_key(owner, id);
        let is_current = Check::FieldEquals(key.clone(), "current".into(), current.clone().into());
        self.check(is_current)
            .check(Check::FieldAbsent(key.clone(), "ended".into()))
            .op(set_field(&key, "current", next))
            .op(set_field(&key, "previous", current))
            .op(Op::Set { key: nonce_key(owner, id), value: nonce.into(), ttl: Some(grace) })
    }

    /// Ends a login that exists. Its record stays until it would have expired, so that its refresh tokens are known; its
    /// access tokens are refused as long as one of them can live.
    pub fn end_login(
        self,
        owner: &Owner,
        id: &str,
        reason: EndReason,
        access_ttl: Duration,
    ) -> Self {
        let (key, ttl) = (login_key(owner, id), Some(access_ttl + MARGIN));
        let reason = Bytes::from_static(match reason {
            EndReason::Logout => b"logout",
            EndReason::Reused => b"reused",
        });
        self.check(Check::Exists(key.clone()))
            .op(Op::Delete(nonce_key(owner, id)))
            .op(set_field(&key, "ended", reason.clone()))
            .op(Op::Set { key: ended_login(owner, id), value: reason, ttl })
            .new_revision()
    }
}
