//! The call that answers: a completion, whole or streamed.

use axum::response::Response;
use common::errors::ApiError;
use utoipa::ToSchema;

use crate::http::{
    inference::InferenceBody,
    openai::{
        chunk::ChunkWriter, error::ErrorBody, request::CreateChatCompletion,
        response::ChatCompletion,
    },
};

/// Answers a conversation, whole or streamed. Nothing of it is kept; what it costs counts as for a message.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai",
    request_body = CreateChatCompletion,
    responses(
        (status = 200, description = "The answer: whole, or as chunks in `data:` lines that end with `[DONE]`.", content((ChatCompletion = "application/json"), (StreamedChunk = "text/event-stream"))),
        (status = "default", description = "An error.", body = ErrorBody),
    ),
)]
pub async fn complete(
    InferenceBody(body, caller): InferenceBody<CreateChatCompletion>,
) -> Result<Response, ApiError> {
    let is_streamed = body.stream.unwrap_or(false);
    let with_usage = body.stream_options.unwrap_or_default().include_usage.unwrap_or(false);
    let call = caller.start(body.checked()?)?;
    call.answer(is_streamed, ChunkWriter::new(with_usage)).await
}

/// A piece of a streamed answer as a reader of `text/event-stream` gets it.
#[derive(Debug, ToSchema)]
pub struct StreamedChunk {
    /// A `chat.completion.chunk` as JSON, or an error; at the end `[DONE]`.
    pub data: String,
}
