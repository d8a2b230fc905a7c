//! Erases the data of deleted accounts.

use std::{collections::HashMap, time::Duration};

use common::shutdown::Shutdown;
use futures_util::{TryStreamExt, stream};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    domain::SessionId,
    error::ChatError,
    sessions::SessionService,
    store::{ChatStore, erasure::Erasure},
};

/// How often deleted accounts are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Accounts that are erased at the same time on this instance.
const ACCOUNTS: usize = 16;

/// Sessions of an account that are deleted at the same time.
const SESSIONS: usize = 16;

/// Erases accounts until the service stops. Instances share the work by claiming accounts; erasing twice is harmless.
#[derive(Clone)]
pub struct ErasureService {
    store: ChatStore,
    sessions: SessionService,
}

impl ErasureService {
    pub fn spawn(store: ChatStore, sessions: SessionService, shutdown: &Shutdown) {
        let service = Self { store, sessions };
        let (stopping, mut running) = (shutdown.clone(), HashMap::new());
        shutdown.spawn_until_stop(async move {
            loop {
                sleep(INTERVAL).await;
                running.retain(|_, task: &mut JoinHandle<()>| !task.is_finished());
                service.look(&mut running, &stopping).await;
            }
        });
    }

    /// Begins to erase what is pending, as far as there are places; no account waits for another one.
    async fn look(&self, running: &mut HashMap<Erasure, JoinHandle<()>>, shutdown: &Shutdown) {
        // What fails now, since the store is away, is still announced the next time.
        for erasure in self.store.erasure().pending().await.unwrap_or_default() {
            if running.contains_key(&erasure) {
                continue;
            }
            if running.len() == ACCOUNTS {
                return;
            }
            if !matches!(self.store.erasure().claim(&erasure).await, Ok(true)) {
                continue;
            }
            let (service, claimed) = (self.clone(), erasure.clone());
            let task = shutdown.spawn_until_stop(async move { service.run(&claimed).await });
            running.insert(erasure, task);
        }
    }

    async fn run(&self, erasure: &Erasure) {
        let hold = async {
            loop {
                sleep(INTERVAL).await;
                // Where the claim is lost, another instance does the same once more.
                let _ = self.store.erasure().claim(erasure).await;
            }
        };
        let erased = tokio::select! {
            erased = self.erase(erasure) => erased,
            never = hold => never,
        };
        match erased {
            Ok(()) => tracing::info!(again = erasure.is_second, "erased a deleted account"),
            Err(error) => tracing::warn!(%error, "a deleted account could not be erased yet"),
        }
    }

    async fn erase(&self, erasure: &Erasure) -> Result<(), ChatError> {
        let (owner, mut at) = (&erasure.owner, None);
        loop {
            let (ids, next) = self.store.erasure().session_ids(owner, at).await?;
            if next.is_none() {
                break;
            }
            at = next;
            let deletions = ids.into_iter().filter_map(|id| SessionId::parse(&id));
            stream::iter(deletions.map(Ok::<_, ChatError>))
                .try_for_each_concurrent(SESSIONS, |id| async move {
                    match self.sessions.delete(owner, &id, None).await {
                        // It had expired.
                        Err(ChatError::SessionNotFound) => Ok(()),
                        done => done,
                    }
                })
                .await?;
        }
        Ok(self.store.erasure().finish(erasure).await?)
    }
}
