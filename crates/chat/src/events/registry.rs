//! The turns that run on this instance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use common::identity::Owner;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{MessageId, OpenTurn, SessionId, StopReason},
    events::log::EventLog,
};

/// A turn that runs here: its log, its lease and what stops it.
#[derive(Debug)]
pub struct RunningTurn {
    owner: Owner,
    session_id: SessionId,
    open: OpenTurn,
    log: Arc<EventLog>,
    /// The last event that is known to be stored.
    replicated: AtomicU64,
    stopped: CancellationToken,
    reason: OnceLock<StopReason>,
    lease_renewed: Mutex<Instant>,
}

impl RunningTurn {
    /// A turn that was just accepted, with an empty log.
    pub fn new(owner: Owner, session_id: SessionId, open: OpenTurn) -> Self {
        Self {
            owner,
            session_id,
            open,
            log: EventLog::new(),
            replicated: AtomicU64::new(0),
            stopped: CancellationToken::new(),
            reason: OnceLock::new(),
            lease_renewed: Mutex::new(Instant::now()),
        }
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    pub fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// The answer's id.
    pub fn id(&self) -> &MessageId {
        &self.open.id
    }

    pub fn open(&self) -> &OpenTurn {
        &self.open
    }

    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// Ends it; the first reason given holds.
    pub fn stop(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.stopped.cancel();
    }

    /// Resolves when it is to end, with the reason.
    pub async fn stopped(&self) -> StopReason {
        self.stopped.cancelled().await;
        self.reason.get().copied().unwrap_or(StopReason::Cancelled)
    }

    /// The id of the last event that is known to be stored.
    pub fn replicated(&self) -> u64 {
        self.replicated.load(Ordering::SeqCst)
    }

    pub fn set_replicated(&self, last_id: u64) {
        self.replicated.fetch_max(last_id, Ordering::SeqCst);
    }

    pub fn lease_renewed_at(&self) -> Instant {
        *self
            .lease_renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_lease_renewed(&self, at: Instant) {
        *self
            .lease_renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// The turns that run here, by their answers' ids.
#[derive(Debug, Default)]
pub struct Registry {
    turns: Mutex<HashMap<MessageId, Arc<RunningTurn>>>,
    added: Notify,
}

impl Registry {
    fn turns(&self) -> MutexGuard<'_, HashMap<MessageId, Arc<RunningTurn>>> {
        // Single insertions and removals: a panic leaves nothing half done.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Arc<RunningTurn>> {
        self.turns().values().cloned().collect()
    }

    /// That turn, if it runs here and belongs to that owner.
    pub fn get(&self, owner: &Owner, id: &MessageId) -> Option<Arc<RunningTurn>> {
        let turns = self.turns();
        turns.get(id).filter(|turn| turn.owner == *owner).cloned()
    }

    /// Stops a turn, whoever it belongs to; for requests of other instances, which have checked that.
    pub fn stop(&self, id: &MessageId, reason: StopReason) {
        let turn = self.turns().get(id).cloned();
        if let Some(turn) = turn {
            turn.stop(reason);
        }
    }

    pub fn add(&self, turn: &Arc<RunningTurn>) {
        self.turns().insert(turn.id().clone(), Arc::clone(turn));
        metrics::gauge!("chat_turns_running").increment(1.0);
        self.added.notify_one();
    }

    pub fn remove(&self, id: &MessageId) {
        if self.turns().remove(id).is_some() {
            metrics::gauge!("chat_turns_running").decrement(1.0);
        }
    }

    /// Resolves when a turn runs here.
    pub async fn not_empty(&self) {
        while self.turns().is_empty() {
            self.added.notified().await;
        }
    }
}
