//! A request body that can be taken back after the handler dropped it unread.
//!
//! A response to a request whose body is still on its way either waits for the rest of it or closes the connection. Without
//! the rest, hyper closes without saying so in the response, and the next request of a pooled client fails.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;

/// The largest rest that is read to keep a connection, in bytes.
const MAX_REST: u64 = 64 * 1024;

/// How long the rest may take: clients often send head and body in two packets, one right after the other.
const REST_TIMEOUT: Duration = Duration::from_millis(20);

/// Its lock is never contended: the rest is read only after this was dropped.
pub(super) struct RequestBody(Arc<Mutex<Incoming>>);

/// What is left of a body when the handler is done with it.
pub(super) struct Rest {
    body: Arc<Mutex<Incoming>>,
    /// The client sends the body only once it is read.
    awaits_continue: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, awaits_continue: bool) -> (Self, Rest) {
        let body = Arc::new(Mutex::new(body));
        let rest = Rest { body: body.clone(), awaits_continue };
        (Self(body), rest)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

impl Rest {
    /// Reads the rest where it is small and comes at once. Returns whether the connection can take another request.
    pub(super) async fn discard(self) -> bool {
        // A handler that holds the body still reads it, beside its response.
        let Some(body) = Arc::into_inner(self.body) else { return true };
        let mut body = body.into_inner();
        if body.is_end_stream() {
            return true;
        }
        if self.awaits_continue || body.size_hint().lower() > MAX_REST {
            return false;
        }
        let rest = async {
            let mut left = MAX_REST;
            while let Some(frame) = body.frame().await {
                let length = frame.ok()?.data_ref().map_or(0, Bytes::len);
                left = left.checked_sub(length as u64)?;
            }
            Some(())
        };
        matches!(timeout(REST_TIMEOUT, rest).await, Ok(Some(())))
    }
}
