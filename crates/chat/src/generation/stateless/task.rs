//! A completion's task: it alone asks, listens and settles, and does the ending in one place.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{errors::Code, identity::Owner, store::StoreError};
use futures_util::FutureExt as _;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    domain::{
        FinishReason, Usage,
        error::{ChatError, explain},
    },
    generation::{
        answer_builder::{TEXT_LIMIT, clip},
        stateless::{Part, request::Request},
    },
    llm::{Chunk, Generation, ModelError, Prompt},
    store::reservations::Reservation,
    turns::{
        finalize::{FINISH_PATIENCE, FINISH_PAUSE},
        prompt::Written,
        service::Turns,
    },
};

/// How long a reader may take for a batch before it is given up: a slot of the model is not for holding.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// How long an ending waits for its account to be written; after that it is written later.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// How the listening ended.
enum Outcome {
    Answered(FinishReason),
    Failed(ModelError),
    /// Nobody reads it any more.
    Left,
    Interrupted,
    Broken,
}

/// What there is of an answer, as far as its price goes.
#[derive(Debug, Default)]
struct Tally {
    /// The model that answers; none where nothing came.
    model: Option<String>,
    text: usize,
    thinking: usize,
    written: Written,
    counted: Option<Usage>,
}

/// One completion on its way.
pub(crate) struct Job {
    pub(crate) turns: Arc<Turns>,
    pub(crate) owner: Owner,
    pub(crate) request: Arc<Request>,
    pub(crate) request_id: Arc<str>,
    pub(crate) reservation: Reservation,
    pub(crate) parts: mpsc::Sender<Result<Vec<Part>, ChatError>>,
}

impl Job {
    pub(crate) async fn run(self, answering: Generation, deadline: Instant) {
        if let Err(error) = self.reserve(deadline).await {
            let _ = self.parts.send(Err(error)).await;
            return;
        }
        tokio::select! {
            () = self.answer(answering) => {}
            () = self.renew() => {}
        }
    }

    /// Says again and again that it runs, so that no other process takes it for dead.
    async fn renew(&self) {
        let repository = &self.turns.repository;
        loop {
            sleep(repository.lease() / 3).await;
            let renewed = repository.renew_usage(&self.owner, &self.reservation);
            if let Err(error) = renewed.await {
                tracing::debug!(request_id = %self.request_id, %error, "a completion's lease was not renewed");
            }
        }
    }

    async fn answer(&self, mut answering: Generation) {
        let mut tally = Tally::default();
        let outcome = AssertUnwindSafe(self.listen(&mut answering, &mut tally))
            .catch_unwind()
            .await
            .unwrap_or(Outcome::Broken);
        // The place and the connection are given back first: whatever follows is no work of the model's.
        drop(answering);
        let usage = self.usage_of(&tally);
        self.log(&outcome, usage);
        // Who was answered finds it in the account; a failure waits for nothing.
        let wait = match &outcome {
            Outcome::Answered(_) => SETTLE_WAIT,
            _ => Duration::ZERO,
        };
        let last = match outcome {
            Outcome::Answered(finish) => Ok(vec![Part::End { finish, usage }]),
            Outcome::Failed(error) => Err(ChatError::Model(error)),
            Outcome::Interrupted => Err(ChatError::Interrupted),
            Outcome::Left | Outcome::Broken => Err(ChatError::Broken),
        };
        let settling = timeout(FINISH_PATIENCE, self.settle(usage));
        tokio::pin!(settling);
        let first = timeout(wait, &mut settling).await;
        let told = timeout(READER_PATIENCE, self.parts.send(last));
        let settled = async {
            match first {
                Ok(settled) => settled,
                Err(_) => settling.await,
            }
        };
        if let (Err(_), _) = tokio::join!(settled, told) {
            tracing::error!(request_id = %self.request_id, "a completion could not be settled; its reservation is settled when its lease has lapsed");
        }
    }

