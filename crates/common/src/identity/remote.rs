//! Fetches the key set from `auth`: in the background, and sooner when somebody shows a token of an unknown key.

use std::{sync::Arc, time::Duration};

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
    /// How many fetches have ended, well or not.
    attempts: watch::Receiver<u64>,
}

/// The fetching side: one task.
pub(super) struct Fetcher {
    url: String,
    client: reqwest::Client,
    wanted: Arc<Notify>,
    attempts: watch::Sender<u64>,
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
        let (attempts, seen) = watch::channel(0);
        let wanted = Arc::new(Notify::new());
        (
            Self {
                wanted: wanted.clone(),
                attempts: seen,
            },
            Fetcher {
                url,
                client,
                wanted,
                attempts,
            },
        )
    }

    /// Asks for a fetch and waits until one that began afterwards may have ended, at most `patience`.
    pub async fn refreshed(&self, patience: Duration) {
        let mut attempts = self.attempts.clone();
        attempts.mark_unchanged();
        self.wanted.notify_one();
        let _ = timeout(patience, attempts.changed()).await;
    }
}

impl Fetcher {
    pub async fn run(self, set: KeySet) {
        loop {
            if let Err(error) = self.fetch(&set).await {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error), "signing keys not fetched");
            }
            let ended = Instant::now();
            self.attempts.send_modify(|count| *count += 1);
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
