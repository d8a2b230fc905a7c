//! Registering, changing a password, deleting an account.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use common::{
    errors::{
        ApiError, Code, Problem,
        extract::{Body, OptionalBody},
    },
    http::ClientIp,
    identity::{Identity, UserId},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{errors::at, measured::counted};
use crate::service::Accounts;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    user_id: UserId,
    /// `auth.password_min` to 128 characters, any of Unicode; not the user id, not one of the commonest.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    password: SecretString,
}

/// The account that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct Registered {
    user_id: UserId,
}

/// Makes an account. An id that open logins have used is taken; its own token, sent along, gives it a first password,
/// which ends its other logins and its API keys.
#[utoipa::path(
    post, path = "/auth/register", tag = "account", security((), ("bearer" = [])), request_body = Register,
    responses(
        (status = 201, body = Registered), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`registration_closed`, `user_mismatch`, `forbidden`"),
        (status = 408, body = Problem), (status = 409, body = Problem, description = "`user_exists`"),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn register(
    State(accounts): State<Arc<Accounts>>,
    client_ip: ClientIp,
    identity: Option<Identity>,
    Body(register): Body<Register>,
) -> Result<(StatusCode, Json<Registered>), ApiError> {
    let Register { user_id, password } = register;
    if identity
        .as_ref()
        .is_some_and(|identity| *identity.user() != user_id)
    {
        return Err(ApiError::new(
            Code::UserMismatch,
            "The token is another user's: send none to register this one.",
        ));
    }
    let made = accounts
        .register(
            &user_id,
            password.expose_secret(),
            identity.as_ref(),
            client_ip.0,
        )
        .await;
    counted("auth_registrations_total", made)?;
    Ok((StatusCode::CREATED, Json(Registered { user_id })))
}

/// A change of password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangePassword {
    /// The one that holds now.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    current_password: SecretString,
    /// The one that is to hold.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    new_password: SecretString,
    /// Whether the account's API keys end too.
    #[serde(default)]
    revoke_keys: Option<bool>,
}

/// Changes the password. Every other login of the account ends.
#[utoipa::path(
    put, path = "/auth/password", tag = "account", security(("bearer" = [])), request_body = ChangePassword,
    responses(
        (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn change_password(
    State(accounts): State<Arc<Accounts>>,
    client_ip: ClientIp,
    identity: Identity,
    Body(change): Body<ChangePassword>,
) -> Result<StatusCode, ApiError> {
    let passwords = (
        change.current_password.expose_secret(),
        change.new_password.expose_secret(),
    );
    let revoke_keys = change.revoke_keys.unwrap_or(false);
    accounts
        .change_password(&identity, passwords, revoke_keys, client_ip.0)
        .await
        .map_err(at("/new_password"))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The deletion of an account.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteAccount {
    /// Needed where the account has one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// Deletes the account. Its tokens and keys are refused from now on; its id is free again, and sees nothing of the old.
#[utoipa::path(
    delete, path = "/auth/account", tag = "account", security(("bearer" = [])), request_body = Option<DeleteAccount>,
    responses(
        (status = 204), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`password_required`, `forbidden`"),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn delete_account(
    State(accounts): State<Arc<Accounts>>,
    client_ip: ClientIp,
    identity: Identity,
    OptionalBody(deletion): OptionalBody<DeleteAccount>,
) -> Result<StatusCode, ApiError> {
    let password = deletion.password.as_ref().map(ExposeSecret::expose_secret);
    accounts.delete(&identity, password, client_ip.0).await?;
    Ok(StatusCode::NO_CONTENT)
}
