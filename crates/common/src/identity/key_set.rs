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
    time::timeout,
};

use super::jwks::JwkSet;
use crate::config::LoginMode;

/// How long a token with an unknown `kid` waits: the client's minimum interval between fetches, and one fetch.
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

    /// The key with that id. An unknown `kid` that has the form of ours triggers a fetch; concurrent callers share one
    /// fetch, and callers with a known `kid` never wait.
    pub(super) async fn find(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        if let Some(key) = self.get(kid) {
            return Some(key);
        }
        let refresh = self.refresh.as_ref().filter(|_| is_thumbprint(kid))?;
        refresh.wait(REFRESH_WAIT).await;
        self.get(kid)
    }
}

/// Whether a `kid` has the form of a SHA-256 thumbprint in base64url. Others are not worth a request.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
}

/// How verifiers ask the fetching task for newer keys.
#[derive(Clone, Debug, Default)]
pub(super) struct RefreshRequests {
    wanted: Arc<Notify>,
    started: Arc<AtomicU64>,
    finished: watch::Sender<u64>,
}

impl RefreshRequests {
    /// Requests a fetch and waits until one that started after this call has finished: one that is already under way may
    /// bring a set that is older than the key that is looked for.
    async fn wait(&self, limit: Duration) {
        let target = self.started.load(Ordering::SeqCst) + 1;
        let mut finished = self.finished.subscribe();
        self.wanted.notify_one();
        let _ = timeout(limit, finished.wait_for(|count| *count >= target)).await;
    }

    /// Resolves when somebody has called [`Self::wait`].
    pub async fn requested(&self) {
        self.wanted.notified().await;
    }

    pub fn fetch_started(&self) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    pub fn fetch_finished(&self) {
        self.finished.send_modify(|count| *count += 1);
    }
}
