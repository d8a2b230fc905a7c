//! `/api/embed`, and the older `/api/embeddings`.

use std::time::Instant;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use common::errors::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    error::ChatError,
    http::{
        embeddings::{self, Vectors, write_floats},
        inference::InferenceCaller,
        ollama::{ErrorText, any_case::AnyCaseBody, request::named},
    },
    llm::{EmbeddingInput, EmbeddingRequest},
};

/// What is to be embedded. Members that are not known here are ignored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"model": "nomic-embed-text", "input": "Hello!"}))]
pub struct EmbedRequest {
    model: Option<String>,
    /// A text, or a list of at most 16384; in the older call `prompt`, a text.
    #[serde(alias = "prompt")]
    input: Option<Value>,
    /// Whether a text that is too long is cut (true) or refused.
    truncate: Option<bool>,
    dimensions: Option<u32>,
}

/// Makes embeddings: `model`, `embeddings`, and what they cost. Answers go before them: a large import waits while people talk.
#[utoipa::path(
    post, path = "/api/embed", tag = "ollama",
    request_body = EmbedRequest, responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn embed(
    AnyCaseBody(request, caller): AnyCaseBody<EmbedRequest>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let name = named(request.model.clone());
    let Some(answer) = vectors(caller, request).await? else {
        return Ok(Json(json!({ "model": name, "embeddings": [] })).into_response());
    };
    let (nanos, tokens) = (started.elapsed().as_nanos(), answer.tokens);
    let before =
        format!(r#"{{"model":{},"embeddings":["#, json!(name.as_ref().unwrap_or(&answer.model)));
    let after =
        format!(r#"],"total_duration":{nanos},"load_duration":1,"prompt_eval_count":{tokens}}}"#);
    Ok(answer.into_response(before, |_, vector, out| write_floats(vector, out), after))
}

/// Makes one `embedding`.
#[utoipa::path(
    post, path = "/api/embeddings", tag = "ollama",
    request_body(content = EmbedRequest, example = json!({"model": "nomic-embed-text", "prompt": "Hello!"})),
    responses((status = 200, body = Object), (status = "default", description = "An error.", body = ErrorText)),
)]
pub async fn embed_one(
    AnyCaseBody(request, caller): AnyCaseBody<EmbedRequest>,
) -> Result<Response, ApiError> {
    let Some(mut answer) = vectors(caller, request).await? else {
        return Ok(Json(json!({ "embedding": [] })).into_response());
    };
    answer.vectors.truncate(1);
    let before = r#"{"embedding":"#.to_owned();
    Ok(answer.into_response(before, |_, vector, out| write_floats(vector, out), "}".to_owned()))
}

/// The vectors; `None` where there is nothing to embed, which asks whether the model is there.
async fn vectors(
    caller: InferenceCaller,
    request: EmbedRequest,
) -> Result<Option<Vectors>, ApiError> {
    let model = named(request.model);
    let texts = match request.input {
        None => Vec::new(),
        Some(Value::String(text)) => {
            Some(text).filter(|text| !text.is_empty()).into_iter().collect()
        }
        Some(list) => serde_json::from_value::<Vec<String>>(list)
            .map_err(|_| ApiError::invalid("/input", "This must be a text or a list of texts."))?,
    };
    if texts.is_empty() {
        caller.app.llm.resolve_embedding(model.as_deref()).map_err(ChatError::Model)?;
        return Ok(None);
    }
    let request = EmbeddingRequest {
        input: EmbeddingInput::Texts(texts.into()),
        dimensions: request.dimensions.filter(|length| *length > 0),
        truncate: request.truncate.unwrap_or(true),
        request_id: caller.request_id.clone(),
    };
    embeddings::embed(caller, model.as_deref(), request).await.map(Some)
}
