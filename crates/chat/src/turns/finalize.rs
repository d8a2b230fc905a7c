//! Ends a turn: what is stored, then what its subscribers are told, in one place for every way it can end.

use std::{sync::Arc, time::Duration};

use common::{
    errors::Code,
    otel::{Span, SpanKind},
    shutdown::Shutdown,
    store::StoreError,
};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::{
    domain::{Ending, FinishReason, Message, StopReason, Usage, event::Event},
    error::explain,
    events::{
        answer::{AnswerText, answer_message},
        registry::RunningTurn,
        replicator::unstored,
    },
    generation::{Outcome, answer::AnswerSource, record_end},
    retry,
    store::{
        ChatStore,
        control::{InboxRequest, TurnProgress},
        events::EventBatch,
        finish::{Finish, Finished},
        reservation::Reservation,
        sessions::{SessionTail, StoredSession},
    },
    turns::{prompt::SessionPrompt, session_cache::SessionCache},
};

/// How long a finish is repeated for a store that does not take it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a finish may be applied: a second less, so that its outcome is known by then.
const APPLIED_WITHIN_MS: i64 = 29_000;

/// How long after a stop: connections have a second to end, and their readers must get the ending before.
const STOP_TIMEOUT: Duration = Duration::from_millis(600);

/// How often a finish is tried again.
const FINISH_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct GeneratedAnswer {
    pub(super) text: AnswerText,
    pub(super) usage: Usage,
    pub(super) source: Option<AnswerSource>,
    pub(super) outcome: Outcome,
}

pub(super) struct Finalizer {
    pub(super) store: ChatStore,
    pub(super) cache: Arc<SessionCache>,
    pub(super) history_messages: usize,
    pub(super) shutdown: Shutdown,
}

impl Finalizer {
    /// Stores what there is, then tells the subscribers how it ended: in that order, so that what they were told is stored.
    pub(super) async fn finalize(
        &self,
        turn: &RunningTurn,
        session: Box<StoredSession>,
        prompt: &SessionPrompt,
        request_id: &Arc<str>,
        generated: GeneratedAnswer,
    ) {
        let GeneratedAnswer { text, usage, source, outcome } = generated;
        let source = source.unwrap_or_else(|| AnswerSource::requested(&turn.open));
        let ending = ending_of(&source, usage, &outcome);
        let (mut events, last) = unstored(turn, usize::MAX);
        events.push(last + 1, Event::end(ending.clone(), request_id).as_ref());
        let finish = Finish {
            session_id: turn.session_id.clone(),
            session: *session,
            open: turn.open.clone(),
            answer: answer_message(&turn.open, source, text, usage, &ending),
            ending,
            usage,
            events,
            last_event_id: last + 1,
            until: Some(self.store.now_ms().saturating_add(APPLIED_WITHIN_MS)),
            for_dead_instance: false,
        };
        let ending = match self.finish(turn, &finish).await {
            Ok(Finished::Yes(session)) => {
                self.cache(turn, session, prompt, finish.answer);
                finish.ending
            }
            Ok(Finished::Stale(theirs)) => theirs.unwrap_or_else(Ending::interrupted),
            Ok(Finished::SessionGone) => {
                self.settle(turn, usage).await;
                Ending::session_deleted()
            }
            // Whoever recovers it ends it just so.
            Err(_) if finish.ending.is_interrupted() => finish.ending,
            Err(error) => {
                tracing::error!(message_id = %turn.id(), %error, "an answer could not be stored");
                self.close_as_interrupted(turn, &finish);
                Ending::error(
                    Code::StoreUnavailable,
                    "The answer could not be stored; it will show as interrupted.",
                )
            }
        };
        count(&ending, usage);
        turn.log.append([Event::end(ending, request_id)]);
        self.tell_watchers(turn, last + 1).await;
        if turn.open.fence == 1 {
            // What is left is shed by the next session that begins.
            let _ = self.store.sessions().shed_expired(&turn.owner).await;
        }
    }

    /// Tells the instances that watch the turn that the store has its end; they would find out by themselves a little later.
    async fn tell_watchers(&self, turn: &RunningTurn, last_event_id: u64) {
        for instance in turn.watching_instances() {
            let progress =
                TurnProgress::new(turn.id().clone(), last_event_id, &EventBatch::default());
            let turns = vec![progress];
            let told =
                self.store.control().send(&instance, &InboxRequest::Progress { turns }).await;
            if let Err(error) = told {
                tracing::debug!(%error, "another instance could not be told of a turn's end");
            }
        }
    }

