//! Errors of model servers: what a provider reports, and what leaves the model layer.

use std::time::Duration;

use crate::llm::redaction::Redactor;

/// Why there is no answer, or no more of it. Where the text is meant for the caller the variant says so; all other text is for the log.
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
    #[error("the queue is full")]
    QueueFull,
    #[error("the model server is busy")]
    Busy {
        /// At most 60 s, where the server said when.
        retry_after: Option<Duration>,
    },
    /// The request itself is wrong, for all that is known in the member at `pointer`. The text is for the caller.
    #[error("the request is wrong: {detail}")]
    InvalidRequest { detail: &'static str, pointer: Option<&'static str> },
    #[error("the model does not support {}", .0.named().0)]
    UnsupportedByModel(Feature),
}

/// What a model may be unable to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Images,
    /// Images that the server would have to fetch.
    ImageAddresses,
    /// Parts of a message that are neither text nor images.
    Files,
    Tools,
    /// Tools that take a text in place of JSON.
    CustomTools,
    /// A JSON schema that the answer must have.
    Schema,
    Thinking,
    Chat,
    Embeddings,
    /// Tokens in the place of texts.
    Tokens,
    /// Embeddings of the length that was asked for.
    Dimensions,
}

/// What went wrong, which decides about retries, the circuit breaker and the next provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// No connection, or it broke before a status came.
    Unreachable,
    /// 502, 503 or 504.
    Outage,
    /// The server is there and works, but takes no request now: busy, or still loading.
    Busy,
    /// The process behind the server died; the server starts another one.
    RunnerCrashed,
    /// The stream broke or ended before the answer was complete. As long as nothing of it came it may be asked for again.
    CutOff,
    Timeout,
    ModelNotFound,
    ContextTooLong,
    Unsupported(Feature),
    InvalidRequest,
    /// What answers is not the server that the settings mean, or does not let us in.
    Misconfigured,
    /// Anything else: an error answer, garbage.
    #[default]
    Failed,
}

/// A provider's report in place of an answer. It has no `Display`: the server's own words leave it through a [`Redactor`] alone.
#[derive(Clone, Debug, Default)]
pub(super) struct ProviderError {
    pub(super) kind: ErrorKind,
    /// In our own words alone.
    context: String,
    /// What the server said, or a library of ours about it.
    upstream_text: Option<String>,
    /// For the caller, in place of the general sentence.
    advice: Option<&'static str>,
    pointer: Option<&'static str>,
    pub(super) hint: Option<&'static str>,
    pub(super) retry_after: Option<Duration>,
    is_retried: bool,
}

