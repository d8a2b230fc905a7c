//! A completion on its way to a reader: `data:` lines and nothing that an SDK chokes on.

use std::{pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::errors::ApiError;
use futures_util::{future::BoxFuture, stream::unfold};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::{
    error::ChatError,
    generation::stateless::Completion,
    http::openai::{
        chunk::{ChunkWriter, data},
        error,
    },
    llm::Chunk,
};

/// How long a failure may take to still be told by its status; after that the stream begins.
const GRACE: Duration = Duration::from_secs(2);

/// After so much silence a line says that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// That line: a comment without an empty line after it, which some readers would take for an event.
const PING: &str = ": ping\n";

type Batch = Option<Result<Vec<Chunk>, ChatError>>;

/// A completion and its one reader. Dropping it ends the completion.
pub struct CompletionBody {
    completion: Completion,
    chunks: ChunkWriter,
    revoked: BoxFuture<'static, ApiError>,
    /// What came before the stream began.
    first: Batch,
    silence: Pin<Box<Sleep>>,
    over: bool,
}

impl CompletionBody {
    /// A body that ends when `revoked` says so.
    pub fn new(
        completion: Completion,
        with_usage: bool,
        revoked: BoxFuture<'static, ApiError>,
    ) -> Self {
        Self {
            completion,
            chunks: ChunkWriter::new(with_usage),
            revoked,
            first: None,
            silence: Box::pin(sleep(SILENCE)),
            over: false,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut out = String::new();
        tokio::select! {
            biased;
            error = &mut self.revoked => self.fail(&error, &mut out),
            batch = next_batch(&mut self.first, &mut self.completion) => {
                self.write(batch, &mut out);
                while let (false, Some(batch)) = (self.over, self.completion.available()) {
                    self.write(Some(batch), &mut out);
                }
            }
            () = self.silence.as_mut() => out.push_str(PING),
        }
        self.silence.as_mut().reset(Instant::now() + SILENCE);
        Some(Bytes::from(out))
    }

    fn write(&mut self, batch: Batch, out: &mut String) {
        match batch {
            Some(Ok(chunks)) => {
                for chunk in chunks {
                    self.over |= self.chunks.write(chunk, out);
                }
            }
            Some(Err(error)) => self.fail(&error.into(), out),
            None => self.fail(&ChatError::Broken.into(), out),
        }
    }

    /// SDKs notice neither a missing end nor a missing finish: a failure must be said, and then ended.
    fn fail(&mut self, error: &ApiError, out: &mut String) {
        self.over = true;
        data(&error::body(error.code, &error.detail, &error.errors), out);
        out.push_str("data: [DONE]\n\n");
    }
}

async fn next_batch(first: &mut Batch, completion: &mut Completion) -> Batch {
    match first.take() {
        Some(batch) => Some(batch),
        None => completion.next().await,
    }
}

/// The response that carries a completion.
///
/// # Errors
/// What the completion fails with before its first token, where that comes within a short grace.
pub async fn respond(mut body: CompletionBody) -> Result<Response, ApiError> {
    let mut beginning = None;
    match timeout(GRACE, body.completion.next()).await {
        Ok(Some(Ok(chunks))) => body.first = Some(Ok(chunks)),
        Ok(Some(Err(error))) => return Err(error.into()),
        Ok(None) => return Err(ChatError::Broken.into()),
        // Something must go out with the head, or it would wait for the first token.
        Err(_) => beginning = Some(Bytes::from_static(PING.as_bytes())),
    }
    let stream = unfold((beginning, body), |(beginning, mut body)| async move {
        let piece = match beginning {
            Some(beginning) => beginning,
            None => body.next().await?,
        };
        Some((Ok::<_, std::convert::Infallible>(piece), (None, body)))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-store, no-transform"),
        ),
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
}
