//! A turn's task: it alone moves the turn from acceptance to its ending, and does the ending in one place.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{clock, errors::Code, store::StoreError};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::{
    context::Conversation,
    event::Event,
    lanes::Place,
    llm::{Answering, Progress, Prompt},
    turns::{OnDisconnect, Stop, Turn, Turns, explain},
};
use crate::{
    adapters::ModelError,
    models::{
        Context, FinishReason, Role, Usage,
        records::{AnswerFacts, Ending, MessageRecord, OpenTurn, VERSION},
    },
    repository::turns::{Finish, Finished},
};

/// Longest text of one answer, and of its thoughts, in bytes; past it the answer ends as `length`.
pub(super) const TEXT_LIMIT: usize = 1024 * 1024;

/// How long a finish is repeated for a store that does not take it.
pub(super) const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// How long after a stop: connections have a second to end, and their readers must hear of it before.
const STOP_PATIENCE: Duration = Duration::from_millis(600);

/// How often a finish is tried again.
pub(super) const FINISH_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether anybody still watches from another instance.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);

/// Why the model was no longer listened to.
enum Outcome {
    Answered(FinishReason),
    Failed(ModelError),
    Stopped(Stop),
    Interrupted,
    Broken,
}

/// Who answered.
#[derive(Clone, Debug)]
pub(super) struct ServedBy {
    model: String,
    provider: String,
    context: Context,
}

/// What there is of an answer.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) thinking: String,
    pub(super) usage: Option<Usage>,
    pub(super) served_by: Option<ServedBy>,
}

impl Turns {
    /// Runs a turn to its ending. `place` is the session's lane on this instance, kept until the turn is closed.
    pub(super) async fn run(
        self: Arc<Self>,
        turn: Arc<Turn>,
        answering: Answering,
        conversation: Arc<Conversation>,
        place: Place,
    ) {
        let mut draft = Draft::default();
        let answer = AssertUnwindSafe(self.answer(&turn, answering, &conversation, &mut draft))
            .catch_unwind();
        let outcome = answer.await.unwrap_or(Outcome::Broken);
        if let (Some(usage), Outcome::Answered(_)) = (draft.usage, &outcome) {
            self.estimates.observe(
                &turn.open.model,
                conversation.last_estimate.load(Ordering::Relaxed),
                usage,
            );
        }
        if let Outcome::Failed(error) = &outcome {
            tracing::warn!(message_id = %turn.open.id, request_id = %turn.request_id, %error, "the model server failed");
        }
        let usage = self.usage_of(&turn, &draft, &conversation);
        let ending = ending_of(&turn, &draft, usage, &outcome);
        self.close(&turn, &draft, usage, ending).await;
        self.leave(&turn);
        drop(place);
    }

