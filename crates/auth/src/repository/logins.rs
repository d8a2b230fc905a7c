//! Login records: one hash a login, which the refresh tokens of that login take turns in.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::{Owner, ended_login},
    store::{Bytes, Check, Key, Op, Read, Snapshot},
};

use super::{Change, number, text};

/// How much longer than its access tokens the ending of a login is known: the leeway, and clocks that differ.
const MARGIN: Duration = Duration::from_secs(90);

/// A login as it is stored. Tokens stand there only as digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRecord {
    /// When the login was: Unix milliseconds.
    pub started_at: i64,
    /// The key that tells a token which was once issued from one that was made up.
    pub proof_key: Bytes,
    /// The digest of the refresh token that works now.
    pub current: String,
    /// The digest of the one before it.
    pub previous: Option<String>,
    /// Why it has ended, if it has.
    pub ended: Option<Ended>,
}

/// Why a login has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its holder said so.
    Logout,
    /// A refresh token came twice.
    Reused,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reused => "reused",
        }
    }
}

fn login_key(owner: &Owner, id: &str) -> Key {
    format!("a:{{{}}}:{}:login:{id}", owner.user, owner.generation)
}

fn nonce_key(owner: &Owner, id: &str) -> Key {
    format!("a:{{{}}}:{}:nonce:{id}", owner.user, owner.generation)
}

impl LoginRecord {
    /// The reads that [`LoginRecord::found`] looks at.
    pub fn reads(owner: &Owner, id: &str) -> Vec<Read> {
        vec![
            Read::Fields(login_key(owner, id)),
            Read::Value(nonce_key(owner, id)),
        ]
    }

    /// The record and the nonce of its last rotation, from positions 2 and 3 of what was read.
    pub fn found(snapshot: &mut Snapshot) -> (Option<Self>, Option<Bytes>) {
        (Self::parse(&snapshot.fields(2)), snapshot.value(3))
    }

    fn parse(fields: &HashMap<String, Bytes>) -> Option<Self> {
        Some(Self {
            started_at: text(fields, "started")?.parse().ok()?,
            proof_key: fields.get("proof")?.clone(),
            current: text(fields, "current")?,
            previous: text(fields, "previous"),
            ended: match fields.get("ended").map(|it| it.as_ref()) {
                None => None,
                Some(b"reused") => Some(Ended::Reused),
                Some(_) => Some(Ended::Logout),
            },
        })
    }
}

impl Change {
    /// Begins a login that lives for `ttl`.
    pub fn begin_login(self, owner: &Owner, id: &str, record: &LoginRecord, ttl: Duration) -> Self {
        let key = login_key(owner, id);
        let set = |field: &str, value: Bytes| Op::FieldSet(key.clone(), field.into(), value);
        self.op(set("v", number(1)))
            .op(set("started", number(record.started_at)))
            .op(set("proof", record.proof_key.clone()))
            .op(set("current", Bytes::from(record.current.clone())))
            .op(Op::Expire(key.clone(), Some(ttl)))
    }

    /// Puts the second digest in the place of the first, which works now; the nonce is kept for that long.
    pub fn rotate(
        self,
        owner: &Owner,
        id: &str,
        (current, next): (&str, &str),
        (nonce, grace): (Bytes, Duration),
    ) -> Self {
        let key = login_key(owner, id);
        let set = |field: &str, value: &str| {
            Op::FieldSet(key.clone(), field.into(), Bytes::from(value.to_owned()))
        };
        self.check(Check::FieldEquals(
            key.clone(),
            "current".into(),
            Bytes::from(current.to_owned()),
        ))
        .check(Check::FieldAbsent(key.clone(), "ended".into()))
        .op(set("current", next))
        .op(set("previous", current))
        .op(Op::Set {
            key: nonce_key(owner, id),
            value: nonce,
            ttl: Some(grace),
        })
    }

    /// Ends a login that exists. Its record stays until it would have expired, so that its refresh tokens are known;
    /// that it has ended is said for as long as an access token of it can live.
    pub fn end_login(self, owner: &Owner, id: &str, why: Ended, access_ttl: Duration) -> Self {
        let key = login_key(owner, id);
        let reason = Bytes::from_static(why.as_str().as_bytes());
        self.check(Check::Exists(key.clone()))
            .op(Op::Delete(nonce_key(owner, id)))
            .op(Op::FieldSet(key, "ended".into(), reason.clone()))
            .op(Op::Set {
                key: ended_login(owner, id),
                value: reason,
                ttl: Some(access_ttl + MARGIN),
            })
            .new_revision()
    }
}
