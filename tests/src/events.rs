//! The events of an answer, read strictly: whatever breaks their grammar or their order (docs/websocket.md) fails the test.

use std::time::Duration;

use futures_util::{StreamExt, stream::BoxStream};
use reqwest::Response;
use serde_json::Value;

use crate::{PATIENCE, reply::check_problem, within};

/// One event of an answer, on any wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the answer, from 1.
    pub id: u64,
    /// `start`, `queued`, `token`, `done` or `error`.
    pub kind: String,
    pub data: Value,
}

impl Event {
    /// Whether nothing may follow.
    pub fn is_last(&self) -> bool {
        matches!(self.kind.as_str(), "done" | "error")
    }

    /// Checks that it is an `error` with that code.
    ///
    /// # Panics
    /// When it is not, or misses a member.
    pub fn expect_error(&self, status: u16, code: &str) {
        assert_eq!(self.kind, "error", "{self:?}");
        check_problem(&self.data, status, code);
        assert!(self.data["retryable"].is_boolean(), "{self:?}");
    }

    /// Checks that it is a `done` with that reason.
    ///
    /// # Panics
    /// When it is not, or misses a member.
    pub fn expect_done(&self, reason: &str) {
        assert_eq!(self.kind, "done", "{self:?}");
        assert_eq!(self.data["finish_reason"], reason, "{self:?}");
        assert_eq!(self.data["token"], "", "{self:?}");
        assert_eq!(self.data["is_final"], true, "{self:?}");
        for member in ["usage", "context", "model", "provider"] {
            assert!(!self.data[member].is_null(), "no {member} in {self:?}");
        }
    }

    /// An event from a WebSocket frame or an NDJSON line.
    ///
    /// # Panics
    /// When it has no `type`.
    pub fn from_frame(frame: &Value) -> Self {
        let kind =
            frame["type"].as_str().unwrap_or_else(|| panic!("no type in {frame}")).to_owned();
        Self { id: frame["id"].as_u64().unwrap_or(0), kind, data: frame.clone() }
    }
}

/// The text of the tokens.
pub fn text_of(events: &[Event]) -> String {
    events.iter().filter_map(|event| event.data["token"].as_str()).collect()
}

/// The text of the thoughts.
pub fn thinking_of(events: &[Event]) -> String {
    events.iter().filter_map(|event| event.data["thinking"].as_str()).collect()
}

/// A running `text/event-stream` answer; dropping it closes the connection.
pub struct EventStream {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
    last: Option<u64>,
    ended: bool,
    pub comments: usize,
    pub headers: reqwest::header::HeaderMap,
}

impl EventStream {
    /// Checks the head of an answer, and reads its events from then on.
    ///
    /// # Panics
    /// When it is not a stream of events as promised.
    pub async fn open(response: Response) -> Self {
        let headers = response.headers().clone();
        let header = |name: &str| {
            headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        if response.status() != 200 {
            panic!(
                "no stream but {}: {}",
                response.status(),
                response.text().await.unwrap_or_default()
            );
        }
        assert!(header("content-type").starts_with("text/event-stream"), "{headers:?}");
        assert!(header("cache-control").contains("no-store"), "{headers:?}");
        assert_eq!(header("x-accel-buffering"), "no", "{headers:?}");
        assert_eq!(header("content-encoding"), "", "{headers:?}");
        assert!(!header("x-request-id").is_empty(), "{headers:?}");
        let body = response.bytes_stream().boxed();
        Self { body, buffer: Vec::new(), last: None, ended: false, comments: 0, headers }
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Panics
    /// After 20 s, or when it is not well formed or out of order.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_within(PATIENCE).await
    }

    /// The same with a patience of its own.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Event> {
        within(limit, "the next event of a stream", self.read()).await
    }

    /// The next event that is not `queued`.
    pub async fn next_but_queued(&mut self) -> Option<Event> {
        loop {
            match self.next().await {
                Some(event) if event.kind == "queued" => {}
                other => return other,
            }
        }
    }

    /// The first event, which is `start`, with the answer's id.
    ///
    /// # Panics
    /// When the first event is another.
    pub async fn started(&mut self) -> String {
        let event = self.next().await.expect("a start");
        assert_eq!((event.id, event.kind.as_str()), (1, "start"), "{event:?}");
        for member in ["message_id", "session_id", "user_id", "model", "provider"] {
            assert!(event.data[member].is_string(), "no {member} in {event:?}");
        }
        event.data["message_id"].as_str().unwrap().to_owned()
    }

