//! Errors of model servers: what a provider reports, and what leaves the model layer.

use std::{fmt, time::Duration};

use crate::llm::redaction::Redactor;

/// Why there is no answer, or no more of it. Where the text is meant for the caller the variant says so; all other text is
/// for the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// No connection, an open circuit breaker, or a 502, 503 or 504 that a retry did not help.
    #[error("the model server is unavailable: {0}")]
    Unavailable(String),
    /// The first token, the next one, or the whole answer took too long.
    #[error("the model server took too long: {0}")]
    Timeout(String),
    /// An error answer, garbage, or a stream that was cut off.
    #[error("the model server failed: {0}")]
    Failed(String),
    /// No reachable server has the model. The text is for the caller.
    #[error("no such model: {0}")]
    NotFound(String),
    /// The prompt does not fit, by the server's own count.
    #[error("the prompt does not fit the model's window: {0}")]
    ContextTooLong(String),
    /// Our queue for the provider is full.
    #[error("the queue is full")]
    QueueFull,
    /// The server asks to come back later.
    #[error("the model server is busy")]
    Busy {
        /// At most 60 s, where the server said when.
        retry_after: Option<Duration>,
    },
    /// The request cannot be served as it is. The text is for the caller.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The model cannot do what was asked.
    #[error("the model does not support {0}")]
    UnsupportedByModel(Feature),
}

/// What a model may be unable to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Images,
    Tools,
    Thinking,
    Chat,
}

/// What went wrong, which decides about retries, the circuit breaker and the next provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// No connection, or it broke before a status came.
    Unreachable,
    /// 502, 503 or 504.
    Outage,
    /// The server is there and works, but takes no request now: busy, or still loading.
    Busy,
    /// The process behind the server died; the server starts another one.
    RunnerCrashed,
    Timeout,
    ModelNotFound,
    ContextTooLong,
    Unsupported(Feature),
    /// The server calls the request bad.
    InvalidRequest,
    /// What answers is not the server that the settings mean, or does not let us in.
    Misconfigured,
    /// Anything else: an error answer, garbage, a stream that was cut off.
    Failed,
}

/// What a provider reports in place of an answer. It has no `Display`: the server's own words leave it through a
/// [`Redactor`] alone.
#[derive(Clone, Debug)]
pub(super) struct ProviderError {
    kind: ErrorKind,
    /// In our words.
    context: String,
    /// In the server's words.
    upstream_text: Option<String>,
    /// For the caller, in place of the general sentence.
    advice: Option<String>,
    /// What an operator can do about it.
    hint: Option<&'static str>,
    retry_after: Option<Duration>,
    /// It was tried again already.
    is_retried: bool,
}

impl ProviderError {
    pub(super) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            upstream_text: None,
            advice: None,
            hint: None,
            retry_after: None,
            is_retried: false,
        }
    }

    pub(super) fn failed(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, context)
    }

    /// What the caller asked for is not to be had, in words for the caller.
    pub(super) fn unsupported(advice: &str) -> Self {
        Self {
            advice: Some(advice.to_owned()),
            ..Self::new(ErrorKind::InvalidRequest, "the request was not sent")
        }
    }

    pub(super) fn with_upstream_text(mut self, text: &str) -> Self {
        self.upstream_text = Some(text.to_owned()).filter(|text| !text.trim().is_empty());
        self
    }

    pub(super) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Where the caller made the prompt, and not we, a server that calls the request bad means the caller.
    pub(super) fn attributed(mut self, caller_made_prompt: bool) -> Self {
        const CHECK: &str = "The model server does not accept this request: check the messages, `tools` and `response_format`.";
        if caller_made_prompt && self.kind == ErrorKind::InvalidRequest {
            self.advice.get_or_insert_with(|| CHECK.to_owned());
        }
        self
    }

    /// Keeps a hint that is there.
    pub(super) fn with_hint(mut self, hint: Option<&'static str>) -> Self {
        self.hint = self.hint.or(hint);
        self
    }

    /// The hint where the answer was not understood at all.
    pub(super) fn with_hint_if_failed(self, hint: &'static str) -> Self {
        let hint = (self.kind == ErrorKind::Failed).then_some(hint);
        self.with_hint(hint)
    }

    pub(super) fn without_retry(mut self) -> Self {
        self.is_retried = true;
        self
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        let is_passing = matches!(self.kind, ErrorKind::Busy | ErrorKind::RunnerCrashed);
        !self.is_retried && (is_passing || self.is_outage())
    }

    /// Whether the server is not working.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Outage)
    }

    /// For the log: what was asked, what came, as far as it may be shown, and what to do.
    pub(super) fn describe(&self, redactor: &Redactor<'_>) -> String {
        let mut text = self.context.clone();
        if let Some(theirs) = &self.upstream_text {
            text.push_str(": ");
            text.push_str(&redactor.redact(theirs));
        }
        if let Some(hint) = self.hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        text
    }

    /// What leaves the model layer. `not_found` makes the sentence for a model that the server lacks.
    pub(super) fn into_model_error(
        self,
        redactor: &Redactor<'_>,
        not_found: impl FnOnce() -> ModelError,
    ) -> ModelError {
        let text = self.describe(redactor);
        match self.kind {
            ErrorKind::Unreachable | ErrorKind::Outage if self.retry_after.is_none() => {
                ModelError::Unavailable(text)
            }
            ErrorKind::Unreachable | ErrorKind::Outage | ErrorKind::Busy => ModelError::Busy {
                retry_after: self.retry_after,
            },
            ErrorKind::Timeout => ModelError::Timeout(text),
            ErrorKind::ModelNotFound => not_found(),
            ErrorKind::ContextTooLong => ModelError::ContextTooLong(text),
            ErrorKind::Unsupported(feature) => ModelError::UnsupportedByModel(feature),
            ErrorKind::InvalidRequest => match self.advice {
                Some(advice) => ModelError::Unsupported(advice),
                None => ModelError::Failed(text),
            },
            ErrorKind::RunnerCrashed | ErrorKind::Misconfigured | ErrorKind::Failed => {
                ModelError::Failed(text)
            }
        }
    }
}

impl Feature {
    /// What the caller can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Images => "This model does not support images; ask another one, or leave it out.",
            Self::Tools => "This model does not support tools; ask another one, or leave it out.",
            Self::Thinking => {
                "This model does not support thinking; ask another one, or leave it out."
            }
            Self::Chat => "This model does not support chat; ask another one.",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Chat => "chat",
        })
    }
}

impl ModelError {
    /// How much the error helps the caller: what the request can change comes first, a full queue last.
    pub(super) fn error_priority(&self) -> u8 {
        match self {
            Self::ContextTooLong(_) | Self::Unsupported(_) | Self::UnsupportedByModel(_) => 3,
            Self::Failed(_) | Self::Timeout(_) => 2,
            Self::Unavailable(_) | Self::NotFound(_) | Self::Busy { .. } => 1,
            Self::QueueFull => 0,
        }
    }

    /// The `result` label of `llm_requests_total`.
    pub(super) fn metric_label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Failed(_) => "failed",
            Self::NotFound(_) => "not_found",
            Self::ContextTooLong(_) => "context_too_long",
            Self::QueueFull => "queue_full",
            Self::Busy { .. } => "busy",
            Self::Unsupported(_) | Self::UnsupportedByModel(_) => "unsupported",
        }
    }
}
