//! A response's bytes on their way to chunks, as fast as they come.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use reqwest::Response;
use tokio::time::Sleep;

use crate::llm::{
    chunk::Chunk,
    error::ModelError,
    providers::{Chunks, http::causes},
};

/// How long a complete answer waits for what servers send after it: the usage and the end mark.
const LINGER: Duration = Duration::from_secs(2);
/// Pieces that follow each other so closely came in one read, or come faster than anybody reads.
const HURRY: Duration = Duration::from_millis(1);
/// Bytes that are handed on at once, where there is so much.
const AT_ONCE: usize = 32 * 1024;

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
    Box::pin(ResponseStream {
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
struct ResponseStream<P> {
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

impl<P: Parser> ResponseStream<P> {
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

impl<P: Parser> Stream for ResponseStream<P> {
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
