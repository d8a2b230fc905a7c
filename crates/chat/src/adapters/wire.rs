//! What all adapters do alike over HTTP: addresses, failures, bodies, and bytes to chunks.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use reqwest::{RequestBuilder, Response, header::RETRY_AFTER};
use tokio::time::Sleep;
use url::Url;

use super::{Ask, Cause, Chunk, Chunks, ModelError, Refusal};

/// The most that is read of an answer that is not a stream, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// The most that is read of an error's body, in bytes: enough to tell its kind.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// How long an error's body may take: the status alone says most of it.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a complete answer waits for what servers send after it: the usage and the end mark.
const LINGER: Duration = Duration::from_secs(2);
/// Pieces that follow each other so closely came in one read, or come faster than anybody reads.
const HURRY: Duration = Duration::from_millis(1);
/// Bytes that are handed on at once, where there is so much.
const AT_ONCE: usize = 32 * 1024;
/// The longest time to come back later that is passed on.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The address below `base`, whatever path that has already.
pub(super) fn endpoint(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// The request with the id of the caller's.
pub(super) fn traced(request: RequestBuilder, id: &str) -> RequestBuilder {
    if id.is_empty() {
        return request;
    }
    request.header(common::http::X_REQUEST_ID, id)
}

/// What a request that got no status means.
pub(super) fn unreachable(error: reqwest::Error) -> Refusal {
    if error.is_builder() {
        return Refusal::content(ModelError::Failed(causes(error)));
    }
    Refusal {
        error: ModelError::Unavailable(causes(error)),
        cause: Cause::Unreachable,
        retry_after: None,
    }
}

/// An error with its causes and without the address, for the log.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The response, if its status is good; else what `read` makes of the status and the body's text.
pub(super) async fn accepted(
    response: Response,
    read: impl FnOnce(u16, &str) -> ModelError,
) -> Result<Response, Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(&response);
    let body = tokio::time::timeout(ERROR_BODY_PATIENCE, error_body(response))
        .await
        .unwrap_or_default();
    let error = match (status.as_u16(), retry_after) {
        (429, _) => ModelError::Busy { retry_after },
        (503, Some(_)) => ModelError::Busy { retry_after },
        (code @ 502..=504, _) => {
            ModelError::Unavailable(format!("status {code}: {}", brief(&body)))
        }
        (code, _) => read(code, &body),
    };
    Err(Refusal {
        error,
        cause: Cause::Status(status.as_u16()),
        retry_after,
    })
}

/// As much of an error's body as tells its kind.
async fn error_body(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        let room = MAX_ERROR_BODY.saturating_sub(body.len());
        body.extend(bytes.iter().take(room));
        if body.len() >= MAX_ERROR_BODY {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// The JSON document of a short answer.
pub(super) async fn document<T: serde::de::DeserializeOwned>(
    mut response: Response,
) -> Result<T, Refusal> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(unreachable)? {
        if body.len() + bytes.len() > MAX_BODY {
            return Err(Refusal::content(ModelError::Failed(
                "an answer of more than 8 MiB".to_owned(),
            )));
        }
        body.extend_from_slice(&bytes);
    }
    serde_json::from_slice(&body).map_err(|error| {
        Refusal::content(ModelError::Failed(format!(
            "an answer that is not understood: {error}"
        )))
    })
}

/// When the server wants to be asked again: seconds or an HTTP date; whatever else it says is not believed.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, common::clock::now_ms())
}

fn parse_retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::parse(value)
            .ok()?
            .timestamp()
            .as_millisecond();
        Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0))
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The beginning of a text, for the log.
pub(super) fn brief(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What a model server's own words mean, whatever status they came with.
pub(super) fn verdict(text: &str) -> Option<ModelError> {
    const TOO_LONG: [&str; 12] = [
        "exceed_context_size",
        "exceeds the available context",
        "context_length_exceeded",
        "maximum context length",
        "max context length",
        "context length exceeded",
        "exceeds the context",
        "exceed context window",
        "longer than the context",
        "context the overflows",
        "`max_new_tokens` must be <=",
        "prompt is too long",
    ];
    let lower = text.to_lowercase();
    if TOO_LONG.iter().any(|phrase| lower.contains(phrase)) {
        return Some(ModelError::ContextTooLong(brief(text)));
    }
    let unsupported = |what: &str| {
        ModelError::Unsupported(format!(
            "This model does not support {what}; ask another one, or leave it out."
        ))
    };
    ["tools", "thinking", "images", "chat"]
        .into_iter()
        .find_map(|what| {
            (lower.contains(&format!("does not support {what}"))).then(|| unsupported(what))
        })
}

/// What a refusal of a chat request means. Where the caller made the request, and not we, a server that calls it bad
/// means the caller.
pub(super) fn refused(ask: &Ask, status: u16, read: impl FnOnce() -> ModelError) -> ModelError {
    match read() {
        ModelError::Failed(_) if ask.untrimmed && matches!(status, 400 | 422) => {
            ModelError::Unsupported(
                "The model server does not accept this request: check the messages, `tools` and `response_format`."
                    .to_owned(),
            )
        }
        error => error,
    }
}

/// What makes chunks of an answer's bytes.
pub(super) trait Parser: Send + Unpin + 'static {
    /// Takes what one read returned. What it appended before an error holds.
    fn feed(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), ModelError>;

    /// Takes the end of the bytes; appends [`Chunk::End`] or says what is missing.
    fn finish(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), ModelError>;

    /// Whether the answer is known to be whole, so that nothing that still comes, or does not come, can spoil it.
    fn is_whole(&self) -> bool;
}

