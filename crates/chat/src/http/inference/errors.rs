//! What the SDKs of these APIs expect of a refusal, whatever its shape.

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use common::errors::{ApiError, Code, Problem};

/// SDKs repeat 408, 409, 429 and 5xx by themselves, and agents other statuses too, unless this header says otherwise.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What is refused for so long, or for good, is not worth a program's waiting.
const SOON: Duration = Duration::from_secs(60);

/// The code and status of a failure: OpenAI's and Anthropic's APIs have one status for every wrong body, 400.
pub fn code_and_status(problem: &Problem) -> (Code, Option<StatusCode>) {
    match problem.code {
        Code::ValidationFailed => (Code::InvalidRequest, Some(StatusCode::BAD_REQUEST)),
        code => (code, None),
    }
}

/// Tells SDKs not to repeat what would only fail again.
pub async fn advise_on_retrying(mut response: Response) -> Response {
    let in_vain = response.extensions().get::<ApiError>().is_some_and(|error| {
        !error.code.retryable() && error.retry_after.is_none_or(|wait| wait > SOON)
    });
    if response.status() == StatusCode::CONFLICT || in_vain {
        let no = HeaderValue::from_static("false");
        response.headers_mut().insert(X_SHOULD_RETRY, no);
    }
    response
}