impl ProviderError {
    pub(super) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), ..Self::default() }
    }

    pub(super) fn failed(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, context)
    }

    pub(super) fn unsupported(feature: Feature, context: &str) -> Self {
        Self::new(ErrorKind::Unsupported(feature), context)
    }

    /// The member at `pointer` is wrong for every model, in words for the caller.
    pub(super) fn invalid(pointer: &'static str, advice: &'static str) -> Self {
        Self {
            advice: Some(advice),
            pointer: Some(pointer),
            ..Self::new(ErrorKind::InvalidRequest, "the request was not sent")
        }
    }

    pub(super) fn with_upstream_text(mut self, text: &str) -> Self {
        self.upstream_text = Some(text.to_owned()).filter(|text| !text.trim().is_empty());
        self
    }

    /// What the caller is told of a request that the server calls bad.
    pub(super) fn advised(mut self, advice: &'static str) -> Self {
        if self.kind == ErrorKind::InvalidRequest {
            self.advice.get_or_insert(advice);
        }
        self
    }

    /// The tokens of a prompt that was too long, and of the server's window, by its own count: llama-server tells them, also
    /// through Ollama.
    pub(super) fn counts(&self) -> Option<(u32, u32)> {
        let text = self.upstream_text.as_deref()?;
        let number = |name: &str| {
            let after = text.split_once(name)?.1.trim_start_matches(['\\', '"', ':', ' ']);
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            after[..end].parse().ok().filter(|tokens| *tokens > 0)
        };
        Some((number("n_prompt_tokens")?, number("n_ctx")?))
    }

    pub(super) fn without_retry(mut self) -> Self {
        self.is_retried = true;
        self
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        let is_passing =
            matches!(self.kind, ErrorKind::Busy | ErrorKind::RunnerCrashed | ErrorKind::CutOff);
        !self.is_retried && (is_passing || self.is_outage())
    }

    pub(super) fn is_outage(&self) -> bool {
        matches!(self.kind, ErrorKind::Unreachable | ErrorKind::Outage)
    }

    /// What was asked, what came, and what to do: for the log with what the server said, as far as it may be shown, and in our own
    /// words alone without a redactor.
    pub(super) fn describe(&self, redactor: Option<&Redactor<'_>>) -> String {
        let theirs = self.upstream_text.as_ref().zip(redactor);
        let theirs = theirs.map(|(text, redactor)| format!(": {}", redactor.redact(text)));
        let hint = self.hint.map(|hint| format!("; {hint}"));
        [Some(self.context.clone()), theirs, hint].into_iter().flatten().collect()
    }

    /// What leaves the model layer. `not_found` makes the sentence for a model that the server lacks.
    pub(super) fn into_model_error(
        self,
        redactor: &Redactor<'_>,
        not_found: impl FnOnce() -> ModelError,
    ) -> ModelError {
        let text = self.describe(Some(redactor));
        match self.kind {
            ErrorKind::Unreachable | ErrorKind::Outage if self.retry_after.is_none() => {
                ModelError::Unavailable(text)
            }
            ErrorKind::Unreachable | ErrorKind::Outage | ErrorKind::Busy => {
                ModelError::Busy { retry_after: self.retry_after }
            }
            ErrorKind::Timeout => ModelError::Timeout(text),
            ErrorKind::ModelNotFound => not_found(),
            ErrorKind::ContextTooLong => ModelError::ContextTooLong(text),
            ErrorKind::Unsupported(feature) => ModelError::UnsupportedByModel(feature),
            ErrorKind::InvalidRequest => match self.advice {
                Some(detail) => ModelError::InvalidRequest { detail, pointer: self.pointer },
                None => ModelError::Failed(text),
            },
            ErrorKind::RunnerCrashed
            | ErrorKind::CutOff
            | ErrorKind::Misconfigured
            | ErrorKind::Failed => ModelError::Failed(text),
        }
    }
}

impl Feature {
    /// Its name, and a pointer to the member that asks for it.
    fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::Images => ("images", "/message"),
            Self::ImageAddresses => ("images at an address", "/message"),
            Self::Files => ("audio, video and files", "/message"),
            Self::Tools => ("tools", "/tools"),
            Self::CustomTools => ("custom tools", "/tools"),
            Self::Schema => ("a JSON schema", "/response_format"),
            Self::Thinking => ("thinking", "/options/think"),
            Self::Chat => ("chat", "/model"),
            Self::Embeddings => ("embeddings", "/model"),
            Self::Tokens => ("tokens in place of texts", "/input"),
            Self::Dimensions => ("other `dimensions` than its own", "/dimensions"),
        }
    }

    pub fn advice(self) -> String {
        let way_out = match self {
            Self::Chat => "ask another one",
            Self::Embeddings => "ask an embedding model",
            Self::Dimensions => "leave it out",
            Self::ImageAddresses => "send them as base64 `data:` URLs",
            Self::CustomTools => "send functions",
            Self::Tokens => "send `input` as a text or a list of texts",
            _ => "ask another model, or send the request without it",
        };
        format!("This model does not support {}; {way_out}.", self.named().0)
    }
}

impl ModelError {
    /// A pointer to the member of a request that it is about, by the names of our own API.
    pub fn pointer(&self) -> Option<&'static str> {
        match self {
            Self::ContextTooLong(_) => Some("/message"),
            Self::UnsupportedByModel(feature) => Some(feature.named().1),
            Self::InvalidRequest { pointer, .. } => *pointer,
            _ => None,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// How much the error helps the caller: what the request can change comes first, a full queue last.
    pub(super) fn error_priority(&self) -> u8 {
        match self {
            Self::ContextTooLong(_) | Self::InvalidRequest { .. } | Self::UnsupportedByModel(_) => {
                3
            }
            Self::Failed(_) | Self::Timeout(_) => 2,
            Self::Unavailable(_) | Self::NotFound(_) | Self::Busy { .. } => 1,
            Self::QueueFull => 0,
        }
    }

    pub(super) fn metric_label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Failed(_) => "failed",
            Self::NotFound(_) => "not_found",
            Self::ContextTooLong(_) => "context_too_long",
            Self::QueueFull => "queue_full",
            Self::Busy { .. } => "busy",
            Self::InvalidRequest { .. } | Self::UnsupportedByModel(_) => "unsupported",
        }
    }
}
