//! Finishes what a process that died left half done, and forgets revocations that no token can need any more.

use std::{sync::Arc, time::Duration};

use common::{
    identity::{Credential, Identity, LEEWAY_S},
    shutdown::Shutdown,
};

use super::{Accounts, AuthError, tokens::seconds};

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(5);
/// An erasure that was announced so long ago, of an account that still lives, was given up: milliseconds.
const GIVEN_UP_MS: i64 = 60_000;
/// How much longer than a token can live its revocation is kept, in seconds.
const MARGIN_S: i64 = 60;
/// Erasures looked at in one sweep.
const BATCH: usize = 200;

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
        let (now, announced) = self.repository.erasures(BATCH).await?;
        for (owner, at) in announced {
            let generation = self
                .repository
                .load(&owner.user, Vec::new())
                .await?
                .standing
                .state
                .generation;
            let identity = Identity {
                owner,
                credential: Credential::Open,
            };
            if generation > identity.owner.generation {
                if !self.revocations.has(&identity) {
                    self.renew_account_revocation(identity.owner, now).await?;
                }
            } else if now - at > GIVEN_UP_MS {
                self.repository.withdraw_erasure(&identity.owner).await?;
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
