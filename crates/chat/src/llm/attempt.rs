//! One provider's part in a request: its queue, the request with its one retry, and the chunks.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::llm::{
    Progress, Prompt,
    circuit_breaker::Verdict,
    deadlines::Patience,
    provider::Provider,
    providers::{Ask, Chunk, Chunks, ModelError, Refusal},
    routing::not_found,
    scheduler::Place,
};

/// The longest wait that a server can ask for before the one retry.
const LONGEST_RETRY_WAIT: Duration = Duration::from_secs(5);

/// One provider's part in a request.
pub(super) struct Leg {
    pub(super) index: usize,
    pub(super) provider: Arc<Provider>,
    pub(super) model: String,
    place: Place,
    /// The position that was told.
    shown: Option<usize>,
    stage: Stage,
    tally: Tally,
}

enum Stage {
    Queued,
    Asking,
    Reading {
        chunks: Chunks,
        patience: Patience,
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

impl Leg {
    pub(super) fn new(index: usize, provider: Arc<Provider>, model: String, place: Place) -> Self {
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
        matches!(self.stage, Stage::Reading { begun: true, .. })
    }

    pub(super) async fn step(&mut self, prompt: &dyn Prompt) -> Result<Vec<Progress>, Refusal> {
        match &mut self.stage {
            Stage::Queued => Ok(self.wait().await),
            Stage::Asking => {
                self.stage = self.open(prompt).await?;
                Ok(Vec::new())
            }
            Stage::Reading {
                chunks, patience, ..
            } => {
                let read = patience
                    .with(chunks.next())
                    .await
                    .map_err(Refusal::content)?;
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

    async fn wait(&mut self) -> Vec<Progress> {
        self.shown = self.place.moved(self.shown).await;
        match self.shown {
            Some(position) => vec![Progress::Queued { position }],
            None => {
                self.stage = Stage::Asking;
                self.tally.admitted();
                Vec::new()
            }
        }
    }

    async fn open(&mut self, prompt: &dyn Prompt) -> Result<Stage, Refusal> {
        let window = self.provider.window(&self.model);
        let ask = prompt.fit(&self.model, window);
        let mut patience = self.provider.patience();
        let chunks = self.request(&ask, &mut patience).await?;
        Ok(Stage::Reading {
            chunks,
            patience,
            window,
            dropped: ask.dropped,
            begun: false,
        })
    }

    /// Sends the request, and once more if what went wrong may have passed.
    async fn request(&mut self, ask: &Ask, patience: &mut Patience) -> Result<Chunks, Refusal> {
        let mut failed: Option<Refusal> = None;
        loop {
            let Some(attempt) = self.provider.breaker.attempt(Instant::now()) else {
                let open =
                    || Refusal::content(ModelError::Unavailable("its breaker is open".to_owned()));
                return Err(failed.unwrap_or_else(open));
            };
            let asked = patience.with(self.provider.adapter.ask(ask)).await;
            let refusal = match asked {
                Ok(Ok(chunks)) => {
                    attempt.judged(Verdict::Works, Instant::now());
                    return Ok(chunks);
                }
                Ok(Err(refusal)) => refusal,
                Err(timeout) => Refusal::content(timeout),
            };
            let verdict = if refusal.is_outage() {
                Verdict::Outage
            } else {
                Verdict::Other
            };
            attempt.judged(verdict, Instant::now());
            let wait = refusal.retry_after.unwrap_or_else(short_wait);
            if failed.is_some() || !refusal.is_passing() || wait > LONGEST_RETRY_WAIT {
                return Err(self.named(refusal.error.clone()).like(refusal));
            }
            patience
                .with(Box::pin(tokio::time::sleep(wait)))
                .await
                .map_err(Refusal::content)?;
            failed = Some(refusal);
        }
    }

    /// An error in words that may reach the caller, where its text does.
    fn named(&self, error: ModelError) -> Refusal {
        Refusal::content(match error {
            ModelError::NotFound(_) => not_found(self.provider.kind, &self.model),
            error => error,
        })
    }

    fn told(&mut self, batch: Vec<Chunk>) -> Vec<Progress> {
        let Stage::Reading {
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
            progress.push(Progress::Generating {
                provider: self.provider.kind,
                model: self.model.clone(),
                window,
                dropped,
            });
            self.tally.first_token();
        }
        for chunk in batch {
            progress.push(match chunk {
                Chunk::Thinking(text) => Progress::Thinking(text),
                Chunk::Text(text) => Progress::Text(text),
                Chunk::ToolCall(call) => Progress::ToolCall(call),
                Chunk::End { finish, usage } => {
                    self.tally.result = "ok";
                    Progress::End { finish, usage }
                }
            });
        }
        progress
    }
}

impl Refusal {
    /// This error, having come about as another refusal did.
    fn like(self, other: Refusal) -> Refusal {
        Refusal {
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
