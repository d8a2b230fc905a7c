//! A completion: one answer for a caller who keeps the history; of it nothing is stored but what it cost.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{clock, errors::Code, identity::Owner, store::StoreError};
use futures_util::FutureExt as _;
use serde_json::{Map, Value};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    context::{Estimates, MESSAGE_OVERHEAD, default_room},
    llm::{Answering, Progress, Prompt},
    turn::{FINISH_PATIENCE, FINISH_PAUSE, TEXT_LIMIT, clip},
    turns::{ChatError, Turns, explain},
};
use crate::{
    adapters::{Ask, ModelError, PromptMessage, ToolCall},
    models::{FinishReason, Options, Usage, random_text},
    repository::reservations::Reservation,
};

/// Batches on the way to the caller: each is what one read of the model server returned, so that little waits in memory
/// and the model is read no faster than its reader reads.
const BATCHES: usize = 8;

/// How long a reader may take for a batch before it is given up: a slot of the model is not for holding.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// How long an ending waits for its account to be written; after that it is written later.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// What an image costs of the window, roughly, in tokens.
const IMAGE_TOKENS: u32 = 256;

/// Our estimate must be that many times the window before a prompt is refused unasked: it is meant to be too high.
const CLEARLY: u32 = 4;

/// A request for a completion, checked.
#[derive(Clone, Debug)]
pub struct NewCompletion {
    /// The model; the default one where none is named.
    pub model: Option<String>,
    /// The conversation, oldest message first.
    pub messages: Vec<PromptMessage>,
    /// The options.
    pub options: Options,
    /// What is passed through to servers that have it.
    pub extra: Map<String, Value>,
    /// The id of the request, for the log.
    pub request_id: Arc<str>,
}

/// A piece of a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// That model answers; told once, before everything else.
    Begun {
        /// Its id.
        model: String,
    },
    /// Thoughts.
    Thinking(String),
    /// Text.
    Text(String),
    /// A tool call, whole.
    ToolCall(ToolCall),
    /// The end; nothing follows.
    End {
        /// How it ended.
        finish: FinishReason,
        /// What it cost, as the server counted or as we estimate.
        usage: Usage,
    },
}

/// A completion that runs. Dropping it ends it at once, wherever it is.
#[derive(Debug)]
pub struct Completion {
    parts: mpsc::Receiver<Result<Vec<Part>, ChatError>>,
}

/// What a completion asks of the model server.
struct Request {
    messages: Vec<PromptMessage>,
    options: Options,
    extra: Map<String, Value>,
    estimates: Estimates,
}

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
    begun: bool,
    text: usize,
    thinking: usize,
    tokens: u64,
    counted: Option<Usage>,
}

/// One completion on its way.
struct Job {
    turns: Arc<Turns>,
    owner: Owner,
    model: String,
    request: Arc<Request>,
    request_id: Arc<str>,
    reservation: Reservation,
    parts: mpsc::Sender<Result<Vec<Part>, ChatError>>,
}

impl Completion {
    /// What happened since; `None` where the completion was lost, which only a fault of ours can do before its end.
    pub async fn next(&mut self) -> Option<Result<Vec<Part>, ChatError>> {
        self.parts.recv().await
    }

    /// What is there already, without waiting.
    pub fn ready(&mut self) -> Option<Result<Vec<Part>, ChatError>> {
        self.parts.try_recv().ok()
    }
}

