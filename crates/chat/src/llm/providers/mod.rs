//! Model servers: one adapter for each wire, all behind one small trait.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use common::config::ProviderKind;
use futures_util::stream::BoxStream;

use crate::domain::{FinishReason, Options, Usage};

pub mod demo;
mod http;
mod lenient_json;
mod lines;
pub mod ollama;
pub mod openai;
#[cfg(test)]
mod replay;
mod response_stream;
mod sse;

/// What an adapter can fail with. Texts of the server go to the log alone: `detail` never holds them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be reached, its breaker is open, or it answered 502, 503 or 504 and the retry did not help.
    #[error("the model server is unavailable: {0}")]
    Unavailable(String),
    /// The first token, or the next one, or the whole answer took too long.
    #[error("the model server took too long: {0}")]
    Timeout(String),
    /// It answered with an error, with garbage, or was cut off.
    #[error("the model server failed: {0}")]
    Failed(String),
    /// No reachable server has that model.
    #[error("no such model: {0}")]
    NotFound(String),
    /// The prompt does not fit, by the server's own count.
    #[error("the prompt does not fit the model's window: {0}")]
    ContextTooLong(String),
    /// Its queue here is full.
    #[error("the queue is full")]
    QueueFull,
    /// It asks us to come back later (429), past the one retry.
    #[error("the model server is busy")]
    Busy {
        /// When, if it said so; at most 60 s.
        retry_after: Option<Duration>,
    },
    /// What the caller asked for is not to be had from this server (images, tools), in words for the caller.
    #[error("not supported: {0}")]
    Unsupported(String),
}

/// One message of a prompt, in the OpenAI form, which the Ollama adapter translates.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptMessage {
    /// `system`, `user`, `assistant`, or on `/v1` also `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
    /// On `/v1` alone: everything else of the message (`tool_calls`, `tool_call_id`, `name`, and `content` as parts), as sent.
    pub extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// One request to a model server.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The model.
    pub model: String,
    /// The messages that fit, oldest first.
    pub messages: Vec<PromptMessage>,
    /// The caller's options.
    pub options: Options,
    /// The window in tokens.
    pub window: u32,
    /// Our estimate of the prompt's tokens.
    pub prompt_estimate: u32,
    /// How many earlier messages were left out.
    pub dropped: u64,
    /// On `/v1` alone: the prompt goes as the caller made it; a server that would cut it silently is told not to.
    pub untrimmed: bool,
    /// On `/v1` alone: members passed through to servers that have them (`tools`, `tool_choice`, `response_format`, …).
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The id of the caller's request, passed on so that the server's log can be searched by it; empty: none is sent.
    pub request_id: Arc<str>,
}

/// A tool call of the model, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its id; made here where the server gave none.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON document as text.
    pub arguments: String,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// Thoughts.
    Thinking(String),
    /// Text of the answer. Never empty.
    Text(String),
    /// A tool call.
    ToolCall(ToolCall),
    /// The end; nothing follows. A stream that ends without it was cut off.
    End {
        /// How it ended: `Stop`, `Length`, `ToolCalls` or `ContentFilter`.
        finish: FinishReason,
        /// What the server counted, if it did.
        usage: Option<Usage>,
    },
}

/// A model that a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its id at that server.
    pub id: String,
    /// The model's own window in tokens, where the server tells.
    pub window: Option<u32>,
}

/// The chunks of an answer, as many at once as one read of the socket returned (none, where it held only a part of a line
/// or a sign of life); dropping it closes the connection, which stops the model.
pub type Chunks = BoxStream<'static, Result<Vec<Chunk>, ModelError>>;

/// Where a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no connection, or it broke before a status came.
    Unreachable,
    /// The server answered with this status.
    Status(u16),
    /// What it answered, or what was asked, makes no sense.
    Content,
}

/// Why a request was not begun to be answered, with what decides whether to try again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// What it means.
    pub error: ModelError,
    /// Where it came to nothing.
    pub cause: Cause,
    /// When the server wants to be asked again; at most 60 s.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that is about what was said, not about whether the server is there.
    pub fn content(error: ModelError) -> Self {
        Self {
            error,
            cause: Cause::Content,
            retry_after: None,
        }
    }

    /// Whether the same request may succeed a moment later: no connection, 429, 502, 503, 504.
    pub fn is_passing(&self) -> bool {
        self.cause == Cause::Status(429) || self.is_outage()
    }

    /// Whether it says that the server is not working: no connection, 502, 503, 504.
    pub fn is_outage(&self) -> bool {
        matches!(self.cause, Cause::Unreachable | Cause::Status(502..=504))
    }
}

/// What an answer's bytes say on that wire, in the pieces in which they came, for measurements and fuzzing, which have no
/// server.
///
/// # Errors
/// As reading them from the server.
pub fn read<'a>(
    kind: ProviderKind,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Chunk>, ModelError> {
    fn all<'a>(
        mut parser: impl response_stream::Parser,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Chunk>, ModelError> {
        let mut chunks = Vec::new();
        for piece in pieces {
            parser.feed(piece, &mut chunks)?;
            if matches!(chunks.last(), Some(Chunk::End { .. })) {
                return Ok(chunks);
            }
        }
        parser.finish(&mut chunks)?;
        Ok(chunks)
    }
    match kind {
        ProviderKind::Ollama => all(ollama::parser(&Ask::default()), pieces),
        _ => all(openai::parser(""), pieces),
    }
}

/// One model server's wire.
#[async_trait]
pub trait Adapter: Send + Sync {
    /// Which it is.
    fn kind(&self) -> ProviderKind;

    /// The models that it has now.
    async fn models(&self) -> Result<Vec<ModelInfo>, Refusal>;

    /// Sends the request, always streamed; returns once the server has answered with a good status.
    async fn ask(&self, ask: &Ask) -> Result<Chunks, Refusal>;
}
