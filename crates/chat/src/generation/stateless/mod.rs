//! Stateless completions: one answer for a client that keeps its own history; only its usage is stored.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    errors::Code,
    identity::{Authenticator, Identity, UserId},
    shutdown::Shutdown,
};
use serde_json::{Map, Value};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use crate::{
    domain::{FinishReason, Options, Usage},
    error::{ChatError, explain},
    generation::{
        Outcome, Sink,
        answer::AnswerBuilder,
        run,
        stateless::{prompt::StatelessPrompt, reservation::HeldReservation},
        tokens::TokenEstimates,
    },
    llm::{Chunk, Generation, LlmService, ModelError, Prompt, PromptMessage},
    store::ChatStore,
};

mod embedding;
mod prompt;
mod reservation;

pub use self::embedding::{Embedding, EmbeddingChunk};

/// Batches on the way to the client: each is what one read of the model server returned, so that little waits in memory and the
/// model is read no faster than its client reads.
const BATCHES: usize = 8;

/// Our estimate must be that many times the window before a prompt is refused without asking the model server: it is meant to be
/// too high.
const CLEARLY: u32 = 4;

/// How long a client may take for a batch before it is given up: a slot of the model must not be held by a slow reader.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct CompletionRequest {
    /// The default model if there is none.
    pub model: Option<String>,
    /// The conversation, oldest message first.
    pub messages: Vec<PromptMessage>,
    pub options: Options,
    /// Members that are passed through to servers that have them.
    pub extra: Map<String, Value>,
    /// Whether the oldest messages are left out where the conversation does not fit the window.
    pub truncates: bool,
}

/// A running completion. Dropping it ends it at once, wherever it is.
#[derive(Debug)]
pub struct Completion {
    pub model: String,
    /// Our estimate of the prompt, in tokens.
    pub prompt_estimate: u32,
    /// The chunks, the last of which is [`Chunk::End`] with usage. They end without one where the completion was lost, which only
    /// a panic can cause.
    pub chunks: mpsc::Receiver<Result<Vec<Chunk>, ChatError>>,
}

#[derive(Clone)]
pub struct CompletionService {
    store: ChatStore,
    authenticator: Authenticator,
    llm: LlmService,
    estimates: TokenEstimates,
    /// LLM tokens that a user may use per day.
    tokens_per_day: Option<u64>,
    shutdown: Shutdown,
}

impl CompletionService {
    pub fn new(
        store: ChatStore,
        authenticator: Authenticator,
        llm: LlmService,
        estimates: TokenEstimates,
        tokens_per_day: Option<u64>,
        shutdown: Shutdown,
    ) -> Self {
        Self { store, authenticator, llm, estimates, tokens_per_day, shutdown }
    }

    /// Our estimate of the prompt of a user's request, in tokens, at least 1. Asks no model, nor whether any is up.
    ///
    /// # Errors
    /// No such model.
    pub fn estimate(&self, user: &UserId, request: CompletionRequest) -> Result<u64, ChatError> {
        let model = match self.llm.resolve(request.model.as_deref()) {
            Ok(route) => route.model,
            Err(ModelError::Unavailable(_)) => request.model.clone().unwrap_or_default(),
            Err(error) => return Err(error.into()),
        };
        let prompt = StatelessPrompt::new(request, "".into(), self.estimates.for_user(user));
        Ok(prompt.estimate(&model).max(1).into())
    }

    /// Starts a completion for whoever asks, as the credential was checked: its place in the scheduler is taken when this returns.
    /// The credential and the day's quota are checked before the model is asked, by `deadline`; a refusal comes as the first and
    /// only result. `memory` is the part of the memory for large bodies that the request's body holds; it is given back when the
    /// completion has ended.
    ///
    /// # Errors
    /// No such model, none up, a prompt that clearly does not fit, a full queue, a service that stops.
    pub fn start(
        &self,
        identity: Identity,
        request_id: Arc<str>,
        request: CompletionRequest,
        memory: Option<OwnedSemaphorePermit>,
        deadline: Instant,
    ) -> Result<Completion, ChatError> {
        if self.shutdown.is_draining() {
            return Err(ChatError::ShuttingDown);
        }
        let route = self.llm.resolve(request.model.as_deref())?;
        let (model, window) = (route.model.clone(), route.window);
        let truncates = request.truncates;
        let estimates = self.estimates.for_user(identity.user());
        let prompt = StatelessPrompt::new(request, request_id.clone(), estimates);
        let estimate = prompt.estimate(&model);
        if !truncates && estimate / CLEARLY > window {
            return Err(ChatError::ContextTooLong { window });
        }
        let generation = self.llm.enqueue(&route, identity.user())?;
        let tokens = prompt.reservation(estimate, window);
        let held = HeldReservation::new(self, identity, tokens, estimate.min(window).into());
        let (sender, chunks) = mpsc::channel(BATCHES);
        let task = CompletionTask {
            prompt: Arc::new(prompt),
            request_id,
            held,
            chunks: sender,
            shutdown: self.shutdown.clone(),
            _memory: memory,
        };
        // Detached: usage is settled also where the client has left.
        self.shutdown.spawn_work(generation.span(&*task.prompt).run(async move {
            metrics::gauge!("chat_completions_running").increment(1.0);
            task.run(generation, deadline).await;
            metrics::gauge!("chat_completions_running").decrement(1.0);
        }));
        Ok(Completion { model, prompt_estimate: estimate, chunks })
    }
}

