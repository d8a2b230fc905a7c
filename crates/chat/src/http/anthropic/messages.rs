//! The calls: a message, whole or streamed, and how many tokens it has.

use std::time::Duration;

use axum::{Json, response::Response};
use common::{errors::ApiError, store::Quota};
use serde_json::{Value, json};

use crate::http::{
    anthropic::{request::CreateMessage, stream::EventWriter},
    inference::InferenceBody,
};

/// How often a user may have tokens counted: agents ask for every part of their context at once. A full bucket lets 100 through,
/// and 20 come back each second.
pub const COUNT_QUOTA: Quota = Quota { burst: 100, period: Duration::from_secs(5) };

/// Answers a conversation, whole or streamed, as Anthropic's API does. Nothing of it is kept; what it costs counts as for a message.
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "create_message", tag = "anthropic",
    request_body = CreateMessage,
    responses(
        (status = 200, description = "The answer: whole, or as events.", content((Object = "application/json"), (Object = "text/event-stream"))),
        (status = "default", description = "An error, `{type: \"error\", error: {type, message, code}, request_id}`; 529 where the service or the model server cannot take the request now.", body = Object),
    ),
)]
pub async fn create(
    InferenceBody(body, caller): InferenceBody<CreateMessage>,
) -> Result<Response, ApiError> {
    let (is_streamed, request_id) = (body.stream.unwrap_or(false), caller.request_id.clone());
    let call = caller.start(body.checked()?)?;
    let prompt_tokens = call.completion.prompt_estimate.max(1).into();
    let writer = EventWriter::new(&call.completion.model, prompt_tokens, request_id);
    call.answer(is_streamed, writer).await
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
    InferenceBody(body, caller): InferenceBody<CreateMessage>,
) -> Result<Json<Value>, ApiError> {
    let user = caller.identity.user();
    let input_tokens = caller.app.completions.estimate(user, body.checked()?)?;
    Ok(Json(json!({ "input_tokens": input_tokens })))
}
