//! The WebSocket API: the handshake here, then one loop a socket in [`connection`].

mod auth;
mod close;
mod connection;
mod fragments;
pub mod frames;
mod handshake;
mod limits;
mod origin;
pub mod permits;
mod timers;
mod turns;
mod writer;

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
    identity::Identity,
    otel::{Span, SpanKind},
};

use crate::{
    http::{
        header_list,
        ws::{
            auth::SocketAuth,
            close::UNAUTHENTICATED,
            handshake::{PROTOCOL, Upgrade},
        },
    },
    state::AppState,
};

/// Opens a WebSocket: several turns of different sessions can share it.
///
/// The token comes in `Authorization`, as the value after `chat` in `Sec-WebSocket-Protocol`, or in an `auth` frame within 5 s.
/// Frames are JSON objects in text frames of at most 64 KiB. The client sends `MessageFrame`, `CancelFrame`, `ResumeFrame` and
/// `AuthFrame` (`type`: `message`, `cancel`, `resume`, `auth`); each costs one of `rate_limit.requests`. The server sends
/// `ServerFrame`; a `ref` comes back on what answers its frame.
///
/// Close codes: 1001 the service stops; 1002, 1007 a frame against the protocol; 1008 more than 100 frames in 10 s, 20 bad
/// ones in a minute, or no pong; 1009 more than 64 KiB; 1013 the reader is too slow; 4401 the token is missing, wrong, revoked
/// or expired; 4429 too many sockets of this user.
#[utoipa::path(
    get, path = "/chat/ws", tag = "messages",
    responses((status = 101, description = "The socket is open: JSON text frames both ways.")),
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
    let shutdown = app.shutdown.clone();
    let caller = app.load_shedder.caller(&headers, peer);
    let mut auth = SocketAuth::new(app.clone(), peer, caller);
    // Permits are given in the order of the handshakes, whichever socket runs first.
    let accepted = match found {
        Ok(identity) => auth.authenticated(identity),
        Err(refusal) if refusal.code == Code::MissingToken => Ok(()),
        Err(refusal) if status_of(refusal.code).is_server_error() => return Err(refusal),
        // Told by a close code, since a browser cannot see the status of a handshake.
        Err(_) => Err(UNAUTHENTICATED),
    };
    let answer = upgrade.answer(&headers);
    // Tracked, so that a stop waits for the close frame.
    let span = Span::child("websocket", SpanKind::Internal);
    drop(shutdown.spawn(span.run(async move {
        match upgrade.socket().await {
            Ok(stream) => connection::run(app, auth, accepted, request_id, stream).await,
            Err(error) => tracing::debug!(%error, "a socket was not opened"),
        }
    })));
    Ok(answer)
}

/// The token that a browser offers after our subprotocol.
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    let offered: Vec<&str> =
        header_list::members(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    let ours = offered.iter().position(|name| *name == PROTOCOL)?;
    offered.get(ours + 1).map(|token| (*token).to_owned())
}
