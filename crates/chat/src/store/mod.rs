//! The `c:` keys and their encoding; docs/storage.md lists them. No other module spells a key or sees stored bytes.
//!
//! Every call fails with [`StoreError::Unavailable`] where the store does not answer; what else can go wrong is said with it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::store::{Store, StoreError};

use crate::domain::random_text;

pub mod accept;
mod codec;
pub mod concurrency;
pub mod control;
mod counters;
pub mod delete;
pub mod erasure;
pub mod events;
pub mod finish;
mod keys;
mod message_sizes;
pub mod messages;
pub mod reservation;
pub mod reservations;
pub mod session_list;
pub mod sessions;
pub mod turns;
pub mod usage;

use concurrency::ConcurrencyStore;
use control::ControlStore;
use erasure::ErasureStore;
use reservations::ReservationStore;
use sessions::SessionStore;
use turns::TurnStore;

#[cfg(test)]
mod turn_tests;

/// How many times a change is tried against concurrent writers before it counts as unavailable.
const ATTEMPTS: usize = 16;

/// The first check of each step that begins something is of the caller's credential.
const IDENTITY_CHECK: usize = 0;

/// How long keys of a running turn outlive an instance that never came back to it.
const RUNNING_TTL: Duration = Duration::from_secs(25 * 3600);

/// Access to everything that this service stores. Cheap to clone.
#[derive(Clone)]
pub struct ChatStore {
    context: StoreContext,
}

#[derive(Clone)]
struct StoreContext {
    store: Store,
    /// This process among all that share the store.
    instance: Arc<str>,
    session_ttl: Option<Duration>,
    lease: Duration,
}

impl ChatStore {
    /// `session_ttl` is how long an unused session lives, `lease` how long a turn counts as alive after its instance last renewed it.
    pub fn new(store: Store, session_ttl: Option<Duration>, lease: Duration) -> Self {
        let instance = random_text(16).into();
        Self { context: StoreContext { store, instance, session_ttl, lease } }
    }

    /// The same store, whose calls end by that time.
    #[must_use]
    pub fn by(&self, deadline: Instant) -> Self {
        let store = self.context.store.by(deadline);
        Self { context: StoreContext { store, ..self.context.clone() } }
    }

    /// When a call that begins now must have ended.
    pub fn end(&self) -> Instant {
        self.context.store.end()
    }

    /// This process among all that share the store.
    pub fn instance(&self) -> &str {
        &self.context.instance
    }

    /// The store's clock, as far as it is known: Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.context.store.clock().now_ms()
    }

    /// Whether other instances may use it at the same time.
    pub fn is_shared(&self) -> bool {
        self.context.store.is_shared()
    }

    /// Whether the node with this instance's inbox was away so recently that what other instances had to write there may be missing.
    pub fn inbox_was_away(&self, time: Duration) -> bool {
        let inbox = keys::inbox(&self.context.instance);
        self.context.store.was_away(&inbox, time)
    }

    /// How long a turn counts as alive after its instance last renewed its lease.
    pub fn lease(&self) -> Duration {
        self.context.lease
    }

    pub fn sessions(&self) -> SessionStore<'_> {
        SessionStore { context: &self.context }
    }

    pub fn turns(&self) -> TurnStore<'_> {
        TurnStore { context: &self.context }
    }

    pub fn reservations(&self) -> ReservationStore<'_> {
        ReservationStore { context: &self.context }
    }

    pub fn control(&self) -> ControlStore<'_> {
        ControlStore { context: &self.context }
    }

    pub fn concurrency(&self) -> ConcurrencyStore<'_> {
        ConcurrencyStore { context: &self.context }
    }

    pub fn erasure(&self) -> ErasureStore<'_> {
        ErasureStore { context: &self.context }
    }
}

impl StoreContext {
    /// Whether the holder of a lease may still run: on a store that no other process can have open, whoever held one
    /// before this process began is dead.
    fn may_live(&self, instance: &str) -> bool {
        self.store.is_shared() || *instance == *self.instance
    }
}

/// Others kept changing the session first, more often than chance explains.
fn contended() -> StoreError {
    StoreError::Unavailable("a session kept changing during an update".into())
}

/// A count as the store's counters hold it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
