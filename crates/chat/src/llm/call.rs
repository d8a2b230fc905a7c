//! One provider's part in a request: its place in the queue, the calls to its server, and how it went.

use std::{sync::Arc, time::Duration};

use common::{
    identity::UserId,
    otel::{Span, SpanKind},
};
use tokio::time::Instant;

use crate::llm::{
    deadlines::StreamTimeouts,
    error::{ErrorKind, ModelError, ProviderError},
    request::ChatRequest,
    scheduler::{Lane, SchedulerPermit},
    upstream::{Upstream, call_span},
};

/// The longest wait that a server can ask for before the retry.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(5);
/// The longest pause between two requests to a busy server.
const MAX_BUSY_PAUSE: Duration = Duration::from_secs(3);

/// Counted and traced when it is dropped, however it ended.
pub(super) struct ProviderCall {
    pub(super) upstream: Arc<Upstream>,
    pub(super) model: String,
    pub(super) permit: SchedulerPermit,
    /// When the wait in the queue began, then when the server was first asked.
    started: Instant,
    result: &'static str,
    /// Of the wait in the queue, then of the calls.
    span: Option<Span>,
}

impl ProviderCall {
    /// Joins the queue of the provider; `None` where it is full.
    pub(super) fn enqueue(
        upstream: Arc<Upstream>,
        model: String,
        user: &UserId,
        lane: Lane,
    ) -> Option<Self> {
        let permit = upstream.scheduler.enqueue(user, lane)?;
        let started = Instant::now();
        Some(Self { upstream, model, permit, started, result: "cancelled", span: None })
    }

    /// The span of the whole request, of which this is the first call.
    pub(super) fn request_span(&self, operation: &'static str) -> Span {
        let span = call_span(&self.upstream, operation, &self.model);
        span.set("gen_ai.operation.name", operation);
        span
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone().unwrap_or_default()
    }

    pub(super) fn waiting(&mut self) {
        self.span.get_or_insert_with(|| Span::child("queue", SpanKind::Internal));
    }

    pub(super) fn admitted(&mut self) {
        self.span = Some(call_span(&self.upstream, "attempt", &self.model));
        self.record_time("llm_queue_wait_seconds");
        self.started = Instant::now();
    }

    pub(super) fn first_token(&self) {
        let waited = self.started.elapsed().as_secs_f64();
        self.span().set("gen_ai.response.time_to_first_chunk", waited);
        self.record_time("llm_time_to_first_token_seconds");
    }

    pub(super) fn succeeded(&mut self) {
        self.result = "ok";
    }

    /// Records how it failed, and makes the error that leaves the model layer.
    pub(super) fn fail(&mut self, error: ProviderError, request: &ChatRequest) -> ModelError {
        let error = self.upstream.model_error(error, &self.model, Some(request));
        self.result = error.metric_label();
        self.span().fail(self.result);
        let (provider, model) = (self.provider(), &self.model);
        tracing::warn!(provider, model, %error, "model server did not answer");
        error
    }

    fn provider(&self) -> &'static str {
        self.upstream.kind.as_str()
    }

    fn record_time(&self, histogram: &'static str) {
        metrics::histogram!(histogram, "provider" => self.provider())
            .record(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for ProviderCall {
    fn drop(&mut self) {
        metrics::counter!("llm_requests_total", "provider" => self.provider(), "result" => self.result).increment(1);
        self.record_time("llm_request_duration_seconds");
    }
}

/// Sends a request, again where that may help, unless probes find meanwhile that nobody is there: once more where what went
/// wrong may have passed; to a server that is busy until the first token is due.
pub(super) async fn send_with_retries<T, F: Future<Output = Result<T, ProviderError>>>(
    upstream: &Upstream,
    timeouts: &mut StreamTimeouts,
    is_retried: &mut bool,
    send: impl Fn() -> F,
) -> Result<T, ProviderError> {
    let retried = async {
        let (mut pause, mut busy) = (retry_pause(), None);
        loop {
            let error = match upstream.guard(send(), timeouts).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_busy = error.kind == ErrorKind::Busy;
            let wait = error.retry_after.unwrap_or_default().max(pause);
            let may_retry = is_busy || (error.is_transient() && !*is_retried);
            if !may_retry || wait > MAX_RETRY_WAIT || !upstream.is_breaker_closed() {
                // What took too long was to become free.
                let was_busy = busy.filter(|_| error.kind == ErrorKind::Timeout);
                return Err(was_busy.unwrap_or(error));
            }
            if timeouts.limit(tokio::time::sleep(wait)).await.is_err() {
                return Err(error);
            }
            *is_retried |= !is_busy;
            busy = is_busy.then_some(error).or(busy);
            pause = (pause * 2).min(MAX_BUSY_PAUSE);
        }
    };
    tokio::select! {
        result = retried => result,
        () = upstream.health.found_absent() => Err(ProviderError::new(
            ErrorKind::Unreachable,
            "it accepts connections and does not answer",
        )),
    }
}

/// Before a retry that the server names no time for: short, and not the same for all who wait.
pub(super) fn retry_pause() -> Duration {
    Duration::from_millis(rand::random_range(100..300))
}
