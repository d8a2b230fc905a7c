//! Refusals and failures as OpenAI's SDKs read them: `{error: {message, type, param, code}}`.

use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use common::{
    errors::{ApiError, Code, FieldError, Problem, status_of},
    http::ErrorShape,
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// SDKs repeat 408, 409, 429 and 5xx by themselves, unless this header says otherwise.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A refusal or failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorFields,
}

/// What an error says.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorFields {
    /// What happened and what to do.
    pub message: String,
    /// Its kind, in OpenAI's words.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The member of the request that is wrong.
    pub param: Option<String>,
    /// The code: what programs decide by.
    pub code: Code,
}

/// The shape of every error under `/v1`.
pub fn shape() -> ErrorShape {
    Arc::new(|path: &str, problem: &Problem| {
        let is_ours = path == "/v1" || path.starts_with("/v1/");
        is_ours.then(|| json!(body(problem.code, &problem.detail, &problem.errors)))
    })
}

/// The body of an error.
pub fn body(code: Code, detail: &str, errors: &[FieldError]) -> ErrorBody {
    let param = match errors.first() {
        Some(error) => param(&error.pointer),
        None if code == Code::ModelNotFound => Some("model".to_owned()),
        None => None,
    };
    ErrorBody {
        error: ErrorFields {
            message: detail.to_owned(),
            kind: kind(code),
            param,
            code,
        },
    }
}

/// A wrong body is a bad request to these SDKs, also where only a value is wrong.
pub fn bad_request(error: ApiError) -> ApiError {
    match error.code {
        Code::ValidationFailed => ApiError {
            code: Code::InvalidRequest,
            ..error
        },
        _ => error,
    }
}

/// Tells SDKs not to repeat what would only fail again.
pub async fn advise_on_retrying(mut response: Response) -> Response {
    let in_vain = response
        .extensions()
        .get::<ApiError>()
        .is_some_and(|error| !error.code.retryable());
    let would_retry = matches!(response.status().as_u16(), 408 | 409 | 429 | 500..=599);
    if response.status() == StatusCode::CONFLICT || (would_retry && in_vain) {
        let no = HeaderValue::from_static("false");
        response.headers_mut().insert(X_SHOULD_RETRY, no);
    }
    response
}

fn kind(code: Code) -> &'static str {
    match status_of(code).as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 if code == Code::QuotaExceeded => "insufficient_quota",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// A JSON pointer into the body as these APIs name members: `messages[0].content`.
fn param(pointer: &str) -> Option<String> {
    let mut name = String::new();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        if segment.bytes().all(|c| c.is_ascii_digit()) {
            name.push('[');
            name.push_str(&segment);
            name.push(']');
            continue;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&segment);
    }
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_member_is_named_in_their_way() {
        for (pointer, name) in [
            ("/messages/0/content", Some("messages[0].content")),
            ("/model", Some("model")),
            ("", None),
        ] {
            assert_eq!(param(pointer).as_deref(), name);
        }
    }

    #[test]
    fn every_code_has_a_kind_that_fits_its_status() {
        for &code in Code::ALL {
            let is_server = status_of(code).is_server_error();
            assert_eq!(kind(code) == "server_error", is_server, "{code:?}");
        }
    }
}
