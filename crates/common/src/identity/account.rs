//! The state of an account: what `auth` writes in a user's slot and every service reads (keys of family `i:`).
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `i:{user}:state` | hash | an [`AccountState`] |
//! | `i:{user}:<gen>:ended:<login>` | value | exists while access tokens of a login that has ended could still be valid |
//! | `i:{user}:<gen>:key:<id>` | value | an [`ApiKeyRecord`], JSON; expires with the key. [`REVOKED_KEY`] once it is revoked |
//! | `i:{user}:<gen>:keys` | index | ids of the account's API keys, by creation (ms) |
//! | `i:erase:{NN}` | index | `<user>:<gen>` of accounts whose data `chat` is to erase, in 64 slots |

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Credential, Owner, UserId, error::IdentityError};
use crate::store::{Check, Key, Read, SHARDS, counter, shard};

pub const API_KEY_PREFIX: &str = "cbk_";

pub const REFRESH_TOKEN_PREFIX: &str = "cbr_";
/// What replaces the record of a revoked API key for a while, so that the key is told from one that never existed.
pub const REVOKED_KEY: Bytes = Bytes::from_static(b"revoked");

pub fn state(user: &UserId) -> Key {
    format!("i:{{{user}}}:state")
}

/// The key that exists once a single login has ended.
pub fn ended_login(owner: &Owner, login: &str) -> Key {
    format!("i:{{{}}}:{}:ended:{login}", owner.user, owner.generation)
}

/// The key of an API key's record.
pub fn api_key(owner: &Owner, id: &str) -> Key {
    format!("i:{{{}}}:{}:key:{id}", owner.user, owner.generation)
}

/// The key of the index of an account's API keys.
pub fn api_keys_index(owner: &Owner) -> Key {
    format!("i:{{{}}}:{}:keys", owner.user, owner.generation)
}

/// The index of deleted accounts whose data `chat` is to erase, with members `<user>:<generation>`, that has that user.
/// `auth` adds to it before it deletes an account, `chat` removes what it has erased.
pub fn erase_index(user: &UserId) -> Key {
    erase_index_of(shard(user.as_str()))
}

pub fn erase_indexes() -> impl Iterator<Item = Key> {
    (0..SHARDS).map(erase_index_of)
}

fn erase_index_of(shard: u8) -> Key {
    format!("i:erase:{{{shard:02}}}")
}

/// An account as a member of [`erase_index`].
pub fn erase_member(owner: &Owner) -> String {
    format!("{}:{}", owner.user, owner.generation)
}

/// The account that such a member stands for.
pub fn erased_owner(member: &str) -> Option<Owner> {
    let (user, generation) = member.rsplit_once(':')?;
    Some(Owner { user: UserId::parse(user)?, generation: generation.parse().ok()? })
}

/// The epoch in which a login began: the number before the first `-` of its id.
pub fn login_epoch(login: &str) -> u64 {
    login.split_once('-').and_then(|(epoch, _)| epoch.parse().ok()).unwrap_or(0)
}

/// The revision of a user's state: a [`counter`].
pub(super) fn revision(user: &UserId) -> Read {
    Read::Field(state(user), "revision")
}

/// Holds while the state is at that revision; 0 stands for a state that was never written.
pub(super) fn revision_is(user: &UserId, revision: u64) -> Check {
    let (key, field) = (state(user), "revision".to_owned());
    match revision {
        0 => Check::FieldAbsent(key, field),
        revision => Check::FieldEquals(key, field, revision.to_string().into()),
    }
}

/// What decides which credentials of an account count. The default stands for one that was never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// How many accounts of that id were deleted.
    pub generation: u64,
    pub live: bool,
    pub has_password: bool,
    pub epoch: u64,
    /// The one login of an earlier epoch that has not.
    pub kept: Option<String>,
    /// Grows with every change of the account. A credential that counted at a revision counts while the revision stands.
    pub revision: u64,
}

impl AccountState {
    /// Decodes the hash; a field that cannot be read counts as absent.
    pub fn read(fields: &HashMap<String, Bytes>) -> Self {
        let number = |name: &str| counter(fields.get(name));
        let kept = fields.get("kept").and_then(|kept| std::str::from_utf8(kept).ok());
        Self {
            generation: number("gen"),
            live: number("live") == 1,
            has_password: number("password") == 1,
            epoch: number("epoch"),
            kept: kept.filter(|it| !it.is_empty()).map(str::to_owned),
            revision: number("revision"),
        }
    }

