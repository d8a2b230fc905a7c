//! Finding a turn again: here, on another instance, in its stored log, or in the history.

use std::sync::Arc;

use common::{errors::Code, identity::Owner, store::StoreError};

use crate::{
    domain::{
        FinishReason, MessageId, Role, SessionId,
        error::ChatError,
        event::{Event, Start},
        records::{AnswerFacts, Ending, MessageRecord, TurnRecord},
    },
    events::{
        log::{EventLog, Watch},
        remote_tail::replay,
    },
    store::{
        Repository,
        control::Request,
        turns::{Holder, TurnState},
    },
    turns::service::{Stop, Turns},
};

impl Turns {
    /// The events of an answer after that id: replayed, then live.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer.
    pub async fn attach(
        self: &Arc<Self>,
        owner: &Owner,
        id: &MessageId,
        after: u64,
        repository: &Repository,
    ) -> Result<Watch, ChatError> {
        if let Some(turn) = self.local(owner, id) {
            return Ok(turn.log.watch(after));
        }
        if let Some(watch) = self.follower.watch(owner, id, after) {
            return Ok(watch);
        }
        let session = repository.session_of(owner, id).await?;
        let session = session.ok_or(ChatError::MessageNotFound)?;
        let stored = repository.turn(owner, &session, id, true).await?;
        if stored.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        let log = EventLog::new();
        replay(&log, &stored.batches);
        if log.has_ended() {
            return Ok(log.watch(after));
        }
        let record = match stored.state {
            TurnState::Running { .. } => {
                let from = (stored.batches.len(), after);
                return Ok(self.follow(owner, &session, id, log, from));
            }
            TurnState::Ended(record) => Some(record),
            TurnState::Withdrawn | TurnState::Forgotten => None,
        };
        self.remembered(owner, &session, id, record, repository)
            .await
    }

    /// The same with the repository's own patience.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub async fn resume(
        self: &Arc<Self>,
        owner: &Owner,
        id: &MessageId,
        after: u64,
        deadline: std::time::Instant,
    ) -> Result<Watch, ChatError> {
        self.attach(owner, id, after, &self.repository.by(deadline))
            .await
    }

    /// An answer whose events are forgotten: `start` with `reset`, the whole text, the ending.
    async fn remembered(
        &self,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        record: Option<TurnRecord>,
        repository: &Repository,
    ) -> Result<Watch, ChatError> {
        let message = repository
            .message(owner, session, id)
            .await?
            .filter(|m| m.role == Role::Assistant);
        let (ending, model, provider) = match (record, &message) {
            (
                Some(TurnRecord {
                    ending: Some(ending),
                    model,
                    provider,
                    ..
                }),
                _,
            ) => (ending, model, provider),
            (
                _,
                Some(MessageRecord {
                    answer: Some(facts),
                    ..
                }),
            ) => (
                ending_from(facts),
                facts.model.clone(),
                facts.provider.clone(),
            ),
            _ => return Err(ChatError::MessageNotFound),
        };
        let start = Event::start(&Start {
            message_id: id.as_str(),
            session_id: session.as_str(),
            user_id: owner.user.as_str(),
            model: &model,
            provider: &provider,
            reset: true,
        });
        let mut events = vec![start];
        if let Some(message) = message {
            events.extend(message.thinking.as_deref().map(Event::thinking));
            events.push(Event::token(&message.content));
        }
        events.push(Event::ending(&ending, ""));
        let log = EventLog::new();
        log.append(events);
        Ok(log.watch(0))
    }

    /// Stops a turn, wherever it runs; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer.
    pub async fn cancel(
        self: &Arc<Self>,
        owner: &Owner,
        id: &MessageId,
        deadline: std::time::Instant,
    ) -> Result<(), ChatError> {
        if let Some(turn) = self.local(owner, id) {
            turn.stop(Stop::Cancelled);
            return Ok(());
        }
        let repository = self.repository.by(deadline);
        let session = repository.session_of(owner, id).await?;
        let session = session.ok_or(ChatError::MessageNotFound)?;
        let stored = repository.turn(owner, &session, id, false).await?;
        if stored.session.is_none() {
            return Err(ChatError::MessageNotFound);
        }
        match stored.state {
            TurnState::Ended(_) => {}
            TurnState::Running {
                holder: Holder::Instance(instance),
                ..
            } => {
                repository
                    .ask(&instance, &Request::Cancel(id.clone()))
                    .await?;
            }
            TurnState::Running {
                holder: Holder::Nobody,
                ..
            } => self.close_dead(&repository, owner, &session, id).await?,
            TurnState::Running {
                holder: Holder::Unknown,
                ..
            } => {
                let unknown = "who answers it is not known yet".into();
                return Err(StoreError::Unavailable(unknown).into());
            }
            TurnState::Withdrawn | TurnState::Forgotten => {
                let message = repository.message(owner, &session, id).await?;
                message
                    .filter(|message| message.role == Role::Assistant)
                    .ok_or(ChatError::MessageNotFound)?;
            }
        }
        Ok(())
    }
}

/// The ending that an answer in the history had.
fn ending_from(facts: &AnswerFacts) -> Ending {
    let error = |code: Code, detail: &str| Ending::Error {
        code,
        detail: detail.to_owned(),
    };
    match facts.finish_reason {
        FinishReason::Interrupted => Ending::interrupted(),
        FinishReason::Error => error(
            facts.code.unwrap_or(Code::LlmFailed),
            "The answer failed; what there is of it is kept.",
        ),
        finish_reason => Ending::Done {
            finish_reason,
            usage: facts.usage,
            context: facts.context,
            model: facts.model.clone(),
            provider: facts.provider.clone(),
        },
    }
}
