//! Rebuilds a log from stored events.

use std::sync::Arc;

use common::{identity::Owner, store::StoreError};

use crate::{
    domain::{
        Ending, MessageId, Role, SessionId,
        event::{Event, RECOVERY_GAP, Start},
    },
    events::log::EventLog,
    store::{ChatStore, events::StoredEvents, turns::TurnRecord},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    Complete,
    /// Events between the log's last and the next stored one are missing: the store lost them. Nothing after the gap was appended.
    Gap,
}

/// Appends stored events to a log, but for those that it has, up to the first gap.
pub fn append_stored(log: &EventLog, stored: StoredEvents) -> Continuity {
    let mut last = log.last_id();
    let mut next = Vec::with_capacity(stored.events.len());
    let mut continuity = Continuity::Complete;
    for (id, event) in stored.events {
        let is_end = matches!(event, Event::End(_));
        if id == last + 1 || is_end && id == last + RECOVERY_GAP {
            last = id;
            next.push(event);
        } else if id > last {
            continuity = Continuity::Gap;
            break;
        }
    }
    log.append(next);
    continuity
}

/// Appends what is stored of a turn's events from that batch on, piece by piece, and counts the batches. Stops at a gap.
///
/// # Errors
/// [`StoreError::Unavailable`]: what was read before is appended.
pub async fn read_stored(
    store: &ChatStore,
    owner: &Owner,
    id: &MessageId,
    log: &EventLog,
    batches: &mut usize,
) -> Result<Continuity, StoreError> {
    loop {
        let stored = store.turns().events(owner, id, *batches).await?;
        let more = stored.more;
        *batches += stored.batches;
        match append_stored(log, stored) {
            Continuity::Complete if more => {}
            continuity => return Ok(continuity),
        }
    }
}

/// An answer from the history, for a log that cannot be completed or is gone: `start` with `reset`, the whole text, the ending.
/// `None` where the owner has no such answer.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn history_events(
    store: &ChatStore,
    owner: &Owner,
    session: &SessionId,
    id: &MessageId,
    record: Option<TurnRecord>,
) -> Result<Option<Vec<Event>>, StoreError> {
    let message = store.sessions().messages(owner, session).by_id(id).await?;
    let message = message.filter(|message| message.role == Role::Assistant);
    let info = message.as_ref().and_then(|message| message.answer.as_ref());
    let (ending, model, provider) = match (record, info) {
        (Some(TurnRecord { ending: Some(ending), model, provider, .. }), _) => {
            (ending, model, provider)
        }
        (_, Some(info)) => (Ending::of_answer(info), info.model.clone(), info.provider.clone()),
        _ => return Ok(None),
    };
    let mut events = vec![Event::Start(Start {
        message_id: id.clone(),
        session_id: session.clone(),
        user_id: owner.user.to_string(),
        model,
        provider,
        reset: true,
    })];
    if let Some(message) = message {
        events.extend(message.thinking.map(Event::Thinking));
        events.push(Event::Token(message.content));
    }
    events.push(Event::end(ending, &Arc::from("")));
    Ok(Some(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_not_continued_over_a_gap() {
        let log = EventLog::new();
        let token = |id: u64| (id, Event::Token(id.to_string()));
        let stored = |ids: &[u64]| StoredEvents {
            batches: 1,
            events: ids.iter().map(|id| token(*id)).collect(),
            more: false,
        };
        assert_eq!(append_stored(&log, stored(&[1, 2])), Continuity::Complete);
        assert_eq!(append_stored(&log, stored(&[1, 2, 3])), Continuity::Complete, "repeated");
        assert_eq!(append_stored(&log, stored(&[6, 7])), Continuity::Gap);
        assert_eq!(log.last_id(), 3);
    }
}
