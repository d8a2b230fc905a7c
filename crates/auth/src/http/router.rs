//! The routes of the service, and their OpenAPI document.

use std::sync::Arc;

use axum::{Router, middleware::from_fn_with_state};
use common::{
    http::{add_bearer, complete_openapi},
    identity::identify,
    rate_limiter::{RateLimiter, limit},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{account, api_keys, login, public, validate};
use crate::state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(title = "Auth", description = "Accounts, tokens and API keys."),
    components(schemas(common::errors::Problem, common::errors::Code))
)]
struct Document;

/// Routes that identify their caller and are limited.
fn account_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(login::refresh))
        .routes(routes!(login::logout))
        .routes(routes!(account::register))
        .routes(routes!(account::change_password))
        .routes(routes!(account::delete))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(validate::validate))
}

/// Routes that need no identity and are not limited.
fn public_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(public::jwks)).routes(routes!(public::settings))
}

pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = OpenApiRouter::with_openapi(Document::openapi())
        .merge(account_routes())
        .merge(public_routes())
        .into_openapi();
    add_bearer(&mut document, None);
    complete_openapi(document)
}

/// The rate limit is inside the identity, so that users are counted as such, and around every handler that may refuse an
/// identity.
pub fn build(state: &Arc<AppState>, limiter: RateLimiter) -> Router {
    Router::from(account_routes())
        .layer(from_fn_with_state(limiter, limit))
        .layer(from_fn_with_state(state.authenticator.clone(), identify))
        .merge(Router::from(public_routes()))
        .with_state(Arc::clone(state))
}
