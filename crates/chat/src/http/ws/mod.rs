//! The WebSocket API: the handshake here, then one loop a socket in [`connection`].

mod auth;
mod close;
mod connection;
mod fragments;
mod frames;
mod handshake;
mod limits;
mod origin;
pub mod permits;
mod timers;
mod turns;

/// Reads a frame, for the fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn fuzz_frame(text: &str) {
    let _ = frames::parse(text);
}

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use common::{
    errors::{ApiError, Code, status_of},
    http::{ClientIp, Deadline, RequestId},
    identity::{Credential, Identity},
};

use crate::http::ws::{
    auth::{Handshake, SocketAuth},
    handshake::{PROTOCOL, Upgrade},
};
use crate::state::AppState;

/// Opens a WebSocket: several turns of different sessions can share it.
///
/// The token comes in `Authorization`, as the value after `chat` in `Sec-WebSocket-Protocol`, or in an `auth` frame.
#[utoipa::path(
    get, path = "/chat/ws", tag = "messages",
    responses(
        (status = 101, description = "The socket is open: JSON text frames both ways."),
    ),
    security(("bearer" = []), ()),
)]
pub async fn connect(
    State(app): State<Arc<AppState>>,
    identity: Result<Identity, ApiError>,
    Deadline(mut deadline): Deadline,
    ClientIp(peer): ClientIp,
    RequestId(request_id): RequestId,
    headers: HeaderMap,
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    origin::check(&headers, &app.allowed_origins)?;
    let upgrade = upgrade?;
    let found = match (identity, protocol_token(&headers)) {
        (Err(refusal), Some(token)) if refusal.code == Code::MissingToken => {
            let found = app.authenticator.authenticate(&token, &mut deadline);
            found.await.map_err(ApiError::from)
        }
        (identity, _) => identity,
    };
    let handshake = match found {
        Ok(identity) => Handshake::Known(identity),
        Err(refusal) if refusal.code == Code::MissingToken => Handshake::Open,
        Err(refusal) if status_of(refusal.code).is_server_error() => return Err(refusal),
        // Told by a close code, since a browser cannot see the status of a handshake.
        Err(_) => Handshake::Refused,
    };
    let shutdown = app.shutdown.clone();
    // Seats are given in the order of the handshakes, whichever socket runs first.
    let mut auth = SocketAuth::new(app.clone(), peer, handshake);
    let acquired = auth.acquire();
    let answer = upgrade.answer(&headers);
    // Tracked, so that a stop waits for the close frame.
    drop(shutdown.spawn(async move {
        match upgrade.socket().await {
            Ok(stream) => connection::run(app, auth, acquired, request_id, stream).await,
            Err(error) => tracing::debug!(%error, "a socket was not opened"),
        }
    }));
    Ok(answer)
}

/// The token that a browser offers after our subprotocol.
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let ours = offered.iter().position(|name| *name == PROTOCOL)?;
    offered.get(ours + 1).map(|token| (*token).to_owned())
}

/// When a credential expires: Unix seconds.
fn expires_at(credential: &Credential) -> Option<i64> {
    match credential {
        Credential::Token { expires_at, .. } => Some(*expires_at),
        Credential::ApiKey { expires_at, .. } => *expires_at,
        Credential::Open => None,
    }
}
