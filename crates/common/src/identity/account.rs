//! What `chat` may know of an account: the keys of family `i:` that `auth` writes in a user's slot.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `i:{user}:state` | hash | `v` 1, `gen` generation, `live` and `password` `0` or `1` |
//! | `i:{user}:<gen>:key:<id>` | value | an [`ApiKeyRecord`], JSON; expires with the key |
//! | `i:{user}:<gen>:keys` | index | ids of the account's API keys, scored by creation (ms) |

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Owner, UserId};
use crate::store::Key;

/// The index of deleted accounts whose data `chat` is to erase; members `<user>:<generation>`. It is of no user's slot:
/// `auth` adds to it before it deletes an account, and `chat` takes out what it has erased.
pub const ERASE: &str = "i:erase";

/// The key of an account's state.
pub fn state(user: &UserId) -> Key {
    format!("i:{{{user}}}:state")
}

/// The key of an API key's record.
pub fn api_key(owner: &Owner, id: &str) -> Key {
    format!("i:{{{}}}:{}:key:{id}", owner.user, owner.generation)
}

/// The key of the index of an account's API keys.
pub fn api_keys_index(owner: &Owner) -> Key {
    format!("i:{{{}}}:{}:keys", owner.user, owner.generation)
}

/// An account's state. One that was never written is the default: generation 0, not live, no password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// How many accounts of that id were deleted.
    pub generation: u64,
    /// Whether there is an account now.
    pub live: bool,
    /// Whether it has a password.
    pub has_password: bool,
}

impl AccountState {
    /// Reads the hash; a field that cannot be read counts as absent.
    pub fn read(fields: &HashMap<String, Bytes>) -> Self {
        let number = |name: &str| -> u64 {
            fields
                .get(name)
                .and_then(|it| std::str::from_utf8(it).ok()?.parse().ok())
                .unwrap_or(0)
        };
        Self {
            generation: number("gen"),
            live: number("live") == 1,
            has_password: number("password") == 1,
        }
    }
}

/// An API key as it is stored: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// The record's version: 1.
    pub v: u8,
    /// [`super::digest`] of the key.
    pub digest: String,
    /// What its owner calls it.
    pub name: String,
    /// When it was made: Unix milliseconds.
    pub created_at: i64,
    /// When it expires: Unix seconds; `None` for never.
    pub expires_at: Option<i64>,
}
