//! Turns the bytes of a response into chunks as they come.

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
    error::{ErrorKind, ProviderError},
    providers::{
        Batch, ChunkStream,
        http::{Resent, causes},
    },
};

/// How long a complete answer waits for each thing that servers send after it: the usage and the end mark.
const LINGER: Duration = Duration::from_secs(2);
/// Pieces that follow each other so closely came in one read, or come faster than anybody reads.
const SAME_READ: Duration = Duration::from_millis(1);
/// Bytes after which a batch is handed on.
const MAX_BATCH: usize = 32 * 1024;

pub(super) trait Parser: Send + Unpin + 'static {
    /// Takes what one read returned. What it appended before an error holds.
    fn feed(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<(), ProviderError>;

    /// Takes the end of the bytes; appends [`crate::llm::Chunk::End`] or says what is missing.
    fn finish(&mut self, batch: &mut Batch) -> Result<(), ProviderError>;

    /// Whether the answer is known to be complete, so that nothing that still comes, or does not come, can spoil it.
    fn is_complete(&self) -> bool;
}

pub(super) fn response_stream(response: Response, parser: impl Parser) -> ChunkStream {
    let is_resent = response.extensions().get::<Resent>().is_some();
    Box::pin(ResponseStream {
        body: Some(Box::pin(response.bytes_stream())),
        parser,
        batch: Batch::default(),
        bytes: 0,
        last_read: None,
        may_have_more: false,
        polled_again: false,
        is_resent,
        failure: None,
        linger: None,
    })
}

/// Hands on together what came together: one read of the connection may hold many of the pieces that the HTTP client
/// gives one by one, each only after the one before was taken.
struct ResponseStream<P> {
    /// Taken when the answer has ended, which closes the connection or gives it back.
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    parser: P,
    batch: Batch,
    /// Bytes that `batch` was made of.
    bytes: usize,
    last_read: Option<Instant>,
    /// The last piece came right after the one before it.
    may_have_more: bool,
    /// The HTTP client was given the chance to bring more.
    polled_again: bool,
    is_resent: bool,
    failure: Option<ProviderError>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<P: Parser> ResponseStream<P> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<reqwest::Result<Bytes>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(cx);
        if polled.is_pending() && self.parser.is_complete() {
            let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            ready!(linger.as_mut().poll(cx));
            return Poll::Ready(None);
        }
        polled
    }

    fn take(&mut self, read: Option<reqwest::Result<Bytes>>) {
        let parsed = match read {
            Some(Ok(bytes)) => {
                let now = Instant::now();
                self.may_have_more = self.last_read.is_some_and(|last| now - last < SAME_READ);
                self.last_read = Some(now);
                self.linger = None;
                self.bytes += bytes.len();
                self.parser.feed(&bytes, &mut self.batch)
            }
            Some(Err(error)) if !self.parser.is_complete() => {
                Err(ProviderError::new(ErrorKind::CutOff, "the stream broke")
                    .with_upstream_text(&causes(error)))
            }
            Some(Err(_)) | None => {
                self.body = None;
                self.parser.finish(&mut self.batch)
            }
        };
        let parsed = match parsed {
            Err(_) if self.body.is_some() && self.parser.is_complete() => {
                self.parser.finish(&mut self.batch)
            }
            parsed => parsed,
        };
        let is_finished = self.batch.is_finished();
        if is_finished || parsed.is_err() {
            self.body = None;
        }
        // What came before a failure holds; after the end nothing can fail any more.
        let failure = parsed.err().filter(|_| !is_finished);
        self.failure =
            failure.map(|error| if self.is_resent { error.without_retry() } else { error });
    }
}

impl<P: Parser> Stream for ResponseStream<P> {
    type Item = Result<Batch, ProviderError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        while this.body.is_some() && this.bytes < MAX_BATCH {
            let read = match this.poll_body(cx) {
                Poll::Ready(read) => read,
                Poll::Pending if this.bytes == 0 => return Poll::Pending,
                Poll::Pending if this.polled_again || !this.may_have_more => break,
                Poll::Pending => {
                    this.polled_again = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            this.polled_again = false;
            this.take(read);
        }
        this.polled_again = false;
        this.bytes = 0;
        let batch = std::mem::take(&mut this.batch);
        Poll::Ready(match this.failure.take() {
            Some(failure) if batch.chunks.is_empty() => Some(Err(failure)),
            failure => {
                this.failure = failure;
                (!batch.chunks.is_empty() || this.body.is_some()).then_some(Ok(batch))
            }
        })
    }
}
