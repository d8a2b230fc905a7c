//! What `auth` decides. Each service owns its state and is given what it needs; none knows HTTP or a key of the store.

pub mod accounts;
pub mod api_keys;
pub mod cleanup;
pub mod error;
mod hash_pool;
pub mod lifecycle;
pub mod logins;
pub mod operator;
pub mod passwords;
pub mod signing_keys;
pub mod throttle;
pub mod tokens;

use common::identity::{Credential, Identity};

use self::error::AuthError;
use crate::store::{AccountStore, OwnedAccount};

/// How often a decision is made anew because somebody else changed the account meanwhile.
const ROUNDS: usize = 16;

/// The login of an identity that an access token proved.
fn login_of(identity: &Identity) -> Result<&str, AuthError> {
    match &identity.credential {
        Credential::Token { login, .. } => Ok(login),
        Credential::ApiKey { .. } | Credential::Open => Err(AuthError::TokenNeeded),
    }
}

/// The account of an access token. A change of what was read is refused once the token does not count any more.
///
/// # Errors
/// [`AuthError::TokenNeeded`], [`AuthError::Revoked`].
async fn authorize(store: &AccountStore, identity: &Identity) -> Result<OwnedAccount, AuthError> {
    let login = login_of(identity)?;
    let owned = store.load_owner(&identity.owner, Some(login)).await?;
    if owned.login_ended || !owned.current.counts_login(&identity.owner, login) {
        return Err(AuthError::Revoked);
    }
    Ok(owned)
}

fn seconds(lifetime: std::time::Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)
}
