//! What Ollama means by its error answers.

use serde::{Deserialize, de::IgnoredAny};

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::ErrorAnswer,
    },
};

/// That it is there tells Ollama's own answer from a proxy's.
#[derive(Deserialize)]
struct OllamaError {
    #[serde(rename = "error")]
    _error: IgnoredAny,
}

pub(super) fn classify_error(answer: &ErrorAnswer) -> ErrorKind {
    let is_ollamas = serde_json::from_str::<OllamaError>(&answer.body).is_ok();
    match classify_text(&answer.body) {
        Some(kind) => kind,
        None if answer.status == 404 && is_ollamas => ErrorKind::ModelNotFound,
        None => classify_status(answer.status, answer.retry_after.is_some()),
    }
}

/// What an error inside a stream means: a text, a JSON document in a text, or an object.
pub(super) fn classify_message(text: &str) -> Option<ErrorKind> {
    let is_not_found = || {
        let lower = text.to_lowercase();
        lower.contains("model") && lower.contains("not found")
    };
    classify_text(text).or_else(|| is_not_found().then_some(ErrorKind::ModelNotFound))
}
