//! What the SDKs of these APIs expect of a refusal, whatever its shape.

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use common::errors::{ApiError, Code, Problem};

/// SDKs repeat 408, 409, 429 and 5xx by themselves, and agents other statuses too, unless this header says otherwise.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Whether a program may wait so long.
pub fn is_soon(wait: Option<Duration>) -> bool {
    wait.is_some_and(|wait| wait <= Duration::from_secs(60))
}

/// The pointer by the names of an API: those that it has otherwise than we do, each with its own.
pub fn renamed<'a>(pointer: &'a str, names: &[(&str, &'a str)]) -> &'a str {
    names.iter().find(|(ours, _)| *ours == pointer).map_or(pointer, |(_, theirs)| theirs)
}

/// The code and status of a failure: OpenAI's and Anthropic's APIs have one status for every wrong body, 400.
pub fn code_and_status(problem: &Problem) -> (Code, Option<StatusCode>) {
    match problem.code {
        Code::ValidationFailed => (Code::InvalidRequest, Some(StatusCode::BAD_REQUEST)),
        code => (code, None),
    }
}

/// Tells SDKs not to repeat what would only fail again.
pub async fn advise_on_retrying(mut response: Response) -> Response {
    let error = response.extensions().get::<ApiError>();
    let in_vain = error.is_some_and(|error| !error.code.retryable() && !is_soon(error.retry_after));
    if response.status() == StatusCode::CONFLICT || in_vain {
        let no = HeaderValue::from_static("false");
        response.headers_mut().insert(X_SHOULD_RETRY, no);
    }
    response
}
