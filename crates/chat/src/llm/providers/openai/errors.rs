//! What OpenAI-compatible servers mean by their error answers.

use serde_json::Value;

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::{Classified, ErrorAnswer},
    },
};

const WRONG_ADDRESS: &str = "check the provider's base_url";
const WRONG_KEY: &str = "check the provider's api_key";

pub(super) fn classify_error(answer: &ErrorAnswer) -> Classified {
    let body = &answer.body;
    if let Some(kind) = classify_words(answer.status, body) {
        return (kind, None);
    }
    match answer.status {
        404 if mentions_model(body) => (ErrorKind::ModelNotFound, None),
        // A 404 without a word of the model is about the address.
        404 | 405 => (ErrorKind::Misconfigured, Some(WRONG_ADDRESS)),
        401 | 403 => (ErrorKind::Misconfigured, Some(WRONG_KEY)),
        status => (classify_status(status), None),
    }
}

/// What an error inside a stream means.
pub(super) fn classify_message(text: &str) -> Option<ErrorKind> {
    classify_words(503, text)
}

fn classify_words(status: u16, text: &str) -> Option<ErrorKind> {
    let is_not_found = || text.to_lowercase().contains("model_not_found");
    classify_text(status, text).or_else(|| is_not_found().then_some(ErrorKind::ModelNotFound))
}

/// Whether an error object speaks of a model: in `error`, or in `message` alone (SGLang, vLLM before 0.10).
fn mentions_model(body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let error = body.get("error").or_else(|| body.get("message"));
    error.is_some_and(|error| error.to_string().to_lowercase().contains("model"))
}
