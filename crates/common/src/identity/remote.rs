//! Fetches the key set from `auth`: in the background, and sooner when somebody shows a token of an unknown key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::key_set::{JwkSet, KeySet};

/// Between two fetches in the background.
const INTERVAL: Duration = Duration::from_secs(30);
/// Between two attempts while there is no key at all.
const COLD_INTERVAL: Duration = Duration::from_secs(1);
/// Between two fetches that somebody asked for.
const ASKED_INTERVAL: Duration = Duration::from_secs(5);
/// One fetch from beginning to end.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes: some hundred keys.
const MAX_ANSWER: usize = 64 * 1024;

/// The asking side: shared by everybody who verifies.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    wanted: Arc<Notify>,
    /// How many fetches have begun.
    begun: Arc<AtomicU64>,
    /// How many fetches have ended, well or not.
    ended: watch::Receiver<u64>,
}

/// The fetching side: one task.
pub(super) struct Fetcher {
    url: String,
    client: reqwest::Client,
    wanted: Arc<Notify>,
    begun: Arc<AtomicU64>,
    ended: watch::Sender<u64>,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the key set could not be fetched")]
    Http(#[from] reqwest::Error),
    #[error("the key set's answer is too large")]
    TooLarge,
    #[error("the key set is not valid")]
    Json(#[from] serde_json::Error),
    #[error("the key set has no usable key")]
    Empty,
}

impl Remote {
    pub fn new(auth_url: &url::Url, client: reqwest::Client) -> (Self, Fetcher) {
        let url = format!(
            "{}/.well-known/jwks.json",
            auth_url.as_str().trim_end_matches('/')
        );
        let (ended, seen) = watch::channel(0);
        let (wanted, begun) = (Arc::new(Notify::new()), Arc::default());
        (
            Self {
                wanted: Arc::clone(&wanted),
                begun: Arc::clone(&begun),
                ended: seen,
            },
            Fetcher {
                url,
                client,
                wanted,
                begun,
                ended,
            },
        )
    }

    /// Asks for a fetch and waits until one that began afterwards has ended, at most `patience`: what one that is under
    /// way will bring may be older than the key that is looked for.
    pub async fn refreshed(&self, patience: Duration) {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut ended = self.ended.clone();
        self.wanted.notify_one();
        let _ = timeout(patience, ended.wait_for(|ended| *ended >= wanted)).await;
    }
}

impl Fetcher {
    pub async fn run(self, set: KeySet) {
        loop {
            self.begun.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = self.fetch(&set).await {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error), "signing keys not fetched");
            }
            let ended = Instant::now();
            self.ended.send_modify(|count| *count += 1);
            if set.is_ready() {
                tokio::select! {
                    () = sleep_until(ended + INTERVAL) => {}
                    () = self.wanted.notified() => sleep_until(ended + ASKED_INTERVAL).await,
                }
            } else {
                sleep_until(ended + COLD_INTERVAL).await;
            }
        }
    }

    async fn fetch(&self, set: &KeySet) -> Result<(), FetchError> {
        let mut response = self
            .client
            .get(&self.url)
            .timeout(FETCH_TIMEOUT)
            .send()
            .await?
            .error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let keys: JwkSet = serde_json::from_slice(&body)?;
        set.replace(&keys).then_some(()).ok_or(FetchError::Empty)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, time::Instant as Clock};

    use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::{
        config::LoginMode,
        identity::{Jwk, JwkSet, KeySet},
        shutdown::Shutdown,
    };

    const FIRST: &str = "first-first-first-first-first-first-first-f";
    const SECOND: &str = "second-second-second-second-second-second-s";
    const UNKNOWN: &str = "unknown-unknown-unknown-unknown-unknown-unk";

    fn jwks(kids: &[&str]) -> JwkSet {
        let x = URL_SAFE_NO_PAD.encode([9_u8; 32]);
        let keys = kids
            .iter()
            .map(|kid| Jwk::ed25519(x.clone(), (*kid).to_owned()));
        JwkSet::new(keys.collect(), LoginMode::Open)
    }

    /// An `auth` that answers what stands in `answer` (`None`: 500) and counts how often it is asked.
    async fn auth() -> (
        url::Url,
        watch::Sender<Option<JwkSet>>,
        Arc<AtomicU32>,
        Shutdown,
    ) {
        let (answer, asked) = (watch::Sender::new(None), Arc::new(AtomicU32::new(0)));
        let shutdown = Shutdown::new();
        let handler = {
            let (answer, asked) = (answer.clone(), asked.clone());
            move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer: Option<JwkSet> = answer.borrow().clone();
                answer.map_or(StatusCode::INTERNAL_SERVER_ERROR.into_response(), |set| {
                    Json(set).into_response()
                })
            }
        };
        let router = Router::new().route("/.well-known/jwks.json", get(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        shutdown.spawn(async move { axum::serve(listener, router).await });
        (url, answer, asked, shutdown)
    }

    async fn within(limit: Duration, mut holds: impl FnMut() -> bool) {
        let began = Clock::now();
        while !holds() {
            assert!(began.elapsed() < limit, "not within {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_cold_set_is_asked_for_every_second_and_a_known_one_outlives_its_source() {
        let (url, answer, asked, shutdown) = auth().await;
        let set = KeySet::remote(&url, crate::clients::http::auth().unwrap(), &shutdown);
        assert_eq!(set.login_mode(), LoginMode::Password);
        within(Duration::from_secs(4), || asked.load(Ordering::SeqCst) >= 2).await;
        assert!(!set.is_ready());
        answer.send_replace(Some(jwks(&[FIRST])));
        within(Duration::from_secs(3), || set.is_ready()).await;
        assert_eq!(set.login_mode(), LoginMode::Open);
        for bad in [None, Some(jwks(&[]))] {
            answer.send_replace(bad);
            let before = asked.load(Ordering::SeqCst);
            assert!(set.find(UNKNOWN).await.is_none());
            assert!(asked.load(Ordering::SeqCst) > before);
            assert!(set.get(FIRST).is_some(), "the last good set stays");
        }
        shutdown.stop();
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_costs_one_fetch_in_five_seconds_and_refuses_no_good_token() {
        let (url, answer, asked, shutdown) = auth().await;
        answer.send_replace(Some(jwks(&[FIRST])));
        let set = KeySet::remote(&url, crate::clients::http::auth().unwrap(), &shutdown);
        within(Duration::from_secs(3), || set.is_ready()).await;
        let began = Clock::now();
        let flood: Vec<_> = (0..200)
            .map(|_| {
                let set = set.clone();
                shutdown.spawn(async move { set.find(UNKNOWN).await.is_none() })
            })
            .collect();
        answer.send_replace(Some(jwks(&[FIRST, SECOND])));
        assert!(set.find(FIRST).await.is_some());
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "a known key never waits"
        );
        assert!(
            set.find(SECOND).await.is_some(),
            "a new key is found, flood or not"
        );
        for refused in flood {
            assert!(refused.await.unwrap());
        }
        let (elapsed, fetches) = (
            began.elapsed().as_secs(),
            u64::from(asked.load(Ordering::SeqCst)),
        );
        assert!(fetches <= 2 + elapsed / 5, "{fetches} in {elapsed} s");
        assert!(set.find("no-thumbprint").await.is_none());
        shutdown.stop();
    }
}
