//! Who a request belongs to: token verification, the key set, API keys, revocation, and the `Identity` extractor.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

mod account;
mod api_keys;
mod authenticator;
mod bearer;
mod cache;
#[cfg(fuzzing)]
pub mod fuzzing;
mod key_set;
mod opaque;
mod remote;
mod revocation;
mod revoked;
mod token;

pub use account::{AccountState, ApiKeyRecord, ERASE, api_key, api_keys_index, state};
pub use api_keys::API_KEY_PREFIX;
pub use authenticator::Authenticator;
pub use bearer::{Unidentified, bearer, identify};
pub use key_set::{Jwk, JwkSet, KeySet};
pub use opaque::{Opaque, digest};
pub use revocation::{REVOKED, Revocations};
pub use revoked::{Revocation, login_epoch};
pub use token::{LEEWAY_S, TOKEN_TYPE, Verifier};

pub use crate::config::LoginMode;

/// A user's id: 1 to 64 of `A-Z a-z 0-9 . _ @ -`, compared exactly. Holding one means that it was checked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Longest user id, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// The id, if the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'@' | b'-');
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        (fits && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("a user id is 1 to 64 of A-Z a-z 0-9 . _ @ -"))
    }
}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::MAX_LENGTH))
            .pattern(Some("^[A-Za-z0-9._@-]{1,64}$"));
        text.description(Some("Whom it is about. Compared exactly."))
            .into()
    }
}

impl ToSchema for UserId {}

/// One life of a user id: deleting an account ends it, and the next account of that id sees nothing of the old.
/// Every key of a user's data carries both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The id.
    pub user: UserId,
    /// How many accounts of that id were deleted before this one.
    pub generation: u64,
}

/// What proved an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token.
    Token {
        /// The login that it was issued for (`sid`).
        login: String,
        /// When it expires: Unix seconds.
        expires_at: i64,
    },
    /// An API key.
    ApiKey {
        /// The key's id (not the key).
        id: String,
        /// When it expires: Unix seconds; `None` for never.
        expires_at: Option<i64>,
    },
    /// Nothing: a WebSocket message's own `user_id`, where login is open.
    Open,
}

/// Whom a request or a socket message belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub owner: Owner,
    /// What proved it.
    pub credential: Credential,
}

impl Identity {
    /// The user's id.
    pub fn user(&self) -> &UserId {
        &self.owner.user
    }
}
