//! The stream of a completion under `/v1`, read as the pickiest of its SDKs would: byte by byte.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::{Client, within};

/// What stands in such a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A chunk, or an error.
    Data(Value),
    /// A sign of life: `: ping`, without an empty line after it.
    Ping,
    /// `[DONE]`.
    Done,
}

/// A completion on its way.
pub struct Completion {
    response: Response,
    buffer: Vec<u8>,
    done: bool,
}

/// The body of a request with one message.
pub fn completion_of(text: &str, stream: bool) -> Value {
    json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": text}], "stream": stream})
}

/// The text that chunks add up to.
pub fn text_of_chunks(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

impl Completion {
    /// Asks for a streamed completion.
    ///
    /// # Panics
    /// When it is refused, or is no stream.
    pub async fn open(client: &Client, body: &Value) -> Self {
        let request = client.request(reqwest::Method::POST, "/v1/chat/completions");
        Self::of(request.json(body).send().await.expect("an answer"))
    }

    /// Reads that answer.
    ///
    /// # Panics
    /// When it is a refusal, or no stream.
    pub fn of(response: Response) -> Self {
        assert_eq!(response.status().as_u16(), 200, "{response:?}");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        assert!(header("content-type").starts_with("text/event-stream"));
        assert!(header("cache-control").contains("no-transform"));
        assert_eq!(header("x-accel-buffering"), "no");
        assert!(!header("x-request-id").is_empty());
        assert_eq!(header("content-encoding"), "");
        Self { response, buffer: Vec::new(), done: false }
    }

    /// The next line; `None` at the end of the body.
    ///
    /// # Panics
    /// When something stands there that an SDK chokes on, when the body breaks off, or ends before `[DONE]`.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.line() {
                assert!(!self.done, "something after [DONE]: {line:?}");
                self.done = line == Line::Done;
                return Some(line);
            }
            match self.response.chunk().await.expect("the body arrives whole") {
                Some(bytes) => self.buffer.extend(bytes),
                None => {
                    assert!(self.buffer.is_empty(), "a line without its end");
                    assert!(self.done, "the stream ended without [DONE]");
                    return None;
                }
            }
        }
    }

    pub async fn next_within(&mut self, limit: Duration) -> Option<Line> {
        within(limit, "the next line", self.next()).await
    }

    /// The next chunk, past signs of life.
    ///
    /// # Panics
    /// When there is none.
    pub async fn chunk(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Line::Data(value)) => return value,
                Some(Line::Ping) => {}
                other => panic!("no chunk but {other:?}"),
            }
        }
    }

    /// All chunks up to `[DONE]`.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut chunks = Vec::new();
        while let Some(line) = self.next().await {
            if let Line::Data(value) = line {
                chunks.push(value);
            }
        }
        chunks
    }

    /// Reads on until a sign of life; how long that took.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn ping_within(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        assert_eq!(self.next_within(limit).await, Some(Line::Ping));
        start.elapsed()
    }

    fn line(&mut self) -> Option<Line> {
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8(self.buffer[..end].to_vec()).expect("UTF-8");
        let Some(data) = line.strip_prefix("data: ") else {
            assert_eq!(line, ": ping", "a line that SDKs choke on");
            self.buffer.drain(..=end);
            return Some(Line::Ping);
        };
        // An event ends with an empty line, which must be there before it counts.
        if self.buffer.len() < end + 2 {
            return None;
        }
        assert_eq!(self.buffer[end + 1], b'\n', "one line an event: {line}");
        self.buffer.drain(..end + 2);
        Some(match data {
            "[DONE]" => Line::Done,
            json => Line::Data(serde_json::from_str(json).expect("JSON")),
        })
    }
}
