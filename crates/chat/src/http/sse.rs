//! A turn's events as a response body: server-sent events or NDJSON.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::errors::ApiError;
use futures_util::{future::BoxFuture, stream::unfold};
use tokio::time::{Instant, Sleep, sleep};
use utoipa::ToSchema;

use crate::{
    domain::{MessageId, event::EventRef},
    events::log::{ReadResult, Subscriber},
    http::{encode, error::instance_stops, header_list},
};

/// After so much silence a comment says that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFormat {
    Sse,
    /// `application/x-ndjson`.
    Lines,
}

impl StreamFormat {
    /// JSON lines where the caller's `Accept` names them, else server-sent events.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let names_lines = header_list::members(headers, header::ACCEPT).any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/x-ndjson")
        });
        if names_lines { StreamFormat::Lines } else { StreamFormat::Sse }
    }
}

/// A turn's events on their way to one reader.
struct EventBody {
    subscriber: Subscriber,
    format: StreamFormat,
    message_id: MessageId,
    request_id: Arc<str>,
    revoked: BoxFuture<'static, ApiError>,
    silence: Pin<Box<Sleep>>,
    last_sent: Instant,
    over: bool,
}

/// The response that carries a turn's events; it ends with the turn, or when the reader's credential is `revoked`.
pub fn respond(
    subscriber: Subscriber,
    format: StreamFormat,
    message_id: MessageId,
    request_id: Arc<str>,
    revoked: BoxFuture<'static, ApiError>,
) -> Response {
    let body = EventBody {
        subscriber,
        format,
        message_id,
        request_id,
        revoked,
        silence: Box::pin(sleep(SILENCE)),
        last_sent: Instant::now(),
        over: false,
    };
    let body = Body::from_stream(unfold(body, |mut body| async move {
        let piece = body.next().await?;
        Some((piece, body))
    }));
    let content_type = match format {
        StreamFormat::Sse => "text/event-stream",
        StreamFormat::Lines => "application/x-ndjson",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
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
    /// A JSON object: the members of `ServerFrame` for that event, without `type`.
    #[schema(content_media_type = "application/json")]
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
            let (format, message_id) = (self.format, &self.message_id);
            let request_id = &*self.request_id;
            let write = |id, event: EventRef<'_>| match format {
                StreamFormat::Sse => encode::sse(id, event, request_id, &mut out),
                StreamFormat::Lines => {
                    encode::json(id, event, message_id.as_str(), None, request_id, &mut out);
                    out.push('\n');
                }
            };
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
                        ReadResult::Gone => self.write_connection_error(&instance_stops(), &mut out),
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
                    out.push_str(if format == StreamFormat::Sse { ": alive\n\n" } else { "\n" });
                }
            }
            return (!out.is_empty()).then(|| Ok(encode::lines(out)));
        }
    }

    /// An ending of this connection, not of the turn: it has no id, since it is no event of the turn's.
    fn write_connection_error(&mut self, error: &ApiError, out: &mut String) {
        self.over = true;
        match self.format {
            StreamFormat::Sse => encode::sse_connection_error(error, &self.request_id, out),
            StreamFormat::Lines => {
                encode::connection_error(error, &self.request_id, None, None, out);
                out.push('\n');
            }
        }
    }
}
