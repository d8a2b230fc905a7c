//! Decides whom a bearer credential belongs to: an access token by its signature, an API key by its record, both by the
//! state of the account.
//!
//! Verified credentials and account states are cached. A credential that was checked at a revision of the state counts
//! while the state has that revision; a state that was read more than [`MAX_AGE`] ago is read again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::MissedTickBehavior;

use super::{
    Credential, Identity, KeySet, Owner, UserId,
    account::{API_KEY_PREFIX, ApiKeyRecord},
    account_states::AccountStates,
    error::IdentityError,
    opaque::{Opaque, digest},
    token::{self, TokenRules, Validity},
    watches::{WatchKey, Watches},
};
use crate::{
    config::LoginMode,
    shutdown::Shutdown,
    store::{CALL_LIMIT, Store},
};

/// Oldest state that decides by itself. With [`REVIEW_INTERVAL`] and a store call it must stay below the 5 s within which
/// an ending holds everywhere.
const MAX_AGE: Duration = Duration::from_secs(2);
/// Between two reads of the states that running streams and sockets depend on.
const REVIEW_INTERVAL: Duration = Duration::from_secs(2);
/// Credentials of changed accounts that are checked at the same time.
const REVIEW_CONCURRENCY: usize = 32;
const CACHED_CREDENTIALS: usize = 20_000;

/// Checks credentials. Cheap to clone; clones share their caches.
#[derive(Clone)]
pub struct Authenticator(Arc<AuthenticatorState>);

struct AuthenticatorState {
    rules: TokenRules,
    keys: KeySet,
    states: AccountStates,
    /// By SHA-256 of the credential.
    verified: Cache<[u8; 32], Verified>,
    watches: Watches,
}

/// A credential whose signature or digest was verified.
#[derive(Clone)]
struct Verified {
    identity: Identity,
    /// The key that signed a token: once it is withdrawn the token is invalid.
    kid: Option<String>,
}

/// What remains to be compared with what the store says.
enum Pending<'a> {
    Token(Validity),
    ApiKey(&'a str),
    Nothing,
}

impl Authenticator {
    /// Accepts tokens that satisfy `rules` and are signed by a key of `keys`. Watches the accounts that streams and sockets
    /// depend on until the shutdown's second stage.
    pub fn start(rules: TokenRules, keys: KeySet, store: Store, shutdown: &Shutdown) -> Self {
        let this = Self(Arc::new(AuthenticatorState {
            rules,
            keys,
            states: AccountStates::new(store),
            verified: Cache::new(CACHED_CREDENTIALS),
            watches: Watches::default(),
        }));
        let reviewer = this.clone();
        shutdown.spawn_until_stop(async move { reviewer.review_watches().await });
        this
    }

    /// Whom an access token or an API key belongs to. Store calls end by `deadline`, which is moved back by the time that
    /// fetching a key from `auth` took.
    ///
    /// # Errors
    /// [`IdentityError::Store`] and [`IdentityError::NoKeys`] where it cannot be decided now; otherwise why the credential is refused.
    pub async fn authenticate(
        &self,
        bearer: &str,
        deadline: &mut Instant,
    ) -> Result<Identity, IdentityError> {
        let hash = Sha256::digest(bearer.as_bytes()).into();
        let known = self.0.verified.get(&hash).filter(|known| {
            let kid = known.kid.as_ref();
            kid.is_none_or(|kid| self.0.keys.get(kid).is_some())
        });
        if let Some(Verified { identity, .. }) = &known
            && let Some(state) = self.0.states.cached(identity.user(), MAX_AGE)
            && state.revision == identity.revision
        {
            // By the store's clock: this machine's may be wrong.
            check_expiry(&identity.credential, self.0.states.clock().now_s())?;
            return Ok(identity.clone());
        }
        let (verified, pending) = match known {
            Some(known) => (known, Pending::Nothing),
            None if bearer.starts_with(API_KEY_PREFIX) => parse_api_key(bearer)?,
            None => self.verify_token(bearer, deadline).await?,
        };
        self.decide(hash, verified, pending, *deadline).await
    }

    /// Whom a user id alone stands for where login is open.
    ///
    /// # Errors
    /// [`IdentityError::LoginNotOpen`], [`IdentityError::PasswordRequired`], [`IdentityError::Store`].
    pub async fn open(&self, user: UserId, deadline: Instant) -> Result<Identity, IdentityError> {
        if self.login_mode() != LoginMode::Open {
            return Err(IdentityError::LoginNotOpen);
        }
        let mut owner = Owner { user, generation: 0 };
        let state = self.0.states.read(&owner, &Credential::Open, deadline).await?.state;
        owner.generation = state.generation;
        state.verify(&owner, &Credential::Open, None)?;
        Ok(Identity { owner, credential: Credential::Open, revision: state.revision })
    }

