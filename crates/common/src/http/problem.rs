//! Writes the body of every error response, also of those that the router makes by itself.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::RequestId;
use crate::errors::{ApiError, Code, Problem, status_of};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Renders errors in the format of another API, for a request to that path; `None` where the path is not of that API. One
/// among a response's extensions comes before the service's.
pub type ErrorShape = Arc<dyn Fn(&str, &Problem) -> Option<ShapedError> + Send + Sync>;

/// An error in the format of another API.
#[derive(Clone, Debug)]
pub struct ShapedError {
    /// The status that this API has for the error, where it is another than ours.
    pub status: Option<StatusCode>,
    pub body: serde_json::Value,
}

/// The error that a response carries, or that a bare refusal of the router or an extractor of axum amounts to.
pub(super) fn take(response: &mut Response) -> Option<ApiError> {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return Some(error);
    }
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_ours = kind.is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if status.as_u16() < 400 || is_ours {
        return None;
    }
    Some(error_of_status(status))
}

fn error_of_status(status: StatusCode) -> ApiError {
    let (code, detail) = match status.as_u16() {
        404 => (Code::NotFound, "There is nothing at this address."),
        405 => {
            (Code::MethodNotAllowed, "The Allow header names the methods that this address takes.")
        }
        408 => (Code::RequestTimeout, "The request took too long to arrive."),
        413 => (Code::PayloadTooLarge, "The body is too large."),
        415 => (Code::UnsupportedMediaType, "Send the body as application/json."),
        422 => (Code::ValidationFailed, "A value is not allowed."),
        503 => (Code::Overloaded, "Try again in a moment."),
        400..=499 => (Code::InvalidRequest, "The request is not what this address takes."),
        _ => (Code::Internal, "Something went wrong here; the request id finds it in the log."),
    };
    ApiError::new(code, detail)
}

/// Puts the error's body into the response. Headers stay, but for those of the body that is replaced.
pub(super) fn write(
    response: &mut Response,
    error: &ApiError,
    id: &RequestId,
    path: &str,
    shape: Option<&ErrorShape>,
) {
    let problem = error.problem(id.as_str());
    let own = response.extensions_mut().remove::<ErrorShape>();
    let other = own.as_ref().or(shape).and_then(|shape| shape(path, &problem));
    let (status, kind, body) = match other {
        Some(ShapedError { status, body }) => (status, JSON, serde_json::to_vec(&body)),
        None => (None, PROBLEM_JSON, serde_json::to_vec(&problem)),
    };
    *response.status_mut() = status.unwrap_or_else(|| status_of(error.code));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, kind);
    *response.body_mut() = body.map_or_else(|_| Body::empty(), Body::from);
}