    /// Sets the tokens aside, by the deadline; where that stays unknown, sees to it in the background that it is undone.
    async fn reserve(&self, deadline: Instant) -> Result<(), ChatError> {
        let (turns, quota) = (&self.turns, self.turns.limits.tokens_per_day);
        let repository = turns.repository.by(deadline);
        let reserved = repository.reserve_usage(&self.owner, &self.reservation, quota);
        match reserved.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ChatError::QuotaExceeded {
                tokens_per_day: quota.unwrap_or_default(),
            }),
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    self.withdraw_later();
                }
                Err(error.into())
            }
        }
    }

    fn withdraw_later(&self) {
        let (turns, owner) = (Arc::clone(&self.turns), self.owner.clone());
        let reservation = self.reservation.clone();
        self.turns.shutdown.spawn(async move {
            let repository = &turns.repository;
            while repository
                .withdraw_usage(&owner, &reservation)
                .await
                .is_err()
            {
                tokio::select! {
                    () = turns.shutdown.stopping() => return,
                    () = sleep(Duration::from_millis(250)) => {}
                }
            }
        });
    }

    /// Writes the account, until the store takes it.
    async fn settle(&self, usage: Usage) {
        let repository = &self.turns.repository;
        loop {
            match repository
                .settle_usage(&self.owner, &self.reservation, usage)
                .await
            {
                Ok(()) | Err(StoreError::Corrupt(_)) => return,
                Err(_) => sleep(FINISH_PAUSE).await,
            }
        }
    }

    /// Listens to the model until it is done, or nobody listens to us.
    async fn listen(&self, answering: &mut Generation, tally: &mut Tally) -> Outcome {
        let prompt: Arc<dyn Prompt> = Arc::clone(&self.request) as _;
        answering.begin(prompt);
        let stopping = self.turns.shutdown.stopping();
        tokio::pin!(stopping);
        loop {
            let progress = tokio::select! {
                biased;
                () = self.parts.closed() => return Outcome::Left,
                () = &mut stopping => return Outcome::Interrupted,
                progress = answering.next() => progress,
            };
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => return Outcome::Failed(error),
            };
            let (parts, finish) = self.take(progress, tally);
            if !parts.is_empty() {
                tokio::select! {
                    () = &mut stopping => return Outcome::Interrupted,
                    sent = timeout(READER_PATIENCE, self.parts.send(Ok(parts))) => {
                        if !matches!(sent, Ok(Ok(()))) {
                            return Outcome::Left;
                        }
                    }
                }
            }
            if let Some(finish) = finish {
                return Outcome::Answered(finish);
            }
        }
    }

    /// What the caller is told of what happened, and the finish where that was it.
    fn take(&self, progress: Vec<Chunk>, tally: &mut Tally) -> (Vec<Part>, Option<FinishReason>) {
        let mut parts = Vec::with_capacity(progress.len());
        for step in progress {
            match step {
                Chunk::Queued { .. } => {}
                Chunk::Started { model, .. } => {
                    tally.model = Some(model.clone());
                    parts.push(Part::Begun { model });
                }
                Chunk::Text(text) => {
                    let full = piece(&text, &mut tally.text, &mut tally.written, |piece| {
                        parts.push(Part::Text(piece));
                    });
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                }
                Chunk::Thinking(text) => {
                    let full = piece(&text, &mut tally.thinking, &mut tally.written, |piece| {
                        parts.push(Part::Thinking(piece));
                    });
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                }
                Chunk::ToolCall(call) => {
                    let size = call.name.len() + call.arguments.len();
                    let full = tally.text + size > TEXT_LIMIT;
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                    tally.text += size;
                    tally.written.add(&call.name);
                    tally.written.add(&call.arguments);
                    parts.push(Part::ToolCall(call));
                }
                Chunk::End { finish, usage } => {
                    tally.counted = usage;
                    return (parts, Some(finish));
                }
            }
        }
        (parts, None)
    }

    /// As the server counted, which our estimates learn from; else what we think it read and wrote.
    fn usage_of(&self, tally: &Tally) -> Usage {
        let Some(model) = tally.model.as_deref() else {
            return Usage::default();
        };
        if let Some(counted) = tally.counted {
            self.request.learn(model, counted);
            return counted;
        }
        Usage {
            prompt_tokens: self.request.estimate(model).into(),
            completion_tokens: self.request.estimates.written(model, tally.written).into(),
        }
    }

    fn log(&self, outcome: &Outcome, usage: Usage) {
        let ending = match outcome {
            Outcome::Answered(FinishReason::Length) => "length",
            Outcome::Answered(FinishReason::ToolCalls) => "tool_calls",
            Outcome::Answered(_) => "stop",
            Outcome::Failed(error) => {
                tracing::warn!(request_id = %self.request_id, %error, "the model server failed");
                explain(error).0.as_str()
            }
            Outcome::Left => "cancelled",
            Outcome::Interrupted => Code::Interrupted.as_str(),
            Outcome::Broken => Code::Internal.as_str(),
        };
        metrics::counter!("chat_completions_total", "ending" => ending).increment(1);
        metrics::counter!("llm_tokens_total", "kind" => "prompt").increment(usage.prompt_tokens);
        metrics::counter!("llm_tokens_total", "kind" => "completion")
            .increment(usage.completion_tokens);
    }
}

/// Hands out as much of a text as the limit allows; whether that was less than all.
fn piece(
    text: &str,
    used: &mut usize,
    written: &mut Written,
    hand_out: impl FnOnce(String),
) -> bool {
    let (piece, full) = clip(text, TEXT_LIMIT.saturating_sub(*used));
    *used += piece.len();
    written.add(piece);
    if !piece.is_empty() {
        hand_out(piece.to_owned());
    }
    full
}