impl Turns {
    /// Begins a completion: its place in the queue is taken when this returns. The day's quota is asked before the model
    /// is, by `deadline`; its refusal comes as the first and only thing.
    ///
    /// # Errors
    /// No such model, none up, a prompt that clearly does not fit, a full queue, a service that stops.
    pub fn complete(
        self: &Arc<Self>,
        owner: &Owner,
        new: NewCompletion,
        deadline: Instant,
    ) -> Result<Completion, ChatError> {
        if self.shutdown.is_draining() {
            return Err(ChatError::ShuttingDown);
        }
        let route = self.llm.resolve(new.model.as_deref())?;
        let (model, window) = (route.model.clone(), route.window);
        let request = Request {
            messages: new.messages,
            options: new.options,
            extra: new.extra,
            estimates: self.estimates.clone(),
        };
        let estimate = request.estimate(&model);
        if estimate / CLEARLY > window {
            return Err(ChatError::ContextTooLong { window });
        }
        let answering = self.llm.enter(&route, &owner.user)?;
        let tokens = match self.limits.tokens_per_day {
            Some(_) => request.reservation(estimate, window),
            None => 0,
        };
        let (sender, parts) = mpsc::channel(BATCHES);
        let job = Job {
            turns: Arc::clone(self),
            owner: owner.clone(),
            model,
            request: Arc::new(request),
            request_id: new.request_id,
            reservation: Reservation {
                id: random_text(24),
                day: clock::utc_day(clock::now_ms()),
                tokens,
            },
            parts: sender,
        };
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            metrics::gauge!("chat_completions_running").increment(1.0);
            job.run(answering, deadline).await;
            metrics::gauge!("chat_completions_running").decrement(1.0);
            drop(work);
        });
        Ok(Completion { parts })
    }
}

