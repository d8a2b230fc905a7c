//! What OpenAI-compatible servers mean by their error answers.

use serde_json::Value;

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::ErrorAnswer,
    },
};

pub(super) fn classify_error(answer: &ErrorAnswer) -> ErrorKind {
    match classify_message(&answer.body) {
        Some(kind) => kind,
        None if answer.status == 404 && mentions_model(&answer.body) => ErrorKind::ModelNotFound,
        // A 404 without a word of the model is about the address.
        None if answer.status == 404 => ErrorKind::Misconfigured,
        None => classify_status(answer.status, answer.retry_after.is_some()),
    }
}

/// What an error inside a stream means.
pub(super) fn classify_message(text: &str) -> Option<ErrorKind> {
    let is_not_found = || text.to_lowercase().contains("model_not_found");
    classify_text(text).or_else(|| is_not_found().then_some(ErrorKind::ModelNotFound))
}

/// Whether an error object speaks of a model: in `error`, or in `message` alone (SGLang, vLLM before 0.10).
fn mentions_model(body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let error = body.get("error").or_else(|| body.get("message"));
    error.is_some_and(|error| error.to_string().to_lowercase().contains("model"))
}