struct CompletionTask {
    prompt: Arc<StatelessPrompt>,
    request_id: Arc<str>,
    held: HeldReservation,
    chunks: mpsc::Sender<Result<Vec<Chunk>, ChatError>>,
    shutdown: Shutdown,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Passes chunks to the client, and waits for it.
struct ChannelSink<'a> {
    chunks: &'a mpsc::Sender<Result<Vec<Chunk>, ChatError>>,
    shutdown: &'a Shutdown,
}

impl Sink for ChannelSink<'_> {
    async fn deliver(&mut self, mut chunks: Vec<Chunk>) -> Result<(), Outcome> {
        // No API without sessions tells its clients about the queue.
        chunks.retain(|chunk| !matches!(chunk, Chunk::Queued { .. }));
        if chunks.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            sent = timeout(READER_TIMEOUT, self.chunks.send(Ok(chunks))) => match sent {
                Ok(Ok(())) => Ok(()),
                _ => Err(Outcome::Abandoned),
            },
            () = self.shutdown.stopping() => Err(Outcome::Interrupted),
        }
    }
}

impl CompletionTask {
    async fn run(mut self, generation: Box<Generation>, deadline: Instant) {
        match self.held.reserve(deadline).await {
            Ok(None) => {}
            Ok(Some(limit)) => self.prompt.limit_answer(limit),
            Err(error) => {
                let _ = self.chunks.send(Err(error)).await;
                return;
            }
        }
        tokio::select! {
            () = self.generate(generation) => {}
            () = self.held.renew() => {}
        }
    }

    async fn generate(&self, generation: Box<Generation>) {
        let mut answer = AnswerBuilder::default();
        let shutdown = &self.shutdown;
        let stop = pin!(async {
            tokio::select! {
                biased;
                () = self.chunks.closed() => Outcome::Abandoned,
                () = shutdown.stopping() => Outcome::Interrupted,
            }
        });
        let prompt: Arc<dyn Prompt> = Arc::clone(&self.prompt) as _;
        let mut sink = ChannelSink { chunks: &self.chunks, shutdown };
        let outcome = run(generation, prompt, stop, &mut answer, &mut sink).await;
        let usage = self.usage(&answer);
        self.record(&outcome, usage);
        let last = match outcome {
            Outcome::Answered(finish) => Ok(vec![answer.end(finish, usage)]),
            Outcome::Failed(error) => Err(ChatError::Model(error)),
            Outcome::Interrupted => Err(ChatError::Interrupted),
            Outcome::Abandoned | Outcome::Stopped(_) | Outcome::Broken => Err(ChatError::Broken),
        };
        if self.held.settle(usage, &self.chunks, last).await.is_err() {
            tracing::error!(request_id = %self.request_id, "usage of a completion could not be stored; it is settled when its lease has lapsed");
        }
    }

    /// What it cost. Estimates learn from what the server counted.
    fn usage(&self, answer: &AnswerBuilder) -> Usage {
        if let (Some(source), Some(counted)) = (&answer.source, answer.counted) {
            self.prompt.learn(&source.model, counted);
        }
        let prompt_estimate =
            answer.source.as_ref().map_or(0, |source| self.prompt.estimate(&source.model));
        answer.usage(&self.prompt.estimates, prompt_estimate)
    }

    fn record(&self, outcome: &Outcome, usage: Usage) {
        let ending = match outcome {
            Outcome::Answered(FinishReason::Length) => "length",
            Outcome::Answered(FinishReason::ToolCalls) => "tool_calls",
            Outcome::Answered(_) => "stop",
            Outcome::Failed(error) => {
                tracing::warn!(request_id = %self.request_id, %error, "model server failed");
                explain(error).0.as_str()
            }
            Outcome::Abandoned | Outcome::Stopped(_) => "cancelled",
            Outcome::Interrupted => Code::Interrupted.as_str(),
            Outcome::Broken => Code::Internal.as_str(),
        };
        metrics::counter!("chat_completions_total", "ending" => ending).increment(1);
        super::record_end(ending, usage);
    }
}
