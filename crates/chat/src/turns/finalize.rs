//! How a turn ends: what is stored, then what its watchers are told, in one place for every way it can end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{errors::Code, store::StoreError};
use tokio::time::{Instant, sleep};

use crate::{
    domain::{
        FinishReason, Usage,
        error::explain,
        event::Event,
        records::{Ending, MessageRecord, Session},
    },
    generation::answer_builder::ServedBy,
    llm::ModelError,
    store::finish::{Finish, Finished},
    turns::{
        prompt::Conversation,
        service::{Stop, Turn, Turns},
        session_cache::Head,
    },
};

/// How long a finish is repeated for a store that does not take it.
pub(crate) const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// How long after a stop: connections have a second to end, and their readers must hear of it before.
const STOP_PATIENCE: Duration = Duration::from_millis(600);

/// How often a finish is tried again.
pub(crate) const FINISH_PAUSE: Duration = Duration::from_millis(100);

/// Why the model was no longer listened to.
pub(crate) enum Outcome {
    /// It said all that it had to say.
    Answered(FinishReason),
    /// It failed.
    Failed(ModelError),
    /// Somebody ended the turn.
    Stopped(Stop),
    /// The service stops.
    Interrupted,
    /// A fault of ours.
    Broken,
}

impl Turns {
    /// Stores what there is, then tells the watchers how it ended: in that order, so that what they were told is kept.
    pub(crate) async fn close(
        &self,
        turn: &Turn,
        conversation: &Conversation,
        answer: Option<MessageRecord>,
        usage: Usage,
        ending: Ending,
    ) {
        let (mut lines, last) = turn.log.lines_after(turn.mirrored.load(Ordering::SeqCst));
        let event = Event::ending(&ending, &turn.request_id);
        Event::write_line(last + 1, event.kind, &event.data, &mut lines);
        let finish = Finish {
            session_id: turn.session_id.clone(),
            session: turn.session.clone(),
            open: turn.open.clone(),
            answer,
            ending,
            usage,
            lines,
            dead: false,
        };
        let ending = match self.finish(turn, &finish).await {
            Ok(Finished::Yes(session)) => {
                self.keep_head(turn, session, conversation, finish.answer);
                finish.ending
            }
            Ok(Finished::Stale(theirs)) => theirs.unwrap_or_else(Ending::interrupted),
            Ok(Finished::SessionGone) => Ending::Error {
                code: Code::SessionNotFound,
                detail: "The session was deleted while it was answered.".into(),
            },
            // Whoever looks next ends it just so.
            Err(_) if finish.ending.is_interrupted() => finish.ending,
            Err(error) => {
                tracing::error!(message_id = %turn.open.id, %error, "an answer could not be stored");
                Ending::Error {
                    code: Code::StoreUnavailable,
                    detail: "The answer could not be stored; it will show as interrupted.".into(),
                }
            }
        };
        count(&ending, usage);
        turn.log.append([Event::ending(&ending, &turn.request_id)]);
    }

    /// Keeps the session as it now is for its next turn, where that is known for certain.
    fn keep_head(
        &self,
        turn: &Turn,
        session: Option<Box<Session>>,
        conversation: &Conversation,
        answer: Option<MessageRecord>,
    ) {
        // A try that left no answer leaves the one before it, which is not in the conversation.
        if let Some(session) = session
            && (answer.is_some() || turn.open.replaces.is_none())
        {
            let mut tail = conversation.messages.clone();
            tail.extend(answer.map(Arc::new));
            let more = tail.len().saturating_sub(self.limits.history_messages);
            tail.drain(..more);
            let head = Head {
                session: *session,
                tail,
            };
            self.heads.put(&turn.owner, &turn.session_id, head);
        }
    }

    /// Repeats the finish until the store takes or refuses it, or patience is over.
    async fn finish(&self, turn: &Turn, finish: &Finish) -> Result<Finished, StoreError> {
        let give_up = Instant::now() + FINISH_PATIENCE;
        let repeated = async {
            loop {
                match self.repository.finish(&turn.owner, finish).await {
                    Err(StoreError::Corrupt(error)) => return Err(StoreError::Corrupt(error)),
                    Err(error) if Instant::now() >= give_up => return Err(error),
                    Err(_) => sleep(FINISH_PAUSE).await,
                    finished => return finished,
                }
            }
        };
        let stop = async {
            self.shutdown.stopping().await;
            sleep(STOP_PATIENCE).await;
        };
        tokio::select! {
            biased;
            finished = repeated => finished,
            () = stop => Err(StoreError::Unavailable("no answer before the stop".into())),
        }
    }
}

pub(crate) fn ending_of(served_by: &ServedBy, usage: Usage, outcome: &Outcome) -> Ending {
    let done = |finish_reason| Ending::Done {
        finish_reason,
        usage,
        context: served_by.context,
        model: served_by.model.clone(),
        provider: served_by.provider.clone(),
    };
    match outcome {
        Outcome::Answered(finish) => done(*finish),
        Outcome::Stopped(Stop::Cancelled) => done(FinishReason::Cancelled),
        Outcome::Stopped(Stop::Deleted | Stop::Lost) | Outcome::Interrupted => {
            Ending::interrupted()
        }
        Outcome::Failed(error) => {
            let (code, detail) = explain(error);
            Ending::Error { code, detail }
        }
        Outcome::Broken => Ending::Error {
            code: Code::Internal,
            detail: "Something went wrong here; the request id finds it in the log.".into(),
        },
    }
}

fn count(ending: &Ending, usage: Usage) {
    let name = match ending {
        Ending::Done {
            finish_reason: FinishReason::Length,
            ..
        } => "length",
        Ending::Done {
            finish_reason: FinishReason::Cancelled,
            ..
        } => "cancelled",
        Ending::Done { .. } => "stop",
        Ending::Error { code, .. } => code.as_str(),
    };
    metrics::counter!("chat_turns_total", "ending" => name).increment(1);
    metrics::counter!("llm_tokens_total", "kind" => "prompt").increment(usage.prompt_tokens);
    metrics::counter!("llm_tokens_total", "kind" => "completion")
        .increment(usage.completion_tokens);
}
