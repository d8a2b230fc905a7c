//! The public keys that verify access tokens, held in memory.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{error::IdentityError, jwks::JwkSet};
use crate::config::LoginMode;

/// Least pause between two fetches for an unknown `kid`.
pub(super) const REQUEST_INTERVAL: Duration = Duration::from_secs(5);

/// How long a token with an unknown `kid` waits: [`REQUEST_INTERVAL`], and one fetch.
const REFRESH_WAIT: Duration = Duration::from_secs(7);

#[derive(Default)]
struct Keys {
    by_kid: HashMap<String, Arc<DecodingKey>>,
    open_login: bool,
}

/// The current keys. Cheap to clone; clones share the keys.
#[derive(Clone)]
pub struct KeySet {
    keys: Arc<ArcSwap<Keys>>,
    ready: watch::Sender<bool>,
    refresh: Option<RefreshRequests>,
}

impl KeySet {
    /// An empty set that [`KeySet::replace`] fills: `auth` has one for itself and for `chatbot`.
    pub fn local() -> Self {
        Self::new(None)
    }

    /// An empty set; given `refresh`, it asks a [`super::JwksClient`] for keys that it does not know.
    pub(super) fn new(refresh: Option<RefreshRequests>) -> Self {
        Self { keys: Arc::default(), ready: watch::Sender::new(false), refresh }
    }

    /// Replaces the keys. Returns false, and changes nothing, if none of the new ones is usable.
    pub fn replace(&self, set: &JwkSet) -> bool {
        let by_kid = set.decoding_keys();
        if by_kid.is_empty() {
            return false;
        }
        let open_login = set.login.as_deref() == Some("open");
        self.keys.store(Arc::new(Keys { by_kid, open_login }));
        self.ready.send_replace(true);
        true
    }

    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Whether a user id alone logs in, as `auth` says; [`LoginMode::Password`] until that is known.
    pub fn login_mode(&self) -> LoginMode {
        if self.keys.load().open_login { LoginMode::Open } else { LoginMode::Password }
    }

    pub(super) fn get(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.keys.load().by_kid.get(kid).cloned()
    }

    /// The key with that id. An unknown `kid` triggers a fetch; concurrent callers share one fetch, and callers with a known `kid`
    /// never wait. One that has not the form of ours waits for no fetch after a recent one.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] where there is no such key; [`IdentityError::NoKeys`] where `auth` could not be asked, since the
    /// key may be one of its newer ones.
    pub(super) async fn find(&self, kid: &str) -> Result<Arc<DecodingKey>, IdentityError> {
        if let Some(key) = self.get(kid) {
            return Ok(key);
        }
        let is_current = match &self.refresh {
            Some(refresh) if is_thumbprint(kid) || !refresh.was_recent() => {
                refresh.wait(REFRESH_WAIT).await
            }
            _ => true,
        };
        self.get(kid).ok_or(match is_current {
            true => IdentityError::Invalid("kid"),
            false => IdentityError::NoKeys,
        })
    }
}

/// True for the form of a SHA-256 thumbprint in base64url.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
}

/// How verifiers ask the fetching task for newer keys.
#[derive(Clone, Debug, Default)]
pub(super) struct RefreshRequests {
    wanted: Arc<Notify>,
    started: Arc<AtomicU64>,
    /// How many have finished, and when the last one did, if it brought keys.
    finished: watch::Sender<(u64, Option<Instant>)>,
}

impl RefreshRequests {
    /// Requests a fetch and waits until one that started after this call has finished: one that is already under way may
    /// bring a set that is older than the key that is looked for. Whether it brought keys.
    async fn wait(&self, limit: Duration) -> bool {
        let target = self.started.load(Ordering::SeqCst) + 1;
        let mut finished = self.finished.subscribe();
        self.wanted.notify_one();
        let done = timeout(limit, finished.wait_for(|(count, _)| *count >= target)).await;
        matches!(done, Ok(Ok(fetch)) if fetch.1.is_some())
    }

    /// Whether keys came so lately that none is asked for.
    fn was_recent(&self) -> bool {
        self.finished.borrow().1.is_some_and(|at| at.elapsed() < REQUEST_INTERVAL)
    }

    /// Resolves when somebody has called [`Self::wait`].
    pub async fn requested(&self) {
        self.wanted.notified().await;
    }

    pub fn fetch_started(&self) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    pub fn fetch_finished(&self, brought_keys: bool) {
        self.finished.send_modify(|(count, last)| {
            *count += 1;
            *last = brought_keys.then(Instant::now);
        });
    }
}
