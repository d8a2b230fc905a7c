//! The stream of a completion: what one API writes for each chunk, and keep-alives while there is none.

use std::{convert::Infallible, pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::errors::ApiError;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{
    error::ChatError,
    http::{
        encode::lines,
        inference::{
            InferenceCall,
            collected_answer::{AnswerEnd, AnswerItem, CollectedAnswer},
            sse::EVENT_STREAM,
        },
    },
    llm::Chunk,
};

/// How long the status can wait for a failure, so that the first bytes go out within 5 s of the request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest silence on an open stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Batch = Option<Result<Vec<Chunk>, ChatError>>;

/// Writes an answer in the form of one API.
pub trait StreamWriter: Send + 'static {
    const CONTENT_TYPE: HeaderValue = EVENT_STREAM;

    /// Appends what a stream begins with, before anything of the answer is known.
    fn open(&mut self, _out: &mut String) {}

    /// The answer of a request that is not streamed.
    fn whole(self, answer: CollectedAnswer) -> impl Serialize;

    fn started(&mut self, _model: String, _out: &mut String) {}

    /// Appends the beginning of an item: a text that is empty yet, or a call.
    fn begin(&mut self, _item: &AnswerItem, _out: &mut String) {}

    /// Appends what the item grows by; of a call all of it.
    fn grow(&mut self, piece: &AnswerItem, out: &mut String);

    /// Appends the end of an item; it is not complete where the answer was cut in it.
    fn end(&mut self, _item: &AnswerItem, _is_complete: bool, _out: &mut String) {}

    fn finish(&mut self, end: AnswerEnd, out: &mut String);

    /// Appends what shows that the connection lives; nothing where the API has nothing for it.
    fn keep_alive(&self, out: &mut String);

    /// Appends how a failure is told in mid-stream, and the end.
    fn fail(&mut self, error: &ApiError, out: &mut String);
}

/// Makes items of chunks: each ends before another begins.
pub struct ItemStream<W> {
    pub writer: W,
    open: Option<AnswerItem>,
}

impl<W: StreamWriter> ItemStream<W> {
    pub fn new(writer: W) -> Self {
        Self { writer, open: None }
    }

    /// Appends a chunk; returns whether it was the last, and the stream ends with it.
    pub fn write(&mut self, chunk: Chunk, out: &mut String) -> bool {
        match chunk {
            Chunk::Queued { .. } => {}
            Chunk::Started { model, .. } => self.writer.started(model, out),
            Chunk::Thinking(text) => self.add(&AnswerItem::Thinking(text), out),
            Chunk::Text(text) => self.add(&AnswerItem::Text(text), out),
            // What follows tells whether it is complete.
            Chunk::ToolCall(call) => self.add(&AnswerItem::ToolCall(call), out),
            Chunk::End { finish, usage, details, stop_sequence } => {
                self.end_item(!finish.is_cut(), out);
                let usage = usage.unwrap_or_default();
                let end = AnswerEnd { finish, usage, details, stop_sequence };
                self.writer.finish(end, out);
                return true;
            }
        }
        false
    }

    /// SDKs notice neither a missing end nor a missing finish: a failure must be told, and then the stream ended.
    pub fn fail(&mut self, error: &ApiError, out: &mut String) {
        // A call is passed on when it is whole.
        let is_call = matches!(self.open, Some(AnswerItem::ToolCall(_)));
        self.end_item(is_call, out);
        self.writer.fail(error, out);
    }

    fn add(&mut self, piece: &AnswerItem, out: &mut String) {
        if !self.open.as_ref().is_some_and(|open| open.continues_with(piece)) {
            self.end_item(true, out);
            let begun = piece.begun();
            self.writer.begin(&begun, out);
            self.open = Some(begun);
        }
        self.writer.grow(piece, out);
        if let Some(open) = &mut self.open {
            open.append(piece);
        }
    }

    fn end_item(&mut self, is_complete: bool, out: &mut String) {
        if let Some(item) = self.open.take() {
            self.writer.end(&item, is_complete, out);
        }
    }
}

/// A completion and its one reader. Dropping it ends the completion.
struct CompletionBody<W> {
    call: InferenceCall,
    items: ItemStream<W>,
    silence: Pin<Box<Sleep>>,
    is_over: bool,
}

impl<W: StreamWriter> CompletionBody<W> {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while out.is_empty() {
            if self.is_over {
                return None;
            }
            tokio::select! {
                biased;
                error = &mut self.call.revoked => self.fail(&error, &mut out),
                batch = self.call.completion.chunks.recv() => {
                    self.write(batch, &mut out);
                    while let (false, Ok(batch)) = (self.is_over, self.call.completion.chunks.try_recv()) {
                        self.write(Some(batch), &mut out);
                    }
                }
                () = self.silence.as_mut() => {
                    self.items.writer.keep_alive(&mut out);
                    self.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
                }
            }
        }
        self.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
        Some(lines(out))
    }

    fn write(&mut self, batch: Batch, out: &mut String) {
        match batch {
            Some(Ok(chunks)) => {
                for chunk in chunks {
                    self.is_over |= self.items.write(chunk, out);
                }
            }
            Some(Err(error)) => self.fail(&error.into(), out),
            // Lost, which only a panic can cause.
            None => self.fail(&ChatError::Broken.into(), out),
        }
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        self.is_over = true;
        self.items.fail(error, out);
    }
}

impl InferenceCall {
    /// Streams the answer. The status is decided within a few seconds; after that a failure is told inside the stream.
    ///
    /// # Errors
    /// What ends the completion before its first chunk, where that comes in time.
    pub(super) async fn stream<W: StreamWriter>(mut self, writer: W) -> Result<Response, ApiError> {
        let status_due = Instant::from_std(self.started) + STATUS_TIMEOUT;
        let first = tokio::select! {
            biased;
            error = &mut self.revoked => return Err(error),
            batch = self.completion.chunks.recv() => Some(batch),
            () = sleep_until(status_due) => None,
        };
        let first = match first {
            Some(Some(Err(error))) => return Err(error.into()),
            Some(None) => return Err(ChatError::Broken.into()),
            first => first.flatten(),
        };
        let items = ItemStream::new(writer);
        let mut body = CompletionBody {
            call: self,
            items,
            silence: Box::pin(sleep(KEEP_ALIVE)),
            is_over: false,
        };
        let mut opening = String::new();
        body.items.writer.open(&mut opening);
        match first {
            Some(batch) => body.write(Some(batch), &mut opening),
            // Something must go out with the head, or it would wait for the first token.
            None if opening.is_empty() => body.items.writer.keep_alive(&mut opening),
            None => {}
        }
        let opening = Some(lines(opening)).filter(|opening| !opening.is_empty());
        let stream = unfold((opening, body), |(opening, mut body)| async move {
            let piece = match opening {
                Some(opening) => opening,
                None => body.next().await?,
            };
            Some((Ok::<_, Infallible>(piece), (None, body)))
        });
        let headers = [
            (header::CONTENT_TYPE, W::CONTENT_TYPE),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, no-transform")),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
    }
}
