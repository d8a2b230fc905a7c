//! The OpenAI-compatible endpoint under `/v1`: what its SDKs send, and what they need in return.

pub mod chat_completions;
mod checks;
pub mod chunk;
pub mod conversation;
pub mod error;
pub mod models;
mod passthrough;
pub mod request;
pub mod response;
mod sampling;
pub mod stream;
mod translate;

use std::sync::Arc;

use axum::{middleware::map_response, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::AppState;

/// The routes under `/v1`.
pub fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions::complete))
        .routes(routes!(models::list))
        .routes(routes!(models::read))
        // An id with slashes that were not encoded; the description has it as `{model}`.
        .route("/v1/models/{first}/{*rest}", get(models::read_parts))
        .layer(map_response(error::advise_on_retrying))
}
