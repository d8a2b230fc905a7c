//! A turn's events as a response body: server-sent events, or JSON lines for clients of the design this came from.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{
    errors::{ApiError, Code},
    identity::{Authenticator, Identity},
};
use futures_util::{future::BoxFuture, stream::unfold};
use tokio::time::{Instant, Sleep, sleep};
use utoipa::ToSchema;

use crate::{
    domain::{MessageId, event::EventRef},
    events::log::{ReadResult, Subscriber},
    http::encode,
};

/// After so much silence a comment says that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// How events are dressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFormat {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Lines,
}

impl StreamFormat {
    /// JSON lines where the caller's `Accept` names them, else server-sent events.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let names_lines = accepts.flat_map(|value| value.split(',')).any(|kind| {
            kind.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/x-ndjson")
        });
        if names_lines {
            StreamFormat::Lines
        } else {
            StreamFormat::Sse
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            StreamFormat::Sse => "text/event-stream",
            StreamFormat::Lines => "application/x-ndjson",
        })
    }
}

/// A turn's events on their way to one reader.
struct EventBody {
    subscriber: Subscriber,
    form: StreamFormat,
    message_id: MessageId,
    request_id: Arc<str>,
    revoked: BoxFuture<'static, ApiError>,
    silence: Pin<Box<Sleep>>,
    last_sent: Instant,
    over: bool,
}

/// Who reads a stream.
pub struct Reader {
    /// Whose token it came with.
    pub identity: Identity,
    /// Tells when that token is revoked.
    pub authenticator: Authenticator,
    /// The request that asked for the stream.
    pub request_id: Arc<str>,
}

/// The response that carries a turn's events; it ends with the turn, or when the reader's token is revoked.
pub fn respond(
    subscriber: Subscriber,
    form: StreamFormat,
    id: MessageId,
    reader: Reader,
) -> Response {
    let Reader {
        identity,
        authenticator,
        request_id,
    } = reader;
    let body = EventBody {
        subscriber,
        form,
        message_id: id,
        request_id,
        revoked: Box::pin(async move { ApiError::from(authenticator.revoked(&identity).await) }),
        silence: Box::pin(sleep(SILENCE)),
        last_sent: Instant::now(),
        over: false,
    };
    let body = Body::from_stream(unfold(body, |mut body| async move {
        let piece = body.next().await?;
        Some((piece, body))
    }));
    let headers = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (StatusCode::OK, headers, body).into_response()
}

/// An event as a reader of `text/event-stream` gets it.
#[derive(Debug, ToSchema)]
pub struct StreamedEvent {
    /// Counts from 1 within the message.
    #[schema(nullable = false, pattern = "^[1-9][0-9]*$")]
    pub id: Option<String>,
    /// `start`, `queued`, `done` or `error`; absent for a token.
    #[schema(nullable = false)]
    pub event: Option<String>,
    /// A JSON object: what it holds depends on the event.
    pub data: String,
}

/// A reader that is too slow is cut in the middle, so that it sees that something is missing and comes again.
#[derive(Debug, thiserror::Error)]
#[error("the reader is too slow")]
struct TooSlow;

impl EventBody {
    async fn next(&mut self) -> Option<Result<Bytes, TooSlow>> {
        if self.over {
            return None;
        }
        let mut out = String::new();
        loop {
            let (form, message_id) = (self.form, &self.message_id);
            let write = |id, event: EventRef<'_>| frame(form, id, event, message_id, &mut out);
            tokio::select! {
                biased;
                step = self.subscriber.next(write) => {
                    self.last_sent = Instant::now();
                    match step {
                        ReadResult::More => {}
                        ReadResult::Ended => self.over = true,
                        ReadResult::Lagging => {
                            self.over = true;
                            metrics::counter!("chat_watchers_cut_total").increment(1);
                            return Some(Err(TooSlow));
                        }
                        ReadResult::Gone => self.write_connection_error(&ApiError::new(Code::ShuttingDown, "This instance stops; resume the stream."), &mut out),
                    }
                }
                error = &mut self.revoked => self.write_connection_error(&error, &mut out),
                () = self.silence.as_mut() => {
                    let silent_until = self.last_sent + SILENCE;
                    if silent_until > Instant::now() {
                        self.silence.as_mut().reset(silent_until);
                        continue;
                    }
                    self.last_sent = Instant::now();
                    self.silence.as_mut().reset(self.last_sent + SILENCE);
                    out.push_str(if form == StreamFormat::Sse { ": alive\n\n" } else { "\n" });
                }
            }
            return (!out.is_empty()).then(|| Ok(Bytes::from(out)));
        }
    }

    /// An ending of this connection, not of the turn: it has no id, since it is no event of the turn's.
    fn write_connection_error(&mut self, error: &ApiError, out: &mut String) {
        self.over = true;
        match self.form {
            StreamFormat::Sse => encode::sse_connection_error(error, &self.request_id, out),
            StreamFormat::Lines => {
                encode::connection_error(error, &self.request_id, None, out);
                out.push('\n');
            }
        }
    }
}

fn frame(
    form: StreamFormat,
    id: u64,
    event: EventRef<'_>,
    message_id: &MessageId,
    out: &mut String,
) {
    match form {
        StreamFormat::Sse => encode::sse(id, event, out),
        StreamFormat::Lines => {
            encode::json(id, event, message_id.as_str(), None, out);
            out.push('\n');
        }
    }
}
