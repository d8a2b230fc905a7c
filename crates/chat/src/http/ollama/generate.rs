//! `/api/chat` and `/api/generate`: a conversation or a prompt is answered.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use common::errors::ApiError;

use crate::{
    error::ChatError,
    generation::stateless::CompletionRequest,
    http::{
        inference::InferenceCaller,
        ollama::{
            ErrorText,
            any_case::AnyCaseBody,
            request::{GenerateRequest, named},
            response::AnswerWriter,
        },
    },
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
    AnyCaseBody(request, caller): AnyCaseBody<GenerateRequest>,
) -> Result<Response, ApiError> {
    answer(caller, request, true).await
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
    AnyCaseBody(request, caller): AnyCaseBody<GenerateRequest>,
) -> Result<Response, ApiError> {
    request.check_prompt()?;
    answer(caller, request, false).await
}

async fn answer(
    caller: InferenceCaller,
    mut request: GenerateRequest,
    is_chat: bool,
) -> Result<Response, ApiError> {
    let llm = &caller.app.llm;
    let requested = named(request.model.take());
    let model = match &requested {
        Some(model) => model.clone(),
        None => llm.resolve(None).map_err(ChatError::Model)?.model,
    };
    let writer = AnswerWriter::new(is_chat, model.clone());
    let messages = request.take_messages(is_chat)?;
    if messages.is_empty() {
        llm.resolve(Some(&model)).map_err(ChatError::Model)?;
        return Ok(Json(writer.loaded(request.unloads())).into_response());
    }
    let thinks = llm.capabilities(&model).is_none_or(|all| all.thinking);
    let completion = CompletionRequest {
        options: request.options(&model, thinks)?,
        extra: request.members()?.0,
        model: requested,
        messages,
        truncates: request.truncate.unwrap_or(true),
    };
    caller.start(completion)?.answer(request.stream.unwrap_or(true), writer).await
}
