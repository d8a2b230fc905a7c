//! Who a request belongs to: token verification, API keys, the state of accounts, and the `Identity` extractor.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::store::Check;

mod account;
mod account_states;
mod authenticator;
mod bearer;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jwks;
mod jwks_client;
mod key_set;
mod opaque;
mod token;
mod watches;

pub use account::{
    API_KEY_PREFIX, AccountState, ApiKeyRecord, REFRESH_TOKEN_PREFIX, REVOKED_KEY, api_key,
    api_keys_index, ended_login, erase_index, erase_indexes, erase_member, erased_owner,
    login_epoch, state,
};
pub use authenticator::Authenticator;
pub use bearer::{Unidentified, bearer, identify};
pub use error::IdentityError;
pub use jwks::{Jwk, JwkSet};
pub use jwks_client::JwksClient;
pub use key_set::KeySet;
pub use opaque::{Opaque, digest};
pub use token::{LEEWAY_S, TOKEN_TYPE, TokenRules};

pub use crate::config::LoginMode;

/// A valid user id: 1 to 64 of `A-Z a-z 0-9 . _ @ -`, compared exactly.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Longest user id, in characters.
    pub const MAX_LENGTH: usize = 64;

    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'@' | b'-');
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        (fits && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

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
        text.description(Some("A user's id, compared exactly.")).into()
    }
}

impl ToSchema for UserId {}

/// One life of a user id: deleting an account ends it, and the next account of that id sees nothing of the old.
/// Every key of a user's data carries both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub user: UserId,
    /// How many accounts of that id were deleted before this one.
    pub generation: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Token {
        /// The login that it was issued for (`sid`).
        login: String,
        /// Unix seconds.
        expires_at: i64,
    },
    ApiKey {
        /// The id of the key's record, not the key.
        id: String,
        /// Unix seconds; `None` for never.
        expires_at: Option<i64>,
    },
    /// Nothing: a WebSocket message's own `user_id`, where login is open.
    Open,
}

/// Whom a request or a socket message belongs to, as of one revision of the account's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub owner: Owner,
    pub credential: Credential,
    /// The revision of the account's state at which the credential was checked; 0 where the state was never written.
    revision: u64,
}

impl Identity {
    /// An identity that was checked at `revision` of the account's state.
    pub fn new(owner: Owner, credential: Credential, revision: u64) -> Self {
        Self { owner, credential, revision }
    }

    pub fn user(&self) -> &UserId {
        &self.owner.user
    }

    /// Holds while the account's state has the revision at which the credential was checked.
    pub fn is_current(&self) -> Check {
        account::revision_is(self.user(), self.revision)
    }
}
