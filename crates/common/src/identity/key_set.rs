//! The public keys that verify access tokens, held in memory: fetched from `auth`, or handed over by it.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::remote::Remote;
use crate::config::LoginMode;

/// What `/.well-known/jwks.json` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    /// The public keys; every one verifies.
    pub keys: Vec<Jwk>,
    /// `open` or `password`: whether a user id alone logs in. Absent means `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

/// One public key (RFC 8037); members other than these are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `OKP`.
    #[serde(default)]
    pub kty: String,
    /// `Ed25519`.
    #[serde(default)]
    pub crv: String,
    /// The key itself, base64url.
    #[serde(default)]
    pub x: String,
    /// Its RFC 7638 thumbprint (SHA-256): what `kid` in a token's header says.
    #[serde(default)]
    pub kid: String,
    /// `EdDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
}

impl Jwk {
    /// The entry of an Ed25519 public key.
    pub fn ed25519(x: String, kid: String) -> Self {
        Self {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x,
            kid,
            alg: Some("EdDSA".into()),
            usage: Some("sig".into()),
        }
    }

    /// The verifying key, if it is an Ed25519 signature key with an id.
    fn decoding_key(&self) -> Option<DecodingKey> {
        let ours = self.kty == "OKP"
            && self.crv == "Ed25519"
            && !self.kid.is_empty()
            && self
                .alg
                .as_deref()
                .is_none_or(|alg| alg == "EdDSA" || alg == "Ed25519")
            && self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let key = DecodingKey::from_ed_components(&self.x)
            .ok()
            .filter(|_| ours)?;
        key.try_get_as_bytes()
            .is_ok_and(|bytes| bytes.len() == 32)
            .then_some(key)
    }
}

impl JwkSet {
    /// The answer for these keys and this way to log in.
    pub fn new(keys: Vec<Jwk>, login: LoginMode) -> Self {
        let login = match login {
            LoginMode::Open => "open",
            LoginMode::Password => "password",
        };
        Self {
            keys,
            login: Some(login.into()),
        }
    }

    fn usable(&self) -> HashMap<String, Arc<DecodingKey>> {
        self.keys
            .iter()
            .filter_map(|jwk| Some((jwk.kid.clone(), Arc::new(jwk.decoding_key()?))))
            .collect()
    }
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<DecodingKey>>,
    open_login: bool,
}

/// The keys known now. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct KeySet {
    known: Arc<ArcSwap<Known>>,
    ready: watch::Sender<bool>,
    remote: Option<Remote>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.known.load().keys.len())
            .finish_non_exhaustive()
    }
}

impl KeySet {
    /// An empty set that somebody fills by hand with [`KeySet::replace`]: `auth` for itself, and for `chatbot`.
    pub fn local() -> Self {
        Self {
            known: Arc::default(),
            ready: watch::Sender::new(false),
            remote: None,
        }
    }

    /// A set that is fetched from `auth_url` + `/.well-known/jwks.json`: every second while there is none, every 30 s
    /// afterwards, and for an unknown `kid` at once but at most every 5 s. While `auth` is down the last one stays.
    pub fn remote(
        auth_url: &url::Url,
        client: reqwest::Client,
        shutdown: &crate::shutdown::Shutdown,
    ) -> Self {
        let mut set = Self::local();
        let (remote, fetcher) = Remote::new(auth_url, client);
        shutdown.spawn({
            let (set, shutdown) = (set.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = shutdown.stopping() => {}
                    () = fetcher.run(set) => {}
                }
            }
        });
        set.remote = Some(remote);
        set
    }

    /// Puts these keys in the place of the old; false, and nothing changes, if none of them is usable.
    pub fn replace(&self, set: &JwkSet) -> bool {
        let keys = set.usable();
        if keys.is_empty() {
            return false;
        }
        let open_login = set.login.as_deref() == Some("open");
        self.known.store(Arc::new(Known { keys, open_login }));
        self.ready.send_replace(true);
        true
    }

    /// Whether there is a key to verify with.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Whether a user id alone logs in, as `auth` says; unknown is [`LoginMode::Password`].
    pub fn login_mode(&self) -> LoginMode {
        if self.known.load().open_login {
            LoginMode::Open
        } else {
            LoginMode::Password
        }
    }

    /// The key of that id, if it is known now.
    pub(super) fn get(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.known.load().keys.get(kid).cloned()
    }

    /// The key of that id. One that is not known is looked for at `auth`, if its id looks like one of `auth`'s;
    /// callers who wait share one request, and those whose key is known never wait.
    pub(super) async fn find(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        if let Some(key) = self.get(kid) {
            return Some(key);
        }
        let remote = self.remote.as_ref().filter(|_| is_thumbprint(kid))?;
        remote.refreshed(PATIENCE).await;
        self.get(kid)
    }
}

/// How long a token of an unknown key waits for the next permitted fetch: its interval, and the fetch itself.
const PATIENCE: Duration = Duration::from_secs(7);

/// Whether a `kid` has the form of a SHA-256 thumbprint in base64url: nothing else is worth a request.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43
        && kid
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
}
