//! Finishes what a process that died left half done, and forgets revocations that no token can need any more.

use std::{sync::Arc, time::Duration};

use common::{identity::LEEWAY_S, shutdown::Shutdown};

use super::{
    Accounts, AuthError,
    ending::{BATCH, GIVEN_UP_MS},
    tokens::seconds,
};

/// Between two sweeps: with the second until every process has looked, less than the five that a revocation may take.
const INTERVAL: Duration = Duration::from_secs(2);
/// How much longer than a token can live its revocation is kept, in seconds.
const MARGIN_S: i64 = 60;

impl Accounts {
    /// Sweeps until the second stage of the shutdown.
    pub fn sweep(self: &Arc<Self>, shutdown: &Shutdown) {
        let (accounts, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                if let Err(error) = accounts.sweep_once().await {
                    tracing::debug!(error = %error, "sweep put off");
                }
            }
        });
    }

    async fn sweep_once(&self) -> Result<(), AuthError> {
        self.finish_announced().await?;
        let (now, announced) = self.repository.erasures(BATCH).await?;
        for (owner, at) in announced
            .into_iter()
            .filter(|(_, at)| now - at > GIVEN_UP_MS)
        {
            let loaded = self.repository.load(&owner.user, Vec::new()).await?;
            if loaded.standing.state.generation <= owner.generation {
                tracing::debug!(at, "erasure that came to nothing taken back");
                self.repository.withdraw_erasure(&owner).await?;
            }
        }
        let horizon = (seconds(self.settings.access_ttl).saturating_add(LEEWAY_S + MARGIN_S))
            .saturating_mul(1000);
        Ok(self
            .repository
            .trim_revocations(now.saturating_sub(horizon))
            .await?)
    }
}
