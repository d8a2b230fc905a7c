//! The one loop from a model server's chunks to an answer, for turns and for stateless completions.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;

use crate::{
    domain::{FinishReason, StopReason, Usage},
    generation::answer::AnswerBuilder,
    llm::{Chunk, Generation, ModelError, Prompt},
};

pub(crate) mod answer;
pub mod stateless;
pub mod tokens;

/// How a generation ended.
pub(crate) enum Outcome {
    Answered(FinishReason),
    Failed(ModelError),
    /// Somebody ended it.
    Stopped(StopReason),
    /// The only reader left.
    Abandoned,
    /// The service stops.
    Interrupted,
    /// A panic, which the log has.
    Broken,
}

/// Where the chunks of an answer go.
pub(crate) trait Sink {
    /// Takes chunks in order; may wait, which slows the model server down.
    ///
    /// # Errors
    /// The outcome with which the generation ends, where nobody takes them any more.
    async fn deliver(&mut self, chunks: Vec<Chunk>) -> Result<(), Outcome>;
}

/// Runs a generation until the model server has finished or `stop` resolves, and delivers every chunk.
pub(crate) async fn run<S: Sink>(
    mut generation: Generation,
    prompt: Arc<dyn Prompt>,
    stop: impl Future<Output = Outcome>,
    answer: &mut AnswerBuilder,
    sink: &mut S,
) -> Outcome {
    let run = async {
        generation.begin(prompt);
        tokio::pin!(stop);
        loop {
            let chunks = tokio::select! {
                biased;
                outcome = &mut stop => return outcome,
                chunks = generation.next() => match chunks {
                    Ok(chunks) => chunks,
                    Err(error) => return Outcome::Failed(error),
                },
            };
            let (chunks, finish) = answer.take(chunks);
            if !chunks.is_empty()
                && let Err(outcome) = sink.deliver(chunks).await
            {
                return outcome;
            }
            if let Some(finish) = finish {
                return Outcome::Answered(finish);
            }
        }
    };
    let outcome = AssertUnwindSafe(run)
        .catch_unwind()
        .await
        .unwrap_or(Outcome::Broken);
    answer.record_streamed(generation.streamed_tokens());
    outcome
}

/// Counts tokens in the metrics.
pub(crate) fn count_tokens(usage: Usage) {
    metrics::counter!("llm_tokens_total", "kind" => "prompt").increment(usage.prompt_tokens);
    metrics::counter!("llm_tokens_total", "kind" => "completion")
        .increment(usage.completion_tokens);
}
