//! Writes frames to a reader, who may take nothing for a while.

use std::{sync::Arc, time::Duration};

use common::errors::ApiError;
use futures_util::{SinkExt as _, stream::SplitSink};
use tokio::time::timeout;
use tungstenite::{Error, Message, Utf8Bytes};

use crate::http::{
    encode,
    ws::{
        close::{Next, TOO_SLOW},
        handshake::WsStream,
    },
};

/// How long a reader may take nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct FrameWriter {
    pub(super) sink: SplitSink<WsStream, Message>,
    /// The id of the handshake, under which the log has whatever happens on the socket.
    pub(super) request_id: Arc<str>,
}

impl FrameWriter {
    pub(super) async fn refuse(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        let mut out = String::new();
        encode::connection_error(error, &self.request_id, None, reference, &mut out);
        self.send(Message::text(out)).await
    }

    pub(super) async fn send_all(&mut self, frames: Vec<Utf8Bytes>) -> Next {
        for frame in frames {
            // Fed, not sent: what is there at once goes out at once.
            match with_timeout(self.sink.feed(Message::Text(frame))).await {
                Next::Go => {}
                end => return end,
            }
        }
        with_timeout(self.sink.flush()).await
    }

    pub(super) async fn send(&mut self, message: Message) -> Next {
        with_timeout(self.sink.send(message)).await
    }
}

/// What writing to a reader comes to, who may take nothing for a while.
async fn with_timeout(write: impl Future<Output = Result<(), Error>>) -> Next {
    match timeout(SEND_TIMEOUT, write).await {
        Ok(Ok(())) => Next::Go,
        Ok(Err(_)) => Next::Gone,
        Err(_) => Next::Close(TOO_SLOW),
    }
}
