//! The call that answers: a completion, whole or streamed.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use common::{
    errors::{ApiError, extract::Body},
    http::{Deadline, RequestId},
    identity::Identity,
};

use crate::{
    error::ChatError,
    generation::stateless::Completion,
    http::openai::{
        error::{ErrorBody, bad_request},
        request::CreateChatCompletion,
        response::{ChatCompletion, CompletionCollector},
        stream::{CompletionBody, respond},
    },
    state::AppState,
};

/// Answers a conversation, whole or streamed. Nothing of it is kept; what it costs counts as for a message.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai",
    request_body = CreateChatCompletion,
    responses(
        (status = 200, description = "The answer: whole, or as chunks in `data:` lines that end with `[DONE]`.", content((ChatCompletion = "application/json"), (String = "text/event-stream"))),
        (status = "default", description = "An error.", body = ErrorBody),
    ),
    security(("bearer" = [])),
)]
pub async fn complete(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    request_id: RequestId,
    body: Result<Body<CreateChatCompletion>, ApiError>,
) -> Result<Response, ApiError> {
    let Body(body) = body.map_err(bad_request)?;
    let mode = body.mode();
    let request = body
        .checked(identity.owner.clone(), request_id.0)
        .map_err(bad_request)?;
    // From here on: the body may have taken its time.
    let Deadline(deadline) = Deadline::from_now();
    let completion = app.completions.start(request, deadline)?;
    let authenticator = app.authenticator.clone();
    let revoked = async move { ApiError::from(authenticator.revoked(&identity).await) };
    if mode.stream {
        return respond(CompletionBody::new(
            completion,
            mode.with_usage,
            Box::pin(revoked),
        ))
        .await;
    }
    tokio::select! {
        answer = whole(completion) => answer.map(|answer| Json(answer).into_response()),
        error = revoked => Err(error),
    }
}

/// Waits for the end and returns the answer.
async fn whole(mut completion: Completion) -> Result<ChatCompletion, ApiError> {
    let mut whole = CompletionCollector::default();
    while let Some(chunks) = completion.next().await {
        for chunk in chunks? {
            if let Some(answer) = whole.take(chunk) {
                return Ok(answer);
            }
        }
    }
    Err(ChatError::Broken.into())
}
