//! Finds a turn again: here, on another instance, in its stored events, or in the history.

use std::sync::Arc;

use common::{identity::Owner, store::StoreError};

use crate::{
    domain::{
        Ending, Message, MessageId, Role, SessionId, StopReason,
        error::ChatError,
        event::{Event, Start},
    },
    events::{
        log::{EventLog, Subscriber},
        recovery::Recovery,
        registry::Registry,
        remote_tail::RemoteTail,
        replay::append_stored,
    },
    store::{
        ChatStore,
        control::InboxRequest,
        turns::{LeaseHolder, TurnRecord, TurnState},
    },
};

/// Finds turns by their answers' ids.
pub(super) struct TurnFinder {
    store: ChatStore,
    registry: Arc<Registry>,
    tail: Arc<RemoteTail>,
    recovery: Recovery,
}

impl TurnFinder {
    pub(super) fn new(
        store: ChatStore,
        registry: Arc<Registry>,
        tail: Arc<RemoteTail>,
        recovery: Recovery,
    ) -> Self {
        Self {
            store,
            registry,
            tail,
            recovery,
        }
    }

    /// Subscribes to the events of an answer after that id: replayed, then live.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer.
    pub(super) async fn subscribe(
        &self,
        store: &ChatStore,
        owner: &Owner,
        id: &MessageId,
        after: u64,
    ) -> Result<Subscriber, ChatError> {
        if let Some(turn) = self.registry.get(owner, id) {
            return Ok(turn.log().subscribe(after));
        }
        if let Some(subscriber) = self.tail.subscribe(owner, id, after) {
            return Ok(subscriber);
        }
        let session = store
            .sessions()
            .of_message(owner, id)
            .await?
            .ok_or(ChatError::MessageNotFound)?;
        let (turn, events) = store.turns().get_with_events(owner, &session, id).await?;
        if turn.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        let record = match turn.state {
            TurnState::Running { .. } => {
                return Ok(self.tail.follow(owner, &session, id, events, after));
            }
            TurnState::Ended(record) => Some(record),
            TurnState::Withdrawn | TurnState::Forgotten => None,
        };
        let log = EventLog::new();
        append_stored(&log, events);
        if log.has_ended() {
            return Ok(log.subscribe(after));
        }
        from_history(store, owner, &session, id, record).await
    }

    /// Stops a turn, wherever it runs; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer; [`StoreError::Unavailable`] where it is not known yet who
    /// runs it.
    pub(super) async fn cancel(
        &self,
        store: &ChatStore,
        owner: &Owner,
        id: &MessageId,
    ) -> Result<(), ChatError> {
        if let Some(turn) = self.registry.get(owner, id) {
            turn.stop(StopReason::Cancelled);
            return Ok(());
        }
        let session = store
            .sessions()
            .of_message(owner, id)
            .await?
            .ok_or(ChatError::MessageNotFound)?;
        let turn = store.turns().get(owner, &session, id).await?;
        if turn.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        match turn.state {
            TurnState::Ended(_) => {}
            TurnState::Running { holder, .. } => match holder {
                LeaseHolder::Instance(instance) => {
                    store
                        .control()
                        .send(&instance, &InboxRequest::Cancel(id.clone()))
                        .await?;
                }
                LeaseHolder::Nobody => {
                    self.recovery
                        .close_dead(&self.store, owner, &session, id)
                        .await?
                }
                LeaseHolder::Unknown => {
                    let unknown = "it is not known yet which instance runs the turn".into();
                    return Err(StoreError::Unavailable(unknown).into());
                }
            },
            TurnState::Withdrawn | TurnState::Forgotten => {
                answer(store, owner, &session, id)
                    .await?
                    .ok_or(ChatError::MessageNotFound)?;
            }
        }
        Ok(())
    }
}

async fn answer(
    store: &ChatStore,
    owner: &Owner,
    session: &SessionId,
    id: &MessageId,
) -> Result<Option<Message>, StoreError> {
    let message = store.sessions().message(owner, session, id).await?;
    Ok(message.filter(|message| message.role == Role::Assistant))
}

/// An answer whose events are gone: `start` with `reset`, the whole text, the ending.
async fn from_history(
    store: &ChatStore,
    owner: &Owner,
    session: &SessionId,
    id: &MessageId,
    record: Option<TurnRecord>,
) -> Result<Subscriber, ChatError> {
    let message = answer(store, owner, session, id).await?;
    let info = message.as_ref().and_then(|message| message.answer.as_ref());
    let (ending, model, provider) = match (record, info) {
        (
            Some(TurnRecord {
                ending: Some(ending),
                model,
                provider,
                ..
            }),
            _,
        ) => (ending, model, provider),
        (_, Some(info)) => (
            Ending::of_answer(info),
            info.model.clone(),
            info.provider.clone(),
        ),
        _ => return Err(ChatError::MessageNotFound),
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
    let log = EventLog::new();
    log.append(events);
    Ok(log.subscribe(0))
}
