//! The OpenAI-compatible endpoint under `/v1`: what its SDKs send, and what they need in return.
//!
//! * [`requests`], [`conversation`]: the body, read tolerantly and checked; what of it is sampling, and what is passed on;
//!   [`answers`], [`chunks`]: the answer, whole and in chunks
//! * [`handlers`], [`models`]: the routes; [`stream`]: an answer on its way; [`errors`]: refusals in the other shape

pub mod chat_completions;
pub mod chunk;
pub mod conversation;
pub mod error;
pub mod models;
mod passthrough;
pub mod request;
pub mod response;
mod sampling;
pub mod stream;

use axum::{middleware::map_response, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::App;

/// The routes under `/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions::complete))
        .routes(routes!(models::list))
        .routes(routes!(models::read))
        // An id with slashes that were not encoded; the description has it as `{model}`.
        .route("/v1/models/{first}/{*rest}", get(models::read_parts))
        .layer(map_response(error::advise_on_retrying))
}
