//! What a request of the chat service can fail with, and what callers are told of a model server's failure.

use common::{
    errors::Code, identity::IdentityError, rate_limiter::RateLimitError, store::StoreError,
};

use crate::llm::ModelError;

/// What a request of the chat service can fail with.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The user has no session of that id.
    #[error("no such session")]
    SessionNotFound,
    /// The user has a session of that id.
    #[error("the session exists")]
    SessionExists,
    /// The session was answering other messages for as long as one waits.
    #[error("the session is busy")]
    SessionBusy,
    /// The message has more characters than it may.
    #[error("the message is longer than {0} characters")]
    MessageTooLong(usize),
    /// The session holds as many messages as it may.
    #[error("the session is full: {0} messages")]
    SessionFull(u64),
    /// The user has no answer of that id.
    #[error("no such message")]
    MessageNotFound,
    /// The message alone does not fit the model's window.
    #[error("the message does not fit a window of {window} tokens")]
    ContextTooLong {
        /// The window, in tokens.
        window: u32,
    },
    #[error("the idempotency key was used with another body")]
    IdempotencyMismatch,
    /// The day's quota does not hold the turn.
    #[error("the quota of {tokens_per_day} tokens a day is used up")]
    QuotaExceeded { tokens_per_day: u64, is_held: bool },
    /// The credential does not count any more.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The rate limit refuses the request, or cannot be asked.
    #[error(transparent)]
    RateLimited(#[from] RateLimitError),
    #[error("the service is stopping")]
    ShuttingDown,
    /// What ran was ended by the service's stop.
    #[error("the service stopped")]
    Interrupted,
    /// A fault of ours, which the log has.
    #[error("a fault in the service")]
    Broken,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a model server's failure is called, and what the caller is told: never the server's own words.
pub fn explain(error: &ModelError) -> (Code, String) {
    let (code, detail) = match error {
        ModelError::Unavailable(_) => {
            (Code::LlmUnavailable, "The model server cannot be reached; try again in a moment.")
        }
        ModelError::Timeout(_) => {
            (Code::LlmTimeout, "The model server took too long to answer; try again.")
        }
        ModelError::Failed(_) => {
            (Code::LlmFailed, "The model server failed or was cut off; try again.")
        }
        ModelError::NotFound(detail) => (Code::ModelNotFound, detail.as_str()),
        ModelError::ContextTooLong(_) => (
            Code::ContextTooLong,
            "The conversation does not fit the model's window; shorten it or begin a new session.",
        ),
        ModelError::QueueFull => {
            (Code::QueueFull, "Too many requests wait for the model; try again in a moment.")
        }
        ModelError::Busy { .. } => {
            (Code::LlmUnavailable, "The model server is busy; try again in a moment.")
        }
        ModelError::InvalidRequest { detail, .. } => (Code::InvalidRequest, *detail),
        ModelError::UnsupportedByModel(feature) => {
            return (Code::UnsupportedByModel, feature.advice());
        }
    };
    (code, detail.to_owned())
}
