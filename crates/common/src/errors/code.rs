//! The closed list of error codes, without HTTP: a domain may name a code, its status is decided at the edge.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Declares the codes: variant, name, title.
macro_rules! codes {
    ($($variant:ident $name:literal $title:literal),* $(,)?) => {
        /// Every code that an answer may carry. The list is closed: a new cause takes one of these or extends the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($variant),* }

        impl Code {
            /// All codes, in the order of the contract.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it stands in answers, logs and the event log.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// A few words that are the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }

            /// The code of that name, for records read back from the store.
            pub fn parse(name: &str) -> Option<Code> {
                match name { $($name => Some(Code::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    InvalidJson "invalid_json" "The body is not valid JSON",
    InvalidRequest "invalid_request" "The request is malformed",
    UnsupportedByModel "unsupported_by_model" "The model cannot do this",
    MissingToken "missing_token" "A token is needed",
    InvalidToken "invalid_token" "The token is not valid",
    TokenExpired "token_expired" "The token has expired",
    TokenRevoked "token_revoked" "The token has been revoked",
    TokenReused "token_reused" "The refresh token was used before",
    InvalidCredentials "invalid_credentials" "User id or password is wrong",
    UserMismatch "user_mismatch" "The user id is not the token's",
    OriginRefused "origin_refused" "Requests from this origin are refused",
    PasswordRequired "password_required" "This account has a password",
    RegistrationClosed "registration_closed" "Registration is closed",
    Forbidden "forbidden" "Not allowed",
    NotFound "not_found" "There is nothing here",
    SessionNotFound "session_not_found" "No such session",
    MessageNotFound "message_not_found" "No such message",
    ModelNotFound "model_not_found" "No such model",
    MethodNotAllowed "method_not_allowed" "This method is not allowed here",
    RequestTimeout "request_timeout" "The request took too long to arrive",
    PayloadTooLarge "payload_too_large" "The body is too large",
    UriTooLong "uri_too_long" "The address is too long",
    UnsupportedMediaType "unsupported_media_type" "The body must be application/json",
    HeadersTooLarge "headers_too_large" "The headers are too large",
    UserExists "user_exists" "The user id is taken",
    SessionExists "session_exists" "The session exists already",
    SessionBusy "session_busy" "The session is answering another message",
    ValidationFailed "validation_failed" "A value is not allowed",
    ContextTooLong "context_too_long" "The message does not fit the model's window",
    IdempotencyMismatch "idempotency_mismatch" "The idempotency key was used with another body",
    RateLimited "rate_limited" "Too many requests",
    QuotaExceeded "quota_exceeded" "The day's quota is used up",
    TooManyAttempts "too_many_attempts" "Too many failed attempts",
    Internal "internal" "Something went wrong here",
    LlmFailed "llm_failed" "The model server failed",
    LlmTimeout "llm_timeout" "The model server took too long",
    LlmUnavailable "llm_unavailable" "The model server cannot be reached",
    StoreUnavailable "store_unavailable" "The store cannot be reached",
    StoreFull "store_full" "The store is full",
    QueueFull "queue_full" "The queue is full",
    Overloaded "overloaded" "The service is overloaded",
    Interrupted "interrupted" "The answer was interrupted",
    ShuttingDown "shutting_down" "The service is stopping",
}

impl Code {
    /// Whether the same request may succeed later without being changed: what `retryable` says in an `error` event.
    pub fn retryable(self) -> bool {
        use Code::*;
        matches!(
            self,
            RequestTimeout
                | SessionBusy
                | RateLimited
                | TooManyAttempts
                | Internal
                | LlmFailed
                | LlmTimeout
                | LlmUnavailable
                | StoreUnavailable
                | StoreFull
                | QueueFull
                | Overloaded
                | Interrupted
                | ShuttingDown
        )
    }
}
