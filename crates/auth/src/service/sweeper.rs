//! Withdraws the announcements of erasures whose deletion was never made.

use std::{sync::Arc, time::Duration};

use common::shutdown::Shutdown;

use super::{Accounts, AuthError};

const INTERVAL: Duration = Duration::from_secs(30);
/// An announcement this old, of an account that still exists, was given up: milliseconds.
const GIVEN_UP_MS: i64 = 60_000;
/// Announcements looked at in one sweep, in each slot.
const BATCH: usize = 200;

impl Accounts {
    /// Sweeps until the second stage of the shutdown.
    pub fn sweep(self: &Arc<Self>, shutdown: &Shutdown) {
        let (accounts, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                if let Err(error) = accounts.withdraw_erasures().await {
                    tracing::debug!(error = %error, "sweep of announced erasures failed");
                }
                tokio::select! {
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        });
    }

    async fn withdraw_erasures(&self) -> Result<(), AuthError> {
        let (now, announced) = self.repository.erasures(BATCH).await?;
        let old = announced
            .into_iter()
            .filter(|(_, at)| now - at > GIVEN_UP_MS);
        for (owner, _) in old {
            let loaded = self.repository.load(&owner.user, Vec::new()).await?;
            if loaded.current.state.generation <= owner.generation {
                self.repository.withdraw_erasure(&owner).await?;
            }
        }
        Ok(())
    }
}
