//! One provider's part in a generation: its queue, the request with its retry, and the stream.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::llm::{
    chunk::Chunk,
    deadlines::StreamTimeouts,
    error::{ModelError, ProviderError},
    providers::{Batch, ChunkStream},
    request::{ChatRequest, Prompt},
    scheduler::SchedulerPermit,
    upstream::Upstream,
};

/// The longest wait that a server can ask for before the retry.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);

pub(super) struct ProviderAttempt {
    upstream: Arc<Upstream>,
    model: String,
    permit: SchedulerPermit,
    reported_position: Option<usize>,
    stage: AttemptStage,
    metrics: AttemptMetrics,
}

enum AttemptStage {
    Waiting,
    Requesting,
    Streaming(Streaming),
}

struct Streaming {
    stream: ChunkStream,
    timeouts: StreamTimeouts,
    window: u32,
    dropped: u64,
    has_output: bool,
}

/// Counts how an attempt ended, also when it is dropped.
struct AttemptMetrics {
    provider: &'static str,
    started: Instant,
    result: &'static str,
}

impl ProviderAttempt {
    pub(super) fn new(upstream: Arc<Upstream>, model: String, permit: SchedulerPermit) -> Self {
        let metrics = AttemptMetrics {
            provider: upstream.kind().as_str(),
            started: Instant::now(),
            result: "cancelled",
        };
        Self {
            upstream,
            model,
            permit,
            reported_position: None,
            stage: AttemptStage::Waiting,
            metrics,
        }
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether the provider has sent a part of the answer, so that no other one can take over.
    pub(super) fn has_output(&self) -> bool {
        matches!(&self.stage, AttemptStage::Streaming(streaming) if streaming.has_output)
    }

    /// The next chunks; may be none.
    pub(super) async fn step(&mut self, prompt: &dyn Prompt) -> Result<Vec<Chunk>, ProviderError> {
        match &mut self.stage {
            AttemptStage::Waiting => Ok(self.wait().await),
            AttemptStage::Requesting => {
                self.stage =
                    AttemptStage::Streaming(open(&self.upstream, &self.model, prompt).await?);
                Ok(Vec::new())
            }
            AttemptStage::Streaming(streaming) => {
                let cut_off = || Err(ProviderError::failed("cut off: the stream ended"));
                let read = streaming.timeouts.limit(streaming.stream.next()).await?;
                let batch = read.unwrap_or_else(cut_off)?;
                Ok(self.chunks(batch))
            }
        }
    }

    /// Records how it failed, and makes the error that leaves the model layer.
    pub(super) fn fail(&mut self, error: ProviderError, prompt: &dyn Prompt) -> ModelError {
        let request = prompt.fit(&self.model, self.upstream.window(&self.model));
        let error = self
            .upstream
            .model_error(error, &self.model, Some(&request));
        self.metrics.result = error.metric_label();
        tracing::warn!(provider = self.metrics.provider, model = self.model, %error, "model server did not answer");
        error
    }

    async fn wait(&mut self) -> Vec<Chunk> {
        self.reported_position = self.permit.changed(self.reported_position).await;
        match self.reported_position {
            Some(position) => vec![Chunk::Queued { position }],
            None => {
                self.stage = AttemptStage::Requesting;
                self.metrics.admitted();
                Vec::new()
            }
        }
    }

    fn chunks(&mut self, batch: Batch) -> Vec<Chunk> {
        let AttemptStage::Streaming(streaming) = &mut self.stage else {
            return batch.chunks;
        };
        // A tool call is told when it is whole, but the model is at work from its first piece on.
        let has_output = batch.deltas > 0 || !batch.chunks.is_empty();
        let is_first = !streaming.has_output && has_output;
        if streaming.has_output || is_first {
            let now = Instant::now();
            streaming.timeouts.restart_idle(now);
            self.upstream.health().record_output(now);
        }
        if batch.is_finished() {
            self.metrics.result = "ok";
        }
        if !is_first {
            return batch.chunks;
        }
        streaming.has_output = true;
        self.metrics.first_token();
        let started = Chunk::Started {
            provider: self.upstream.kind(),
            model: self.model.clone(),
            window: streaming.window,
            dropped: streaming.dropped,
        };
        std::iter::once(started).chain(batch.chunks).collect()
    }
}

async fn open(
    upstream: &Upstream,
    model: &str,
    prompt: &dyn Prompt,
) -> Result<Streaming, ProviderError> {
    let window = upstream.window(model);
    let request = prompt.fit(model, window);
    let mut timeouts = upstream.stream_timeouts();
    let stream = send(upstream, &request, &mut timeouts).await?;
    Ok(Streaming {
        stream,
        timeouts,
        window,
        dropped: request.dropped,
        has_output: false,
    })
}

/// Sends the request, and once more if what went wrong may have passed.
async fn send(
    upstream: &Upstream,
    request: &ChatRequest,
    timeouts: &mut StreamTimeouts,
) -> Result<ChunkStream, ProviderError> {
    let first = match upstream.call(request, timeouts).await {
        Err(error) if error.is_transient() => error,
        result => return result,
    };
    let wait = first.retry_after().unwrap_or_else(retry_pause);
    if wait > MAX_RETRY_WAIT || !upstream.is_breaker_closed() {
        return Err(first);
    }
    timeouts.limit(tokio::time::sleep(wait)).await?;
    upstream.call(request, timeouts).await
}

/// Before a retry that the server names no time for: short, and not the same for all who wait.
fn retry_pause() -> Duration {
    Duration::from_millis(rand::random_range(100..300))
}

impl AttemptMetrics {
    fn admitted(&mut self) {
        metrics::histogram!("llm_queue_wait_seconds", "provider" => self.provider)
            .record(self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
    }

    fn first_token(&self) {
        metrics::histogram!("llm_time_to_first_token_seconds", "provider" => self.provider)
            .record(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for AttemptMetrics {
    fn drop(&mut self) {
        metrics::counter!("llm_requests_total", "provider" => self.provider, "result" => self.result).increment(1);
        metrics::histogram!("llm_request_duration_seconds", "provider" => self.provider)
            .record(self.started.elapsed().as_secs_f64());
    }
}
