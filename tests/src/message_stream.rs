//! The stream of a message under `/v1/messages`, read as the pickiest of Anthropic's SDKs would.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{Client, Reply, within};

/// A message on its way.
pub struct MessageStream {
    response: Response,
    buffer: Vec<u8>,
    over: bool,
}

/// The body of a request with one message of the user.
pub fn message_of(text: &str, stream: bool) -> Value {
    json!({"model": "gemma3:1b", "max_tokens": 512, "messages": [{"role": "user", "content": text}], "stream": stream})
}

/// The text that events add up to.
pub fn text_of_events(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

/// The text of an error in the shape of Anthropic's API.
///
/// # Panics
/// When it is another error, or has another shape.
pub fn anthropic_error(reply: &Reply, status: u16, kind: &str, code: &str) -> Value {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, status, "{text}");
    assert_eq!(reply.header("content-type"), "application/json", "{text}");
    let body = reply.json();
    assert_eq!(body["type"], "error", "{text}");
    assert_eq!(body["request_id"], reply.header("x-request-id"), "{text}");
    // What is refused before its path is looked at has only the common headers.
    let is_known = !["not_found", "method_not_allowed", "payload_too_large"].contains(&code);
    assert!(!is_known || body["request_id"] == reply.header("request-id"));
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!(kind), &json!(code)),
        "{text}"
    );
    body["error"]["message"].clone()
}

impl MessageStream {
    /// Asks for a streamed message.
    ///
    /// # Panics
    /// When it is refused, or is no stream.
    pub async fn open(client: &Client, body: &Value) -> Self {
        let request = client.request(Method::POST, "/v1/messages?beta=true");
        let response = request.json(body).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{response:?}");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        assert!(header("content-type").starts_with("text/event-stream"));
        assert_eq!(header("x-accel-buffering"), "no");
        assert_eq!(header("content-encoding"), "");
        Self { response, buffer: Vec::new(), over: false }
    }

    /// The next event, `ping` among them; `None` at the end of the body.
    ///
    /// # Panics
    /// When something stands there that an SDK chokes on, or when the body ends before the message.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.event() {
                assert!(!self.over, "something after the end: {event}");
                self.over = event["type"] == "message_stop" || event["type"] == "error";
                return Some(event);
            }
            match self.response.chunk().await.expect("the body arrives whole") {
                Some(bytes) => self.buffer.extend(bytes),
                None => {
                    assert!(self.buffer.is_empty(), "an event without its end");
                    assert!(self.over, "the stream ended without message_stop");
                    return None;
                }
            }
        }
    }

    /// All events up to the end, but `ping`.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            if event["type"] != "ping" {
                events.push(event);
            }
        }
        events
    }

    /// Reads on until a `ping`; how long that took.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn ping_within(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        let event = within(limit, "the next event", self.next()).await;
        assert_eq!(event, Some(json!({"type": "ping"})));
        start.elapsed()
    }

    fn event(&mut self) -> Option<Value> {
        let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
        let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let event = String::from_utf8(event).expect("UTF-8");
        let lines: Vec<&str> = event.trim_end().lines().collect();
        let [name, data] = lines[..] else { panic!("two lines an event: {event:?}") };
        let data = data.strip_prefix("data: ").expect("data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        Some(data)
    }
}
