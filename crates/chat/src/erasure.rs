//! Erases the data of deleted accounts.

use std::time::Duration;

use common::shutdown::Shutdown;
use tokio::time::sleep;

use crate::{
    error::ChatError,
    sessions::SessionService,
    store::{ChatStore, erasure::Erasure},
};

/// How often deleted accounts are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sessions listed at a time.
const PAGE: usize = 100;

/// Erases accounts until the service stops. Every instance does it: erasing twice is harmless.
pub struct ErasureService {
    store: ChatStore,
    sessions: SessionService,
}

impl ErasureService {
    /// Starts the service.
    pub fn spawn(store: ChatStore, sessions: SessionService, shutdown: &Shutdown) {
        let service = Self { store, sessions };
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.stopping() => return,
                    () = sleep(INTERVAL) => {}
                }
                service.erase_deleted().await;
            }
        });
    }

    async fn erase_deleted(&self) {
        // What fails now, since the store is away, is still announced the next time.
        for erasure in self.store.erasure().pending().await.unwrap_or_default() {
            if let Err(error) = self.erase(&erasure).await {
                tracing::warn!(%error, "a deleted account could not be erased yet");
            }
        }
    }

    async fn erase(&self, erasure: &Erasure) -> Result<(), ChatError> {
        let owner = &erasure.owner;
        loop {
            let listed = self.store.sessions().list(owner, None, PAGE).await?;
            if listed.is_empty() {
                break;
            }
            for (id, _, _) in listed {
                match self.sessions.erase(owner, &id).await {
                    // It had expired.
                    Ok(()) | Err(ChatError::SessionNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.store.erasure().finish(erasure).await?;
        tracing::info!(again = erasure.is_second, "erased a deleted account");
        Ok(())
    }
}
