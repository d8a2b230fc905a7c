//! What a caller is told when something is refused or fails: a problem object (RFC 9457) with a code of a closed list.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub mod extract;
pub mod json;
mod query;
mod strict;
mod valid;

/// Declares the closed list of codes: code, status, title.
macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $title:literal),* $(,)?) => {
        /// Every code that an answer may carry. The list is closed: a new cause takes one of these or extends the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "each variant is its own sentence: see its title")]
        pub enum Code { $($variant),* }

        impl Code {
            /// All codes, in the order of the contract.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The code as it stands in answers, logs and the event log.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                let number: u16 = match self { $(Code::$variant => $status),* };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
    InvalidJson "invalid_json" 400 "The body is not valid JSON",
    InvalidRequest "invalid_request" 400 "The request is malformed",
    MissingToken "missing_token" 401 "A token is needed",
    InvalidToken "invalid_token" 401 "The token is not valid",
    TokenExpired "token_expired" 401 "The token has expired",
    TokenRevoked "token_revoked" 401 "The token has been revoked",
    TokenReused "token_reused" 401 "The refresh token was used before",
    InvalidCredentials "invalid_credentials" 401 "User id or password is wrong",
    UserMismatch "user_mismatch" 403 "The user id is not the token's",
    OriginRefused "origin_refused" 403 "Requests from this origin are refused",
    PasswordRequired "password_required" 403 "This account has a password",
    RegistrationClosed "registration_closed" 403 "Registration is closed",
    Forbidden "forbidden" 403 "Not allowed",
    NotFound "not_found" 404 "There is nothing here",
    SessionNotFound "session_not_found" 404 "No such session",
    MessageNotFound "message_not_found" 404 "No such message",
    ModelNotFound "model_not_found" 404 "No such model",
    MethodNotAllowed "method_not_allowed" 405 "This method is not allowed here",
    RequestTimeout "request_timeout" 408 "The request took too long to arrive",
    PayloadTooLarge "payload_too_large" 413 "The body is too large",
    UriTooLong "uri_too_long" 414 "The address is too long",
    UnsupportedMediaType "unsupported_media_type" 415 "The body must be application/json",
    HeadersTooLarge "headers_too_large" 431 "The headers are too large",
    UserExists "user_exists" 409 "The user id is taken",
    SessionExists "session_exists" 409 "The session exists already",
    SessionBusy "session_busy" 409 "The session is answering another message",
    ValidationFailed "validation_failed" 422 "A value is not allowed",
    ContextTooLong "context_too_long" 422 "The message does not fit the model's window",
    IdempotencyMismatch "idempotency_mismatch" 422 "The idempotency key was used with another body",
    RateLimited "rate_limited" 429 "Too many requests",
    QuotaExceeded "quota_exceeded" 429 "The day's quota is used up",
    TooManyAttempts "too_many_attempts" 429 "Too many failed attempts",
    Internal "internal" 500 "Something went wrong here",
    LlmFailed "llm_failed" 502 "The model server failed",
    LlmTimeout "llm_timeout" 504 "The model server took too long",
    LlmUnavailable "llm_unavailable" 503 "The model server cannot be reached",
    StoreUnavailable "store_unavailable" 503 "The store cannot be reached",
    StoreFull "store_full" 503 "The store is full",
    QueueFull "queue_full" 503 "The queue is full",
    Overloaded "overloaded" 503 "The service is overloaded",
    Interrupted "interrupted" 503 "The answer was interrupted",
    ShuttingDown "shutting_down" 503 "The service is stopping",
}

impl Code {
    /// Whether the same request may succeed later without being changed: what `retryable` says in an `error` event.
    pub fn retryable(self) -> bool {
        matches!(self.status().as_u16(), 408 | 409 | 429 | 500..=599)
            && !matches!(
                self,
                Code::UserExists | Code::SessionExists | Code::QuotaExceeded
            )
    }

    /// The `Retry-After` of an answer that names no other: every 429 and 503 carries one.
    fn default_retry_after(self) -> Option<Duration> {
        matches!(self.status().as_u16(), 429 | 503).then_some(Duration::from_secs(1))
    }
}

/// One wrong value of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901) into the body, or `/query/<name>`, `/path/<name>`, `/header/<name>`.
    pub pointer: String,
    /// What is wrong with it and what is allowed.
    pub detail: String,
}

/// The body of every refusal and failure: `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says more than a page could.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The code's title, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// The code: what programs decide by.
    pub code: Code,
    /// The request's id, as in the `X-Request-Id` header and in the logs. Empty only where no request is at hand.
    pub request_id: String,
    /// The wrong values, on 422 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A refusal or failure on its way out. The access log writes its `source`; the caller never sees that.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The code of the closed list; it decides the status.
    pub code: Code,
    /// A sentence that the caller can act on.
    pub detail: String,
    /// The wrong values, for `validation_failed`.
    pub errors: Vec<FieldError>,
    /// When to come back; rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// Why, for the log alone.
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Headers beside those that the code brings (`Allow`, `RateLimit`, `Connection`).
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with that code and a sentence for the caller.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            source: None,
            headers: Vec::new(),
        }
    }

    /// A 422 that names one wrong value.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let error = FieldError {
            pointer: pointer.into(),
            detail: detail.clone(),
        };
        Self {
            errors: vec![error],
            ..Self::new(Code::ValidationFailed, detail)
        }
    }

    /// A 500 whose cause goes to the log.
    pub fn internal(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(
            Code::Internal,
            "Something went wrong here; the request id finds it in the log.",
        )
        .caused_by(source)
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// When to come back, in whole seconds: what `Retry-After` says, where the answer has one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self
            .retry_after
            .or_else(|| self.code.default_retry_after())?;
        Some(u64::try_from(after.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX))
    }

    /// The problem object, with the id of the request that it answers.
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: "about:blank",
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    /// The head with its headers; the body is written by the outermost layer, which knows the request's id
    /// (`common::http`), from the `ApiError` that travels in the response's extensions.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(error: crate::store::StoreError) -> Self {
        use crate::store::StoreError;
        let (code, detail) = match &error {
            StoreError::Unavailable(_) => (
                Code::StoreUnavailable,
                "The store cannot be reached; try again in a moment.",
            ),
            StoreError::Full(_) => (
                Code::StoreFull,
                "The store is full; reading still works. Try again later.",
            ),
            StoreError::Corrupt(_) => (
                Code::Internal,
                "A stored record cannot be read; the request id finds it in the log.",
            ),
        };
        Self::new(code, detail).caused_by(error)
    }
}
