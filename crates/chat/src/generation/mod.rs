//! The one loop from a model server's chunks to an answer, for turns and for stateless completions.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use common::otel::Span;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use crate::{
    domain::{FinishReason, StopReason, Usage},
    generation::answer::AnswerBuilder,
    llm::{Chunk, Generation, ModelError, Prompt},
};

pub(crate) mod answer;
pub mod stateless;
pub mod tokens;

pub(crate) enum Outcome {
    Answered(FinishReason),
    Failed(ModelError),
    Stopped(StopReason),
    Abandoned,
    Interrupted,
    Broken,
}

pub(crate) trait Sink {
    /// Takes chunks in order; may wait, which slows the model server down.
    ///
    /// # Errors
    /// The outcome with which the generation ends, where nobody takes them any more.
    async fn deliver(&mut self, chunks: Vec<Chunk>) -> Result<(), Outcome>;
}

/// Runs a generation until the model server has finished or `stop` resolves, and delivers every chunk. `stop` is pinned by the caller:
/// an open stream would otherwise have room for it three times.
pub(crate) async fn run<S: Sink>(
    generation: Box<Generation>,
    prompt: Arc<dyn Prompt>,
    stop: Pin<&mut impl Future<Output = Outcome>>,
    answer: &mut AnswerBuilder,
    sink: &mut S,
) -> Outcome {
    let mut stream = generation.begin(prompt);
    // It waits for several things, which are looked at when one of them happens, and not for every chunk.
    let mut stop = FuturesUnordered::from_iter([stop]);
    let run = async {
        loop {
            let chunks = tokio::select! {
                biased;
                Some(outcome) = stop.next() => return outcome,
                chunks = stream.next() => match chunks {
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
    let outcome = AssertUnwindSafe(run).catch_unwind().await.unwrap_or(Outcome::Broken);
    answer.streamed_tokens = stream.streamed_tokens;
    answer.trace(&outcome);
    outcome
}

/// Counts tokens in the metrics, and says in the span how the answer ended: by a finish reason, or an error's code.
pub(crate) fn record_end(ending: &'static str, usage: Usage) {
    metrics::counter!("llm_tokens_total", "kind" => "prompt").increment(usage.prompt_tokens);
    metrics::counter!("llm_tokens_total", "kind" => "completion")
        .increment(usage.completion_tokens);
    let span = Span::current();
    let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX).into();
    span.set_all(|| {
        [
            ("gen_ai.usage.input_tokens", tokens(usage.prompt_tokens)),
            ("gen_ai.usage.output_tokens", tokens(usage.completion_tokens)),
        ]
    });
    match ending {
        "ok" => {}
        "stop" | "length" | "tool_calls" | "cancelled" => {
            span.set_list("gen_ai.response.finish_reasons", ending);
        }
        error => span.fail(error),
    }
}
