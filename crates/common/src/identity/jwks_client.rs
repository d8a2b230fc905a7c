//! Fetches the key set from `auth`, in the background and on request.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    jwks::JwkSet,
    key_set::{KeySet, REQUEST_INTERVAL, RefreshRequests},
};
use crate::shutdown::Shutdown;

const INTERVAL: Duration = Duration::from_secs(30);
/// Between two attempts while there is no key at all.
const COLD_INTERVAL: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes: some hundred keys.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug)]
pub struct JwksClient {
    url: String,
    client: reqwest::Client,
    refresh: RefreshRequests,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed")]
    Http(#[from] reqwest::Error),
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is not a key set")]
    Json(#[from] serde_json::Error),
    #[error("the key set has no usable key")]
    Empty,
}

impl JwksClient {
    /// Starts fetching `auth_url` + `/.well-known/jwks.json`: every second until there is a key, every 30 s afterwards, and at
    /// once, but at most every 5 s, for an unknown `kid`. While `auth` is down the last set stays.
    pub fn start(auth_url: &url::Url, client: reqwest::Client, shutdown: &Shutdown) -> KeySet {
        let base = auth_url.as_str().trim_end_matches('/');
        let this = Self {
            url: format!("{base}/.well-known/jwks.json"),
            client,
            refresh: RefreshRequests::default(),
        };
        let set = KeySet::new(Some(this.refresh.clone()));
        shutdown.spawn_until_stop(this.run(set.clone()));
        set
    }

    async fn run(self, set: KeySet) {
        loop {
            self.refresh.fetch_started();
            let fetched = self.fetch(&set).await;
            if let Err(error) = &fetched {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(error), "fetching the signing keys failed");
            }
            let finished = Instant::now();
            self.refresh.fetch_finished(fetched.is_ok());
            if set.is_ready() {
                tokio::select! {
                    () = sleep_until(finished + INTERVAL) => {}
                    () = self.refresh.requested() => sleep_until(finished + REQUEST_INTERVAL).await,
                }
            } else {
                sleep_until(finished + COLD_INTERVAL).await;
            }
        }
    }

    async fn fetch(&self, set: &KeySet) -> Result<(), FetchError> {
        let mut response =
            self.client.get(&self.url).timeout(FETCH_TIMEOUT).send().await?.error_for_status()?;
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
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Instant as Clock,
    };

    use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        config::LoginMode,
        identity::{IdentityError, Jwk},
    };

    const FIRST: &str = "first-first-first-first-first-first-first-f";
    const SECOND: &str = "second-second-second-second-second-second-s";
    const OTHER_FORM: &str = "k1";
    const UNKNOWN: &str = "unknown-unknown-unknown-unknown-unknown-unk";

    fn jwks(kids: &[&str]) -> JwkSet {
        let x = URL_SAFE_NO_PAD.encode([9_u8; 32]);
        let keys = kids.iter().map(|kid| Jwk::ed25519(x.clone(), (*kid).to_owned()));
        JwkSet::new(keys.collect(), LoginMode::Open)
    }

    /// An `auth` that answers what stands in `answer` (`None`: 500) and counts how often it is asked.
    async fn auth() -> (url::Url, watch::Sender<Option<JwkSet>>, Arc<AtomicU32>, Shutdown) {
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
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
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
        let set = JwksClient::start(&url, crate::clients::http::auth().unwrap(), &shutdown);
        assert_eq!(set.login_mode(), LoginMode::Password);
        within(Duration::from_secs(4), || asked.load(Ordering::SeqCst) >= 2).await;
        assert!(!set.is_ready());
        answer.send_replace(Some(jwks(&[FIRST])));
        within(Duration::from_secs(3), || set.is_ready()).await;
        assert_eq!(set.login_mode(), LoginMode::Open);
        for bad in [None, Some(jwks(&[]))] {
            answer.send_replace(bad);
            let before = asked.load(Ordering::SeqCst);
            assert!(matches!(set.find(UNKNOWN).await, Err(IdentityError::NoKeys)));
            assert!(asked.load(Ordering::SeqCst) > before);
            assert!(set.get(FIRST).is_some(), "the last good set stays");
        }
        shutdown.stop();
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_costs_one_fetch_in_five_seconds_and_refuses_no_good_token() {
        let (url, answer, asked, shutdown) = auth().await;
        answer.send_replace(Some(jwks(&[FIRST])));
        let set = JwksClient::start(&url, crate::clients::http::auth().unwrap(), &shutdown);
        within(Duration::from_secs(3), || set.is_ready()).await;
        let began = Clock::now();
        let flood: Vec<_> = (0..200)
            .map(|_| {
                let set = set.clone();
                shutdown.spawn(async move { set.find(UNKNOWN).await.is_err() })
            })
            .collect();
        answer.send_replace(Some(jwks(&[FIRST, SECOND])));
        assert!(set.find(FIRST).await.is_ok());
        assert!(began.elapsed() < Duration::from_millis(500), "a known key never waits");
        assert!(set.find(SECOND).await.is_ok(), "a new key is found, flood or not");
        for refused in flood {
            assert!(refused.await.unwrap());
        }
        let (elapsed, fetches) =
            (began.elapsed().as_secs(), u64::from(asked.load(Ordering::SeqCst)));
        assert!(fetches <= 2 + elapsed / 5, "{fetches} in {elapsed} s");
        assert!(matches!(set.find(UNKNOWN).await, Err(IdentityError::Invalid(_))));
        answer.send_replace(Some(jwks(&[FIRST, OTHER_FORM])));
        let (began, asked_before) = (Clock::now(), asked.load(Ordering::SeqCst));
        assert!(matches!(set.find(OTHER_FORM).await, Err(IdentityError::Invalid(_))));
        assert_eq!(asked.load(Ordering::SeqCst), asked_before, "keys came just now");
        while set.find(OTHER_FORM).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(8), "a kid of any form is fetched");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        shutdown.stop();
    }
}
