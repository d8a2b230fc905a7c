//! Refusals and failures as OpenAI's SDKs read them: `{error: {message, type, param, code}}`.

use std::sync::Arc;

use common::{
    errors::{Code, FieldError, Problem, status_of},
    http::{ErrorShape, ShapedError},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::http::inference::errors::code_and_status;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorFields,
}

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
        is_ours.then(|| {
            let (code, status) = code_and_status(problem);
            ShapedError { status, body: json!(body(code, &problem.detail, &problem.errors)) }
        })
    })
}

pub fn body(code: Code, detail: &str, errors: &[FieldError]) -> ErrorBody {
    let param = match errors.first().map(|error| error.pointer.as_str()) {
        // Our own names of what a model may lack, where these APIs have others.
        Some("/message") => Some("messages".to_owned()),
        Some("/options/think") => Some("reasoning_effort".to_owned()),
        Some(pointer) => param(pointer),
        None if code == Code::ModelNotFound => Some("model".to_owned()),
        None => None,
    };
    ErrorBody { error: ErrorFields { message: detail.to_owned(), kind: kind(code), param, code } }
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
    use common::errors::ApiError;

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
    fn what_a_model_cannot_do_is_named_in_both_forms() {
        use crate::llm::{Feature, ModelError};
        for (feature, pointer, param) in [
            (Feature::Images, "/message", "messages"),
            (Feature::Tools, "/tools", "tools"),
            (Feature::Schema, "/response_format", "response_format"),
            (Feature::Thinking, "/options/think", "reasoning_effort"),
            (Feature::Chat, "/model", "model"),
        ] {
            let error = ModelError::UnsupportedByModel(feature);
            let error = ApiError::from(crate::error::ChatError::Model(error));
            let problem = error.problem("r");
            assert_eq!(problem.status, 400);
            assert_eq!(problem.pointer.as_deref(), Some(pointer));
            let body = body(error.code, &error.detail, &error.errors);
            assert_eq!(body.error.param.as_deref(), Some(param));
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
