//! What model servers mean by their error answers, by the words that real ones use.

use crate::llm::error::{ErrorKind, Feature, ProviderError};

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
    // So written by LM Studio.
    "context the overflows",
    "`max_new_tokens` must be <=",
    "prompt is too long",
    "too large to process",
];

/// Ollama's words for the process that runs a model.
const RUNNER_CRASHED: &[&str] = &[
    "process no longer running",
    "runner process has terminated",
    "runner process no longer",
    "runner has unexpectedly stopped",
];

/// Words of servers that work, but take no request now. They count with a 429 or 503 alone.
const BUSY: &[&str] = &[
    "busy",
    "loading",
    "maximum pending requests",
    "overloaded",
    "too many requests",
    "rate limit",
    "queue is full",
    "queue full",
    "at capacity",
    "no slot",
    "try again later",
];
/// Words of a 429 that no waiting changes.
const NO_CREDIT: &[&str] = &["insufficient_quota", "exceeded your current quota", "billing"];
const NO_IMAGES: &[&str] = &[
    "image input is not supported",
    "does not support multimodal",
    "does not support image",
    "not a multimodal model",
    "at most 0 image",
    "does not support vision",
    "mmproj",
];

/// The members by which a server refuses a schema, and the words by which it does.
const SCHEMA: [&str; 4] = ["response_format", "json_schema", "json schema", "structured output"];
const NOT_SUPPORTED: [&str; 4] = ["not support", "unsupported", "unavailable", "not available"];
/// llama-server with a model that embeds single tokens only, and servers with a model that chats.
const NO_EMBEDDINGS: &[&str] = &["is not oai compatible", "does not support embedding"];
/// The second one of a llama-server that was started for embeddings.
const NO_CHAT: &[&str] = &["does not support chat", "does not support completions"];
/// vLLM.
const NO_DIMENSIONS: &[&str] = &["matryoshka", "changing output dimensions"];

/// Says what the words of an error answer mean.
pub(super) fn classify_text(status: u16, text: &str) -> Option<ErrorKind> {
    let lower = text.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    let by_words: [(&[&str], ErrorKind); 7] = [
        (CONTEXT_TOO_LONG, ErrorKind::ContextTooLong),
        (NO_IMAGES, ErrorKind::Unsupported(Feature::Images)),
        (NO_EMBEDDINGS, ErrorKind::Unsupported(Feature::Embeddings)),
        (NO_DIMENSIONS, ErrorKind::Unsupported(Feature::Dimensions)),
        (&["does not support tools"], ErrorKind::Unsupported(Feature::Tools)),
        (&["does not support thinking"], ErrorKind::Unsupported(Feature::Thinking)),
        (NO_CHAT, ErrorKind::Unsupported(Feature::Chat)),
    ];
    if let Some((_, kind)) = by_words.into_iter().find(|(phrases, _)| says(phrases)) {
        Some(kind)
    } else if matches!(status, 400 | 422) && says(&SCHEMA) && says(&NOT_SUPPORTED) {
        Some(ErrorKind::Unsupported(Feature::Schema))
    } else if says(RUNNER_CRASHED) {
        Some(ErrorKind::RunnerCrashed)
    } else if status == 429 && says(NO_CREDIT) {
        Some(ErrorKind::Failed)
    } else if matches!(status, 429 | 503) && says(BUSY) {
        Some(ErrorKind::Busy)
    } else {
        None
    }
}

/// An error inside a stream: a text, a JSON document in a text, or an object. `not_found` is what its words are taken for where
/// none of ours is among them.
pub(super) fn stream_error(text: &str, not_found: fn(&str) -> Option<ErrorKind>) -> ProviderError {
    let kind = classify_text(503, text).or_else(|| not_found(text)).unwrap_or(ErrorKind::Failed);
    ProviderError::new(kind, "an error in the stream").with_upstream_text(text)
}

/// Says what an error answer means by its status, where its words say nothing.
pub(super) fn classify_status(status: u16) -> ErrorKind {
    match status {
        429 => ErrorKind::Busy,
        502..=504 => ErrorKind::Outage,
        400 | 422 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_real_servers_are_understood() {
        for (status, text, kind) in [
            (
                503,
                "server busy, please try again.  maximum pending requests exceeded",
                Some(ErrorKind::Busy),
            ),
            (
                503,
                "{\"error\":{\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}",
                Some(ErrorKind::Busy),
            ),
            (503, "upstream connect error", None),
            (500, "the disk is busy", None),
            (429, "You exceeded your current quota", Some(ErrorKind::Failed)),
            (
                500,
                "llama-server process no longer running: unknown ",
                Some(ErrorKind::RunnerCrashed),
            ),
            (
                500,
                "image input is not supported - hint: you may need to provide the mmproj",
                Some(ErrorKind::Unsupported(Feature::Images)),
            ),
            (
                400,
                "Multimodal data provided, but model does not support multimodal requests.",
                Some(ErrorKind::Unsupported(Feature::Images)),
            ),
            (
                400,
                "registry.ollama.ai/library/plain:latest does not support tools",
                Some(ErrorKind::Unsupported(Feature::Tools)),
            ),
            (
                400,
                "This response_format type is unavailable now",
                Some(ErrorKind::Unsupported(Feature::Schema)),
            ),
            (400, "Invalid schema for response_format 'x'", None),
            (
                400,
                "the prompt is longer than the context length currently available to the model",
                Some(ErrorKind::ContextTooLong),
            ),
            (400, "the input length exceeds the context length", Some(ErrorKind::ContextTooLong)),
        ] {
            assert_eq!(classify_text(status, text), kind, "{text}");
        }
    }
}
