//! Looks now and then whether the store may throw data away to make room, and says so.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use super::Store;
use crate::shutdown::Shutdown;

/// Between two looks: an operator's change is seen soon enough.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Between two looks while the store does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the last look found. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Eviction(Arc<ArcSwapOption<String>>);

impl Eviction {
    /// Starts looking, until the stop. Each change for the worse is one line in the log.
    pub fn watch(store: Store, shutdown: &Shutdown) -> Self {
        let found = Self::default();
        let (here, stop) = (found.clone(), shutdown.stop_token());
        drop(shutdown.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = here.look(&store) => {}
            }
        }));
        found
    }

    async fn look(&self, store: &Store) {
        loop {
            let pause = match store.eviction_policy().await {
                Ok(policy) => {
                    self.note(policy);
                    LOOK_EVERY
                }
                Err(_) => LOOK_AGAIN,
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, policy: Option<String>) {
        let evicts = policy.filter(|policy| policy != "noeviction");
        if let Some(policy) = &evicts
            && self.0.load().as_deref() != Some(policy)
        {
            tracing::warn!(
                maxmemory_policy = policy,
                "Redis may throw away conversations and accounts to make room: set maxmemory-policy to noeviction"
            );
        }
        self.0.store(evicts.map(Arc::new));
    }

    /// For a readiness report that gates nothing.
    ///
    /// # Errors
    /// The policy, where it may lose data.
    pub fn check(&self) -> Result<(), String> {
        match &*self.0.load() {
            Some(policy) => Err(format!(
                "maxmemory-policy is {policy}: data may be lost, set it to noeviction"
            )),
            None => Ok(()),
        }
    }
}
