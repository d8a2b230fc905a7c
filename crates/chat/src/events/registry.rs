//! The turns that run on this instance.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::identity::Owner;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{MessageId, OpenTurn, SessionId, StopReason},
    events::log::EventLog,
};

/// Stops remembered for turns that have not started yet; the newest are kept.
const EARLY_STOPS: usize = 1024;

/// For how long another instance counts as watching a turn after it last said so.
const WATCHED_FOR: Duration = Duration::from_secs(3);

/// How often those who watch a turn are told how far it is, also where nothing is new.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A turn that runs here: its log, its lease and what stops it.
#[derive(Debug)]
pub struct RunningTurn {
    pub owner: Owner,
    pub session_id: SessionId,
    pub open: OpenTurn,
    pub log: Arc<EventLog>,
    /// The last event that is known to be stored.
    replicated: AtomicU64,
    stopped: CancellationToken,
    reason: OnceLock<StopReason>,
    lease_renewed: Mutex<Instant>,
    watchers: Mutex<RemoteWatchers>,
}

/// The other instances on which a turn has subscribers.
#[derive(Debug, Default)]
struct RemoteWatchers {
    /// When each of them last said so.
    seen: HashMap<String, Instant>,
    /// When one that is not among them any more had subscribers last.
    left_at: Option<Instant>,
    /// When they were last told how far the turn has come.
    told_at: Option<Instant>,
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
            watchers: Mutex::default(),
        }
    }

    pub fn id(&self) -> &MessageId {
        &self.open.id
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
        *self.lease_renewed.lock()
    }

    pub fn set_lease_renewed(&self, at: Instant) {
        *self.lease_renewed.lock() = at;
    }

    /// Notes whether the turn has subscribers on that instance.
    fn watch(&self, instance: &str, is_watched: bool) {
        let (now, mut watchers) = (Instant::now(), self.watchers.lock());
        if !is_watched {
            let known = watchers.seen.remove(instance);
            watchers.left_at = known.map(|_| now).or(watchers.left_at);
        } else if watchers.seen.insert(instance.to_owned(), now).is_none() {
            watchers.told_at = None;
        }
    }

    /// The instances on which the turn has subscribers.
    pub fn watching_instances(&self) -> Vec<String> {
        let mut watchers = self.watchers.lock();
        let silent = watchers.seen.extract_if(|_, at| at.elapsed() >= WATCHED_FOR);
        let last = silent.map(|(_, at)| at).max();
        watchers.left_at = watchers.left_at.max(last);
        watchers.seen.keys().cloned().collect()
    }

    /// When the last of the other instances that no longer watch it did so, as far as is known.
    pub fn watched_elsewhere_until(&self) -> Option<Instant> {
        self.watchers.lock().left_at
    }

    /// Whether whoever watches it must be told something now, if only that it runs.
    pub fn owes_progress(&self, has_news: bool) -> bool {
        let mut watchers = self.watchers.lock();
        let is_due =
            has_news || watchers.told_at.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if is_due {
            watchers.told_at = Some(Instant::now());
        }
        is_due
    }
}

/// The turns that run here, by their answers' ids.
#[derive(Debug, Default)]
pub struct Registry {
    turns: Mutex<HashMap<MessageId, Arc<RunningTurn>>>,
    /// Stops for turns that are not here: another instance may ask for one between a turn's acceptance and its start.
    early_stops: Mutex<VecDeque<(MessageId, StopReason)>>,
    added: Notify,
    /// When the last successful read of the inbox began.
    inbox_read: watch::Sender<Option<Instant>>,
}

impl Registry {
    pub fn all(&self) -> Vec<Arc<RunningTurn>> {
        self.turns.lock().values().cloned().collect()
    }

    /// That turn, if it runs here and belongs to that owner.
    pub fn get(&self, owner: &Owner, id: &MessageId) -> Option<Arc<RunningTurn>> {
        let turns = self.turns.lock();
        turns.get(id).filter(|turn| turn.owner == *owner).cloned()
    }

    /// Stops a turn, whoever it belongs to; for requests of other instances, which have checked that.
    pub fn stop(&self, id: &MessageId, reason: StopReason) {
        // Held over the look: whoever adds the turn after it finds the stop.
        let mut early = self.early_stops.lock();
        let turn = self.turns.lock().get(id).cloned();
        match turn {
            Some(turn) => turn.stop(reason),
            None => {
                early.push_back((id.clone(), reason));
                let excess = early.len().saturating_sub(EARLY_STOPS);
                early.drain(..excess);
            }
        }
    }

    /// Notes that these turns, and no others, have subscribers on that instance.
    pub fn watch(&self, instance: &str, ids: &[MessageId]) {
        let ids: HashSet<&MessageId> = ids.iter().collect();
        for (id, turn) in &*self.turns.lock() {
            turn.watch(instance, ids.contains(id));
        }
    }

    pub fn set_inbox_read(&self, begun: Instant) {
        self.inbox_read.send_replace(Some(begun));
    }

    /// Resolves when everything is known that other instances said until now.
    pub async fn inbox_current(&self) {
        let now = Instant::now();
        let mut read = self.inbox_read.subscribe();
        // The sender lives as long as this.
        let _ = read.wait_for(|at| at.is_some_and(|at| at >= now)).await;
    }

    pub fn add(&self, turn: &Arc<RunningTurn>) {
        self.turns.lock().insert(turn.id().clone(), Arc::clone(turn));
        metrics::gauge!("chat_turns_running").increment(1.0);
        let early = self.early_stops.lock().iter().find(|(id, _)| id == turn.id()).cloned();
        if let Some((_, reason)) = early {
            turn.stop(reason);
        }
        self.added.notify_waiters();
    }

    pub fn remove(&self, id: &MessageId) {
        if self.turns.lock().remove(id).is_some() {
            metrics::gauge!("chat_turns_running").decrement(1.0);
        }
    }

    pub async fn not_empty(&self) {
        loop {
            let added = self.added.notified();
            if !self.turns.lock().is_empty() {
                return;
            }
            added.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;

    fn turn() -> Arc<RunningTurn> {
        let owner = Owner { user: UserId::parse("alice").unwrap(), generation: 0 };
        let open = OpenTurn {
            id: MessageId::new("h2k9w0qzs1ab", 1),
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
        Arc::new(RunningTurn::new(owner, SessionId::default_session(), open))
    }

    #[tokio::test]
    async fn a_stop_that_comes_before_its_turn_is_not_lost() {
        let (registry, turn) = (Registry::default(), turn());
        registry.stop(turn.id(), StopReason::Cancelled);
        registry.add(&turn);
        assert_eq!(turn.stopped().await, StopReason::Cancelled);
    }

    /// The inbox is read on another thread than the one on which a turn starts.
    #[test]
    fn a_stop_that_comes_while_its_turn_starts_is_not_lost() {
        let (registry, turn) = (Registry::default(), turn());
        std::thread::scope(|scope| {
            // What `add` does, in slow motion: no stop is there, and the turn is.
            let early = registry.early_stops.lock();
            scope.spawn(|| registry.stop(turn.id(), StopReason::Cancelled));
            std::thread::sleep(Duration::from_millis(50));
            registry.turns.lock().insert(turn.id().clone(), Arc::clone(&turn));
            assert!(early.is_empty());
            drop(early);
        });
        assert!(turn.reason.get().is_some());
    }
}
