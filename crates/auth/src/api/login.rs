//! Logging in, refreshing, logging out.

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

use super::measured::{counted, counted_login};
use crate::{models::TokenPair, service::Accounts};

/// A login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    user_id: UserId,
    /// Not needed where login is open and the account has none.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    password: Option<SecretString>,
}

/// The tokens of a login.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenPairBody {
    /// Sent as `Authorization: Bearer …` with every call.
    access_token: String,
    /// `bearer`.
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// Gives the next tokens, once.
    refresh_token: String,
}

impl From<TokenPair> for TokenPairBody {
    fn from(grant: TokenPair) -> Self {
        let TokenPair {
            access_token,
            expires_in,
            refresh_token,
        } = grant;
        Self {
            access_token,
            token_type: "bearer",
            expires_in,
            refresh_token,
        }
    }
}

/// Logs in.
#[utoipa::path(
    post, path = "/auth/login", tag = "login", request_body = Login,
    responses(
        (status = 200, body = TokenPairBody),
        (status = 400, body = Problem), (status = 401, body = Problem, description = "`invalid_credentials`"),
        (status = 403, body = Problem, description = "`password_required`"),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn login(
    State(accounts): State<Arc<Accounts>>,
    ClientIp(from): ClientIp,
    Body(login): Body<Login>,
) -> Result<Json<TokenPairBody>, ApiError> {
    let password = login.password.as_ref().map(ExposeSecret::expose_secret);
    if password == Some("") {
        return Err(ApiError::invalid("/password", "The password is empty."));
    }
    let way = if password.is_some() {
        "password"
    } else {
        "open"
    };
    let grant = accounts.login(&login.user_id, password, from).await;
    Ok(Json(counted_login(way, grant)?.into()))
}

/// A refresh token to be turned in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    /// As the last answer gave it.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// Turns a refresh token into new tokens. Each works once; the same one again within 10 s, while what it gave is unused,
/// gives the same again; later it ends the login.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "login", request_body = Refresh,
    responses(
        (status = 200, body = TokenPairBody), (status = 400, body = Problem),
        (status = 401, body = Problem, description = "`invalid_token`, `token_revoked`, `token_reused`"),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn refresh(
    State(accounts): State<Arc<Accounts>>,
    Body(refresh): Body<Refresh>,
) -> Result<Json<TokenPairBody>, ApiError> {
    let grant = accounts
        .refresh(refresh.refresh_token.expose_secret())
        .await;
    Ok(Json(counted("auth_refreshes_total", grant)?.into()))
}

/// What ends.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logout {
    /// Every login of the account, not only this one.
    #[serde(default)]
    all: Option<bool>,
}

/// Ends this login, or every login of the account.
#[utoipa::path(
    post, path = "/auth/logout", tag = "login", security(("bearer" = [])), request_body = Option<Logout>,
    responses(
        (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 500, body = Problem), (status = 503, body = Problem),
    )
)]
pub(super) async fn logout(
    State(accounts): State<Arc<Accounts>>,
    identity: Identity,
    OptionalBody(logout): OptionalBody<Logout>,
) -> Result<StatusCode, ApiError> {
    accounts
        .logout(&identity, logout.all.unwrap_or(false))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
