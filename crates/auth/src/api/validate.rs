//! Tells a proxy whom a credential belongs to (nginx `auth_request`, Traefik ForwardAuth).

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue},
};
use common::{
    clock::rfc3339,
    errors::{ApiError, Problem},
    identity::{Credential, Identity, UserId},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::Accounts;

const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Whom the credential belongs to.
#[derive(Serialize, ToSchema)]
pub(super) struct Validated {
    user_id: UserId,
    /// RFC 3339, UTC; null for an API key that never expires.
    expires_at: Option<String>,
}

/// Whom the access token or API key belongs to; 401 where it is not good.
#[utoipa::path(
    get, path = "/auth/validate", tag = "login", security(("bearer" = [])),
    responses(
        (status = 200, body = Validated, headers(("X-User-ID" = String))),
        (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn validate(
    State(accounts): State<Arc<Accounts>>,
    identity: Identity,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Validated>), ApiError> {
    accounts.recheck(&identity).await?;
    let expires_at = match identity.credential {
        Credential::Token { expires_at, .. } => Some(expires_at),
        Credential::ApiKey { expires_at, .. } => expires_at,
        Credential::Open => None,
    };
    let user_id = identity.owner.user;
    let header = HeaderValue::from_str(user_id.as_str()).map_err(ApiError::internal)?;
    let expires_at = expires_at.map(|at| rfc3339(at.saturating_mul(1000)));
    Ok((
        [(X_USER_ID, header)],
        Json(Validated {
            user_id,
            expires_at,
        }),
    ))
}
