//! The calls: a message, whole or streamed, and how many tokens it has.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use common::{errors::ApiError, http::RequestId, identity::Identity, store::Quota};
use serde_json::{Value, json};

use crate::{
    generation::stateless::Completion,
    http::{
        anthropic::{request::CreateMessage, response::message, stream::EventWriter},
        inference::{InferenceBody, InferenceCall},
    },
    state::AppState,
};

/// How often a user may have tokens counted: agents ask for every part of their context at once. A full bucket lets 100 through,
/// and 20 come back each second.
pub const COUNT_QUOTA: Quota = Quota { burst: 100, period: Duration::from_secs(5) };

/// Answers a conversation, whole or streamed, as Anthropic's API does. Nothing of it is kept; what it costs counts as for a
/// message.
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "create_message", tag = "anthropic",
    request_body = CreateMessage,
    responses(
        (status = 200, description = "The answer: whole, or as events.", content((Object = "application/json"), (Object = "text/event-stream"))),
        (status = "default", description = "An error, `{type: \"error\", error: {type, message, code}, request_id}`; 529 where the service or the model server cannot take the request now.", body = Object),
    ),
)]
pub async fn create(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    request_id: RequestId,
    InferenceBody { value, memory }: InferenceBody<CreateMessage>,
) -> Result<Response, ApiError> {
    let is_streamed = value.stream.unwrap_or(false);
    let request = value.checked(identity, Arc::clone(&request_id.0))?;
    let call = InferenceCall::start(&app, request, memory)?;
    if is_streamed {
        let Completion { model, prompt_estimate, .. } = &call.completion;
        let writer = EventWriter::new(model, (*prompt_estimate).max(1).into(), request_id.0);
        return call.stream(writer).await;
    }
    let answer = call.collect().await?;
    Ok(Json(message(&answer)).into_response())
}

/// Estimates the tokens of a conversation with its system prompt and tools. It asks no model and costs nothing of
/// `rate_limit.requests`; a user may ask 100 times at once and 20 times a second.
#[utoipa::path(
    post, path = "/v1/messages/count_tokens", tag = "anthropic",
    request_body = CreateMessage,
    responses(
        (status = 200, description = "`input_tokens`: estimated; the estimates learn from what model servers count.", body = Object),
        (status = "default", description = "An error.", body = Object),
    ),
)]
pub async fn count_tokens(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    request_id: RequestId,
    InferenceBody { value, memory: _memory }: InferenceBody<CreateMessage>,
) -> Result<Json<Value>, ApiError> {
    let request = value.checked(identity, request_id.0)?;
    let input_tokens = app.completions.estimate(request)?;
    Ok(Json(json!({ "input_tokens": input_tokens })))
}
