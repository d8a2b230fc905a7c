//! What everybody may know: the public keys, and how to get in.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, header::CACHE_CONTROL},
};
use common::{
    config::{LoginMode, Registration},
    identity::JwkSet,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::AppState;

type Cached<T> = ([(HeaderName, HeaderValue); 1], Json<T>);

/// For less than the time between two fetches of `chat`.
fn cached<T>(body: T) -> Cached<T> {
    let age = HeaderValue::from_static("public, max-age=15");
    ([(CACHE_CONTROL, age)], Json(body))
}

/// The public keys that verify access tokens, and whether a user id alone logs in.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "keys",
    responses((status = 200, body = JwkSet))
)]
pub async fn jwks(State(state): State<Arc<AppState>>) -> Cached<JwkSet> {
    cached(state.keys.jwks())
}

#[derive(Serialize, ToSchema)]
pub struct SettingsResponse {
    /// `open`: a user id alone logs in, unless that account has a password; `password`: every login needs one.
    #[schema(value_type = String)]
    login: LoginMode,
    /// `open`: everybody may register; `closed`: only the operator creates accounts.
    #[schema(value_type = String)]
    registration: Registration,
}

/// How to log in here, and whether everybody may register.
#[utoipa::path(
    get, path = "/auth/settings", tag = "login",
    responses((status = 200, body = SettingsResponse))
)]
pub async fn settings(State(state): State<Arc<AppState>>) -> Cached<SettingsResponse> {
    cached(SettingsResponse { login: state.login, registration: state.registration })
}
