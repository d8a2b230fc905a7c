//! The one place that turns this service's failures into answers. No catch-all arm: a new cause must be placed.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use common::errors::{ApiError, Code};

use crate::{
    error::{ChatError, explain},
    llm::ModelError,
};

/// When tokens that running answers hold are asked for again: nobody knows when these end.
const QUOTA_HELD: Duration = Duration::from_secs(5);

/// The pointer to an idempotency key.
pub const IDEMPOTENCY_KEY: &str = "/header/Idempotency-Key";

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        let new = |code: Code, detail: String| ApiError::new(code, detail);
        match error {
            ChatError::SessionNotFound => {
                new(Code::SessionNotFound, "You have no session of that id.".into())
            }
            ChatError::SessionExists => {
                new(Code::SessionExists, "You have a session of that id; choose another.".into())
            }
            ChatError::SessionBusy => new(
                Code::SessionBusy,
                "The session is still answering earlier messages; try again later.".into(),
            )
            .retry_after(Duration::from_secs(5)),
            ChatError::MessageTooLong(most) => {
                ApiError::invalid("/message", format!("This may have at most {most} characters."))
            }
            ChatError::SessionFull(most) => ApiError::invalid(
                "/session_id",
                format!("A session holds at most {most} messages; begin another one."),
            ),
            ChatError::MessageNotFound => new(
                Code::MessageNotFound,
                "You have no such answer; it may have been deleted or replaced.".into(),
            ),
            ChatError::ContextTooLong { window } => about(
                Some("/message"),
                Code::ContextTooLong,
                format!(
                    "The message and the system prompt do not fit the model's window of {window} tokens with room for an answer; shorten them."
                ),
            ),
            ChatError::IdempotencyMismatch => about(
                Some(IDEMPOTENCY_KEY),
                Code::IdempotencyMismatch,
                "This Idempotency-Key belongs to another request; use a new key for a new request."
                    .into(),
            ),
            ChatError::QuotaExceeded { tokens_per_day, is_held } => {
                quota_exceeded(tokens_per_day, is_held)
            }
            ChatError::Identity(error) => error.into(),
            ChatError::RateLimited(error) => error.into(),
            ChatError::ShuttingDown => {
                new(Code::ShuttingDown, "The service is stopping; send the request again.".into())
                    .header(header::CONNECTION, HeaderValue::from_static("close"))
            }
            ChatError::Interrupted => {
                new(Code::Interrupted, "The answer was interrupted; send the request again.".into())
            }
            ChatError::Broken => new(
                Code::Internal,
                "Something went wrong here; the request id finds it in the log.".into(),
            ),
            ChatError::Model(error) => model_error(error),
            ChatError::Store(error) => error.into(),
        }
    }
}

fn quota_exceeded(tokens_per_day: u64, is_held: bool) -> ApiError {
    let quota = format!("the quota of {tokens_per_day} tokens a day");
    let (detail, wait) = if is_held {
        let held = "Running answers hold what is left of";
        (format!("{held} {quota}; try again when they have ended."), QUOTA_HELD)
    } else {
        let used_up =
            format!("Less is left of {quota} than this request needs, until midnight UTC.");
        (used_up, common::clock::until_utc_midnight())
    };
    ApiError::new(Code::QuotaExceeded, detail).retry_after(wait)
}

/// This instance stops while a turn that it follows goes on elsewhere.
pub fn instance_stops() -> ApiError {
    let detail = "This instance is stopping; resume the answer on another one.";
    ApiError::new(Code::ShuttingDown, detail)
}

/// An error about the member at `pointer`, where it is about any.
pub fn about(pointer: Option<&str>, code: Code, detail: String) -> ApiError {
    match pointer {
        Some(pointer) => ApiError { code, ..ApiError::invalid(pointer, detail) },
        None => ApiError::new(code, detail),
    }
}

fn model_error(error: ModelError) -> ApiError {
    let (code, detail) = explain(&error);
    let retry_after = error.retry_after();
    let told = about(error.pointer(), code, detail);
    ApiError { retry_after, ..told.caused_by(error) }
}
