//! The one place that turns this service's failures into answers. No catch-all arm: a new cause must be placed.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use common::errors::{ApiError, Code};

use crate::{
    error::{ChatError, explain},
    llm::ModelError,
};

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        let new = |code: Code, detail: String| ApiError::new(code, detail);
        match error {
            ChatError::SessionNotFound => new(
                Code::SessionNotFound,
                "You have no session of that id.".into(),
            ),
            ChatError::SessionExists => new(
                Code::SessionExists,
                "You have a session of that id; choose another.".into(),
            ),
            ChatError::SessionBusy => new(
                Code::SessionBusy,
                "The session is still answering the messages before; try again later.".into(),
            )
            .retry_after(Duration::from_secs(5)),
            ChatError::SessionFull(most) => ApiError::invalid(
                "/session_id",
                format!("A session holds at most {most} messages; begin another one."),
            ),
            ChatError::MessageNotFound => new(
                Code::MessageNotFound,
                "You have no answer of that id.".into(),
            ),
            ChatError::ContextTooLong { window } => new(
                Code::ContextTooLong,
                format!(
                    "The message does not fit the model's window of {window} tokens with room for an answer; shorten it."
                ),
            ),
            ChatError::IdempotencyMismatch => new(
                Code::IdempotencyMismatch,
                "This Idempotency-Key belongs to another request; use a new key for a new request."
                    .into(),
            ),
            ChatError::QuotaExceeded { tokens_per_day } => new(
                Code::QuotaExceeded,
                format!(
                    "The quota of {tokens_per_day} tokens a day is used up until midnight UTC."
                ),
            )
            .retry_after(common::clock::until_utc_midnight()),
            ChatError::RateLimited(error) => error.into(),
            ChatError::ShuttingDown => new(
                Code::ShuttingDown,
                "The service is stopping; send the request again.".into(),
            )
            .header(header::CONNECTION, HeaderValue::from_static("close")),
            ChatError::Interrupted => new(
                Code::Interrupted,
                "The answer was interrupted; send the request again.".into(),
            ),
            ChatError::Broken => new(
                Code::Internal,
                "Something went wrong here; the request id finds it in the log.".into(),
            ),
            ChatError::Model(error) => model_error(error),
            ChatError::Store(error) => error.into(),
        }
    }
}

fn model_error(error: ModelError) -> ApiError {
    let (code, detail) = explain(&error);
    let retry_after = match &error {
        ModelError::Busy { retry_after } => *retry_after,
        _ => None,
    };
    ApiError {
        retry_after,
        ..ApiError::new(code, detail).caused_by(error)
    }
}
