//! Follows turns of other instances: one reader a turn, however many subscribe to it here.
//!
//! The instance that runs a turn sends its new events to the inboxes of those that watch it. The store is read where events are
//! missing, and where that instance says nothing any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::{identity::Owner, shutdown::Shutdown, store::StoreError};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    domain::{Ending, MessageId, SessionId, event::Event},
    events::{
        log::{EventLog, Subscriber},
        recovery::Recovery,
        replay::{Continuity, append_stored, history_events, read_stored},
    },
    store::{
        ChatStore,
        control::TurnProgress,
        turns::{LeaseHolder, TurnState},
    },
};

/// How often a turn is looked at whose instance is silent, or whose log has a gap.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A running turn's instance says something more often than this.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a log without subscribers is still followed.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct FollowedTurn {
    owner: Owner,
    session: SessionId,
    id: MessageId,
    log: Arc<EventLog>,
    state: Mutex<FollowState>,
    /// Notified when the store has events that the log lacks.
    behind: Notify,
}

#[derive(Debug)]
struct FollowState {
    /// The instance that runs it, as far as is known.
    holder: Option<String>,
    /// When that instance last said something of it.
    heard_at: Option<Instant>,
}

impl FollowedTurn {
    fn is_silent(&self) -> bool {
        let heard_at = self.state.lock().heard_at;
        heard_at.is_none_or(|at| at.elapsed() > SILENCE)
    }
}

/// What was read of a turn that is to be followed.
pub struct FollowStart {
    pub session: SessionId,
    pub log: Arc<EventLog>,
    /// Batches of stored events that the log holds.
    pub batches: usize,
    pub holder: LeaseHolder,
}

pub struct RemoteTail {
    store: ChatStore,
    recovery: Recovery,
    shutdown: Shutdown,
    turns: Mutex<HashMap<MessageId, Arc<FollowedTurn>>>,
    /// Notified when a turn gets its first subscriber here, or loses its last.
    watched_changed: Notify,
}

impl RemoteTail {
    pub fn new(store: ChatStore, recovery: Recovery, shutdown: Shutdown) -> Arc<Self> {
        let (turns, watched_changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { store, recovery, shutdown, turns, watched_changed })
    }

    pub fn is_following(&self) -> bool {
        !self.turns.lock().is_empty()
    }

    /// Resolves when [`Self::watched`] has changed.
    pub async fn watched_changed(&self) {
        self.watched_changed.notified().await;
    }

    /// The turns that have subscribers here, by the instances that run them; for some seconds also an instance of which none has
    /// any more.
    pub fn watched(&self) -> HashMap<String, Vec<MessageId>> {
        let mut watched: HashMap<String, Vec<MessageId>> = HashMap::new();
        for turn in self.turns.lock().values() {
            if let Some(holder) = turn.state.lock().holder.clone() {
                let of_holder = watched.entry(holder).or_default();
                of_holder.extend((turn.log.subscriber_count() > 0).then(|| turn.id.clone()));
            }
        }
        watched
    }

    /// Takes in what a turn's instance says of it.
    pub fn advance(&self, progress: &TurnProgress) {
        let Some(turn) = self.turns.lock().get(&progress.id).cloned() else { return };
        turn.state.lock().heard_at = Some(Instant::now());
        if let Some(events) = progress.events() {
            append_stored(&turn.log, events);
        }
        if turn.log.last_id() < progress.last_event_id {
            turn.behind.notify_one();
        }
    }

    /// A subscriber to a turn that is followed here already.
    pub fn subscribe(&self, owner: &Owner, id: &MessageId, after: u64) -> Option<Subscriber> {
        let turns = self.turns.lock();
        let turn = turns.get(id).filter(|turn| turn.owner == *owner)?;
        Some(turn.log.subscribe(after))
    }

