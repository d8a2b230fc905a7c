//! What an idempotency key refers to: a turn to join, a failed one to run again, or nothing yet.

use std::sync::Arc;

use crate::{
    domain::{Ending, IdempotencyKey, IdempotencyRecord},
    error::ChatError,
    events::{recovery::Recovery, registry::Registry},
    store::{
        ChatStore,
        turns::{LeaseHolder, TurnRecord, TurnState},
    },
    turns::request::TurnRequest,
};

pub(super) enum KeyState {
    /// Nothing yet, or there is no key.
    Unused,
    /// A turn that runs or has an answer.
    Readable(IdempotencyRecord),
    /// A turn that failed, to be run again as long as it is the last of its session.
    Failed(IdempotencyRecord),
    /// A turn that this instance is accepting, or withdrawing because the outcome of that is unknown.
    Unsettled,
}

pub(super) struct Idempotency {
    pub(super) registry: Arc<Registry>,
    pub(super) recovery: Recovery,
}

impl Idempotency {
    /// What the request's key refers to.
    ///
    /// # Errors
    /// [`ChatError::IdempotencyMismatch`] where it belongs to another request, [`ChatError::SessionNotFound`] where its session is
    /// gone.
    pub(super) async fn look_up(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
    ) -> Result<KeyState, ChatError> {
        match &request.key {
            Some(key) => Box::pin(self.state_of(key, store, request)).await,
            None => Ok(KeyState::Unused),
        }
    }

    async fn state_of(
        &self,
        key: &IdempotencyKey,
        store: &ChatStore,
        request: &TurnRequest,
    ) -> Result<KeyState, ChatError> {
        let owner = &request.identity.owner;
        let Some(record) = store.turns().idempotency(owner, &key.digest).await? else {
            return Ok(KeyState::Unused);
        };
        if record.body != key.body {
            return Err(ChatError::IdempotencyMismatch);
        }
        if self.registry.get(owner, &record.id).is_some() {
            return Ok(KeyState::Readable(record));
        }
        let mut turn = store.turns().get(owner, &record.session, &record.id).await?;
        if turn.state.is_dead() {
            self.recovery.close_dead(store, owner, &record.session, &record.id).await?;
            turn = store.turns().get(owner, &record.session, &record.id).await?;
        }
        if turn.session.is_none() {
            return Err(ChatError::SessionNotFound);
        }
        Ok(match turn.state {
            TurnState::Ended(TurnRecord { ending: Some(Ending::Error { .. }), .. }) => {
                KeyState::Failed(record)
            }
            TurnState::Withdrawn => KeyState::Unsettled,
            // Accepted here, and about to be started or withdrawn.
            TurnState::Running { holder: LeaseHolder::Instance(instance), .. }
                if instance == store.instance()
                    && self.registry.get(owner, &record.id).is_none() =>
            {
                KeyState::Unsettled
            }
            TurnState::Forgotten => {
                // Its answer may have been replaced; the one that stands there now is the message's.
                let stands =
                    store.sessions().messages(owner, &record.session).answer_at(&record.id).await?;
                KeyState::Readable(IdempotencyRecord { id: stands.unwrap_or(record.id), ..record })
            }
            TurnState::Running { .. } | TurnState::Ended(_) => KeyState::Readable(record),
        })
    }
}
