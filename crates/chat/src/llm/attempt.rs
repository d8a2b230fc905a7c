//! One provider's part in a request: its queue, the request with its one retry, and the chunks.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::llm::{
    chunk::Chunk,
    circuit_breaker::Verdict,
    deadlines::StreamTimeouts,
    error::{ModelError, RequestError},
    providers::Chunks,
    request::{ChatRequest, Prompt},
    routing::not_found,
    scheduler::SchedulerPermit,
    upstream::Upstream,
};

/// The longest wait that a server can request for before the one retry.
const LONGEST_RETRY_WAIT: Duration = Duration::from_secs(5);

/// One provider's part in a request.
pub(super) struct ProviderAttempt {
    pub(super) index: usize,
    pub(super) provider: Arc<Upstream>,
    pub(super) model: String,
    place: SchedulerPermit,
    /// The position that was told.
    shown: Option<usize>,
    stage: Stage,
    tally: Tally,
}

enum Stage {
    Queued,
    Asking,
    ResponseStream {
        chunks: Chunks,
        patience: StreamTimeouts,
        window: u32,
        dropped: u64,
        begun: bool,
    },
}

/// Counts how a leg ended, also when it is dropped.
struct Tally {
    provider: &'static str,
    started: Instant,
    result: &'static str,
}

impl ProviderAttempt {
    pub(super) fn new(
        index: usize,
        provider: Arc<Upstream>,
        model: String,
        place: SchedulerPermit,
    ) -> Self {
        let tally = Tally {
            provider: provider.kind.as_str(),
            started: Instant::now(),
            result: "cancelled",
        };
        Self {
            index,
            provider,
            model,
            place,
            shown: None,
            stage: Stage::Queued,
            tally,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::ResponseStream { begun: true, .. })
    }

    pub(super) async fn step(&mut self, prompt: &dyn Prompt) -> Result<Vec<Chunk>, RequestError> {
        match &mut self.stage {
            Stage::Queued => Ok(self.wait().await),
            Stage::Asking => {
                self.stage = self.open(prompt).await?;
                Ok(Vec::new())
            }
            Stage::ResponseStream {
                chunks, patience, ..
            } => {
                let read = patience
                    .with(chunks.next())
                    .await
                    .map_err(RequestError::content)?;
                let cut_off = || Err(ModelError::Failed("cut off: the stream ended".to_owned()));
                let batch = read
                    .unwrap_or_else(cut_off)
                    .map_err(|error| self.named(error))?;
                Ok(self.told(batch))
            }
        }
    }

    /// Notes how it failed.
    pub(super) fn failed(&mut self, error: &ModelError) {
        self.tally.result = result(error);
    }

    async fn wait(&mut self) -> Vec<Chunk> {
        self.shown = self.place.moved(self.shown).await;
        match self.shown {
            Some(position) => vec![Chunk::Queued { position }],
            None => {
                self.stage = Stage::Asking;
                self.tally.admitted();
                Vec::new()
            }
        }
    }

    async fn open(&mut self, prompt: &dyn Prompt) -> Result<Stage, RequestError> {
        let window = self.provider.window(&self.model);
        let request = prompt.fit(&self.model, window);
        let mut patience = self.provider.patience();
        let chunks = self.request(&request, &mut patience).await?;
        Ok(Stage::ResponseStream {
            chunks,
            patience,
            window,
            dropped: request.dropped,
            begun: false,
        })
    }

    /// Sends the request, and once more if what went wrong may have passed.
    async fn request(
        &mut self,
        request: &ChatRequest,
        patience: &mut StreamTimeouts,
    ) -> Result<Chunks, RequestError> {
        let mut failed: Option<RequestError> = None;
        loop {
            let Some(attempt) = self.provider.breaker.attempt(Instant::now()) else {
                let open = || {
                    RequestError::content(ModelError::Unavailable("its breaker is open".to_owned()))
                };
                return Err(failed.unwrap_or_else(open));
            };
            let asked = patience.with(self.provider.client.chat(request)).await;
            let refusal = match asked {
                Ok(Ok(chunks)) => {
                    attempt.judged(Verdict::Works, Instant::now());
                    return Ok(chunks);
                }
                Ok(Err(refusal)) => refusal,
                Err(timeout) => RequestError::content(timeout),
            };
            let classify_error = if refusal.is_outage() {
                Verdict::Outage
            } else {
                Verdict::Other
            };
            attempt.judged(classify_error, Instant::now());
            let wait = refusal.retry_after.unwrap_or_else(short_wait);
            if failed.is_some() || !refusal.is_passing() || wait > LONGEST_RETRY_WAIT {
                return Err(self.named(refusal.error.clone()).like(refusal));
            }
            patience
                .with(Box::pin(tokio::time::sleep(wait)))
                .await
                .map_err(RequestError::content)?;
            failed = Some(refusal);
        }
    }

    /// An error in words that may reach the caller, where its text does.
    fn named(&self, error: ModelError) -> RequestError {
        RequestError::content(match error {
            ModelError::NotFound(_) => not_found(self.provider.kind, &self.model),
            error => error,
        })
    }

    fn told(&mut self, batch: Vec<Chunk>) -> Vec<Chunk> {
        let Stage::ResponseStream {
            patience,
            window,
            dropped,
            begun,
            ..
        } = &mut self.stage
        else {
            return Vec::new();
        };
        let is_first = !*begun && !batch.is_empty();
        if *begun || is_first {
            let now = Instant::now();
            patience.read(now);
            self.provider.was_heard(now);
        }
        let mut progress = Vec::with_capacity(batch.len() + usize::from(is_first));
        if is_first {
            *begun = true;
            let (window, dropped) = (*window, *dropped);
            progress.push(Chunk::Started {
                provider: self.provider.kind,
                model: self.model.clone(),
                window,
                dropped,
            });
            self.tally.first_token();
        }
        if matches!(batch.last(), Some(Chunk::End { .. })) {
            self.tally.result = "ok";
        }
        progress.extend(batch);
        progress
    }
}

impl RequestError {
    /// This error, having come about as another refusal did.
    fn like(self, other: RequestError) -> RequestError {
        RequestError {
            error: self.error,
            ..other
        }
    }
}

/// Before a retry that the server names no time for: short, and not the same for all who wait.
fn short_wait() -> Duration {
    Duration::from_millis(rand::random_range(100..300))
}

impl Tally {
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

impl Drop for Tally {
    fn drop(&mut self) {
        metrics::counter!("llm_requests_total", "provider" => self.provider, "result" => self.result).increment(1);
        metrics::histogram!("llm_request_duration_seconds", "provider" => self.provider)
            .record(self.started.elapsed().as_secs_f64());
    }
}

/// The error's name in the metrics.
fn result(error: &ModelError) -> &'static str {
    match error {
        ModelError::Unavailable(_) => "unavailable",
        ModelError::Timeout(_) => "timeout",
        ModelError::Failed(_) => "failed",
        ModelError::NotFound(_) => "not_found",
        ModelError::ContextTooLong(_) => "context_too_long",
        ModelError::QueueFull => "queue_full",
        ModelError::Busy { .. } => "busy",
        ModelError::Unsupported(_) => "unsupported",
    }
}
