//! What model servers mean by their error answers, by the words that real ones use.

use crate::llm::error::{ErrorKind, Feature};

const CONTEXT_TOO_LONG: &[&str] = &[
    "exceed_context_size",
    "exceeds the available context",
    "context_length_exceeded",
    "maximum context length",
    "max context length",
    "context length exceeded",
    "exceeds the context",
    "exceed context window",
    "longer than the context",
    "context the overflows",
    "`max_new_tokens` must be <=",
    "prompt is too long",
];

/// Ollama's words for the process that runs a model.
const RUNNER_CRASHED: &[&str] = &[
    "process no longer running",
    "runner process has terminated",
    "runner process no longer",
    "runner has unexpectedly stopped",
];

/// Says what an error text means, whatever status it came with.
pub(super) fn classify_text(text: &str) -> Option<ErrorKind> {
    let lower = text.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if says(CONTEXT_TOO_LONG) {
        return Some(ErrorKind::ContextTooLong);
    }
    if says(RUNNER_CRASHED) {
        return Some(ErrorKind::RunnerCrashed);
    }
    let features = [
        ("tools", Feature::Tools),
        ("thinking", Feature::Thinking),
        ("images", Feature::Images),
        ("chat", Feature::Chat),
    ];
    features
        .into_iter()
        .find(|(name, _)| lower.contains(&format!("does not support {name}")))
        .map(|(_, feature)| ErrorKind::Unsupported(feature))
}

/// Says what an error answer means by its status, where its words say nothing.
pub(super) fn classify_status(status: u16, has_retry_after: bool) -> ErrorKind {
    match status {
        429 => ErrorKind::Busy,
        503 if has_retry_after => ErrorKind::Busy,
        502..=504 => ErrorKind::Outage,
        400 | 422 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Failed,
    }
}
