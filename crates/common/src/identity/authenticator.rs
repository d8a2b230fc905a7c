//! Decides whom a bearer credential belongs to: an access token by its signature, an API key by its record.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, header::WWW_AUTHENTICATE};
use sha2::{Digest, Sha256};

use super::{
    Credential, Identity, KeySet, Owner, Revocations, UserId, Verifier,
    account::{self, AccountState},
    api_keys::{API_KEY_PREFIX, ApiKeys, Lookup},
    cache::Cache,
    token::{self, Refusal},
};
use crate::{
    config::LoginMode,
    errors::{ApiError, Code},
    store::{Read, Store},
};

/// Checks credentials. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Authenticator(Arc<Parts>);

struct Parts {
    verifier: Verifier,
    keys: KeySet,
    revocations: Revocations,
    api_keys: ApiKeys,
    store: Store,
    /// Good tokens seen lately, with the key that signed them: saves the signature check, and nothing else.
    tokens: Cache<(String, Identity)>,
}

impl Authenticator {
    /// An authenticator for tokens that say what `verifier` wants, signed by a key of `keys`.
    pub fn new(verifier: Verifier, keys: KeySet, revocations: Revocations, store: Store) -> Self {
        let api_keys = ApiKeys::new(store.clone());
        Self(Arc::new(Parts {
            verifier,
            keys,
            revocations,
            api_keys,
            store,
            tokens: Cache::new(5_000),
        }))
    }

    /// Whom an access token or an API key belongs to; store calls end by `deadline`, which is put off by as long as a
    /// key of `auth`'s was waited for: that says nothing of the store.
    ///
    /// # Errors
    /// 401 `invalid_token`, `token_expired` or `token_revoked`; 503 `store_unavailable` where nobody can tell now,
    /// because the store, or a first key set, cannot be had.
    pub async fn authenticate(
        &self,
        bearer: &str,
        deadline: &mut Instant,
    ) -> Result<Identity, ApiError> {
        let identity = if bearer.starts_with(API_KEY_PREFIX) {
            self.api_key(bearer, *deadline).await?
        } else {
            self.token(bearer, deadline).await?
        };
        self.knows_the_store(*deadline).await?;
        match self.is_revoked(&identity) {
            Some(refusal) => Err(refusal),
            None => Ok(identity),
        }
    }

    /// Why that identity is refused meanwhile, if it is. Expiry does not count: what runs may finish.
    pub fn is_revoked(&self, identity: &Identity) -> Option<ApiError> {
        self.0.revocations.has(identity).then(revoked)
    }

    /// Resolves when that identity is revoked, with what to tell its holder.
    pub async fn revoked(&self, identity: &Identity) -> ApiError {
        self.0.revocations.wait_for(identity).await;
        revoked()
    }

    /// Whether a user id alone logs in, as `auth` says.
    pub fn login_mode(&self) -> LoginMode {
        self.0.keys.login_mode()
    }

    /// Whether there is a key to verify tokens with: what readiness asks.
    pub fn has_keys(&self) -> bool {
        self.0.keys.is_ready()
    }

    /// What is known to be revoked, and the store's clock.
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// Whom a bare user id speaks for where login is open: what a login without a password would say.
    ///
    /// # Errors
    /// 401 `missing_token` where login is not open, 403 `password_required`, 503 `store_unavailable`.
    pub async fn open(&self, user: UserId, deadline: Instant) -> Result<Identity, ApiError> {
        if self.login_mode() != LoginMode::Open {
            return Err(missing());
        }
        let mut found = self
            .0
            .store
            .by(deadline)
            .read(vec![Read::Fields(account::state(&user))])
            .await?;
        let state = AccountState::read(&found.fields(0));
        if state.has_password {
            return Err(ApiError::new(
                Code::PasswordRequired,
                "This account has a password: log in and send its token.",
            ));
        }
        Ok(Identity {
            owner: Owner {
                user,
                generation: state.generation,
            },
            credential: Credential::Open,
        })
    }

    /// Waits until the store was asked once for revocations, and for the time.
    async fn knows_the_store(&self, deadline: Instant) -> Result<(), ApiError> {
        match self.0.revocations.loaded(deadline).await {
            true => Ok(()),
            false => Err(unavailable(
                "Revocations could not be read yet; try again in a moment.",
            )),
        }
    }

    async fn token(&self, text: &str, deadline: &mut Instant) -> Result<Identity, ApiError> {
        if text.len() > token::MAX_LENGTH {
            return Err(invalid());
        }
        let remembered_as = Sha256::digest(text.as_bytes()).into();
        if let Some((kid, identity)) = self.0.tokens.get(&remembered_as)
            && self.0.keys.get(&kid).is_some()
        {
            return match &identity.credential {
                Credential::Token { expires_at, .. } if token::expired(*expires_at, self.now()) => {
                    Err(refusal(Refusal::Expired))
                }
                _ => Ok(identity),
            };
        }
        let unchecked = token::open(text).map_err(refusal)?;
        if !self.0.keys.is_ready() {
            return Err(unavailable(
                "The signing keys could not be fetched yet; try again in a moment.",
            ));
        }
        let asked = Instant::now();
        let key = self.0.keys.find(&unchecked.kid).await;
        *deadline += asked.elapsed();
        let Some(key) = key else {
            return Err(refusal(Refusal::Invalid("kid")));
        };
        let claims = unchecked.signed(&key).map_err(refusal)?;
        // Times are judged by the store's clock, not by this machine's, which may be wrong.
        self.knows_the_store(*deadline).await?;
        let identity = claims
            .check(&self.0.verifier, self.now())
            .map_err(refusal)?;
        self.0
            .tokens
            .put(remembered_as, (unchecked.kid, identity.clone()));
        Ok(identity)
    }

    async fn api_key(&self, text: &str, deadline: Instant) -> Result<Identity, ApiError> {
        match self.0.api_keys.find(text, self.now(), deadline).await? {
            Lookup::Good(identity) => Ok(identity),
            Lookup::Gone => Err(revoked()),
            Lookup::Expired => Err(refusal(Refusal::Expired)),
            Lookup::Unknown => Err(invalid()),
        }
    }

    fn now(&self) -> i64 {
        self.0.revocations.now_ms().div_euclid(1000)
    }
}

fn refusal(why: Refusal) -> ApiError {
    match why {
        Refusal::Expired => challenge(
            Code::TokenExpired,
            "The token has expired: refresh it, or log in again.",
        )
        .caused_by(why),
        Refusal::Invalid(_) => invalid().caused_by(why),
    }
}

fn invalid() -> ApiError {
    challenge(
        Code::InvalidToken,
        "The token is not valid: log in for a new one.",
    )
}

fn revoked() -> ApiError {
    challenge(
        Code::TokenRevoked,
        "The token has been revoked: log in again.",
    )
}

/// What a caller without a token is told.
pub(super) fn missing() -> ApiError {
    ApiError::new(
        Code::MissingToken,
        "Send an access token or an API key: `Authorization: Bearer <token>`.",
    )
}

fn challenge(code: Code, detail: &str) -> ApiError {
    let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    ApiError::new(code, detail).header(WWW_AUTHENTICATE, value)
}

fn unavailable(detail: &str) -> ApiError {
    ApiError::new(Code::StoreUnavailable, detail)
}
