//! What is kept and how: the only place that spells a key of the `c:` family. docs/storage.md has the table.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::store::{Bytes, Store, StoreError};
use serde::Serialize;

use crate::domain::random_text;

pub mod accept;
pub mod control;
pub mod delete;
pub mod erasure;
pub mod finish;
pub mod keys;
pub mod reservations;
pub mod sessions;
pub mod turns;
pub mod usage;

/// How many times a change is tried against writers that keep coming first, before it counts as unavailable.
const ATTEMPTS: usize = 16;

/// How long what belongs to a running turn outlives an instance that never came back to it.
const RUNNING_TTL: Duration = Duration::from_secs(25 * 3600);

/// The repositories' common ground: a store, and how long things live in it.
#[derive(Clone)]
pub struct Repository {
    store: Store,
    instance: Arc<str>,
    session_ttl: Option<Duration>,
    lease: Duration,
}

impl Repository {
    /// A repository over that store. `session_ttl` is how long an unused session lives, `lease` how long a turn counts
    /// as alive after its instance last said so.
    pub fn new(store: Store, session_ttl: Option<Duration>, lease: Duration) -> Self {
        let instance = random_text(16).into();
        Self {
            store,
            instance,
            session_ttl,
            lease,
        }
    }

    /// The same repository, whose calls end by that time.
    #[must_use]
    pub fn by(&self, deadline: Instant) -> Self {
        Self {
            store: self.store.by(deadline),
            ..self.clone()
        }
    }

    /// This process among all that share the store.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether the holder of a lease may still run: on a store that no other process can have open, whoever held one
    /// before this process began is dead.
    fn may_live(&self, instance: &str) -> bool {
        self.store.is_shared() || *instance == *self.instance
    }

    /// How long a turn counts as alive after its instance last said so.
    pub fn lease(&self) -> Duration {
        self.lease
    }
}

/// A record as it is stored.
fn encode<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(record)
        .map(Into::into)
        .map_err(|error| StoreError::Corrupt(error.to_string()))
}
