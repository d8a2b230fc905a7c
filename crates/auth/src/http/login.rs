//! `/auth/login`, `/auth/refresh`, `/auth/logout`.

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

use super::error::counted;
use crate::{domain::account::TokenPair, state::AppState};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    user_id: UserId,
    /// Not needed where login is open and the account has none.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    password: Option<SecretString>,
}

/// The tokens of a login.
#[derive(Serialize, ToSchema)]
pub struct TokenPairResponse {
    /// Sent as `Authorization: Bearer …` with every call.
    access_token: String,
    /// `bearer`.
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// Gives the next tokens, once.
    refresh_token: String,
}

impl From<TokenPair> for TokenPairResponse {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access_token,
            token_type: "bearer",
            expires_in: pair.expires_in,
            refresh_token: pair.refresh_token,
        }
    }
}

/// Logs in.
#[utoipa::path(
    post, path = "/auth/login", tag = "login",
    request_body(content = LoginRequest, examples(
        ("open" = (summary = "Where login is open", value = json!({"user_id": "alice"}))),
        ("password" = (summary = "With a password", value = json!({"user_id": "bob", "password": "quiet-harbour-71"}))),
    )),
    responses(
        (status = 200, body = TokenPairResponse),
        (status = 401, body = Problem, description = "`invalid_credentials`"),
        (status = 403, body = Problem, description = "`password_required`"),
        (status = 429, body = Problem, description = "`too_many_attempts`, `rate_limited`"),
    )
)]
pub async fn login(
    State(state): State<Arc<AppState>>,
    ClientIp(from): ClientIp,
    Body(login): Body<LoginRequest>,
) -> Result<Json<TokenPairResponse>, ApiError> {
    let password = login.password.as_ref().map(ExposeSecret::expose_secret);
    if password == Some("") {
        return Err(ApiError::invalid("/password", "The password is empty."));
    }
    let way = if password.is_some() { "password" } else { "open" };
    let pair = state.logins.login(&login.user_id, password, from).await;
    Ok(Json(counted("auth_logins_total", Some(way), pair)?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// As the last answer gave it.
    #[schema(value_type = String, example = "cbr_...")]
    refresh_token: SecretString,
}

/// Exchanges a refresh token for new tokens. Each works once; the same one again within 10 s, while its successor is unused,
/// gives the same successor; later it ends the login.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "login", request_body = RefreshRequest,
    responses(
        (status = 200, body = TokenPairResponse),
        (status = 401, body = Problem, description = "`invalid_token`, `token_revoked`, `token_reused`"),
        (status = 429, body = Problem),
    )
)]
pub async fn refresh(
    State(state): State<Arc<AppState>>,
    Body(refresh): Body<RefreshRequest>,
) -> Result<Json<TokenPairResponse>, ApiError> {
    let pair = state.tokens.refresh(refresh.refresh_token.expose_secret()).await;
    Ok(Json(counted("auth_refreshes_total", None, pair)?.into()))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutRequest {
    /// Every login of the account, not only this one.
    #[schema(example = false)]
    all: Option<bool>,
}

/// Ends this login, or every login of the account.
#[utoipa::path(
    post, path = "/auth/logout", tag = "login", security(("bearer" = [])), request_body = Option<LogoutRequest>,
    responses((status = 204))
)]
pub async fn logout(
    State(state): State<Arc<AppState>>,
    identity: Identity,
    OptionalBody(logout): OptionalBody<LogoutRequest>,
) -> Result<StatusCode, ApiError> {
    state.logins.logout(&identity, logout.all.unwrap_or(false)).await?;
    Ok(StatusCode::NO_CONTENT)
}
