//! Erasing what a deleted account owned.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{domain::error::ChatError, store::erasure::Erasure, turns::service::Turns};

/// How often it is looked whether an account was deleted.
const LOOK: Duration = Duration::from_secs(1);

/// Sessions deleted at a time.
const STEP: usize = 100;

impl Turns {
    /// Erases the data of deleted accounts until the service stops. Every instance does it: erasing twice is harmless.
    pub(crate) async fn erase_deleted_accounts(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.shutdown.stopping() => return,
                () = sleep(LOOK) => {}
            }
            // What fails now, since the store is away, is still announced at the next look.
            for erasure in self.repository.erasures().await.unwrap_or_default() {
                if let Err(error) = self.erase(&erasure).await {
                    tracing::warn!(%error, "a deleted account could not be erased yet");
                }
            }
        }
    }

    async fn erase(&self, erasure: &Erasure) -> Result<(), ChatError> {
        let owner = &erasure.owner;
        loop {
            let listed = self.repository.list(owner, None, STEP).await?;
            if listed.is_empty() {
                break;
            }
            for (id, _, _) in listed {
                match self.remove_session(&self.repository, owner, &id).await {
                    // It had expired.
                    Ok(()) | Err(ChatError::SessionNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.repository.erase_rest(erasure).await?;
        tracing::info!(again = erasure.is_second, "a deleted account was erased");
        Ok(())
    }
}
