//! Finds a turn again: here, on another instance, in its stored events, or in the history.

use std::sync::Arc;

use common::{identity::Owner, store::StoreError};

use crate::{
    domain::{MessageId, StopReason},
    error::ChatError,
    events::{
        log::{EventLog, Subscriber},
        recovery::Recovery,
        registry::Registry,
        remote_tail::{FollowStart, RemoteTail},
        replay::{history_events, read_stored},
    },
    store::{
        ChatStore,
        control::InboxRequest,
        turns::{LeaseHolder, TurnState},
    },
};

pub(super) struct TurnFinder {
    pub(super) store: ChatStore,
    pub(super) registry: Arc<Registry>,
    pub(super) tail: Arc<RemoteTail>,
    pub(super) recovery: Recovery,
}

impl TurnFinder {
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
            return Ok(turn.log.subscribe(after));
        }
        if let Some(subscriber) = self.tail.subscribe(owner, id, after) {
            return Ok(subscriber);
        }
        let session =
            store.sessions().of_message(owner, id).await?.ok_or(ChatError::MessageNotFound)?;
        let turn = store.turns().get(owner, &session, id).await?;
        if turn.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        let (log, mut batches) = (EventLog::new(), 0);
        read_stored(store, owner, id, &log, &mut batches).await?;
        let record = match turn.state {
            TurnState::Running { holder, .. } => {
                let start = FollowStart { session, log, batches, holder };
                return Ok(self.tail.follow(owner, id, start, after));
            }
            TurnState::Ended(record) => Some(record),
            TurnState::Withdrawn | TurnState::Forgotten => None,
        };
        if log.has_ended() {
            return Ok(log.subscribe(after));
        }
        let events = history_events(store, owner, &session, id, record).await?;
        let log = EventLog::new();
        log.append(events.ok_or(ChatError::MessageNotFound)?);
        Ok(log.subscribe(0))
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
        let session =
            store.sessions().of_message(owner, id).await?.ok_or(ChatError::MessageNotFound)?;
        let turn = store.turns().get(owner, &session, id).await?;
        if turn.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        match turn.state {
            TurnState::Ended(_) => {}
            TurnState::Running { holder, .. } => match holder {
                LeaseHolder::Instance(instance) => {
                    let cancel = InboxRequest::Cancel { message_id: id.clone() };
                    store.control().send(&instance, &cancel).await?;
                }
                LeaseHolder::Nobody => {
                    self.recovery.close_dead(&self.store, owner, &session, id).await?
                }
                LeaseHolder::Unknown => {
                    let unknown = "it is not known yet which instance runs the turn".into();
                    return Err(StoreError::Unavailable(unknown).into());
                }
            },
            TurnState::Withdrawn | TurnState::Forgotten => {
                let events = history_events(store, owner, &session, id, None).await?;
                events.ok_or(ChatError::MessageNotFound)?;
            }
        }
        Ok(())
    }
}
