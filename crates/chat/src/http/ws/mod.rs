//! The WebSocket: the handshake here, then one loop a socket.
//!
//! * `closing`: codes, and the last word;
//! * `fragments`: counts what a WebSocket does not show;
//! * `frames`: what clients send, checked;
//! * `limits`: floods and bad frames;
//! * `run`: the loop, which carries and does not decide;
//! * `speaker`: who speaks on a socket, and until when;
//! * `talk`: messages become turns, events become frames;
//! * `timers`: pings and deadlines;
//! * `upgrade`: the opening handshake.

mod auth;
mod close;
mod connection;
mod fragments;
mod frames;
mod handshake;
mod limits;
mod origin;
mod timers;
mod turns;

/// Reads a frame, for the fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn fuzz_frame(text: &str) {
    let _ = frames::parse(text);
}

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use common::{
    errors::{ApiError, Code, status_of},
    http::{ClientIp, Deadline, RequestId},
    identity::{Credential, Identity, Owner},
};

use crate::http::{
    App,
    ws::{
        auth::{Handshake, Speaker},
        handshake::{PROTOCOL, Upgrade},
    },
};

/// The open sockets of each user on this instance.
#[derive(Clone, Debug)]
pub struct Sockets {
    most: usize,
    open: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// One socket's place among its user's; dropping it gives the place back.
#[derive(Debug)]
struct Seat {
    sockets: Sockets,
    owner: Owner,
}

impl Sockets {
    /// At most that many a user.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        // Single counts: nothing is left half done by a panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more of that user's; `None` where there are too many.
    fn seat(&self, owner: &Owner) -> Option<Seat> {
        let mut open = self.open();
        let count = open.entry(owner.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat {
            sockets: self.clone(),
            owner: owner.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        if let Some(count) = open.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.owner);
            }
        }
    }
}

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
    State(app): State<App>,
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
            app.authenticator.authenticate(&token, &mut deadline).await
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
    let mut speaker = Speaker::new(app.clone(), peer, handshake);
    let seated = speaker.sit();
    let answer = upgrade.answer(&headers);
    // Tracked, so that a stop waits for the close frame.
    drop(shutdown.spawn(async move {
        match upgrade.socket().await {
            Ok(wire) => connection::run(app, speaker, seated, request_id, wire).await,
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
