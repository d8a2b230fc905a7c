//! Turns that run on other instances, followed through the store: one reader a turn, however many watch it here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{
    errors::Code,
    identity::Owner,
    store::{Bytes, StoreError},
};
use tokio::time::{Instant, sleep};

use crate::{
    domain::{
        MessageId, SessionId, Usage,
        event::{Event, Kind},
        records::{Ending, OpenTurn},
    },
    events::log::{EventLog, Watch},
    generation::answer_builder::{ServedBy, Texts, answer_record},
    store::{
        Repository,
        finish::{Finish, Finished},
        turns::{Holder, TurnState},
    },
    turns::service::Turns,
};

/// How often a followed log is read.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// How often it is said that the turn is watched, and looked whether its instance lives.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long a log that nobody watches any more is still followed.
const IDLE: Duration = Duration::from_secs(5);

/// The logs that are followed here.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    logs: Mutex<HashMap<(Owner, MessageId), Arc<EventLog>>>,
}

impl Follower {
    fn logs(&self) -> MutexGuard<'_, HashMap<(Owner, MessageId), Arc<EventLog>>> {
        // Single insertions and removals: nothing is left half done by a panic.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader of that turn's log, if it is followed here.
    pub(crate) fn watch(&self, owner: &Owner, id: &MessageId, after: u64) -> Option<Watch> {
        let logs = self.logs();
        Some(logs.get(&(owner.clone(), id.clone()))?.watch(after))
    }

    /// Forgets a log, unless somebody has begun to read it and it has no ending yet.
    fn forget(&self, key: &(Owner, MessageId), log: &EventLog, whatever: bool) -> bool {
        let mut logs = self.logs();
        let forgotten = whatever || log.has_ended() || log.watchers() == 0;
        if forgotten {
            logs.remove(key);
        }
        forgotten
    }
}

/// Puts the events of stored batches into a log; returns nothing new for those that it has.
pub(crate) fn replay(log: &EventLog, batches: &[Bytes]) {
    let lines = batches
        .iter()
        .filter_map(|batch| std::str::from_utf8(batch).ok())
        .flat_map(str::lines);
    let mut last = log.last_id();
    let events: Vec<Event> = lines
        .filter_map(Event::from_line)
        .filter_map(|(id, event)| {
            let is_next = id == last + 1;
            last += u64::from(is_next);
            is_next.then_some(event)
        })
        .collect();
    log.append(events);
}

impl Turns {
    /// Follows a turn of another instance; `log` holds what was read of it so far, out of that many batches. Gives a
    /// reader of what comes after that id.
    pub(crate) fn follow(
        self: &Arc<Self>,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        log: Arc<EventLog>,
        (batches, after): (usize, u64),
    ) -> Watch {
        let key = (owner.clone(), id.clone());
        let mut logs = self.follower.logs();
        if let Some(followed) = logs.get(&key) {
            return followed.watch(after);
        }
        logs.insert(key.clone(), Arc::clone(&log));
        drop(logs);
        let watch = log.watch(after);
        let (turns, followed, session) = (Arc::clone(self), Arc::clone(&log), session.clone());
        self.shutdown.spawn(async move {
            let mut batches = batches;
            loop {
                let stops = tokio::select! {
                    () = turns.follow_log(&key.0, &session, &key.1, &followed, &mut batches) => false,
                    () = turns.shutdown.stopping() => true,
                };
                if turns.follower.forget(&key, &followed, stops) {
                    followed.cut();
                    return;
                }
            }
        });
        watch
    }

    async fn follow_log(
        self: &Arc<Self>,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        log: &EventLog,
        batches: &mut usize,
    ) {
        let mut watched_at = Instant::now();
        let mut looked_at: Option<Instant> = None;
        while !log.has_ended() {
            if log.watchers() > 0 {
                watched_at = Instant::now();
            } else if watched_at.elapsed() > IDLE {
                return;
            }
            if let Ok(read) = self.repository.batches(owner, id, *batches).await {
                *batches += read.len();
                replay(log, &read);
            }
            if looked_at.is_none_or(|at| at.elapsed() > LOOK_PAUSE) {
                looked_at = Some(Instant::now());
                // While the store is away the log stands still; the next look tells.
                let _ = self.look_after(owner, session, id, log, *batches).await;
            }
            sleep(READ_PAUSE).await;
        }
    }

    /// Says that the turn is watched; closes it if its instance is dead; ends the log where the store has no more of it.
    async fn look_after(
        self: &Arc<Self>,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        log: &EventLog,
        batches: usize,
    ) -> Result<(), StoreError> {
        if log.watchers() > 0 {
            self.repository.say_watched(owner, id).await?;
        }
        let stored = self.repository.turn(owner, session, id, false).await?;
        let ending = match (stored.session, stored.state) {
            (None, _) => Some(Ending::Error {
                code: Code::SessionNotFound,
                detail: "The session was deleted while it was answered.".into(),
            }),
            (Some(_), TurnState::Running { holder, .. }) => {
                if holder == Holder::Nobody {
                    self.close_dead(&self.repository, owner, session, id)
                        .await?;
                }
                None
            }
            (Some(_), TurnState::Ended(record)) => record.ending,
            // Its acceptance was taken back, so that it never ran and never will; or nobody knows any more.
            (Some(_), TurnState::Withdrawn | TurnState::Forgotten) => Some(Ending::interrupted()),
        };
        if let Some(ending) = ending {
            // The log's own ending is stored in the same step as the record's: only a log that is gone lacks it.
            replay(log, &self.repository.batches(owner, id, batches).await?);
            log.append([Event::ending(&ending, "")]);
        }
        Ok(())
    }

    /// Closes a turn whose instance is dead as interrupted, keeping what its log has of the answer.
    pub(crate) async fn close_dead(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        session_id: &SessionId,
        id: &MessageId,
    ) -> Result<(), StoreError> {
        let Some(session) = repository.view(owner, session_id, 0).await?.session else {
            return Ok(());
        };
        let Some(open) = session.open.clone().filter(|open| open.id == *id) else {
            return Ok(());
        };
        let log = EventLog::new();
        replay(&log, &repository.batches(owner, id, 0).await?);
        let texts = Texts::of(&log);
        let ending = Ending::interrupted();
        let event = Event::ending(&ending, "");
        let mut lines = String::new();
        Event::write_line(log.last_id() + 1, Kind::Lost, &event.data, &mut lines);
        let usage = self.usage_of_dead(&open, &texts);
        let answer = answer_record(&open, ServedBy::asked(&open), texts, usage, &ending);
        let session_id = session_id.clone();
        let finish = Finish {
            session_id,
            session,
            open,
            answer,
            ending,
            usage,
            lines,
            dead: true,
        };
        if let Finished::Yes(_) = repository.finish(owner, &finish).await? {
            metrics::counter!("chat_turns_closed_for_dead_instances_total").increment(1);
        }
        Ok(())
    }

    /// What can still be seen of what it cost: its prompt went with its instance.
    fn usage_of_dead(&self, open: &OpenTurn, texts: &Texts) -> Usage {
        let written = self.estimates.tokens(&open.model, &texts.answer)
            + self.estimates.tokens(&open.model, &texts.thinking);
        Usage {
            prompt_tokens: 0,
            completion_tokens: u64::from(written),
        }
    }
}
