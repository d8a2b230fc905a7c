//! `/auth/keys`: API keys of the caller's account.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use common::{
    clock::rfc3339,
    errors::{
        ApiError, Problem,
        extract::{Body, Path},
    },
    identity::Identity,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{domain::account::ApiKey, state::AppState};

/// Longest name, in characters.
const MAX_NAME: usize = 100;
/// Longest life: ten years, in seconds.
const MAX_EXPIRES_IN: u64 = 10 * 365 * 24 * 60 * 60;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "laptop", "expires_in": 2_592_000}))]
pub struct CreateApiKeyRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Seconds until it expires; never, where it is absent.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub struct CreatedApiKeyResponse {
    #[serde(flatten)]
    about: ApiKeyResponse,
    /// The key itself, shown this once.
    key: String,
}

#[derive(Serialize, ToSchema)]
pub struct ApiKeyResponse {
    id: String,
    name: String,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC; null for never.
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ApiKeysResponse {
    /// The newest first.
    keys: Vec<ApiKeyResponse>,
}

impl From<ApiKey> for ApiKeyResponse {
    fn from(key: ApiKey) -> Self {
        let expires_at = key.expires_at.map(|at| rfc3339(at.saturating_mul(1000)));
        Self { id: key.id, name: key.name, created_at: rfc3339(key.created_at), expires_at }
    }
}

impl CreateApiKeyRequest {
    fn checked(self) -> Result<(String, Option<Duration>), ApiError> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            let allowed = "A name is 1 to 100 characters, none of them a control character.";
            return Err(ApiError::invalid("/name", allowed));
        }
        match self.expires_in {
            Some(seconds) if !(1..=MAX_EXPIRES_IN).contains(&seconds) => {
                Err(ApiError::invalid("/expires_in", "A key lives 1 to 315360000 seconds."))
            }
            seconds => Ok((self.name, seconds.map(Duration::from_secs))),
        }
    }
}

/// Makes an API key.
#[utoipa::path(
    post, path = "/auth/keys", tag = "keys", security(("bearer" = [])), request_body = CreateApiKeyRequest,
    responses((status = 201, body = CreatedApiKeyResponse), (status = 403, body = Problem, description = "`forbidden`: an API key was sent")),
)]
pub async fn create(
    State(state): State<Arc<AppState>>,
    identity: Identity,
    Body(request): Body<CreateApiKeyRequest>,
) -> Result<(StatusCode, Json<CreatedApiKeyResponse>), ApiError> {
    let (name, lifetime) = request.checked()?;
    let (about, key) = state.api_keys.create(&identity, &name, lifetime).await?;
    let about = about.into();
    Ok((StatusCode::CREATED, Json(CreatedApiKeyResponse { about, key })))
}

/// Lists the account's API keys.
#[utoipa::path(
    get, path = "/auth/keys", tag = "keys", security(("bearer" = [])),
    responses((status = 200, body = ApiKeysResponse))
)]
pub async fn list(
    State(state): State<Arc<AppState>>,
    identity: Identity,
) -> Result<Json<ApiKeysResponse>, ApiError> {
    let keys = state.api_keys.list(&identity).await?;
    Ok(Json(ApiKeysResponse { keys: keys.into_iter().map(ApiKeyResponse::from).collect() }))
}

/// Revokes an API key.
#[utoipa::path(
    delete, path = "/auth/keys/{id}", tag = "keys", security(("bearer" = [])),
    params(("id" = String, Path, description = "The key's id, as it was listed")),
    responses((status = 204), (status = 404, body = Problem))
)]
pub async fn revoke(
    State(state): State<Arc<AppState>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.api_keys.revoke(&identity, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