    /// Follows a turn from what was read of it, and subscribes to the events after that id.
    pub fn follow(
        self: &Arc<Self>,
        owner: &Owner,
        id: &MessageId,
        start: FollowStart,
        after: u64,
    ) -> Subscriber {
        let FollowStart { session, log, mut batches, holder } = start;
        let mut turns = self.turns.lock();
        if let Some(followed) = turns.get(id) {
            return followed.log.subscribe(after);
        }
        let turn = Arc::new(FollowedTurn {
            owner: owner.clone(),
            session,
            id: id.clone(),
            log,
            state: Mutex::new(FollowState { holder: instance(holder), heard_at: None }),
            behind: Notify::new(),
        });
        turns.insert(id.clone(), Arc::clone(&turn));
        drop(turns);
        let subscriber = turn.log.subscribe(after);
        self.watched_changed.notify_one();
        let tail = Arc::clone(self);
        self.shutdown.spawn(async move {
            loop {
                let stops = tokio::select! {
                    () = tail.tail(&turn, &mut batches) => false,
                    () = tail.shutdown.stopping() => true,
                };
                if tail.forget(&turn, stops) {
                    turn.log.cut();
                    return;
                }
            }
        });
        subscriber
    }

    /// Forgets a turn, unless somebody has subscribed to it meanwhile and it has not ended.
    fn forget(&self, turn: &FollowedTurn, in_any_case: bool) -> bool {
        let mut turns = self.turns.lock();
        let forgotten = in_any_case || turn.log.has_ended() || turn.log.subscriber_count() == 0;
        if forgotten {
            turns.remove(&turn.id);
        }
        forgotten
    }

    async fn tail(&self, turn: &FollowedTurn, batches: &mut usize) {
        let mut subscribed_at = Instant::now();
        let (mut checked_at, mut gap) = (None::<Instant>, false);
        while !turn.log.has_ended() {
            let is_subscribed = turn.log.subscriber_count() > 0;
            if is_subscribed {
                subscribed_at = Instant::now();
            } else if subscribed_at.elapsed() > IDLE {
                return;
            }
            let is_known = turn.state.lock().holder.is_some();
            let is_behind = tokio::select! {
                () = turn.behind.notified() => true,
                () = turn.log.until_subscribed(!is_subscribed) => {
                    self.watched_changed.notify_one();
                    false
                }
                () = sleep(CHECK_INTERVAL), if is_known || checked_at.is_some() => false,
                () = std::future::ready(()), if !is_known && checked_at.is_none() => false,
            };
            // After a gap the log stands still: its text cannot be completed until the turn has ended.
            if is_behind
                && !gap
                && let Ok(read) =
                    read_stored(&self.store, &turn.owner, &turn.id, &turn.log, batches).await
            {
                gap = read == Continuity::Gap;
            }
            let is_due = checked_at.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL);
            if is_due && !turn.log.has_ended() && (gap || turn.is_silent()) {
                checked_at = Some(Instant::now());
                // While the store is away the log stands still; the next check tells.
                gap |= matches!(self.check(turn, batches).await, Ok(Continuity::Gap));
            }
        }
    }

    /// Looks at a turn in the store: reads its events, closes it if its instance is dead, and ends the log if the store has no
    /// more of it.
    async fn check(
        &self,
        turn: &FollowedTurn,
        batches: &mut usize,
    ) -> Result<Continuity, StoreError> {
        let (store, log) = (&self.store, &turn.log);
        let FollowedTurn { owner, session, id, .. } = turn;
        let found = store.turns().get(owner, session, id).await?;
        let read = read_stored(store, owner, id, log, batches).await?;
        let ending = match (found.session, found.state) {
            (None, _) => Some(Ending::session_deleted()),
            (Some(_), TurnState::Running { holder, .. }) => {
                if holder == LeaseHolder::Nobody {
                    self.recovery.close_dead(store, owner, session, id).await?;
                }
                turn.state.lock().holder = instance(holder);
                None
            }
            (Some(_), TurnState::Ended(record)) => {
                // The stored log ends in the same step as the turn: one without an end has lost events.
                if !log.has_ended() {
                    let events = history_events(store, owner, session, id, Some(record)).await?;
                    log.append(events.unwrap_or_default());
                }
                None
            }
            // Its acceptance was withdrawn, so it never ran and never will; or nobody knows any more.
            (Some(_), TurnState::Withdrawn | TurnState::Forgotten) => Some(Ending::interrupted()),
        };
        if let Some(ending) = ending {
            log.append([Event::end(ending, &Arc::from(""))]);
        }
        Ok(read)
    }
}

fn instance(holder: LeaseHolder) -> Option<String> {
    match holder {
        LeaseHolder::Instance(instance) => Some(instance),
        LeaseHolder::Unknown | LeaseHolder::Nobody => None,
    }
}
