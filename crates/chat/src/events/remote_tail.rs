//! Follows turns of other instances through the store: one reader a turn, however many subscribe to it here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{identity::Owner, shutdown::Shutdown, store::StoreError};
use tokio::time::{Instant, sleep};

use crate::{
    domain::{Ending, MessageId, SessionId, event::Event},
    events::{
        log::{EventLog, Subscriber},
        recovery::Recovery,
        replay::{Continuity, append_stored, history_events},
    },
    store::{
        ChatStore,
        events::StoredEvents,
        turns::{LeaseHolder, TurnState},
    },
};

/// How often a followed log is read.
const READ_INTERVAL: Duration = Duration::from_millis(50);

/// How often the turn is marked as watched, and its instance's lease is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a log without subscribers is still followed.
const IDLE: Duration = Duration::from_secs(5);

type Key = (Owner, MessageId);

/// The turns that are followed here.
pub struct RemoteTail {
    store: ChatStore,
    recovery: Recovery,
    shutdown: Shutdown,
    logs: Mutex<HashMap<Key, Arc<EventLog>>>,
}

impl RemoteTail {
    pub fn new(store: ChatStore, recovery: Recovery, shutdown: Shutdown) -> Arc<Self> {
        let logs = Mutex::default();
        Arc::new(Self {
            store,
            recovery,
            shutdown,
            logs,
        })
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<Key, Arc<EventLog>>> {
        // Single insertions and removals: a panic leaves nothing half done.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscriber to a turn that is followed here already.
    pub fn subscribe(&self, owner: &Owner, id: &MessageId, after: u64) -> Option<Subscriber> {
        let logs = self.logs();
        Some(logs.get(&(owner.clone(), id.clone()))?.subscribe(after))
    }

    /// Follows a turn from what was read of it, and subscribes to the events after that id.
    pub fn follow(
        self: &Arc<Self>,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        stored: StoredEvents,
        after: u64,
    ) -> Subscriber {
        let key = (owner.clone(), id.clone());
        let mut logs = self.logs();
        if let Some(followed) = logs.get(&key) {
            return followed.subscribe(after);
        }
        let log = EventLog::new();
        let mut batches = stored.batches;
        append_stored(&log, stored);
        logs.insert(key.clone(), Arc::clone(&log));
        drop(logs);
        let subscriber = log.subscribe(after);
        let (tail, session) = (Arc::clone(self), session.clone());
        self.shutdown.spawn(async move {
            loop {
                let stops = tokio::select! {
                    () = tail.tail(&key, &session, &log, &mut batches) => false,
                    () = tail.shutdown.stopping() => true,
                };
                if tail.forget(&key, &log, stops) {
                    log.cut();
                    return;
                }
            }
        });
        subscriber
    }

    /// Forgets a log, unless somebody has subscribed to it meanwhile and it has not ended.
    fn forget(&self, key: &Key, log: &EventLog, in_any_case: bool) -> bool {
        let mut logs = self.logs();
        let forgotten = in_any_case || log.has_ended() || log.subscriber_count() == 0;
        if forgotten {
            logs.remove(key);
        }
        forgotten
    }

    async fn tail(&self, key: &Key, session: &SessionId, log: &EventLog, batches: &mut usize) {
        let mut subscribed_at = Instant::now();
        let mut checked_at: Option<Instant> = None;
        let mut gap = false;
        while !log.has_ended() {
            if log.subscriber_count() > 0 {
                subscribed_at = Instant::now();
            } else if subscribed_at.elapsed() > IDLE {
                return;
            }
            // After a gap the log stands still: its text cannot be completed until the turn has ended.
            if !gap && let Ok(stored) = self.store.turns().events(&key.0, &key.1, *batches).await {
                *batches += stored.batches;
                gap = append_stored(log, stored) == Continuity::Gap;
            }
            if checked_at.is_none_or(|at| at.elapsed() > CHECK_INTERVAL) {
                checked_at = Some(Instant::now());
                // While the store is away the log stands still; the next check tells.
                let _ = self.check(key, session, log, *batches).await;
            }
            sleep(READ_INTERVAL).await;
        }
    }

    /// Marks the turn as watched, closes it if its instance is dead, and ends the log if the store has no more of it.
    async fn check(
        &self,
        (owner, id): &Key,
        session: &SessionId,
        log: &EventLog,
        batches: usize,
    ) -> Result<(), StoreError> {
        if log.subscriber_count() > 0 {
            self.store.control().mark_watched(owner, id).await?;
        }
        let turn = self.store.turns().get(owner, session, id).await?;
        let ending = match (turn.session, turn.state) {
            (None, _) => Some(Ending::session_deleted()),
            (Some(_), TurnState::Running { holder, .. }) => {
                if holder == LeaseHolder::Nobody {
                    self.recovery
                        .close_dead(&self.store, owner, session, id)
                        .await?;
                }
                None
            }
            (Some(_), TurnState::Ended(record)) => {
                // The stored log ends in the same step as the turn: one without an end has lost events.
                append_stored(log, self.store.turns().events(owner, id, batches).await?);
                if !log.has_ended() {
                    let events =
                        history_events(&self.store, owner, session, id, Some(record)).await?;
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
        Ok(())
    }
}
