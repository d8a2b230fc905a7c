//! Looks now and then whether the store may throw data away to make room, and says so.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use super::{Backend, Store, StoreError, call::call};
use crate::shutdown::Shutdown;

/// Between two looks: an operator's change is seen soon enough.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Between two looks while the store does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the last look found. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Eviction(Arc<ArcSwap<Policy>>);

#[derive(Debug, Default, PartialEq)]
enum Policy {
    #[default]
    NotAsked,
    Keeps,
    Evicts(String),
    /// It does not tell us, for this reason.
    Unknown(String),
}

impl Eviction {
    /// Starts looking, until the stop. Each change for the worse is one line in the log.
    pub fn watch(store: Store, shutdown: &Shutdown) -> Self {
        let found = Self::default();
        let here = found.clone();
        shutdown.spawn_until_stop(async move { here.look(&store).await });
        found
    }

    async fn look(&self, store: &Store) {
        loop {
            let found = match eviction_policy(store).await {
                Ok(Some(policy)) if policy == "noeviction" => Some(Policy::Keeps),
                Ok(Some(policy)) => Some(Policy::Evicts(policy)),
                Ok(None) if !store.is_shared() => Some(Policy::Keeps),
                Ok(None) => Some(Policy::Unknown("INFO does not hold it".to_owned())),
                Err(StoreError::Unavailable(why)) if why.starts_with("NOPERM") => {
                    Some(Policy::Unknown(why))
                }
                Err(_) => None,
            };
            let pause = if found.is_some() { LOOK_EVERY } else { LOOK_AGAIN };
            if let Some(found) = found {
                self.note(found);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, found: Policy) {
        if **self.0.load() == found {
            return;
        }
        match &found {
            Policy::NotAsked | Policy::Keeps => {}
            Policy::Evicts(policy) => tracing::warn!(
                maxmemory_policy = policy,
                "Redis may throw away conversations and accounts to make room: set maxmemory-policy to noeviction"
            ),
            Policy::Unknown(reason) => tracing::warn!(
                reason,
                "whether Redis may throw away data to make room is unknown: allow INFO, and see that maxmemory-policy is noeviction"
            ),
        }
        self.0.store(Arc::new(found));
    }

    /// For a readiness report that gates nothing.
    ///
    /// # Errors
    /// The policy, where it may lose data, or why it is not known.
    pub fn check(&self) -> Result<(), String> {
        match &**self.0.load() {
            Policy::Evicts(policy) => {
                Err(format!("maxmemory-policy is {policy}: data may be lost, set it to noeviction"))
            }
            Policy::Unknown(_) => {
                Err("unknown: Redis does not tell its maxmemory-policy".to_owned())
            }
            Policy::NotAsked => Err("unknown: the store has not answered yet".to_owned()),
            Policy::Keeps => Ok(()),
        }
    }
}

/// What the store does when it is full, as Redis names it; `None` where it has no such policy.
async fn eviction_policy(store: &Store) -> Result<Option<String>, StoreError> {
    let end = store.end();
    match &store.backend {
        Backend::Redis(redis) => call("info", end, Box::pin(redis.eviction_policy(end))).await,
        Backend::Embedded(..) => Ok(None),
    }
}

/// A sentence if the store may throw data away to make room (Redis' `maxmemory-policy`); `None` also where it cannot be asked.
pub async fn eviction_warning(store: &Store) -> Option<String> {
    let policy = eviction_policy(store).await.ok()??;
    (policy != "noeviction").then(|| {
        format!("Redis may throw away conversations to make room: maxmemory-policy is {policy}, set it to noeviction")
    })
}