    /// Decides again on an identity by what the store says now. Expiry is not looked at: what runs may finish.
    ///
    /// # Errors
    /// [`IdentityError::Store`]; otherwise why the identity does not hold any more.
    pub async fn recheck(
        &self,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<Identity, IdentityError> {
        let Identity { owner, credential, .. } = identity;
        let found = self.0.states.read(owner, credential, deadline).await?;
        found.state.verify(owner, credential, found.evidence.as_ref())?;
        Ok(Identity { revision: found.state.revision, ..identity.clone() })
    }

    /// Resolves once that identity is revoked, within 5 s of its ending. Expiry does not count.
    pub async fn revoked(&self, identity: &Identity) -> IdentityError {
        self.0.watches.wait(identity).await
    }

    /// Whether a user id alone logs in, as `auth` says.
    pub fn login_mode(&self) -> LoginMode {
        self.0.keys.login_mode()
    }

    /// Whether there is a key to verify tokens with: what readiness asks.
    pub fn has_keys(&self) -> bool {
        self.0.keys.is_ready()
    }

    async fn decide(
        &self,
        hash: [u8; 32],
        mut verified: Verified,
        pending: Pending<'_>,
        deadline: Instant,
    ) -> Result<Identity, IdentityError> {
        let identity = &mut verified.identity;
        let found = self.0.states.read(&identity.owner, &identity.credential, deadline).await?;
        let evidence = found.evidence.as_ref();
        let record = evidence.and_then(|it| ApiKeyRecord::decode(it));
        match (pending, record) {
            (Pending::Token(validity), _) => validity.check(found.now)?,
            (Pending::ApiKey(text), Some(record)) => {
                let same = record.digest.as_bytes().ct_eq(digest(text).as_bytes());
                if !bool::from(same) {
                    return Err(IdentityError::Invalid("API key"));
                }
                if let Credential::ApiKey { expires_at, .. } = &mut identity.credential {
                    *expires_at = record.expires_at;
                }
            }
            (Pending::ApiKey(_) | Pending::Nothing, _) => {}
        }
        found.state.verify(&identity.owner, &identity.credential, evidence)?;
        check_expiry(&identity.credential, found.now)?;
        identity.revision = found.state.revision;
        let identity = identity.clone();
        self.0.verified.insert(hash, verified);
        Ok(identity)
    }

    async fn verify_token(
        &self,
        text: &str,
        deadline: &mut Instant,
    ) -> Result<(Verified, Pending<'static>), IdentityError> {
        let unverified = token::parse(text)?;
        if !self.0.keys.is_ready() {
            return Err(IdentityError::NoKeys);
        }
        let begun = Instant::now();
        let key = self.0.keys.find(&unverified.kid).await;
        *deadline += begun.elapsed();
        let claims = unverified.verify(&*key?)?;
        let (owner, credential, validity) = claims.check(&self.0.rules)?;
        let verified = Verified {
            identity: Identity { owner, credential, revision: 0 },
            kid: Some(unverified.kid),
        };
        Ok((verified, Pending::Token(validity)))
    }

    async fn review_watches(&self) {
        let mut ticks = tokio::time::interval(REVIEW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let revisions = self.0.states.revisions(self.0.watches.users()).await;
            let outdated = |(user, revision)| self.0.watches.outdated(&user, revision);
            let outdated: Vec<_> = revisions.into_iter().flat_map(outdated).collect();
            let review = |(key, identity)| self.review(key, identity);
            stream::iter(outdated).for_each_concurrent(REVIEW_CONCURRENCY, review).await;
        }
    }

    async fn review(&self, key: WatchKey, identity: Identity) {
        match self.recheck(&identity, Instant::now() + CALL_LIMIT).await {
            Ok(renewed) => self.0.watches.renew(&key, renewed),
            // What cannot be decided now is looked at again in the next round.
            Err(IdentityError::Store(error)) => tracing::debug!(%error, "account state not read"),
            Err(error) => self.0.watches.end(&key, error),
        }
    }
}

fn parse_api_key(text: &str) -> Result<(Verified, Pending<'_>), IdentityError> {
    let key = Opaque::decode(API_KEY_PREFIX, text).ok_or(IdentityError::Invalid("API key"))?;
    let identity = Identity {
        owner: key.owner,
        credential: Credential::ApiKey { id: key.id, expires_at: None },
        revision: 0,
    };
    let verified = Verified { identity, kid: None };
    Ok((verified, Pending::ApiKey(text)))
}

fn check_expiry(credential: &Credential, now: i64) -> Result<(), IdentityError> {
    let expired = match credential {
        Credential::Token { expires_at, .. } => token::is_expired(*expires_at, now),
        Credential::ApiKey { expires_at, .. } => expires_at.is_some_and(|at| now >= at),
        Credential::Open => false,
    };
    if expired {
        return Err(IdentityError::Expired);
    }
    Ok(())
}
