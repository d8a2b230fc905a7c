//! The routes of the service, and their OpenAPI document.

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{delete, get, post, put},
};
use common::{
    http::{add_bearer, complete_openapi},
    identity::identify,
    rate_limiter::{RateLimiter, limit},
};
use utoipa::OpenApi;

use super::{account, api_keys, login, public, validate};
use crate::state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(title = "Auth", description = "Accounts, tokens and API keys."),
    paths(
        login::login,
        login::refresh,
        login::logout,
        account::register,
        account::change_password,
        account::delete,
        api_keys::create,
        api_keys::list,
        api_keys::revoke,
        validate::validate,
        public::jwks,
        public::settings,
    ),
    components(schemas(common::errors::Problem, common::errors::Code))
)]
struct Document;

/// Routes that identify their caller and are limited.
fn account_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/auth/login", post(login::login))
        .route("/auth/refresh", post(login::refresh))
        .route("/auth/logout", post(login::logout))
        .route("/auth/register", post(account::register))
        .route("/auth/password", put(account::change_password))
        .route("/auth/account", delete(account::delete))
        .route("/auth/keys", get(api_keys::list).post(api_keys::create))
        .route("/auth/keys/{id}", delete(api_keys::revoke))
        .route("/auth/validate", get(validate::validate))
}

/// Routes that need no identity and are not limited.
fn public_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/.well-known/jwks.json", get(public::jwks))
        .route("/auth/settings", get(public::settings))
}

pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    add_bearer(&mut document, None);
    complete_openapi(document)
}

/// The rate limit is inside the identity, so that users are counted as such, and around every handler that may refuse an identity.
pub fn build(state: &Arc<AppState>, limiter: RateLimiter) -> Router {
    account_routes()
        .layer(from_fn_with_state(limiter, limit))
        .layer(from_fn_with_state(state.authenticator.clone(), identify))
        .merge(public_routes())
        .with_state(Arc::clone(state))
}
