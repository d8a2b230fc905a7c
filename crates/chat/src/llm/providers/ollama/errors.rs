//! What Ollama means by its error answers.

use serde::{Deserialize, de::IgnoredAny};

use crate::llm::{
    error::ErrorKind,
    providers::{
        classify::{classify_status, classify_text},
        http::Classified,
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

pub(super) fn classify_error(status: u16, body: &str) -> Classified {
    if let Some(kind) = classify_text(status, body) {
        return (kind, None);
    }
    let is_ollamas = serde_json::from_str::<OllamaError>(body).is_ok();
    match status {
        404 if is_ollamas => (ErrorKind::ModelNotFound, None),
        401 => (ErrorKind::Misconfigured, Some(WRONG_KEY)),
        403 if body.trim().is_empty() => (ErrorKind::Misconfigured, Some(REFUSED_HOST)),
        404 | 405 => (ErrorKind::Misconfigured, Some(NOT_OLLAMA)),
        status => (classify_status(status), None),
    }
}

/// That the model is missing, where the words say so.
pub(super) fn not_found(text: &str) -> Option<ErrorKind> {
    let lower = text.to_lowercase();
    (lower.contains("model") && lower.contains("not found")).then_some(ErrorKind::ModelNotFound)
}