    pub fn fields(&self) -> [(&'static str, Bytes); 7] {
        let number = |value: u64| Bytes::from(value.to_string());
        [
            ("v", number(1)),
            ("gen", number(self.generation)),
            ("live", number(self.live.into())),
            ("password", number(self.has_password.into())),
            ("epoch", number(self.epoch)),
            ("kept", self.kept.clone().unwrap_or_default().into()),
            ("revision", number(self.revision)),
        ]
    }

    pub fn unchanged(&self, user: &UserId) -> Check {
        revision_is(user, self.revision)
    }

    /// Whether a login of that id belongs to the current epoch, or was kept.
    pub fn counts_login(&self, login: &str) -> bool {
        login_epoch(login) >= self.epoch || self.kept.as_deref() == Some(login)
    }

    /// Whether a credential counts, given what [`evidence`] found at the same moment. Expiry is not looked at.
    ///
    /// # Errors
    /// [`IdentityError::Revoked`]; [`IdentityError::Invalid`] for an API key that never existed; [`IdentityError::PasswordRequired`].
    pub fn verify(
        &self,
        owner: &Owner,
        credential: &Credential,
        evidence: Option<&Bytes>,
    ) -> Result<(), IdentityError> {
        if self.generation > owner.generation {
            return Err(IdentityError::Revoked);
        }
        if self.generation < owner.generation {
            return Err(IdentityError::Invalid("generation"));
        }
        match credential {
            Credential::Token { login, .. } => {
                let counts = self.counts_login(login) && evidence.is_none();
                counts.then_some(()).ok_or(IdentityError::Revoked)
            }
            Credential::ApiKey { .. } => match evidence {
                None => Err(IdentityError::Invalid("no such API key")),
                Some(record) if *record == REVOKED_KEY || !self.live => Err(IdentityError::Revoked),
                Some(record) => ApiKeyRecord::decode(record)
                    .map(drop)
                    .ok_or(IdentityError::Invalid("unreadable record")),
            },
            Credential::Open if self.has_password => Err(IdentityError::PasswordRequired),
            Credential::Open => Ok(()),
        }
    }
}

/// What must be read beside the state to decide on a credential.
pub(super) fn evidence(owner: &Owner, credential: &Credential) -> Option<Read> {
    match credential {
        Credential::Token { login, .. } => Some(Read::Value(ended_login(owner, login))),
        Credential::ApiKey { id, .. } => Some(Read::Value(api_key(owner, id))),
        Credential::Open => None,
    }
}

/// An API key as it is stored: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// The record's version: 1.
    pub v: u8,
    /// [`super::digest`] of the key.
    pub digest: String,
    pub name: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix seconds; `None` for never.
    pub expires_at: Option<i64>,
}

impl ApiKeyRecord {
    /// `None` for whatever is not a record of this version, and for a revoked key.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(generation: u64) -> Owner {
        Owner { user: UserId::parse("al.ice@x-y_z").unwrap(), generation }
    }

    fn token(login: &str) -> Credential {
        Credential::Token { login: login.into(), expires_at: 0 }
    }

    #[test]
    fn a_state_is_read_back_as_it_was_written() {
        let written = AccountState {
            generation: 3,
            live: true,
            has_password: true,
            epoch: 2,
            kept: Some("1-x".into()),
            revision: 9,
        };
        let fields = written.fields().map(|(name, value)| (name.to_owned(), value));
        assert_eq!(AccountState::read(&HashMap::from(fields)), written);
        assert_eq!(AccountState::read(&HashMap::new()), AccountState::default());
    }

    #[test]
    fn a_new_epoch_ends_earlier_logins_but_the_kept_one() {
        let state = AccountState {
            generation: 1,
            epoch: 2,
            kept: Some("1-mine".into()),
            ..AccountState::default()
        };
        let counts = |login: &str| state.verify(&owner(1), &token(login), None).is_ok();
        assert!(!counts("0-old") && !counts("1-other"));
        assert!(counts("1-mine") && counts("2-new"));
        assert!(state.verify(&owner(0), &token("2-new"), None).is_err());
        let ended = Some(&Bytes::from_static(b"logout"));
        assert!(state.verify(&owner(1), &token("2-new"), ended).is_err());
    }

    #[test]
    fn an_api_key_counts_until_it_or_its_account_ends() {
        let key = Credential::ApiKey { id: "k".into(), expires_at: None };
        let record = ApiKeyRecord {
            v: 1,
            digest: String::new(),
            name: String::new(),
            created_at: 0,
            expires_at: None,
        };
        let record = Some(Bytes::from(serde_json::to_vec(&record).unwrap()));
        let mut state = AccountState { live: true, ..AccountState::default() };
        let verify = |state: &AccountState, found: Option<Bytes>| {
            state.verify(&owner(0), &key, found.as_ref())
        };
        assert!(verify(&state, record.clone()).is_ok());
        let revoked = verify(&state, Some(REVOKED_KEY));
        assert!(matches!(revoked, Err(IdentityError::Revoked)));
        for invalid in [None, Some(Bytes::from_static(b"{}"))] {
            assert!(matches!(verify(&state, invalid), Err(IdentityError::Invalid(_))));
        }
        state.live = false;
        assert!(matches!(verify(&state, record), Err(IdentityError::Revoked)));
    }
}
