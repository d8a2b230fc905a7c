//! A generation: one answer through the queue and the providers, with failover before its first token.

use std::sync::Arc;

use common::otel::Span;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::llm::{
    attempt::ProviderAttempt, chunk::Chunk, error::ModelError, failover::Failover,
    providers::Batch, request::Prompt,
};

/// A place in the queue, for a prompt that is not known yet. Dropping it gives the place back.
pub struct Generation {
    pub(super) failover: Failover,
    pub(super) attempt: ProviderAttempt,
}

/// The answer to a prompt. Dropping it at any moment gives the place back and closes the connection.
pub struct GenerationStream {
    /// A stream, so that dropping the future of `next` loses nothing.
    batches: BoxStream<'static, Result<Batch, ModelError>>,
    /// The pieces of output that came so far. On Ollama each is a token; other servers may put several tokens into one.
    pub streamed_tokens: u64,
}

impl Generation {
    /// The span in which everything about this answer is to run.
    pub fn span(&self, prompt: &dyn Prompt) -> Span {
        self.attempt.answer_span(prompt)
    }

    pub fn begin(self: Box<Self>, prompt: Arc<dyn Prompt>) -> GenerationStream {
        // Ends with itself, so that the place is given back as soon as the answer is whole.
        let batches = stream::unfold(Some(self), move |running| {
            let prompt = Arc::clone(&prompt);
            async move {
                let mut running = running?;
                let step = running.step(&*prompt).await;
                let goes_on = matches!(&step, Ok(batch) if !batch.is_finished());
                Some((step, goes_on.then_some(running)))
            }
        });
        GenerationStream { batches: batches.boxed(), streamed_tokens: 0 }
    }

    /// What comes next; empty where it moved on to another provider.
    async fn step(&mut self, prompt: &dyn Prompt) -> Result<Batch, ModelError> {
        let error = match self.attempt.step(prompt).await {
            Ok(batch) => return Ok(batch),
            Err(error) => error,
        };
        let has_answered = self.attempt.has_output();
        let call = &mut self.attempt.call;
        let said = prompt.fit(&call.model, call.upstream.window(&call.model));
        let next = self.failover.advance(call, error, &said, has_answered)?;
        self.attempt = ProviderAttempt::new(next);
        Ok(Batch::default())
    }
}

impl GenerationStream {
    /// The next chunks, never none: everything that one read returned comes at once. After [`Chunk::End`] or an error it
    /// must not be called again. Dropping the future loses nothing: the next call goes on.
    ///
    /// # Errors
    /// Whatever ended the answer without [`Chunk::End`].
    pub async fn next(&mut self) -> Result<Vec<Chunk>, ModelError> {
        while let Some(batch) = self.batches.next().await {
            let batch = batch?;
            self.streamed_tokens += batch.deltas;
            if !batch.chunks.is_empty() {
                return Ok(batch.chunks);
            }
        }
        Err(ModelError::Failed("the generation has ended".to_owned()))
    }
}
