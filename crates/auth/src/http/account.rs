//! `/auth/register`, `/auth/password`, `/auth/account`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use common::{
    errors::{
        ApiError, Problem,
        extract::{Body, OptionalBody},
    },
    http::ClientIp,
    identity::{Identity, UserId},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{counted, refused_password};
use crate::{services::error::AuthError, state::AppState};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"user_id": "bob", "password": "quiet-harbour-71"}))]
pub struct RegisterRequest {
    user_id: UserId,
    /// `auth.password_min` to 128 characters, any of Unicode; not the user id, not one of the commonest.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    password: SecretString,
}

#[derive(Serialize, ToSchema)]
pub struct Registered {
    user_id: UserId,
}

/// Makes an account. An id that open logins have used is taken; its own token, sent along, gives it a first password,
/// which ends its other logins and its API keys.
#[utoipa::path(
    post, path = "/auth/register", tag = "account", security((), ("bearer" = [])), request_body = RegisterRequest,
    responses(
        (status = 201, body = Registered),
        (status = 403, body = Problem, description = "`registration_closed`, `user_mismatch`, `forbidden`"),
        (status = 409, body = Problem, description = "`user_exists`"),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
    )
)]
pub async fn register(
    State(state): State<Arc<AppState>>,
    client_ip: ClientIp,
    identity: Option<Identity>,
    Body(request): Body<RegisterRequest>,
) -> Result<(StatusCode, Json<Registered>), ApiError> {
    let RegisterRequest { user_id, password } = request;
    let password = password.expose_secret();
    let made = state.accounts.register(&user_id, password, identity.as_ref(), client_ip.0);
    counted("auth_registrations_total", None, made.await)?;
    Ok((StatusCode::CREATED, Json(Registered { user_id })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current_password": "quiet-harbour-71", "new_password": "loud-harbour-72"}))]
pub struct ChangePasswordRequest {
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    current_password: SecretString,
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    new_password: SecretString,
    /// Whether the account's API keys end too.
    revoke_keys: Option<bool>,
}

/// Changes the password. Every other login of the account ends.
#[utoipa::path(
    put, path = "/auth/password", tag = "account", security(("bearer" = [])), request_body = ChangePasswordRequest,
    responses((status = 204), (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`")),
)]
pub async fn change_password(
    State(state): State<Arc<AppState>>,
    client_ip: ClientIp,
    identity: Identity,
    Body(change): Body<ChangePasswordRequest>,
) -> Result<StatusCode, ApiError> {
    let passwords = (change.current_password.expose_secret(), change.new_password.expose_secret());
    let revoke_keys = change.revoke_keys.unwrap_or(false);
    let changed =
        state.accounts.change_password(&identity, passwords, revoke_keys, client_ip.0).await;
    changed.map_err(|error| match error {
        AuthError::Password(fault) => refused_password("/new_password", fault),
        error => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"password": "quiet-harbour-71"}))]
pub struct DeleteAccountRequest {
    /// Needed where the account has one.
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// Deletes the account. Its tokens and keys are refused from now on; its id is free again, and sees nothing of the old.
#[utoipa::path(
    delete, path = "/auth/account", tag = "account", security(("bearer" = [])), request_body = Option<DeleteAccountRequest>,
    responses(
        (status = 204),
        (status = 403, body = Problem, description = "`password_required`, `forbidden`"),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
    )
)]
pub async fn delete(
    State(state): State<Arc<AppState>>,
    client_ip: ClientIp,
    identity: Identity,
    OptionalBody(deletion): OptionalBody<DeleteAccountRequest>,
) -> Result<StatusCode, ApiError> {
    let password = deletion.password.as_ref().map(ExposeSecret::expose_secret);
    state.accounts.delete(&identity, password, client_ip.0).await?;
    Ok(StatusCode::NO_CONTENT)
}
