//! The rules of accounts, logins and keys. Nothing here knows of HTTP.

mod accounts;
mod api_keys;
mod attempts;
mod hash_pool;
mod key_ring;
mod login;
mod operator;
mod password_change;
mod passwords;
mod refresh;
mod sweeper;
mod tokens;

use std::time::{Duration, Instant};

use common::{
    config,
    identity::{Authenticator, Identity, IdentityError, JwkSet, ended_login},
    store::{CALL_LIMIT, Read, StoreError},
};

pub use api_keys::MadeKey;
pub use key_ring::KeyRing;
pub use operator::Listed;
pub use passwords::{PasswordFault, Passwords};

use crate::repository::{KeyFileError, Loaded, Repository};

/// Most times that a decision is taken anew because somebody else changed the account meanwhile.
const ROUNDS: usize = 8;

/// What a call is refused for, or fails with.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The store's own failure.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// User id or password is wrong; which of them is nobody's business.
    #[error("user id or password is wrong")]
    InvalidCredentials,
    /// The account has a password, and none was given.
    #[error("the account has a password")]
    PasswordRequired,
    /// A password is always needed, and none was given.
    #[error("no password was given")]
    PasswordMissing,
    /// Only the operator registers.
    #[error("registration is closed")]
    RegistrationClosed,
    /// There is an account of that id.
    #[error("the user id is taken")]
    UserExists,
    /// Too many attempts failed; how long to wait.
    #[error("too many failed attempts")]
    TooManyAttempts(Duration),
    /// More passwords wait to be hashed than can be.
    #[error("too many passwords are waiting to be hashed")]
    Overloaded,
    /// The password cannot be one.
    #[error("the password is refused: {0}")]
    Password(PasswordFault),
    /// A refresh token that is none of ours, or whose login is over.
    #[error("the refresh token is not valid")]
    InvalidRefresh,
    /// A refresh token that was used before: its login has ended.
    #[error("the refresh token was used before")]
    Reused,
    /// The login, key or account was revoked.
    #[error("the login has ended")]
    Revoked,
    /// The bearer may not do that.
    #[error("an access token is needed, not an API key")]
    TokenNeeded,
    /// There is no such thing.
    #[error("there is no such key")]
    NotFound,
    /// The account has as many keys as it may.
    #[error("the account has too many keys")]
    TooManyKeys,
    /// Others changed the account faster than a decision could be taken.
    #[error("the account is being changed by many at once")]
    Contended,
    /// A token could not be signed.
    #[error("a token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
    /// No key may sign.
    #[error("there is no signing key")]
    NoKey,
    /// A password could not be hashed.
    #[error("a password could not be hashed: {0}")]
    Hashing(String),
    /// The folder of keys is not usable.
    #[error(transparent)]
    KeyFiles(#[from] KeyFileError),
}

/// Accounts, logins and keys: everything that `auth` decides.
pub struct Accounts {
    pub(crate) repository: Repository,
    pub(crate) settings: config::Auth,
    pub(crate) ring: KeyRing,
    pub(crate) passwords: Passwords,
    pub(crate) guard: attempts::LoginThrottle,
    authenticator: Authenticator,
}

impl Accounts {
    /// The service over its parts.
    pub fn new(
        repository: Repository,
        settings: config::Auth,
        ring: KeyRing,
        authenticator: Authenticator,
    ) -> Self {
        let passwords = Passwords::new(settings.password_min);
        Self {
            repository,
            settings,
            ring,
            passwords,
            guard: attempts::LoginThrottle::default(),
            authenticator,
        }
    }

    /// What `/.well-known/jwks.json` answers.
    pub fn jwks(&self) -> JwkSet {
        self.ring.jwks()
    }

    /// Whether the store says now that the identity's login or key still counts.
    ///
    /// # Errors
    /// [`AuthError::Revoked`], [`AuthError::Store`].
    pub async fn recheck(&self, identity: &Identity) -> Result<(), AuthError> {
        let deadline = Instant::now() + CALL_LIMIT;
        match self.authenticator.recheck(identity, deadline).await {
            Ok(_) => Ok(()),
            Err(IdentityError::Store(error)) => Err(error.into()),
            Err(_) => Err(AuthError::Revoked),
        }
    }

    /// The account of an identity.
    ///
    /// # Errors
    /// [`AuthError::Revoked`] where its login does not count any more. A change of what was read is refused once that
    /// happens.
    async fn load_for(&self, identity: &Identity, login: &str) -> Result<Loaded, AuthError> {
        let ended = Read::Value(ended_login(&identity.owner, login));
        let mut loaded = self.repository.load(identity.user(), vec![ended]).await?;
        let ended = loaded.snapshot.value(2).is_some();
        let state = &loaded.current.state;
        let counts = state.counts_login(login) && !ended;
        if !counts || loaded.current.account_of(&identity.owner).is_none() {
            return Err(AuthError::Revoked);
        }
        Ok(loaded)
    }
}

/// Counts what was ended, by kind.
fn count_ending(kind: &'static str) {
    metrics::counter!("auth_revocations_total", "kind" => kind).increment(1);
}
