//! An error on its way out as an HTTP response: status, headers, problem document.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Code;
use crate::store::StoreError;

/// The `Retry-After` of a 429 or 503 that names no other.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

pub fn status_of(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// The code: what programs decide by.
    pub code: Code,
    /// The request's id, as in the `X-Request-Id` header and in the logs. Empty only where no request is at hand.
    pub request_id: String,
    /// What the model cannot do, on `unsupported_by_model` only: a JSON pointer (RFC 6901) to the member that asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The wrong members, on 422; on `unsupported_by_model` the member that asks for too much.
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
    /// The members that it is about: every wrong one for `validation_failed`, one for other codes.
    pub errors: Vec<FieldError>,
    /// When to come back; rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// Why, for the log alone.
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Headers beside those that the code brings (`Allow`, `RateLimit`, `Connection`).
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// When to come back, in whole seconds; where nobody knows, by the code.
pub fn retry_after_seconds(code: Code, known: Option<Duration>) -> Option<u64> {
    let waits = matches!(status_of(code).as_u16(), 429 | 503);
    let after = known.or(waits.then_some(DEFAULT_RETRY_AFTER))?;
    Some(u64::try_from(after.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX))
}

impl ApiError {
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
        let error = FieldError { pointer: pointer.into(), detail: detail.clone() };
        Self { errors: vec![error], ..Self::new(Code::ValidationFailed, detail) }
    }

    /// A 500 whose cause goes to the log.
    pub fn internal(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(Code::Internal, "Something went wrong here; the request id finds it in the log.")
            .caused_by(source)
    }

    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// When to come back, in whole seconds: what `Retry-After` says, where the answer has one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        retry_after_seconds(self.code, self.retry_after)
    }

    /// The problem object, with the id of the request that it answers.
    pub fn problem(&self, request_id: &str) -> Problem {
        let unsupported = self.errors.first().filter(|_| self.code == Code::UnsupportedByModel);
        Problem {
            kind: "about:blank",
            title: self.code.title(),
            status: status_of(self.code).as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            request_id: request_id.to_owned(),
            pointer: unsupported.map(|error| error.pointer.clone()),
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    /// The head with its headers; the body is written by the outermost layer, which knows the request's id
    /// (`common::http`), from the `ApiError` that travels in the response's extensions.
    fn into_response(self) -> Response {
        let status = status_of(self.code);
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, detail) = match &error {
            StoreError::Unavailable(_) => {
                (Code::StoreUnavailable, "The store cannot be reached; try again in a moment.")
            }
            StoreError::Full(_) => {
                (Code::StoreFull, "The store is full; reading still works. Try again later.")
            }
            StoreError::Corrupt(_) => (
                Code::Internal,
                "A stored record cannot be read; the request id finds it in the log.",
            ),
        };
        Self::new(code, detail).caused_by(error)
    }
}
