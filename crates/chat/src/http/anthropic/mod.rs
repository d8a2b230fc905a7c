//! Anthropic's Messages API under `/v1/messages`, without state: what its SDKs and Claude Code send, and what they need in return.

mod blocks;
mod conversation;
pub mod error;
pub mod messages;
pub mod request;
pub mod response;
mod stream;
#[cfg(test)]
mod tests;
mod translate;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Request,
    http::HeaderName,
    middleware::{Next, map_response},
    response::Response,
    routing::{get, post},
};
use common::http::RequestId;
use serde_json::{Value, json};

use crate::{
    http::{inference::errors::advise_on_retrying, v1_models::anthropic::VERSION_HEADER},
    state::AppState,
};

/// Where SDKs of this API look for the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Gives answers to clients of this API what they look for: the request's id under their name, and on the paths that are shared
/// with OpenAI's API errors in their shape.
pub async fn mark(request: Request, next: Next) -> Response {
    let is_models = request.uri().path().starts_with("/v1/models");
    let is_shared = is_models && request.headers().contains_key(VERSION_HEADER);
    let is_ours = is_shared || !is_models;
    let id = request.extensions().get::<RequestId>().filter(|_| is_ours);
    let id = id.and_then(RequestId::header_value);
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if is_shared {
        response.extensions_mut().insert(error::shape_of_any_path());
    }
    response
}

/// The routes that cost one of `rate_limit.requests`.
pub fn routes() -> Router<Arc<AppState>> {
    let create = post(messages::create);
    Router::new().route("/v1/messages", create).layer(map_response(advise_on_retrying))
}

/// The routes with a rate limit of their own: [`messages::COUNT_QUOTA`].
pub fn count_routes() -> Router<Arc<AppState>> {
    Router::new().route("/v1/messages/count_tokens", post(messages::count_tokens))
}

/// What Claude Code asks at its start, without a token, to see whether anybody answers; it costs nothing.
pub fn probe_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/api/hello", get(hello))
}

async fn hello() -> Json<Value> {
    Json(json!({ "message": "hello" }))
}
