//! Closes turns whose instance died, keeping what the store has of their answers.

use std::sync::Arc;

use common::{identity::Owner, store::StoreError};

use crate::{
    domain::{
        Ending, MessageId, SessionId, Usage,
        event::{End, EventRef, RECOVERY_GAP},
    },
    events::{
        answer::{AnswerText, answer_message},
        log::EventLog,
        replay::read_stored,
    },
    generation::{
        answer::AnswerSource,
        tokens::{TextSize, TokenEstimates},
    },
    store::{
        ChatStore,
        events::EventBatch,
        finish::{Finish, Finished},
    },
};

#[derive(Clone)]
pub struct Recovery {
    estimates: TokenEstimates,
}

impl Recovery {
    pub fn new(estimates: TokenEstimates) -> Self {
        Self { estimates }
    }

    /// Closes a turn whose lease has lapsed as interrupted. Does nothing for one that is not open, or whose lease is held.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be closed, now or later.
    pub async fn close_dead(
        &self,
        store: &ChatStore,
        owner: &Owner,
        session_id: &SessionId,
        id: &MessageId,
    ) -> Result<(), StoreError> {
        let Some(session) = store.sessions().get(owner, session_id).await? else { return Ok(()) };
        let Some(open) = session.session.open.clone().filter(|open| open.id == *id) else {
            return Ok(());
        };
        let log = EventLog::new();
        read_stored(store, owner, id, &log, &mut 0).await?;
        let text = AnswerText::of(&log);
        let ending = Ending::interrupted();
        let end = End { ending: ending.clone(), request_id: Arc::from(""), by_recovery: true };
        let (mut events, last_event_id) = (EventBatch::default(), log.last_id() + RECOVERY_GAP);
        events.push(last_event_id, EventRef::End(&end));
        let estimate = |text: &str| TextSize::of(text).scaled(self.estimates.ratio(&open.model));
        let completion_tokens =
            u64::from(estimate(&text.answer)) + u64::from(estimate(&text.thinking));
        let usage = Usage { prompt_tokens: open.prompt, completion_tokens };
        let finish = Finish {
            session_id: session_id.clone(),
            answer: answer_message(&open, AnswerSource::requested(&open), text, usage, &ending),
            session,
            open,
            ending,
            usage,
            events,
            last_event_id,
            until: None,
            for_dead_instance: true,
        };
        if let Finished::Yes(_) = store.turns().finish(owner, &finish).await? {
            metrics::counter!("chat_turns_closed_for_dead_instances_total").increment(1);
        }
        Ok(())
    }
}
