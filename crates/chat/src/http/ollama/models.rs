//! The models, as Ollama's clients read them.

use std::sync::Arc;

use axum::{Json, extract::State};
use common::errors::{ApiError, Code};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::{
    http::ollama::{Caller, ErrorText, any_case::AnyCaseBody, request::named},
    llm::{Capabilities, Model},
    state::AppState,
};

/// What is said where no Ollama tells, or one that is older: clients ask for this one at least.
const LEAST_VERSION: &str = "0.13.4";
/// What a model that nothing is known of was changed at: clients parse it.
const LONG_AGO: &str = "2026-01-01T00:00:00Z";
/// Until when a model stays whose server does not tell.
const ALWAYS: &str = "9999-12-31T23:59:59Z";

/// Which model is meant, by one name or the other.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"model": "gemma3:1b"}))]
pub struct ShowRequest {
    model: Option<String>,
    name: Option<String>,
}

/// Lists the models of all servers, as of the last look at each: `name`, `size`, `digest`, `details`, `capabilities`, …
#[utoipa::path(
    get, path = "/api/tags", tag = "ollama",
    responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn tags(State(app): State<Arc<AppState>>, _caller: Caller) -> Json<Value> {
    list(app.llm.distinct_models().iter().map(document))
}

/// Lists the models that servers hold in memory, and until when.
#[utoipa::path(
    get, path = "/api/ps", tag = "ollama",
    responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn loaded(State(app): State<Arc<AppState>>, _caller: Caller) -> Json<Value> {
    let loaded = app.llm.loaded().await;
    list(loaded.iter().map(|loaded| {
        let mut document = document(&loaded.model);
        document["expires_at"] = loaded.expires_at.as_deref().unwrap_or(ALWAYS).into();
        document["size_vram"] = 0.into();
        document
    }))
}

/// Tells of one model: `details`, `capabilities`, and in `model_info` the window that it is asked with, as
/// `<architecture>.context_length`.
#[utoipa::path(
    post, path = "/api/show", tag = "ollama",
    request_body = ShowRequest, responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn show(
    AnyCaseBody(request, caller): AnyCaseBody<ShowRequest>,
) -> Result<Json<Value>, ApiError> {
    let llm = &caller.app.llm;
    let name = named(request.model).or(request.name);
    let name = name.unwrap_or_else(|| llm.default_model().to_owned());
    llm.find(&name).map(|model| Json(description(&model))).ok_or_else(|| {
        let detail = "There is no such model here; GET /api/tags lists those that there are.";
        ApiError::new(Code::ModelNotFound, detail)
    })
}

/// The `version` of the Ollama behind this service, or the least that clients take.
#[utoipa::path(
    get, path = "/api/version", tag = "ollama",
    responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn version(State(app): State<Arc<AppState>>, _caller: Caller) -> Json<Value> {
    let version = app.llm.server_version().await.unwrap_or_default();
    Json(json!({ "version": at_least(&version) }))
}

fn at_least(version: &str) -> String {
    let numbers = |version: &str| {
        version.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    let is_newer = numbers(version).is_some_and(|given| Some(given) >= numbers(LEAST_VERSION));
    if is_newer { version } else { LEAST_VERSION }.to_owned()
}

fn list(models: impl Iterator<Item = Value>) -> Json<Value> {
    Json(json!({ "models": models.collect::<Vec<_>>() }))
}

fn document(model: &Model) -> Value {
    // The command line shows 12 characters of a digest, and fails at a shorter one.
    let digest = model.facts.digest.clone().filter(|digest| digest.len() >= 12);
    let digest = digest.unwrap_or_else(|| {
        let hash = Sha256::digest(format!("{}/{}", model.provider.as_str(), model.id));
        hex::encode(hash)
    });
    let facts = &model.facts;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({
        "name": model.id,
        "model": model.id,
        "modified_at": facts.modified_at.as_deref().unwrap_or(LONG_AGO),
        "size": facts.size.unwrap_or(0),
        "digest": digest,
        "details": {
            "parent_model": "",
            "format": text(&facts.format),
            "family": text(&facts.family),
            "families": facts.family.iter().collect::<Vec<_>>(),
            "parameter_size": text(&facts.parameter_size),
            "quantization_level": text(&facts.quantization),
        },
        "capabilities": capabilities(model),
        "context_length": model.window,
    })
}

fn description(model: &Model) -> Value {
    let architecture = model.facts.family.as_deref().unwrap_or("unknown");
    let mut info = json!({ "general.architecture": architecture });
    info[format!("{architecture}.context_length")] = model.window.into();
    if let Some(length) = model.facts.embedding_length {
        info[format!("{architecture}.embedding_length")] = length.into();
    }
    let mut description = document(model);
    description["model_info"] = info;
    for (name, text) in [("modelfile", ""), ("parameters", ""), ("template", "{{ .Prompt }}")] {
        description[name] = text.into();
    }
    description
}

/// What a model can do. One whose server does not tell may be able to call tools: agents do not use others.
fn capabilities(model: &Model) -> Vec<&'static str> {
    let all = model.capabilities.unwrap_or(Capabilities {
        completion: true,
        tools: true,
        ..Capabilities::default()
    });
    let named = [
        (all.completion, "completion"),
        (all.vision, "vision"),
        (all.tools, "tools"),
        (all.thinking, "thinking"),
        (all.embedding, "embedding"),
    ];
    named.into_iter().filter_map(|(can, name)| can.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use common::config::ProviderKind;

    use super::*;

    #[test]
    fn versions_are_numbers_and_not_too_old() {
        for (told, said) in [
            ("0.34.0", "0.34.0"),
            ("0.13.4", "0.13.4"),
            ("0.13.4-rc1", "0.13.4"),
            ("1.0", "1.0"),
            ("0.9.6", LEAST_VERSION),
            ("0.0.0", LEAST_VERSION),
            ("dev", LEAST_VERSION),
            ("", LEAST_VERSION),
        ] {
            assert_eq!(at_least(told), said, "{told}");
        }
    }

    #[test]
    fn a_model_that_nothing_is_known_of_has_what_clients_need() {
        let model = Model {
            id: "gpt".to_owned(),
            provider: ProviderKind::OpenAi,
            window: 4096,
            is_default: false,
            capabilities: None,
            facts: Arc::default(),
        };
        let listed = document(&model);
        assert_eq!(listed["digest"].as_str().map(str::len), Some(64));
        assert_eq!(listed["capabilities"], json!(["completion", "tools"]));
        let shown = description(&model);
        let info = json!({ "general.architecture": "unknown", "unknown.context_length": 4096 });
        assert_eq!(shown["model_info"], info);
    }
}
