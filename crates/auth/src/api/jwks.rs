//! What anybody may know: the public keys, and how to log in.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, header::CACHE_CONTROL},
};
use common::identity::JwkSet;

use crate::service::Accounts;

/// The public keys that verify access tokens, and whether a user id alone logs in.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "keys",
    responses((status = 200, body = JwkSet))
)]
pub(super) async fn jwks(
    State(accounts): State<Arc<Accounts>>,
) -> ([(HeaderName, HeaderValue); 1], Json<JwkSet>) {
    // Less than the time between two fetches of `chat`.
    let fresh = HeaderValue::from_static("public, max-age=15");
    ([(CACHE_CONTROL, fresh)], Json(accounts.jwks()))
}
