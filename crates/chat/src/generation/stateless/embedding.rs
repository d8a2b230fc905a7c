//! Embeddings: counted, limited and cancelled as completions are.

use std::{ops::Range, time::Instant};

use common::{errors::Code, identity::Identity, shutdown::Shutdown};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    domain::Usage,
    error::{ChatError, explain},
    generation::{
        stateless::{CLEARLY, CompletionService, READER_TIMEOUT, reservation::HeldReservation},
        tokens::TokenEstimates,
    },
    llm::{EmbeddedPart, EmbeddingInput, EmbeddingRequest, EmbeddingRun, ModelError},
};

/// Parts on the way to the reader.
const PARTS: usize = 2;

/// A running request for embeddings. Dropping it ends it at once, wherever it is. It ends without [`EmbeddingChunk::End`] where it
/// was lost, which only a panic can cause.
pub type Embedding = mpsc::Receiver<Result<EmbeddingChunk, ChatError>>;

#[derive(Debug)]
pub enum EmbeddingChunk {
    Part(EmbeddedPart),
    End { tokens: u64 },
}

impl CompletionService {
    /// Starts embedding: its place in the scheduler is taken when this returns. The credential and the day's quota are checked
    /// before the model is asked, by `deadline`; a refusal comes as the first and only result.
    ///
    /// # Errors
    /// No such model, none up, an input that clearly does not fit, a full queue, a service that stops.
    pub fn embed(
        &self,
        identity: Identity,
        model: Option<&str>,
        request: EmbeddingRequest,
        deadline: Instant,
    ) -> Result<Embedding, ChatError> {
        if self.shutdown.is_draining() {
            return Err(ChatError::ShuttingDown);
        }
        let route = self.llm.resolve_embedding(model)?;
        let estimates = self.estimates.for_user(identity.user());
        let estimate = InputEstimate { estimates, model: route.model.clone() };
        let (all, window) = (0..request.input.len(), route.window);
        let is_long = |at| estimate.tokens(&request.input, at..at + 1) / u64::from(CLEARLY);
        if !request.truncate && all.clone().any(|at| is_long(at) > window.into()) {
            return Err(ChatError::Model(ModelError::ContextTooLong("by our estimate".to_owned())));
        }
        let run = self.llm.enqueue_embedding(&route, identity.user())?;
        let tokens = estimate.tokens(&request.input, all);
        let held = HeldReservation::new(self, identity, tokens, tokens);
        let (sender, parts) = mpsc::channel(PARTS);
        let shutdown = self.shutdown.clone();
        let task = EmbeddingTask { request, estimate, held, parts: sender, shutdown };
        // Detached: usage is settled also where the client has left.
        self.shutdown.spawn_work(run.span().run(task.run(run, deadline)));
        Ok(parts)
    }
}

/// Our estimates of inputs, for servers that do not count.
struct InputEstimate {
    estimates: TokenEstimates,
    model: String,
}

impl InputEstimate {
    fn tokens(&self, input: &EmbeddingInput, range: Range<usize>) -> u64 {
        match input {
            EmbeddingInput::Texts(texts) => {
                let texts = texts.get(range).unwrap_or_default();
                texts.iter().map(|text| u64::from(self.estimates.tokens(&self.model, text))).sum()
            }
            EmbeddingInput::Tokens(lists) => {
                let lists = lists.get(range).unwrap_or_default();
                lists.iter().map(|list| list.len() as u64).sum()
            }
        }
    }
}

struct EmbeddingTask {
    request: EmbeddingRequest,
    estimate: InputEstimate,
    held: HeldReservation,
    parts: mpsc::Sender<Result<EmbeddingChunk, ChatError>>,
    shutdown: Shutdown,
}

impl EmbeddingTask {
    async fn run(mut self, run: EmbeddingRun, deadline: Instant) {
        if let Err(error) = self.held.reserve(deadline).await {
            let _ = self.parts.send(Err(error)).await;
            return;
        }
        tokio::select! {
            () = self.embed(run) => {}
            () = self.held.renew() => {}
        }
    }

    async fn embed(&self, run: EmbeddingRun) {
        let mut tokens = 0;
        let outcome = tokio::select! {
            biased;
            () = self.parts.closed() => Err(None),
            () = self.shutdown.stopping() => Err(Some(ChatError::Interrupted)),
            outcome = self.pass_on(run, &mut tokens) => outcome,
        };
        let usage = Usage { prompt_tokens: tokens, completion_tokens: 0 };
        record(&outcome, usage);
        let last = match outcome {
            Ok(()) => Ok(EmbeddingChunk::End { tokens }),
            Err(error) => Err(error.unwrap_or(ChatError::Broken)),
        };
        if self.held.settle(usage, &self.parts, last).await.is_err() {
            let request_id = &self.request.request_id;
            tracing::error!(%request_id, "usage of embeddings could not be stored; it is settled when its lease has lapsed");
        }
    }

    /// Passes every part on, and adds up what they cost. It fails without an error where the reader has gone.
    async fn pass_on(
        &self,
        mut run: EmbeddingRun,
        tokens: &mut u64,
    ) -> Result<(), Option<ChatError>> {
        while let Some(part) = run.next(&self.request).await.map_err(ChatError::Model)? {
            let estimate = || self.estimate.tokens(&self.request.input, part.inputs.clone());
            *tokens += part.tokens.unwrap_or_else(estimate);
            let sent = self.parts.send(Ok(EmbeddingChunk::Part(part)));
            timeout(READER_TIMEOUT, sent).await.map_err(|_| None)?.map_err(|_| None)?;
        }
        Ok(())
    }
}

fn record(outcome: &Result<(), Option<ChatError>>, usage: Usage) {
    let ending = match outcome {
        Ok(()) => "ok",
        Err(None) => "cancelled",
        Err(Some(ChatError::Model(error))) => explain(error).0.as_str(),
        Err(Some(_)) => Code::Interrupted.as_str(),
    };
    metrics::counter!("chat_embeddings_total", "ending" => ending).increment(1);
    crate::generation::record_end(ending, usage);
}
