//! The OpenAI-compatible endpoint under `/v1`: what its SDKs send, and what they need in return.
//!
//! * [`requests`], [`conversation`]: the body, read tolerantly and checked; what of it is sampling, and what is passed on;
//!   [`answers`], [`chunks`]: the answer, whole and in chunks
//! * [`handlers`], [`models`]: the routes; [`stream`]: an answer on its way; [`errors`]: refusals in the other shape

pub mod answers;
pub mod chunks;
pub mod conversation;
pub mod errors;
pub mod handlers;
pub mod models;
mod passed_on;
pub mod requests;
mod sampling;
pub mod stream;

use axum::{middleware::map_response, routing::get};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::App;

/// The routes under `/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(handlers::complete))
        .routes(routes!(models::list))
        .routes(routes!(models::read))
        // An id with slashes that were not encoded; the description has it as `{model}`.
        .route("/v1/models/{first}/{*rest}", get(models::read_parts))
        .layer(map_response(errors::advise_on_retrying))
}
