//! Errors of model servers, and what decides whether a request is tried again.

use std::time::Duration;

/// What an adapter can fail with. Texts of the server go to the log alone: `detail` never holds them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be reached, its breaker is open, or it answered 502, 503 or 504 and the retry did not help.
    #[error("the model server is unavailable: {0}")]
    Unavailable(String),
    /// The first token, or the next one, or the whole answer took too long.
    #[error("the model server took too long: {0}")]
    Timeout(String),
    /// It answered with an error, with garbage, or was cut off.
    #[error("the model server failed: {0}")]
    Failed(String),
    /// No reachable server has that model.
    #[error("no such model: {0}")]
    NotFound(String),
    /// The prompt does not fit, by the server's own count.
    #[error("the prompt does not fit the model's window: {0}")]
    ContextTooLong(String),
    /// Its queue here is full.
    #[error("the queue is full")]
    QueueFull,
    /// It asks us to come back later (429), past the one retry.
    #[error("the model server is busy")]
    Busy {
        /// When, if it said so; at most 60 s.
        retry_after: Option<Duration>,
    },
    /// What the caller asked for is not to be had from this server (images, tools), in words for the caller.
    #[error("not supported: {0}")]
    Unsupported(String),
}

/// Where a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no connection, or it broke before a status came.
    Unreachable,
    /// The server answered with this status.
    Status(u16),
    /// What it answered, or what was asked, makes no sense.
    Content,
}

/// Why a request was not begun to be answered, with what decides whether to try again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct RequestError {
    /// What it means.
    pub error: ModelError,
    /// Where it came to nothing.
    pub cause: Cause,
    /// When the server wants to be asked again; at most 60 s.
    pub retry_after: Option<Duration>,
}

impl RequestError {
    /// A refusal that is about what was said, not about whether the server is there.
    pub fn content(error: ModelError) -> Self {
        Self {
            error,
            cause: Cause::Content,
            retry_after: None,
        }
    }

    /// Whether the same request may succeed a moment later: no connection, 429, 502, 503, 504.
    pub fn is_passing(&self) -> bool {
        self.cause == Cause::Status(429) || self.is_outage()
    }

    /// Whether it says that the server is not working: no connection, 502, 503, 504.
    pub fn is_outage(&self) -> bool {
        matches!(self.cause, Cause::Unreachable | Cause::Status(502..=504))
    }
}
