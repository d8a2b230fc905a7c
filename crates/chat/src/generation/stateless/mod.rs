//! Stateless completions: one answer for a client that keeps its own history; only its usage is stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{clock, errors::Code, identity::Owner, shutdown::Shutdown};
use serde_json::{Map, Value};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    domain::{FinishReason, Options, Usage, random_text},
    error::{ChatError, explain},
    generation::{
        Outcome, Sink,
        answer::AnswerBuilder,
        run,
        stateless::{prompt::StatelessPrompt, reservation::HeldReservation},
        tokens::TokenEstimates,
    },
    llm::{Chunk, Generation, LlmService, Prompt, PromptMessage},
    store::{ChatStore, reservations::Reservation},
};

mod prompt;
mod reservation;

/// Batches on the way to the client: each is what one read of the model server returned, so that little waits in memory and the
/// model is read no faster than its client reads.
const BATCHES: usize = 8;

/// Our estimate must be that many times the window before a prompt is refused without asking the model server: it is meant to be
/// too high.
const CLEARLY: u32 = 4;

/// How long a client may take for a batch before it is given up: a slot of the model must not be held by a slow reader.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a complete answer's end waits for its usage to be stored; after that it is stored later.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// A validated request for a completion.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    pub owner: Owner,
    /// The default model if there is none.
    pub model: Option<String>,
    /// The conversation, oldest message first.
    pub messages: Vec<PromptMessage>,
    pub options: Options,
    /// Members that are passed through to servers that have them.
    pub extra: Map<String, Value>,
    /// For the log.
    pub request_id: Arc<str>,
}

/// A running completion. Dropping it ends it at once, wherever it is.
#[derive(Debug)]
pub struct Completion {
    chunks: mpsc::Receiver<Result<Vec<Chunk>, ChatError>>,
}

impl Completion {
    /// The next chunks, the last of which is [`Chunk::End`] with usage; `None` where the completion was lost, which only a panic can
    /// cause.
    pub async fn next(&mut self) -> Option<Result<Vec<Chunk>, ChatError>> {
        self.chunks.recv().await
    }

    /// Chunks that are available without waiting.
    pub fn available(&mut self) -> Option<Result<Vec<Chunk>, ChatError>> {
        self.chunks.try_recv().ok()
    }
}

/// Runs stateless completions.
#[derive(Clone)]
pub struct CompletionService {
    store: ChatStore,
    llm: LlmService,
    estimates: TokenEstimates,
    /// LLM tokens that a user may use per day.
    tokens_per_day: Option<u64>,
    shutdown: Shutdown,
}

impl CompletionService {
    pub fn new(
        store: ChatStore,
        llm: LlmService,
        estimates: TokenEstimates,
        tokens_per_day: Option<u64>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            llm,
            estimates,
            tokens_per_day,
            shutdown,
        }
    }

    /// Starts a completion: its place in the scheduler is taken when this returns. The day's quota is checked before the model is
    /// asked, by `deadline`; its refusal comes as the first and only result.
    ///
    /// # Errors
    /// No such model, none up, a prompt that clearly does not fit, a full queue, a service that stops.
    pub fn start(
        &self,
        request: CompletionRequest,
        deadline: Instant,
    ) -> Result<Completion, ChatError> {
        if self.shutdown.is_draining() {
            return Err(ChatError::ShuttingDown);
        }
        let CompletionRequest {
            owner,
            model,
            messages,
            options,
            extra,
            request_id,
        } = request;
        let route = self.llm.resolve(model.as_deref())?;
        let (model, window) = (route.model.clone(), route.window);
        let prompt = StatelessPrompt::new(
            messages,
            options,
            extra,
            &request_id,
            self.estimates.for_user(&owner.user),
        );
        let estimate = prompt.estimate(&model);
        if estimate / CLEARLY > window {
            return Err(ChatError::ContextTooLong { window });
        }
        let generation = self.llm.enqueue(&route, &owner.user)?;
        let reservation = Reservation {
            id: random_text(24),
            day: clock::utc_day(clock::now_ms()),
            tokens: self
                .tokens_per_day
                .map_or(0, |_| prompt.reservation(estimate, window)),
            prompt: estimate.min(window).into(),
        };
        let (sender, chunks) = mpsc::channel(BATCHES);
        let held = HeldReservation::new(
            self.store.clone(),
            owner,
            reservation,
            self.tokens_per_day,
            self.shutdown.clone(),
        );
        let task = CompletionTask {
            service: self.clone(),
            prompt: Arc::new(prompt),
            request_id,
            held,
            chunks: sender,
        };
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            metrics::gauge!("chat_completions_running").increment(1.0);
            task.run(generation, deadline).await;
            metrics::gauge!("chat_completions_running").decrement(1.0);
            drop(work);
        });
        Ok(Completion { chunks })
    }
}

