//! The task of a turn: it alone moves the turn from acceptance to its end, and ends it in one place.

use std::{pin::pin, sync::Arc, time::Duration};

use common::shutdown::Shutdown;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    domain::{OnDisconnect, StopReason, event::Event},
    events::{
        answer::AnswerText,
        log::EventLog,
        registry::{Registry, RunningTurn},
    },
    generation::{self, Outcome, Sink, answer::AnswerBuilder, tokens::TokenEstimates},
    llm::{Chunk, Generation, Prompt},
    store::{ChatStore, accept::Accept, sessions::StoredSession},
    turns::{
        finalize::{Finalizer, GeneratedAnswer},
        prompt::SessionPrompt,
        request::TurnRequest,
        session_queue::SessionPermit,
    },
};

/// The time to hear what other instances watch, and until that is asked again where it cannot be known.
const WATCHED_INTERVAL: Duration = Duration::from_secs(1);

/// For how long after the store was away other instances may not have been able to say what they watch.
const WATCHED_SINCE: Duration = Duration::from_secs(3);

/// Longest text of one event, in bytes: what is stored of a turn is read a few batches of events at a time.
const EVENT_SIZE: usize = 4 * 1024;

/// An accepted turn with what its task needs.
pub(super) struct TurnTask {
    pub(super) turn: Arc<RunningTurn>,
    /// The session as accepting the turn left it.
    session: Box<StoredSession>,
    prompt: Arc<SessionPrompt>,
    on_disconnect: OnDisconnect,
    request_id: Arc<str>,
    permit: SessionPermit,
}

impl TurnTask {
    pub(super) fn new(
        request: &TurnRequest,
        accept: Accept,
        session: Box<StoredSession>,
        prompt: Arc<SessionPrompt>,
        permit: SessionPermit,
    ) -> Self {
        let turn = Arc::new(RunningTurn::new(
            request.identity.owner.clone(),
            accept.session_id,
            accept.open,
        ));
        // The accept step stored it.
        turn.set_replicated(turn.log.append([Event::Start(accept.start)]));
        Self {
            turn,
            session,
            prompt,
            on_disconnect: request.on_disconnect,
            request_id: Arc::clone(&request.request_id),
            permit,
        }
    }
}

pub(super) struct TurnRunner {
    pub(super) store: ChatStore,
    pub(super) registry: Arc<Registry>,
    pub(super) estimates: TokenEstimates,
    pub(super) finalizer: Finalizer,
    pub(super) shutdown: Shutdown,
}

struct LogSink<'a>(&'a EventLog);

impl Sink for LogSink<'_> {
    async fn deliver(&mut self, chunks: Vec<Chunk>) -> Result<(), Outcome> {
        self.0.write(|writer| {
            for chunk in chunks {
                match chunk {
                    Chunk::Queued { position } => writer.push(Event::Queued { position }),
                    Chunk::Text(text) => pieces(&text).for_each(|piece| writer.token(piece)),
                    Chunk::Thinking(text) => {
                        pieces(&text).for_each(|piece| writer.thinking(piece));
                    }
                    // Tools are only offered without a session.
                    Chunk::Started { .. } | Chunk::ToolCall(_) | Chunk::End { .. } => {}
                }
            }
        });
        Ok(())
    }
}

/// A chunk in pieces that make events of bounded size.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = text.floor_char_boundary(EVENT_SIZE);
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

impl TurnRunner {
    pub(super) async fn run(self: Arc<Self>, task: TurnTask, generation: Box<Generation>) {
        let TurnTask { turn, session, prompt, on_disconnect, request_id, permit } = task;
        let mut answer = AnswerBuilder::default();
        let stop = pin!(async {
            tokio::select! {
                biased;
                reason = turn.stopped() => Outcome::Stopped(reason),
                () = self.shutdown.stopping() => Outcome::Interrupted,
                () = self.abandoned(&turn, on_disconnect) => Outcome::Stopped(StopReason::Cancelled),
            }
        });
        let shared: Arc<dyn Prompt> = Arc::clone(&prompt) as _;
        let outcome =
            generation::run(generation, shared, stop, &mut answer, &mut LogSink(&turn.log)).await;
        let prompt_estimate = prompt.last_estimate();
        let estimates = self.estimates.for_user(&turn.owner.user);
        if let (Some(counted), Outcome::Answered(_)) = (answer.counted, &outcome) {
            estimates.observe(&turn.open.model, prompt_estimate, counted);
        }
        if let Outcome::Failed(error) = &outcome {
            tracing::warn!(message_id = %turn.id(), request_id = %request_id, %error, "model server failed");
        }
        let generated = GeneratedAnswer {
            text: AnswerText::of(&turn.log),
            usage: answer.usage(&estimates, prompt_estimate),
            source: answer.source,
            outcome,
        };
        // Boxed, as is whatever a turn seldom waits for: most of its time it waits for the model.
        Box::pin(self.finalizer.finalize(&turn, session, &prompt, &request_id, generated)).await;
        self.registry.remove(turn.id());
        drop(permit);
    }

    /// Resolves when the turn has had no subscriber, here or elsewhere, for as long as the caller allowed.
    async fn abandoned(&self, turn: &RunningTurn, on_disconnect: OnDisconnect) {
        let OnDisconnect::CancelAfter(grace) = on_disconnect else {
            return std::future::pending().await;
        };
        loop {
            turn.log.until_subscribed(false).await;
            tokio::select! {
                biased;
                () = turn.log.until_subscribed(true) => {}
                () = Box::pin(self.unwatched_elsewhere(turn, grace)) => return,
            }
        }
    }

    /// Resolves when the last subscriber, which may have been one here until now, has been gone for so long.
    async fn unwatched_elsewhere(&self, turn: &RunningTurn, grace: Duration) {
        let mut left_at = Instant::now();
        loop {
            sleep_until(left_at + grace).await;
            match self.watched_elsewhere_at(turn).await {
                Some(Some(later)) if later > left_at => left_at = later,
                Some(_) => return,
                // Only what is known to be so ends the turn.
                None => sleep(WATCHED_INTERVAL).await,
            }
        }
    }

    /// When other instances last had subscribers. `None` where that cannot be known now: a store that is away, or was so recently,
    /// keeps them from saying it.
    async fn watched_elsewhere_at(&self, turn: &RunningTurn) -> Option<Option<Instant>> {
        if !self.store.is_shared() {
            return Some(None);
        }
        timeout(WATCHED_INTERVAL, self.registry.inbox_current()).await.ok()?;
        if !turn.watching_instances().is_empty() {
            return Some(Some(Instant::now()));
        }
        (!self.store.inbox_was_away(WATCHED_SINCE)).then(|| turn.watched_elsewhere_until())
    }
}