/// The chunks of a response's body.
pub(super) fn chunks(response: Response, parser: impl Parser) -> Chunks {
    Box::pin(Reading {
        body: Some(Box::pin(response.bytes_stream())),
        parser,
        ready: Vec::new(),
        bytes: 0,
        last_read: None,
        hurries: false,
        looked_again: false,
        failure: None,
        linger: None,
    })
}

/// Reads a body to chunks, and hands on together what came together: one read of the connection may hold many of the
/// pieces that the HTTP client gives one by one, each only after the one before was taken.
struct Reading<P> {
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    parser: P,
    /// What was read and not handed on yet, out of so many bytes.
    ready: Vec<Chunk>,
    bytes: usize,
    last_read: Option<Instant>,
    /// Whether the last piece came right after the one before it, so that more may be there.
    hurries: bool,
    /// Whether the HTTP client was given the chance to bring it.
    looked_again: bool,
    failure: Option<ModelError>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<P: Parser> Reading<P> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<reqwest::Result<Bytes>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = body.poll_next_unpin(cx);
        if polled.is_pending() && self.parser.is_whole() {
            let linger = self
                .linger
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            ready!(linger.as_mut().poll(cx));
            return Poll::Ready(None);
        }
        polled
    }

    /// Takes in what the body gave; after the answer's end or a failure there is no body any more.
    fn take(&mut self, read: Option<reqwest::Result<Bytes>>) {
        let parsed = match read {
            Some(Ok(bytes)) => {
                let now = Instant::now();
                self.hurries = self.last_read.is_some_and(|last| now - last < HURRY);
                self.last_read = Some(now);
                self.bytes += bytes.len();
                self.parser.feed(&bytes, &mut self.ready)
            }
            Some(Err(error)) if !self.parser.is_whole() => {
                Err(ModelError::Failed(format!("cut off: {}", causes(error))))
            }
            Some(Err(_)) | None => {
                self.body = None;
                self.parser.finish(&mut self.ready)
            }
        };
        let parsed = match parsed {
            Err(_) if self.body.is_some() && self.parser.is_whole() => {
                self.parser.finish(&mut self.ready)
            }
            parsed => parsed,
        };
        let ended = matches!(self.ready.last(), Some(Chunk::End { .. }));
        if ended || parsed.is_err() {
            self.body = None;
        }
        // What came before a failure holds; after the end nothing can fail any more.
        self.failure = parsed.err().filter(|_| !ended);
    }
}

impl<P: Parser> Stream for Reading<P> {
    type Item = Result<Vec<Chunk>, ModelError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        while this.body.is_some() && this.bytes < AT_ONCE {
            let read = match this.poll_body(cx) {
                Poll::Ready(read) => read,
                Poll::Pending if this.bytes == 0 => return Poll::Pending,
                Poll::Pending if this.looked_again || !this.hurries => break,
                Poll::Pending => {
                    this.looked_again = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            this.looked_again = false;
            this.take(read);
        }
        this.looked_again = false;
        this.bytes = 0;
        let chunks = std::mem::take(&mut this.ready);
        Poll::Ready(match this.failure.take() {
            Some(failure) if chunks.is_empty() => Some(Err(failure)),
            failure => {
                this.failure = failure;
                (!chunks.is_empty() || this.body.is_some()).then_some(Ok(chunks))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_clamped() {
        let at = |value| parse_retry_after(value, 784_111_777_000 - 3000);
        assert_eq!(at("2"), Some(Duration::from_secs(2)));
        assert_eq!(at("1000000000"), Some(MAX_RETRY_AFTER));
        assert_eq!(at("99999999999999999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(
            at("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(3))
        );
        assert_eq!(at("Tue, 06 Nov 1984 08:49:37 GMT"), Some(Duration::ZERO));
        for garbage in ["-1", "soon", "", "1.5", "1e9"] {
            assert_eq!(at(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn an_endpoint_keeps_the_path_that_the_base_has() {
        let below = |base: &str| endpoint(&Url::parse(base).unwrap(), &["api", "chat"]).to_string();
        assert_eq!(below("http://h:1"), "http://h:1/api/chat");
        assert_eq!(below("http://h:1/"), "http://h:1/api/chat");
        assert_eq!(below("http://h:1/proxy/?a=b"), "http://h:1/proxy/api/chat");
    }
}
