//! What Ollama means by its error answers.

use serde::{Deserialize, de::IgnoredAny};

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::{Classified, ErrorAnswer},
    },
};

/// What to do where something else than Ollama answers.
pub(super) const NOT_OLLAMA: &str = "this is not Ollama's API; check llm.ollama.base_url, which has neither /api nor /v1 at its end";
const REFUSED_HOST: &str = "Ollama refuses this host name; give its IP address in llm.ollama.base_url, or start it with OLLAMA_HOST=0.0.0.0";
const WRONG_KEY: &str = "check llm.ollama.api_key";

/// That it is there tells Ollama's own answer from a proxy's.
#[derive(Deserialize)]
struct OllamaError {
    #[serde(rename = "error")]
    _error: IgnoredAny,
}

pub(super) fn classify_error(answer: &ErrorAnswer) -> Classified {
    if let Some(kind) = classify_text(answer.status, &answer.body) {
        return (kind, None);
    }
    let is_ollamas = serde_json::from_str::<OllamaError>(&answer.body).is_ok();
    match answer.status {
        404 if is_ollamas => (ErrorKind::ModelNotFound, None),
        401 => (ErrorKind::Misconfigured, Some(WRONG_KEY)),
        403 if answer.body.trim().is_empty() => (ErrorKind::Misconfigured, Some(REFUSED_HOST)),
        404 | 405 => (ErrorKind::Misconfigured, Some(NOT_OLLAMA)),
        status => (classify_status(status), None),
    }
}

/// What an error inside a stream means: a text, a JSON document in a text, or an object.
pub(super) fn classify_message(text: &str) -> Option<ErrorKind> {
    let is_not_found = || {
        let lower = text.to_lowercase();
        lower.contains("model") && lower.contains("not found")
    };
    classify_text(503, text).or_else(|| is_not_found().then_some(ErrorKind::ModelNotFound))
}
