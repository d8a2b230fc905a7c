//! One provider's part in a generation: its queue, the request with its retry, and the stream.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::llm::{
    chunk::Chunk,
    deadlines::StreamTimeouts,
    error::{ErrorKind, ModelError, ProviderError},
    providers::{Batch, ChunkStream},
    request::{ChatRequest, Prompt},
    scheduler::SchedulerPermit,
    upstream::Upstream,
};

/// The longest wait that a server can ask for before the retry.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);
/// The longest pause between two requests to a busy server.
const MAX_BUSY_PAUSE: Duration = Duration::from_secs(3);
/// Parts of the window that a prompt is cut to where the server finds it too long.
const NARROWER: [(u32, u32); 2] = [(3, 4), (1, 2)];

pub(super) struct ProviderAttempt {
    upstream: Arc<Upstream>,
    model: String,
    permit: SchedulerPermit,
    reported_position: Option<usize>,
    stage: AttemptStage,
    /// A stream failed before its first output, and was asked for again.
    is_restarted: bool,
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
            is_restarted: false,
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

    /// What comes next; may be nothing.
    pub(super) async fn step(&mut self, prompt: &dyn Prompt) -> Result<Batch, ProviderError> {
        match &mut self.stage {
            AttemptStage::Waiting => Ok(self.wait().await),
            AttemptStage::Requesting => {
                let streaming = open(&self.upstream, &self.model, prompt).await?;
                self.stage = AttemptStage::Streaming(streaming);
                Ok(Batch::default())
            }
            AttemptStage::Streaming(streaming) => {
                let cut_off = || Err(ProviderError::failed("cut off: the stream ended"));
                let read = streaming.timeouts.limit(streaming.stream.next()).await?;
                match read.unwrap_or_else(cut_off) {
                    Ok(batch) => Ok(self.output(batch)),
                    Err(error) if self.can_restart(&error) => {
                        self.is_restarted = true;
                        tokio::time::sleep(retry_pause()).await;
                        self.stage = AttemptStage::Requesting;
                        Ok(Batch::default())
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn can_restart(&self, error: &ProviderError) -> bool {
        error.is_transient() && !self.is_restarted && !self.has_output()
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

    async fn wait(&mut self) -> Batch {
        self.reported_position = self.permit.changed(self.reported_position).await;
        match self.reported_position {
            Some(position) => Batch {
                chunks: vec![Chunk::Queued { position }],
                deltas: 0,
            },
            None => {
                self.stage = AttemptStage::Requesting;
                self.metrics.admitted();
                Batch::default()
            }
        }
    }

    fn output(&mut self, mut batch: Batch) -> Batch {
        let AttemptStage::Streaming(streaming) = &mut self.stage else {
            return batch;
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
        if is_first {
            streaming.has_output = true;
            self.metrics.first_token();
            let started = Chunk::Started {
                provider: self.upstream.kind(),
                model: self.model.clone(),
                window: streaming.window,
                dropped: streaming.dropped,
            };
            batch.chunks.insert(0, started);
        }
        batch
    }
}

async fn open(
    upstream: &Upstream,
    model: &str,
    prompt: &dyn Prompt,
) -> Result<Streaming, ProviderError> {
    let window = upstream.window(model);
    let mut request = prompt.fit(model, window);
    let mut timeouts = upstream.stream_timeouts();
    let mut narrower = NARROWER.iter();
    let stream = loop {
        let sent = tokio::select! {
            sent = send(upstream, &request, &mut timeouts) => sent,
            () = upstream.health().found_absent() => Err(ProviderError::new(
                ErrorKind::Unreachable,
                "it accepts connections and does not answer",
            )),
        };
        let error = match sent {
            Ok(stream) => break stream,
            Err(error) => error,
        };
        // Our estimate was too low: an earlier part of the conversation goes, and is counted as dropped.
        let is_trimmed = error.kind() == ErrorKind::ContextTooLong && !request.untrimmed;
        let Some((part, whole)) = narrower.next().filter(|_| is_trimmed) else {
            return Err(error);
        };
        let trimmed = prompt.fit(model, window / whole * part);
        if trimmed.messages.len() == request.messages.len() {
            return Err(error);
        }
        request = ChatRequest { window, ..trimmed };
    };
    Ok(Streaming {
        stream,
        timeouts,
        window,
        dropped: request.dropped,
        has_output: false,
    })
}

/// Sends the request, and once more if what went wrong may have passed. A server that is busy is asked again until the
/// first token is due.
async fn send(
    upstream: &Upstream,
    request: &ChatRequest,
    timeouts: &mut StreamTimeouts,
) -> Result<ChunkStream, ProviderError> {
    let (mut pause, mut is_retried) = (retry_pause(), false);
    loop {
        let error = match upstream.call(request, timeouts).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_busy = error.kind() == ErrorKind::Busy;
        let wait = error.retry_after().unwrap_or_default().max(pause);
        let may_retry = is_busy || (error.is_transient() && !is_retried);
        if !may_retry || wait > MAX_RETRY_WAIT || !upstream.is_breaker_closed() {
            return Err(error);
        }
        if timeouts.limit(tokio::time::sleep(wait)).await.is_err() {
            return Err(error);
        }
        is_retried |= !is_busy;
        pause = (pause * 2).min(MAX_BUSY_PAUSE);
    }
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
