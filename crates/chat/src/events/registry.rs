//! The turns that run on this instance.

use std::{
    collections::{HashMap, VecDeque},
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

/// Stops remembered for turns that have not started yet; the newest are kept.
const EARLY_STOPS: usize = 1024;

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
    /// Stops for turns that are not here: another instance may ask for one between a turn's acceptance and its start.
    early_stops: Mutex<VecDeque<(MessageId, StopReason)>>,
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
        match turn {
            Some(turn) => turn.stop(reason),
            None => {
                let mut early = self.early_stops();
                early.push_back((id.clone(), reason));
                let excess = early.len().saturating_sub(EARLY_STOPS);
                early.drain(..excess);
            }
        }
    }

    fn early_stops(&self) -> MutexGuard<'_, VecDeque<(MessageId, StopReason)>> {
        self.early_stops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, turn: &Arc<RunningTurn>) {
        self.turns().insert(turn.id().clone(), Arc::clone(turn));
        metrics::gauge!("chat_turns_running").increment(1.0);
        let early = self
            .early_stops()
            .iter()
            .find(|(id, _)| id == turn.id())
            .map(|(_, reason)| *reason);
        if let Some(reason) = early {
            turn.stop(reason);
        }
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

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;

    #[tokio::test]
    async fn a_stop_that_comes_before_its_turn_is_not_lost() {
        let registry = Registry::default();
        let owner = Owner {
            user: UserId::parse("alice").unwrap(),
            generation: 0,
        };
        let id = MessageId::new("h2k9w0qzs1ab", 1);
        let open = OpenTurn {
            id: id.clone(),
            fence: 1,
            reply_to: MessageId::new("h2k9w0qzs1ab", 0),
            replaces: None,
            regenerates: false,
            model: "m".into(),
            provider: "demo".into(),
            keyed: false,
            reserved: 0,
            prompt: 0,
            day: "20260101".into(),
            window: 8192,
        };
        registry.stop(&id, StopReason::Cancelled);
        let turn = Arc::new(RunningTurn::new(owner, SessionId::default_session(), open));
        registry.add(&turn);
        assert_eq!(turn.stopped().await, StopReason::Cancelled);
    }
}
