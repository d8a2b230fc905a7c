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
/// What nobody waits for is done every so many sweeps.
const TIDY_EVERY: u64 = 15;
/// How much longer than a token can live its revocation is kept, in seconds.
const MARGIN_S: i64 = 60;

impl Accounts {
    /// Sweeps until the second stage of the shutdown.
    pub fn sweep(self: &Arc<Self>, shutdown: &Shutdown) {
        let (accounts, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            for sweeps in 0_u64.. {
                tokio::select! {
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                let swept = async {
                    accounts.finish_announced().await?;
                    if sweeps.is_multiple_of(TIDY_EVERY) {
                        accounts.tidy().await?;
                    }
                    Ok::<(), AuthError>(())
                };
                if let Err(error) = swept.await {
                    tracing::debug!(error = %error, "sweep put off");
                }
            }
        });
    }

    /// Takes back erasures that came to nothing, and forgets old revocations.
    async fn tidy(&self) -> Result<(), AuthError> {
        let (now, announced) = self.repository.erasures(BATCH).await?;
        let old = announced
            .into_iter()
            .filter(|(_, at)| now - at > GIVEN_UP_MS);
        for (owner, _) in old {
            let loaded = self.repository.load(&owner.user, Vec::new()).await?;
            if loaded.standing.state.generation <= owner.generation {
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
