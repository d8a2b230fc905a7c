//! How a socket is closed: with which code, and so that the last word arrives.

use std::time::Duration;

use futures_util::{
    SinkExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tungstenite::{Error, Message, Utf8Bytes, protocol::CloseFrame};

use crate::http::ws::{fragments::TooMany, handshake::WsStream};

/// How long the other side's close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close(pub(super) u16, pub(super) &'static str);

pub(super) const SHUTDOWN: Close = Close(1001, "the service stops");
pub(super) const FLOOD: Close = Close(1008, "too many frames");
pub(super) const TOO_BIG: Close = Close(1009, "a frame may have 64 KiB");
pub(super) const TOO_SLOW: Close = Close(1013, "the reader is too slow");
pub(super) const UNAUTHENTICATED: Close =
    Close(4401, "the token is missing, wrong, revoked or expired");
pub(super) const TOO_MANY: Close = Close(4429, "too many sockets of this user");
pub(super) const PROTOCOL: Close = Close(1002, "a frame against the protocol");
pub(super) const NOT_TEXT: Close = Close(1007, "text must be UTF-8");
pub(super) const PONG_MISSING: Close = Close(1008, "no pong came");

pub(super) enum Next {
    Go,
    Close(Close),
    Gone,
}

/// Says why it ends, and waits a moment for the other side to end too.
pub(super) async fn close(
    mut sink: SplitSink<WsStream, Message>,
    incoming: SplitStream<WsStream>,
    end: Next,
) {
    let said = async {
        // What cannot be said any more is not received either.
        let _ = match end {
            Next::Close(Close(code, reason)) => {
                let reason = Utf8Bytes::from_static(reason);
                sink.send(Message::Close(Some(CloseFrame { code: code.into(), reason }))).await
            }
            // Answers the other side's close.
            Next::Go | Next::Gone => sink.flush().await,
        };
        if let Ok(stream) = sink.reunite(incoming) {
            drain(stream).await;
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, said).await;
}

/// Takes in what is still on its way, until the other side ends too: a connection dropped before is reset, and what was
/// said last is lost.
async fn drain(mut stream: WsStream) {
    let connection = stream.get_mut().connection();
    if connection.shutdown().await.is_err() {
        return;
    }
    let mut discarded = [0; 4096];
    while let Ok(1..) = connection.read(&mut discarded).await {}
}

/// What a broken frame means for the socket.
pub(super) fn close_for(error: &Error) -> Next {
    match error {
        Error::Capacity(_) => Next::Close(TOO_BIG),
        Error::Utf8(_) => Next::Close(NOT_TEXT),
        Error::Protocol(_) => Next::Close(PROTOCOL),
        Error::Io(cause) if cause.get_ref().is_some_and(|cause| cause.is::<TooMany>()) => {
            Next::Close(FLOOD)
        }
        _ => Next::Gone,
    }
}
