//! What OpenAI-compatible servers mean by their error answers.

use serde_json::Value;

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::Classified,
    },
};

const WRONG_ADDRESS: &str = "check the provider's base_url";
const WRONG_KEY: &str = "check the provider's api_key";

pub(super) fn classify_error(status: u16, body: &str) -> Classified {
    let by_words = classify_text(status, body).or(not_found(body));
    if let Some(kind) = by_words {
        return (kind, None);
    }
    match status {
        404 if mentions_model(body) => (ErrorKind::ModelNotFound, None),
        // A 404 without a word of the model is about the address.
        404 | 405 => (ErrorKind::Misconfigured, Some(WRONG_ADDRESS)),
        401 | 403 => (ErrorKind::Misconfigured, Some(WRONG_KEY)),
        status => (classify_status(status), None),
    }
}

/// That the model is missing, where the words say so.
pub(super) fn not_found(text: &str) -> Option<ErrorKind> {
    text.to_lowercase().contains("model_not_found").then_some(ErrorKind::ModelNotFound)
}

/// Whether an error object speaks of a model: in `error`, or in `message` alone (SGLang, vLLM before 0.10).
fn mentions_model(body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let error = body.get("error").or_else(|| body.get("message"));
    error.is_some_and(|error| error.to_string().to_lowercase().contains("model"))
}