    /// Closes a turn whose readers were told that its answer could not be stored, once the store is back: what they were told must
    /// stay true, also where the store still applies a finish that it had received before.
    fn close_as_interrupted(&self, turn: &RunningTurn, finish: &Finish) {
        let owner = &turn.owner;
        retry::in_background(&self.shutdown, &self.store, owner, finish, |store, owner, finish| {
            Box::pin(async move { store.turns().retract(owner, finish).await })
        });
    }

    /// Caches the session for its next turn, where it is known for certain.
    fn cache(
        &self,
        turn: &RunningTurn,
        session: Option<Box<StoredSession>>,
        prompt: &SessionPrompt,
        answer: Option<Message>,
    ) {
        // An attempt without an answer leaves the one before it, which is not part of the prompt.
        if let Some(session) = session
            && (answer.is_some() || turn.open.replaces.is_none())
        {
            let mut messages = prompt.messages.clone();
            messages.extend(answer.map(Arc::new));
            let more = messages.len().saturating_sub(self.history_messages);
            messages.drain(..more);
            let tail = SessionTail { session: Some(*session), messages };
            self.cache.put(&turn.owner, &turn.session_id, tail);
        }
    }

    /// Counts what a turn used whose session is gone.
    async fn settle(&self, turn: &RunningTurn, usage: Usage) {
        let reservation = Reservation::of_turn(&turn.open);
        let store = self.store.reservations();
        let settled = self.retry(|| Box::pin(store.settle(&turn.owner, &reservation, usage))).await;
        if let Err(error) = settled {
            tracing::warn!(message_id = %turn.id(), %error, "usage of a deleted session's turn will be settled when its lease has lapsed");
        }
    }

    async fn finish(&self, turn: &RunningTurn, finish: &Finish) -> Result<Finished, StoreError> {
        let store = self.store.turns();
        let finished = self.retry(|| Box::pin(store.finish(&turn.owner, finish)));
        Span::child("finish", SpanKind::Internal).run(finished).await
    }

    /// Repeats a step until the store takes or refuses it, or the time is over.
    async fn retry<'a, T>(
        &self,
        step: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let give_up = Instant::now() + FINISH_TIMEOUT;
        let repeated = async {
            loop {
                match step().await {
                    Err(StoreError::Corrupt(error)) => return Err(StoreError::Corrupt(error)),
                    Err(error) if Instant::now() >= give_up => return Err(error),
                    Err(_) => sleep(FINISH_PAUSE).await,
                    done => return done,
                }
            }
        };
        let stop = async {
            self.shutdown.stopping().await;
            sleep(STOP_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            done = repeated => done,
            () = stop => Err(StoreError::Unavailable("the service stopped".into())),
        }
    }
}

fn ending_of(source: &AnswerSource, usage: Usage, outcome: &Outcome) -> Ending {
    let done = |finish_reason| Ending::Done {
        finish_reason,
        usage,
        context: source.context,
        model: source.model.clone(),
        provider: source.provider.clone(),
    };
    match outcome {
        Outcome::Answered(FinishReason::Length) => done(FinishReason::Length),
        Outcome::Answered(FinishReason::ContentFilter) => Ending::error(
            Code::LlmFailed,
            "The model server withheld the rest of the answer; what there is of it is kept.",
        ),
        Outcome::Answered(_) => done(FinishReason::Stop),
        Outcome::Stopped(StopReason::Cancelled) | Outcome::Abandoned => {
            done(FinishReason::Cancelled)
        }
        Outcome::Stopped(StopReason::SessionDeleted) => Ending::session_deleted(),
        Outcome::Stopped(StopReason::LeaseLost) | Outcome::Interrupted => Ending::interrupted(),
        Outcome::Failed(error) => {
            let (code, detail) = explain(error);
            let retry_after = error.retry_after().map(|wait| wait.as_secs());
            let pointer = error.pointer().map(str::to_owned);
            Ending::Error { code, detail, retry_after, pointer }
        }
        Outcome::Broken => Ending::error(
            Code::Internal,
            "Something went wrong here; the request id finds it in the log.",
        ),
    }
}

fn count(ending: &Ending, usage: Usage) {
    let name = match ending {
        Ending::Done { finish_reason: FinishReason::Length, .. } => "length",
        Ending::Done { finish_reason: FinishReason::Cancelled, .. } => "cancelled",
        Ending::Done { .. } => "stop",
        Ending::Error { code, .. } => code.as_str(),
    };
    metrics::counter!("chat_turns_total", "ending" => name).increment(1);
    record_end(name, usage);
}