    /// Everything up to the end of the stream, which must be `done` or `error`.
    ///
    /// # Panics
    /// When the stream ends without either.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        assert!(
            events.last().is_some_and(Event::is_last),
            "the stream ended without an ending: {events:?}"
        );
        events
    }

    /// How it ends, after whatever comes before that.
    ///
    /// # Panics
    /// As [`Self::rest`].
    pub async fn ending(&mut self) -> Event {
        self.rest().await.pop().unwrap()
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some(block) = self.block() {
                if let Some(event) = self.parse(&block) {
                    return Some(event);
                }
            }
            match self.body.next().await {
                Some(bytes) => self.buffer.extend(bytes.expect("the stream is not cut")),
                None => {
                    assert!(
                        self.buffer.is_empty(),
                        "the stream ended inside an event: {:?}",
                        self.buffer
                    );
                    return None;
                }
            }
        }
    }

    fn block(&mut self) -> Option<String> {
        // A comment may stand alone on its line, between two events.
        let end = if self.buffer.starts_with(b":") {
            self.buffer.iter().position(|byte| *byte == b'\n')? + 1
        } else if self.buffer.starts_with(b"\n") {
            1
        } else {
            self.buffer.windows(2).position(|two| two == b"\n\n")? + 2
        };
        let block = self.buffer.drain(..end).collect();
        Some(String::from_utf8(block).expect("a stream is UTF-8"))
    }

    /// The id of an event, which must follow the last. Only an `error` may have none (0 here): it ends the connection
    /// (a revoked token), not the answer.
    fn place(&mut self, id: Option<String>, kind: Option<&str>, block: &str) -> u64 {
        if id.is_none() && kind == Some("error") {
            return 0;
        }
        let id = id.and_then(|id| id.parse().ok());
        let id: u64 = id.unwrap_or_else(|| panic!("no id in {block:?}"));
        let last = self.last.replace(id);
        // The ending of an answer whose instance died is above all ids that it can have given.
        let gap = if kind == Some("error") { 1_000_000 } else { 1 };
        assert!(
            last.is_none_or(|last| id == last + 1 || id == last + gap),
            "{id} follows {last:?}"
        );
        id
    }

    fn parse(&mut self, block: &str) -> Option<Event> {
        assert!(!block.contains('\r'), "a carriage return in {block:?}");
        let (mut id, mut kind, mut data) = (None, None, None);
        for line in block.lines().filter(|line| !line.is_empty()) {
            match line.split_once(':') {
                Some(("", _)) => self.comments += 1,
                Some(("id", value)) => set(&mut id, value, block),
                Some(("event", value)) => set(&mut kind, value, block),
                Some(("data", value)) => set(&mut data, value, block),
                _ => panic!("a line that has no business in a stream: {line:?}"),
            }
        }
        let Some(data) = data else {
            assert!(id.is_none() && kind.is_none(), "an event without data: {block:?}");
            return None;
        };
        let data: Value =
            serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {data:?}"));
        let id = self.place(id, kind.as_deref(), block);
        assert!(!self.ended, "something follows the ending: {block:?}");
        assert_ne!(kind.as_deref(), Some("token"), "a token has no name: {block:?}");
        let event = Event { id, kind: kind.unwrap_or_else(|| "token".to_owned()), data };
        self.ended = event.is_last();
        let known = ["start", "queued", "token", "done", "error"];
        assert!(known.contains(&event.kind.as_str()), "an unknown event: {event:?}");
        assert!(event.kind != "token" || event.data["is_final"] == false, "{event:?}");
        Some(event)
    }
}

fn set(place: &mut Option<String>, value: &str, block: &str) {
    let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
    assert!(place.replace(value).is_none(), "a field twice in {block:?}");
}

/// The events of an NDJSON answer that was read whole.
///
/// # Panics
/// When a line is not a frame.
pub fn read_frames(body: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(body).expect("NDJSON is UTF-8");
    assert!(text.ends_with('\n'), "the last line is cut: {text:?}");
    text.lines()
        .map(|line| Event::from_frame(&serde_json::from_str(line).expect("a line is JSON")))
        .collect()
}
