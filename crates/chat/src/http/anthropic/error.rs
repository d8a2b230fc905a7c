//! Refusals and failures as Anthropic's SDKs read them: `{type: "error", error: {type, message}, request_id}`.

use std::sync::Arc;

use axum::http::StatusCode;
use common::{
    errors::{Code, FieldError, Problem, status_of},
    http::{ErrorShape, ShapedError},
};
use serde_json::{Value, json};

use crate::http::inference::errors::{code_and_status, renamed};

/// Names of members, ours and this API's, where they differ.
const NAMES: &[(&str, &str)] = &[
    ("/message", "/messages"),
    ("/options/think", "/thinking"),
    ("/response_format", "/output_config/format"),
];

/// What this API has for every 503; its SDKs repeat it.
const OVERLOADED: u16 = 529;

/// The shape of every error of the paths under `/v1/messages`.
pub fn shape() -> ErrorShape {
    Arc::new(|path: &str, problem: &Problem| {
        let rest = path.strip_prefix("/v1/messages")?;
        (rest.is_empty() || rest.starts_with('/')).then(|| shaped(problem))
    })
}

/// The same for whatever path: of a request that says that it comes from a client of this API.
pub(super) fn shape_of_any_path() -> ErrorShape {
    Arc::new(|_: &str, problem: &Problem| Some(shaped(problem)))
}

fn shaped(problem: &Problem) -> ShapedError {
    let (code, status) = code_and_status(problem);
    let is_unavailable = problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16();
    let overloaded = is_unavailable.then(|| StatusCode::from_u16(OVERLOADED).ok());
    let body = body(code, &problem.detail, &problem.errors, &problem.request_id);
    ShapedError { status: overloaded.flatten().or(status), body }
}

/// `type` is the kind of the error in Anthropic's words, `code` the code of this service.
pub(super) fn body(code: Code, detail: &str, errors: &[FieldError], request_id: &str) -> Value {
    let message = match errors.first() {
        // Claude Code knows by these words that it must compact its conversation.
        _ if code == Code::ContextTooLong => format!("prompt is too long: {detail}"),
        Some(error) if !error.pointer.is_empty() => {
            let member = renamed(&error.pointer, NAMES).trim_start_matches('/').replace('/', ".");
            format!("{member}: {}", error.detail)
        }
        _ => detail.to_owned(),
    };
    let error = json!({ "type": kind(code), "message": message, "code": code });
    json!({ "type": "error", "error": error, "request_id": request_id })
}

fn kind(code: Code) -> &'static str {
    match status_of(code).as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use common::errors::ApiError;

    use super::*;

    fn shaped_at(path: &str, error: &ApiError) -> Option<ShapedError> {
        shape()(path, &error.problem("r1"))
    }

    #[test]
    fn only_the_paths_of_this_api_have_its_errors() {
        let error = ApiError::new(Code::RateLimited, "wait");
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let body = shaped_at(path, &error).unwrap().body;
            assert_eq!(
                body,
                json!({ "type": "error", "request_id": "r1",
                    "error": { "type": "rate_limit_error", "message": "wait", "code": "rate_limited" } })
            );
        }
        for path in ["/v1/models", "/v1/messagesx", "/chat/messages"] {
            assert!(shaped_at(path, &error).is_none(), "{path}");
        }
    }

    #[test]
    fn every_503_is_a_529_and_a_wrong_body_is_a_400() {
        for &code in Code::ALL {
            let shaped = shaped_at("/v1/messages", &ApiError::new(code, "")).unwrap();
            let is_503 = status_of(code) == StatusCode::SERVICE_UNAVAILABLE;
            let status = match code {
                _ if is_503 => Some(529),
                Code::ValidationFailed => Some(400),
                _ => None,
            };
            assert_eq!(shaped.status.map(|status| status.as_u16()), status, "{code:?}");
            let is_overloaded = shaped.body["error"]["type"] == "overloaded_error";
            assert_eq!(is_overloaded, is_503, "{code:?}");
        }
    }

    #[test]
    fn a_wrong_member_is_named_and_a_long_prompt_has_the_words_that_clients_look_for() {
        let message = |error: &ApiError| {
            let body = shaped_at("/v1/messages", error).unwrap().body;
            body["error"]["message"].as_str().unwrap().to_owned()
        };
        let wrong = ApiError::invalid("/messages/0/content/1", "No.");
        assert_eq!(message(&wrong), "messages.0.content.1: No.");
        let long = ApiError::invalid("/message", "Shorten it.");
        let long = ApiError { code: Code::ContextTooLong, ..long };
        assert_eq!(message(&long), "prompt is too long: Shorten it.");
    }
}
