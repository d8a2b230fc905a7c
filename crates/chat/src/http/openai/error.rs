//! Refusals and failures as OpenAI's SDKs read them: `{error: {message, type, param, code}}`.

use std::sync::Arc;

use common::{
    errors::{Code, FieldError, Problem, status_of},
    http::{ErrorShape, ShapedError},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::http::inference::errors::{code_and_status, renamed};

/// Names of members, ours and those of chat completions, where they differ.
pub const OF_COMPLETIONS: &[(&str, &str)] =
    &[("/message", "/messages"), ("/options/think", "/reasoning_effort")];

const OF_RESPONSES: &[(&str, &str)] = &[
    ("/message", "/input"),
    ("/response_format", "/text/format"),
    ("/options/think", "/reasoning/effort"),
];

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
            let names = if path == "/v1/responses" { OF_RESPONSES } else { OF_COMPLETIONS };
            ShapedError { status, body: json!(body(code, &problem.detail, &problem.errors, names)) }
        })
    })
}

pub fn body(code: Code, detail: &str, errors: &[FieldError], names: &[(&str, &str)]) -> ErrorBody {
    let param = match errors.first() {
        Some(error) => param(renamed(&error.pointer, names)),
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
        for (feature, pointer, param, of_responses) in [
            (Feature::Images, "/message", "messages", "input"),
            (Feature::Tools, "/tools", "tools", "tools"),
            (Feature::Schema, "/response_format", "response_format", "text.format"),
            (Feature::Thinking, "/options/think", "reasoning_effort", "reasoning.effort"),
            (Feature::Chat, "/model", "model", "model"),
        ] {
            let error = ModelError::UnsupportedByModel(feature);
            let error = ApiError::from(crate::error::ChatError::Model(error));
            let problem = error.problem("r");
            assert_eq!(problem.status, 400);
            assert_eq!(problem.pointer.as_deref(), Some(pointer));
            for (path, param) in [("/v1/chat/completions", param), ("/v1/responses", of_responses)]
            {
                assert_eq!(shape()(path, &problem).unwrap().body["error"]["param"], param);
            }
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
