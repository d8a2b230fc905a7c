//! The Responses API, without what is stored: agents send the whole conversation with every request.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::errors::{ApiError, Code};

use crate::http::{
    inference::InferenceBody,
    openai::{
        error::{ErrorBody, body},
        responses::{object::ResponseObject, request::CreateResponse, stream::ResponseWriter},
    },
};

mod input;
mod object;
mod request;
mod stream;
#[cfg(test)]
mod tests;

/// Answers a conversation, whole or streamed. Nothing of it is kept: `store: true` is answered as `store: false`.
#[utoipa::path(
    post, path = "/v1/responses", operation_id = "create_response", tag = "openai",
    request_body = CreateResponse,
    responses(
        (status = 200, description = "The response: whole, or as events.", content((Object = "application/json"), (Object = "text/event-stream"))),
        (status = "default", description = "An error.", body = ErrorBody),
    ),
)]
pub async fn create(
    InferenceBody(request, caller): InferenceBody<CreateResponse>,
) -> Result<Response, ApiError> {
    let is_streamed = request.stream.unwrap_or(false);
    let mut response = ResponseObject::of(&request);
    let call = caller.start(request.checked()?)?;
    response.set("model", call.completion.model.as_str());
    call.answer(is_streamed, ResponseWriter::new(response)).await
}

/// Clients that try a WebSocket first post at once after a 426, and only after many tries for any other status.
pub async fn refuse_upgrade(headers: HeaderMap) -> Response {
    let protocol = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        let allow = HeaderValue::from_static("POST");
        let detail =
            "Responses are made with POST; they are not stored, so that none can be listed.";
        let error = ApiError::new(Code::MethodNotAllowed, detail);
        return error.header(header::ALLOW, allow).into_response();
    }
    let detail = "There is no WebSocket here: send the request with POST.";
    let refusal = Json(body(Code::InvalidRequest, detail, &[], &[]));
    let upgrade = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")];
    (StatusCode::UPGRADE_REQUIRED, upgrade, refusal).into_response()
}
