//! Tells a proxy whom a credential belongs to (nginx `auth_request`, Traefik ForwardAuth).

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue},
};
use common::{
    clock::rfc3339,
    errors::ApiError,
    identity::{Credential, Identity, UserId},
    store::CALL_LIMIT,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::AppState;

const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

#[derive(Serialize, ToSchema)]
pub struct ValidateResponse {
    user_id: UserId,
    /// RFC 3339, UTC; null for an API key that never expires.
    expires_at: Option<String>,
}

/// Whom the access token or API key belongs to; 401 where it is not good.
#[utoipa::path(
    get, path = "/auth/validate", tag = "login", security(("bearer" = [])),
    responses((status = 200, body = ValidateResponse, headers(("X-User-ID" = String))))
)]
pub async fn validate(
    State(state): State<Arc<AppState>>,
    identity: Identity,
) -> Result<([(HeaderName, HeaderValue); 1], Json<ValidateResponse>), ApiError> {
    // The middleware may have decided by a state that is up to 2 s old.
    let deadline = Instant::now() + CALL_LIMIT;
    let identity = state.authenticator.recheck(&identity, deadline).await?;
    let expires_at = match identity.credential {
        Credential::Token { expires_at, .. } => Some(expires_at),
        Credential::ApiKey { expires_at, .. } => expires_at,
        Credential::Open => None,
    };
    let user_id = identity.owner.user;
    let header = HeaderValue::from_str(user_id.as_str()).map_err(ApiError::internal)?;
    let expires_at = expires_at.map(|at| rfc3339(at.saturating_mul(1000)));
    Ok(([(X_USER_ID, header)], Json(ValidateResponse { user_id, expires_at })))
}