impl Job {
    async fn run(self, mut answering: Answering, deadline: Instant) {
        if let Err(error) = self.reserve(deadline).await {
            let _ = self.parts.send(Err(error)).await;
            return;
        }
        let mut tally = Tally::default();
        let outcome = AssertUnwindSafe(self.listen(&mut answering, &mut tally))
            .catch_unwind()
            .await
            .unwrap_or(Outcome::Broken);
        // The place and the connection are given back first: whatever follows is no work of the model's.
        drop(answering);
        let usage = self.usage_of(&tally);
        self.log(&outcome, usage);
        let settled = timeout(SETTLE_WAIT, self.settle(usage)).await;
        let last = match outcome {
            Outcome::Answered(finish) => Ok(vec![Part::End { finish, usage }]),
            Outcome::Failed(error) => Err(ChatError::Model(error)),
            Outcome::Interrupted => Err(ChatError::Interrupted),
            Outcome::Left | Outcome::Broken => Err(ChatError::Broken),
        };
        let told = timeout(READER_PATIENCE, self.parts.send(last));
        let later = async {
            if settled.is_err() {
                let settled = timeout(FINISH_PATIENCE, self.settle(usage)).await;
                if settled.is_err() {
                    tracing::error!(request_id = %self.request_id, "a completion could not be settled; its reservation stays");
                }
            }
        };
        let _ = tokio::join!(told, later);
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
    async fn listen(&self, answering: &mut Answering, tally: &mut Tally) -> Outcome {
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
    fn take(
        &self,
        progress: Vec<Progress>,
        tally: &mut Tally,
    ) -> (Vec<Part>, Option<FinishReason>) {
        let mut parts = Vec::with_capacity(progress.len());
        for step in progress {
            match step {
                Progress::Queued { .. } => {}
                Progress::Generating { model, .. } => {
                    tally.begun = true;
                    parts.push(Part::Begun { model });
                }
                Progress::Text(text) => {
                    let full = self.piece(&text, &mut tally.text, &mut tally.tokens, |piece| {
                        parts.push(Part::Text(piece));
                    });
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                }
                Progress::Thinking(text) => {
                    let full = self.piece(&text, &mut tally.thinking, &mut tally.tokens, |piece| {
                        parts.push(Part::Thinking(piece));
                    });
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                }
                Progress::ToolCall(call) => {
                    let size = call.name.len() + call.arguments.len();
                    let full = tally.text + size > TEXT_LIMIT;
                    if full {
                        return (parts, Some(FinishReason::Length));
                    }
                    tally.text += size;
                    tally.tokens += self.tokens(&call.name) + self.tokens(&call.arguments);
                    parts.push(Part::ToolCall(call));
                }
                Progress::End { finish, usage } => {
                    tally.counted = usage;
                    return (parts, Some(finish));
                }
            }
        }
        (parts, None)
    }

    /// Hands out as much of a text as the limit allows; whether that was less than all.
    fn piece(
        &self,
        text: &str,
        used: &mut usize,
        tokens: &mut u64,
        hand_out: impl FnOnce(String),
    ) -> bool {
        let (piece, full) = clip(text, TEXT_LIMIT.saturating_sub(*used));
        *used += piece.len();
        *tokens += self.tokens(piece);
        if !piece.is_empty() {
            hand_out(piece.to_owned());
        }
        full
    }

    fn tokens(&self, text: &str) -> u64 {
        self.request.estimates.tokens(&self.model, text).into()
    }

    /// As the server counted, else what we think it read and wrote.
    fn usage_of(&self, tally: &Tally) -> Usage {
        match tally.counted {
            Some(usage) => usage,
            None if tally.begun => Usage {
                prompt_tokens: self.request.estimate(&self.model).into(),
                completion_tokens: tally.tokens,
            },
            None => Usage::default(),
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

impl Request {
    /// Our estimate of the prompt, in tokens.
    fn estimate(&self, model: &str) -> u32 {
        let tokens = |text: &str| self.estimates.tokens(model, text);
        let json = |value: &Value| tokens(&value.to_string());
        let message = |message: &PromptMessage| {
            let extra = message.extra.iter().flatten();
            let beside: u32 = extra
                .map(|(name, value)| match value {
                    Value::Array(parts) if name == "content" => parts
                        .iter()
                        .map(|part| match part.get("text").and_then(Value::as_str) {
                            Some(text) => tokens(text),
                            None => IMAGE_TOKENS,
                        })
                        .fold(0, u32::saturating_add),
                    Value::String(text) => tokens(text),
                    other => json(other),
                })
                .fold(0, u32::saturating_add);
            tokens(&message.content)
                .saturating_add(beside)
                .saturating_add(MESSAGE_OVERHEAD)
        };
        let tools = self.extra.get("tools").map_or(0, json);
        self.messages
            .iter()
            .map(message)
            .fold(tools, u32::saturating_add)
    }

    /// What it may cost at most, as far as one can tell: for the reservation of the day's quota.
    fn reservation(&self, estimate: u32, window: u32) -> u64 {
        let room = self
            .options
            .max_tokens
            .unwrap_or_else(|| default_room(window));
        u64::from(estimate.min(window)) + u64::from(room.min(window))
    }
}

impl Prompt for Request {
    fn fit(&self, model: &str, window: u32) -> Ask {
        Ask {
            model: model.to_owned(),
            messages: self.messages.clone(),
            options: self.options.clone(),
            window,
            prompt_estimate: self.estimate(model),
            dropped: 0,
            untrimmed: true,
            extra: self.extra.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(message: PromptMessage) -> Request {
        Request {
            messages: vec![message],
            options: Options::default(),
            extra: Map::new(),
            estimates: Estimates::default(),
        }
    }

    #[test]
    fn an_image_does_not_count_by_the_length_of_its_text() {
        let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let parts = json!({ "content": [{ "type": "text", "text": "What is it?" },
            { "type": "image_url", "image_url": { "url": url } }] });
        let message = PromptMessage {
            role: "user".to_owned(),
            content: String::new(),
            extra: parts.as_object().cloned(),
        };
        assert!(request(message).estimate("m") < 300);
    }

    #[test]
    fn a_reservation_is_never_more_than_the_window_read_and_written() {
        let message = PromptMessage {
            role: "user".to_owned(),
            content: "x".repeat(100_000),
            extra: None,
        };
        let request = request(message);
        let estimate = request.estimate("m");
        assert!(estimate > 20_000);
        assert_eq!(request.reservation(estimate, 4096), 4096 + 1024);
    }
}
