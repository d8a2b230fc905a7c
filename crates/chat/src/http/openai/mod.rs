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

use axum::{Router, middleware::map_response, routing::post};

use crate::{
    http::{embeddings, inference::errors::advise_on_retrying},
    state::AppState,
};

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/chat/completions", post(chat_completions::complete))
        .route("/v1/responses", post(responses::create).fallback(responses::refuse_upgrade))
        .route("/v1/embeddings", post(embeddings::openai::create))
        .layer(map_response(advise_on_retrying))
}