/// The task of a completion.
struct CompletionTask {
    service: CompletionService,
    prompt: Arc<StatelessPrompt>,
    request_id: Arc<str>,
    held: HeldReservation,
    chunks: mpsc::Sender<Result<Vec<Chunk>, ChatError>>,
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
    async fn run(self, generation: Generation, deadline: Instant) {
        if let Err(error) = self.held.reserve(deadline).await {
            let _ = self.chunks.send(Err(error)).await;
            return;
        }
        tokio::select! {
            () = self.generate(generation) => {}
            () = self.held.renew() => {}
        }
    }

    async fn generate(&self, generation: Generation) {
        let mut answer = AnswerBuilder::default();
        let shutdown = &self.service.shutdown;
        let stop = async {
            tokio::select! {
                biased;
                () = self.chunks.closed() => Outcome::Abandoned,
                () = shutdown.stopping() => Outcome::Interrupted,
            }
        };
        let prompt: Arc<dyn Prompt> = Arc::clone(&self.prompt) as _;
        let mut sink = ChannelSink {
            chunks: &self.chunks,
            shutdown,
        };
        let outcome = run(generation, prompt, stop, &mut answer, &mut sink).await;
        let usage = self.usage(&answer);
        self.record(&outcome, usage);
        // A client that was answered finds it in its usage; a failure waits for nothing.
        let wait = if matches!(outcome, Outcome::Answered(_)) {
            SETTLE_WAIT
        } else {
            Duration::ZERO
        };
        let last = match outcome {
            Outcome::Answered(finish) => Ok(vec![Chunk::End {
                finish,
                usage: Some(usage),
            }]),
            Outcome::Failed(error) => Err(ChatError::Model(error)),
            Outcome::Interrupted => Err(ChatError::Interrupted),
            Outcome::Abandoned | Outcome::Stopped(_) | Outcome::Broken => Err(ChatError::Broken),
        };
        let settling = self.held.settle(usage);
        tokio::pin!(settling);
        let first = timeout(wait, &mut settling).await;
        let sent = timeout(READER_TIMEOUT, self.chunks.send(last));
        let settled = async {
            match first {
                Ok(settled) => settled,
                Err(_) => settling.await,
            }
        };
        if let (Err(_), _) = tokio::join!(settled, sent) {
            tracing::error!(request_id = %self.request_id, "usage of a completion could not be stored; it is settled when its lease has lapsed");
        }
    }

    /// What it cost. Estimates learn from what the server counted.
    fn usage(&self, answer: &AnswerBuilder) -> Usage {
        if let (Some(source), Some(counted)) = (answer.source(), answer.counted()) {
            self.prompt.learn(&source.model, counted);
        }
        let prompt_estimate = answer
            .source()
            .map_or(0, |source| self.prompt.estimate(&source.model));
        answer.usage(self.prompt.estimates(), prompt_estimate)
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
        super::count_tokens(usage);
    }
}