    /// Listens to the model until it is done or something ends the turn, and tells every watcher.
    async fn answer(
        &self,
        turn: &Turn,
        mut answering: Answering,
        conversation: &Arc<Conversation>,
        draft: &mut Draft,
    ) -> Outcome {
        let prompt: Arc<dyn Prompt> = Arc::clone(conversation) as _;
        answering.begin(prompt);
        let stopped = turn.stopped.cancelled();
        let interrupted = self.shutdown.stopping();
        let abandoned = self.abandoned(turn);
        tokio::pin!(stopped, interrupted, abandoned);
        loop {
            let progress = tokio::select! {
                biased;
                () = &mut stopped => return Outcome::Stopped(turn.why()),
                () = &mut interrupted => return Outcome::Interrupted,
                () = &mut abandoned => return Outcome::Stopped(Stop::Cancelled),
                progress = answering.next() => progress,
            };
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => return Outcome::Failed(error),
            };
            let mut events = Vec::with_capacity(progress.len());
            let finish = progress
                .into_iter()
                .find_map(|step| draft.take(step, &mut events));
            if !events.is_empty() {
                turn.log.append(events);
            }
            if let Some(finish) = finish {
                return Outcome::Answered(finish);
            }
        }
    }

    /// Resolves when nobody has watched the turn, here or elsewhere, for as long as its beginner allowed.
    async fn abandoned(&self, turn: &Turn) {
        let OnDisconnect::CancelAfter(grace) = turn.on_disconnect else {
            return std::future::pending().await;
        };
        loop {
            turn.log.until_watched(false).await;
            tokio::select! {
                () = turn.log.until_watched(true) => continue,
                () = sleep(grace) => {}
            }
            // A store that cannot be asked knows of no watcher either: what it cannot tell must not burn the model.
            if !self
                .repository
                .is_watched(&turn.owner, &turn.open.id)
                .await
                .unwrap_or(false)
            {
                return;
            }
            sleep(WATCHED_PAUSE).await;
        }
    }

    /// What the turn cost: as the server counted, else our estimate of what it read and wrote.
    fn usage_of(&self, turn: &Turn, draft: &Draft, conversation: &Conversation) -> Usage {
        let estimate = |text: &str| u64::from(self.estimates.tokens(&turn.open.model, text));
        draft.usage.unwrap_or_else(|| match &draft.served_by {
            Some(_) => Usage {
                prompt_tokens: u64::from(conversation.last_estimate.load(Ordering::Relaxed)),
                completion_tokens: estimate(&draft.text) + estimate(&draft.thinking),
            },
            None => Usage::default(),
        })
    }

    /// Stores what there is, then tells the watchers how it ended: in that order, so that what they were told is kept.
    async fn close(&self, turn: &Turn, draft: &Draft, usage: Usage, ending: Ending) {
        let (mut lines, last) = turn.log.lines_after(turn.mirrored.load(Ordering::SeqCst));
        let event = Event::ending(&ending, &turn.request_id);
        Event::write_line(last + 1, event.kind, &event.members, &mut lines);
        let finish = Finish {
            session_id: turn.session.clone(),
            open: turn.open.clone(),
            answer: answer_record(&turn.open, draft, usage, &ending),
            ending,
            usage,
            lines,
            dead: false,
        };
        let ending = match self.finish(turn, &finish).await {
            Ok(Finished::Yes) => finish.ending,
            Ok(Finished::Stale(theirs)) => theirs.unwrap_or_else(interrupted),
            Ok(Finished::SessionGone) => Ending::Error {
                code: Code::SessionNotFound,
                detail: "The session was deleted while it was answered.".into(),
            },
            // Whoever looks next ends it just so.
            Err(_) if is_interrupted(&finish.ending) => finish.ending,
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

impl Draft {
    /// Takes in what happened, adds its events, and returns the finish where that was it.
    fn take(&mut self, step: Progress, events: &mut Vec<Event>) -> Option<FinishReason> {
        match step {
            Progress::Queued { position } => events.push(Event::queued(position)),
            Progress::Generating {
                provider,
                model,
                window,
                dropped,
            } => {
                let context = Context {
                    window,
                    dropped_messages: dropped,
                };
                self.served_by = Some(ServedBy {
                    model,
                    provider: provider.as_str().to_owned(),
                    context,
                });
            }
            Progress::Text(text) => {
                let (piece, full) = clip(&text, TEXT_LIMIT.saturating_sub(self.text.len()));
                self.text.push_str(piece);
                events.push(Event::token(piece));
                return full.then_some(FinishReason::Length);
            }
            Progress::Thinking(text) => {
                let (piece, full) = clip(&text, TEXT_LIMIT.saturating_sub(self.thinking.len()));
                self.thinking.push_str(piece);
                events.push(Event::thinking(piece));
                return full.then_some(FinishReason::Length);
            }
            // Tools are asked for on `/v1` alone, which has no turns.
            Progress::ToolCall(_) => {}
            Progress::End { finish, usage } => {
                self.usage = usage;
                return Some(match finish {
                    FinishReason::Length => FinishReason::Length,
                    _ => FinishReason::Stop,
                });
            }
        }
        None
    }
}

/// As much of the text as fits, on a character's border, and whether that was less than all.
pub(super) fn clip(text: &str, room: usize) -> (&str, bool) {
    if text.len() <= room {
        return (text, false);
    }
    let end = (0..=room)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    (text.get(..end).unwrap_or_default(), true)
}

fn ending_of(turn: &Turn, draft: &Draft, usage: Usage, outcome: &Outcome) -> Ending {
    let done = |finish_reason| {
        let ServedBy {
            model,
            provider,
            context,
        } = served_by(&turn.open, draft);
        Ending::Done {
            finish_reason,
            usage,
            context,
            model,
            provider,
        }
    };
    match outcome {
        Outcome::Answered(finish) => done(*finish),
        Outcome::Stopped(Stop::Cancelled) => done(FinishReason::Cancelled),
        Outcome::Stopped(Stop::Deleted | Stop::Lost) | Outcome::Interrupted => interrupted(),
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

fn served_by(open: &OpenTurn, draft: &Draft) -> ServedBy {
    draft.served_by.clone().unwrap_or_else(|| ServedBy {
        model: open.model.clone(),
        provider: open.provider.clone(),
        context: Context {
            window: open.window,
            dropped_messages: 0,
        },
    })
}

/// The ending of a turn whose process died or was stopped.
pub(super) fn interrupted() -> Ending {
    Ending::Error {
        code: Code::Interrupted,
        detail: "The answer was interrupted; what there is of it is kept. Send the message again to go on.".into(),
    }
}

fn is_interrupted(ending: &Ending) -> bool {
    matches!(
        ending,
        Ending::Error {
            code: Code::Interrupted,
            ..
        }
    )
}

/// The answer as it is kept; `None` where there is no text, and where a failed try must not replace a good answer.
pub(super) fn answer_record(
    open: &OpenTurn,
    draft: &Draft,
    usage: Usage,
    ending: &Ending,
) -> Option<MessageRecord> {
    let (finish_reason, code) = match ending {
        Ending::Done { finish_reason, .. } => (*finish_reason, None),
        Ending::Error {
            code: Code::Interrupted,
            ..
        } => (FinishReason::Interrupted, Some(Code::Interrupted)),
        Ending::Error { code, .. } => (FinishReason::Error, Some(*code)),
    };
    let spoils_a_good_one = code.is_some() && open.regenerates && open.replaces.is_some();
    if draft.text.is_empty() || spoils_a_good_one {
        return None;
    }
    let ServedBy {
        model,
        provider,
        context,
    } = served_by(open, draft);
    Some(MessageRecord {
        v: VERSION,
        id: open.id.clone(),
        role: Role::Assistant,
        content: draft.text.clone(),
        at: clock::now_ms(),
        thinking: Some(draft.thinking.clone()).filter(|thoughts| !thoughts.is_empty()),
        answer: Some(AnswerFacts {
            reply_to: open.reply_to.clone(),
            model,
            provider,
            finish_reason,
            usage,
            context,
            code,
        }),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_clipped_on_a_characters_border() {
        assert_eq!(clip("aé", 3), ("aé", false));
        assert_eq!(clip("aé", 2), ("a", true));
        assert_eq!(clip("é", 0), ("", true));
    }

    #[test]
    fn an_answer_past_the_limit_ends_as_length() {
        let (mut draft, mut events) = (Draft::default(), Vec::new());
        assert_eq!(
            draft.take(Progress::Text("x".repeat(TEXT_LIMIT)), &mut events),
            None
        );
        assert_eq!(
            draft.take(Progress::Text("x".into()), &mut events),
            Some(FinishReason::Length)
        );
        assert_eq!(draft.text.len(), TEXT_LIMIT);
    }
}
