//! The opening handshake, and the WebSocket that it leads to.
//!
//! axum's own upgrade hides the connection under the socket; here it is needed twice: to count fragments, and to take in
//! what is still on its way when a socket is closed, since a connection that is dropped with unread bytes is reset, and
//! the close frame is lost with it.

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::errors::{ApiError, Code};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tungstenite::{
    handshake::derive_accept_key,
    protocol::{Role, WebSocketConfig},
};

use crate::http::{header_list, ws::fragments::Fragments};

pub type WsStream = WebSocketStream<Fragments<TokioIo<Upgraded>>>;

/// Largest message, in bytes.
const MESSAGE_LIMIT: usize = 64 * 1024;

/// Small buffers, since a socket is idle most of its life.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 8 * 1024;

/// Unsent bytes at which a socket is given up.
const UNSENT_LIMIT: usize = 320 * 1024;

pub const PROTOCOL: &str = "chat";

pub struct Upgrade {
    key: HeaderValue,
    on_upgrade: OnUpgrade,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let asks = parts.method == Method::GET
            && names(headers, header::CONNECTION, "upgrade")
            && names(headers, header::UPGRADE, "websocket")
            && names(headers, header::SEC_WEBSOCKET_VERSION, "13");
        let key = client_key(headers);
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        match (asks, key, on_upgrade) {
            (true, Some(key), Some(on_upgrade)) => Ok(Self { key, on_upgrade }),
            _ => Err(ApiError::new(
                Code::InvalidRequest,
                "This is a WebSocket of version 13: open it with a WebSocket client.",
            )
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))),
        }
    }
}

/// The client's key: there once, and 16 bytes in base64 (RFC 6455, section 4.2.1).
fn client_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (key, None) = (keys.next()?, keys.next()) else { return None };
    let nonce = STANDARD.decode(key.as_bytes()).ok()?;
    (nonce.len() == 16).then(|| key.clone())
}

/// Whether a header's list has that word.
fn names(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    header_list::members(headers, name).any(|member| member.eq_ignore_ascii_case(word))
}

impl Upgrade {
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answered = response.headers_mut();
        answered.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answered.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Base64: always a header's value.
        if let Ok(accepted) = HeaderValue::try_from(derive_accept_key(self.key.as_bytes())) {
            answered.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
        }
        if names(headers, header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
            answered.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        }
        response
    }

    /// The socket, once the answer is out.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn socket(self) -> Result<WsStream, hyper::Error> {
        let io = Fragments::new(TokioIo::new(self.on_upgrade.await?));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(UNSENT_LIMIT)
            .max_frame_size(Some(MESSAGE_LIMIT))
            .max_message_size(Some(MESSAGE_LIMIT));
        Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_and_comes_once() {
        let found = |keys: &[&str]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                let value = HeaderValue::from_str(key).unwrap();
                headers.append(header::SEC_WEBSOCKET_KEY, value);
            }
            client_key(&headers).is_some()
        };
        assert!(found(&["dGhlIHNhbXBsZSBub25jZQ=="]));
        for wrong in [
            &[][..],
            &[""],
            &["x"],
            &["dGhlIHNhbXBsZSBub25jZQ"],
            &["dGhlIHNhbXBsZSBub25jZSE="],
            &["dGhlIHNhbXBsZQ=="],
            &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
            &["dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="],
        ] {
            assert!(!found(wrong), "{wrong:?}");
        }
    }
}
