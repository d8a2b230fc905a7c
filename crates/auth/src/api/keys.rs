//! API keys of the caller's account.

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

use crate::{models::ApiKey, service::Accounts};

/// Longest name, in characters.
const MAX_NAME: usize = 100;
/// Longest life: ten years, in seconds.
const MAX_EXPIRES_IN: u64 = 10 * 365 * 24 * 60 * 60;

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateApiKeyRequest {
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Seconds until it expires; never, where it is absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in: Option<u64>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedApiKey {
    #[serde(flatten)]
    about: Key,
    /// The key itself, shown this once.
    key: String,
}

/// A key, without itself.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    id: String,
    name: String,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC; null for never.
    expires_at: Option<String>,
}

/// The account's keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    /// The newest first.
    keys: Vec<Key>,
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        let ApiKey {
            id,
            name,
            created_at,
            expires_at,
        } = key;
        let expires_at = expires_at.map(|at| rfc3339(at.saturating_mul(1000)));
        Self {
            id,
            name,
            created_at: rfc3339(created_at),
            expires_at,
        }
    }
}

impl CreateApiKeyRequest {
    fn checked(self) -> Result<(String, Option<Duration>), ApiError> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            return Err(ApiError::invalid(
                "/name",
                "A name is 1 to 100 characters, none of them a control character.",
            ));
        }
        match self.expires_in {
            Some(seconds) if !(1..=MAX_EXPIRES_IN).contains(&seconds) => Err(ApiError::invalid(
                "/expires_in",
                "A key lives 1 to 315360000 seconds.",
            )),
            seconds => Ok((self.name, seconds.map(Duration::from_secs))),
        }
    }
}

/// Makes an API key.
#[utoipa::path(
    post, path = "/auth/keys", tag = "keys", security(("bearer" = [])), request_body = CreateApiKeyRequest,
    responses(
        (status = 201, body = CreatedApiKey), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`forbidden`: an API key was sent"),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn make_key(
    State(accounts): State<Arc<Accounts>>,
    identity: Identity,
    Body(make): Body<CreateApiKeyRequest>,
) -> Result<(StatusCode, Json<CreatedApiKey>), ApiError> {
    let (name, lifetime) = make.checked()?;
    let made = accounts.make_key(&identity, &name, lifetime).await?;
    Ok((
        StatusCode::CREATED,
        Json(CreatedApiKey {
            about: made.about.into(),
            key: made.key,
        }),
    ))
}

/// Lists the account's API keys.
#[utoipa::path(
    get, path = "/auth/keys", tag = "keys", security(("bearer" = [])),
    responses(
        (status = 200, body = Keys), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn list_keys(
    State(accounts): State<Arc<Accounts>>,
    identity: Identity,
) -> Result<Json<Keys>, ApiError> {
    let keys = accounts.keys(&identity).await?;
    Ok(Json(Keys {
        keys: keys.into_iter().map(Key::from).collect(),
    }))
}

/// Revokes an API key.
#[utoipa::path(
    delete, path = "/auth/keys/{id}", tag = "keys", security(("bearer" = [])),
    params(("id" = String, Path, description = "The key's id, as it was listed")),
    responses(
        (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn revoke_key(
    State(accounts): State<Arc<Accounts>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    accounts.revoke_key(&identity, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
