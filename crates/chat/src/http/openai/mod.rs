//! The OpenAI-compatible endpoint under `/v1`: what its SDKs send, and what they need in return.

pub mod chat_completions;
pub mod chunk;
pub mod conversation;
pub mod error;
mod passthrough;
pub mod request;
pub mod response;
pub mod responses;
mod translate;

use std::sync::Arc;

use axum::{middleware::map_response, routing::MethodRouter};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{embeddings, inference::errors::advise_on_retrying},
    state::AppState,
};

pub fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions::complete))
        .routes(routes!(responses::create))
        .route("/v1/responses", MethodRouter::new().fallback(responses::refuse_upgrade))
        .routes(routes!(embeddings::openai::create))
        .layer(map_response(advise_on_retrying))
}
