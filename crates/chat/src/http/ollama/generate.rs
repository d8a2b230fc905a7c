//! `/api/chat` and `/api/generate`: a conversation or a prompt is answered.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use common::{errors::ApiError, http::RequestId, identity::Identity};

use crate::{
    error::ChatError,
    generation::stateless::CompletionRequest,
    http::{
        inference::{BodyMemory, InferenceCall, any_case::AnyCaseBody},
        ollama::{
            Caller, ErrorText,
            request::{GenerateRequest, named},
            response::AnswerWriter,
        },
    },
    state::AppState,
};

/// Answers a conversation, streamed unless `stream` is false. Nothing of it is kept; what it costs counts as for a message.
///
/// Each line, and the whole answer, has `model`, `created_at`, `message` (`role`, `content`, `thinking`, `tool_calls`) and
/// `done`; the last one `done_reason` and the counts. A stream that ends without `done: true` failed, as its last line says.
#[utoipa::path(
    post, path = "/api/chat", tag = "ollama",
    request_body = GenerateRequest,
    responses(
        (status = 200, content((Object = "application/x-ndjson"), (Object = "application/json"))),
        (status = 403, description = "No key, or a signature of the command line.", body = ErrorText),
        (status = "default", description = "An error.", body = ErrorText),
    ),
)]
pub async fn chat(
    State(app): State<Arc<AppState>>,
    Caller(identity): Caller,
    request_id: RequestId,
    AnyCaseBody(request, memory): AnyCaseBody<GenerateRequest>,
) -> Result<Response, ApiError> {
    answer(&app, identity, request_id, request, memory, true).await
}

/// Answers a prompt as `/api/chat` does a conversation; `response` and `thinking` stand in the place of `message`.
#[utoipa::path(
    post, path = "/api/generate", tag = "ollama",
    request_body(content = GenerateRequest, example = json!({"model": "gemma3:1b", "prompt": "Hello!"})),
    responses(
        (status = 200, content((Object = "application/x-ndjson"), (Object = "application/json"))),
        (status = "default", description = "An error.", body = ErrorText),
    ),
)]
pub async fn generate(
    State(app): State<Arc<AppState>>,
    Caller(identity): Caller,
    request_id: RequestId,
    AnyCaseBody(request, memory): AnyCaseBody<GenerateRequest>,
) -> Result<Response, ApiError> {
    request.check_prompt()?;
    answer(&app, identity, request_id, request, memory, false).await
}

async fn answer(
    app: &AppState,
    identity: Identity,
    request_id: RequestId,
    mut request: GenerateRequest,
    memory: BodyMemory,
    is_chat: bool,
) -> Result<Response, ApiError> {
    let requested = named(request.model.take());
    let model = match &requested {
        Some(model) => model.clone(),
        None => app.llm.resolve(None).map_err(ChatError::Model)?.model,
    };
    let writer = AnswerWriter::new(is_chat, model.clone());
    let messages = request.take_messages(is_chat)?;
    if messages.is_empty() {
        app.llm.resolve(Some(&model)).map_err(ChatError::Model)?;
        return Ok(Json(writer.loaded(request.unloads())).into_response());
    }
    let thinks = app.llm.capabilities(&model).is_none_or(|all| all.thinking);
    let completion = CompletionRequest {
        identity,
        options: request.options(&model, thinks)?,
        extra: request.members()?.0,
        model: requested,
        messages,
        request_id: request_id.0,
        truncates: request.truncate.unwrap_or(true),
    };
    let call = InferenceCall::start(app, completion, memory)?;
    if request.stream.unwrap_or(true) {
        return call.stream(writer).await;
    }
    Ok(Json(writer.whole(call.collect().await?)).into_response())
}
