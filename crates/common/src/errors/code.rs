//! The closed list of error codes, each with all that is fixed about it. A domain may name a code; only the edge asks for its status.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Declares the codes: variant, HTTP status, name, title, whether the same request may succeed later.
macro_rules! codes {
    ($($variant:ident $status:literal $name:literal $title:literal $retryable:literal),* $(,)?) => {
        /// Every code that an answer may carry. The list is closed: a new cause takes one of these or extends the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($variant),* }

        impl Code {
            /// All codes, in the order of the list.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status),* }
            }

            /// The code as it stands in answers, logs and the event log.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// A few words that are the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }

            /// Whether the same request may succeed later without being changed: what `retryable` says in an `error` event.
            pub fn retryable(self) -> bool {
                match self { $(Code::$variant => $retryable),* }
            }
        }
    };
}

codes! {
    InvalidJson 400 "invalid_json" "The body is not valid JSON" false,
    InvalidRequest 400 "invalid_request" "The request is malformed" false,
    PreviousResponseNotFound 400 "previous_response_not_found" "No such response" false,
    UnsupportedByModel 400 "unsupported_by_model" "The model cannot do this" false,
    MissingToken 401 "missing_token" "A token is needed" false,
    InvalidToken 401 "invalid_token" "The token is not valid" false,
    TokenExpired 401 "token_expired" "The token has expired" false,
    TokenRevoked 401 "token_revoked" "The token has been revoked" false,
    TokenReused 401 "token_reused" "The refresh token was used before" false,
    InvalidCredentials 401 "invalid_credentials" "User id or password is wrong" false,
    UserMismatch 403 "user_mismatch" "The user id is not the token's" false,
    OriginRefused 403 "origin_refused" "Requests from this origin are refused" false,
    PasswordRequired 403 "password_required" "This account has a password" false,
    RegistrationClosed 403 "registration_closed" "Registration is closed" false,
    AccountDisabled 403 "account_disabled" "The account is disabled" false,
    Forbidden 403 "forbidden" "Not allowed" false,
    NotFound 404 "not_found" "There is nothing here" false,
    SessionNotFound 404 "session_not_found" "No such session" false,
    MessageNotFound 404 "message_not_found" "No such message" false,
    ModelNotFound 404 "model_not_found" "No such model" false,
    MethodNotAllowed 405 "method_not_allowed" "This method is not allowed here" false,
    RequestTimeout 408 "request_timeout" "The request took too long to arrive" true,
    PayloadTooLarge 413 "payload_too_large" "The body is too large" false,
    SessionFull 413 "session_full" "The session is full" false,
    UriTooLong 414 "uri_too_long" "The address is too long" false,
    UnsupportedMediaType 415 "unsupported_media_type" "The body must be application/json" false,
    HeadersTooLarge 431 "headers_too_large" "The headers are too large" false,
    UserExists 409 "user_exists" "The user id is taken" false,
    SessionExists 409 "session_exists" "The session exists already" false,
    SessionBusy 409 "session_busy" "The session is answering another message" true,
    NotLast 409 "not_last" "Another message comes after it" false,
    ValidationFailed 422 "validation_failed" "A value is not allowed" false,
    ContextTooLong 422 "context_too_long" "The message does not fit the model's window" false,
    IdempotencyMismatch 422 "idempotency_mismatch" "The idempotency key was used with another body" false,
    RateLimited 429 "rate_limited" "Too many requests" true,
    QuotaExceeded 429 "quota_exceeded" "The day's quota is used up" false,
    TooManyAttempts 429 "too_many_attempts" "Too many failed attempts" true,
    Internal 500 "internal" "Something went wrong here" true,
    LlmFailed 502 "llm_failed" "The model server failed" true,
    LlmTimeout 504 "llm_timeout" "The model server took too long" true,
    LlmUnavailable 503 "llm_unavailable" "The model server is not available" true,
    StoreUnavailable 503 "store_unavailable" "The store cannot be reached" true,
    StoreFull 503 "store_full" "The store is full" true,
    QueueFull 503 "queue_full" "The queue is full" true,
    Overloaded 503 "overloaded" "The service is overloaded" true,
    Interrupted 503 "interrupted" "The answer was interrupted" true,
    ShuttingDown 503 "shutting_down" "The service is stopping" true,
}
