//! The call that answers: a completion, whole or streamed.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use common::{errors::ApiError, http::RequestId, identity::Identity};
use utoipa::ToSchema;

use crate::{
    http::{
        inference::{InferenceBody, InferenceCall},
        openai::{
            chunk::ChunkWriter, error::ErrorBody, request::CreateChatCompletion,
            response::ChatCompletion,
        },
    },
    state::AppState,
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
    State(app): State<Arc<AppState>>,
    identity: Identity,
    request_id: RequestId,
    InferenceBody { value, memory }: InferenceBody<CreateChatCompletion>,
) -> Result<Response, ApiError> {
    let is_streamed = value.stream.unwrap_or(false);
    let with_usage = value.stream_options.unwrap_or_default().include_usage.unwrap_or(false);
    let request = value.checked(identity, request_id.0)?;
    let call = InferenceCall::start(&app, request, memory)?;
    if is_streamed {
        return call.stream(ChunkWriter::new(with_usage)).await;
    }
    let answer = call.collect().await?;
    Ok(Json(ChatCompletion::from(answer)).into_response())
}

/// A piece of a streamed answer as a reader of `text/event-stream` gets it.
#[derive(Debug, ToSchema)]
pub struct StreamedChunk {
    /// A `chat.completion.chunk` as JSON, or an error; at the end `[DONE]`.
    pub data: String,
}
