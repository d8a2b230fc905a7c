//! Model servers: one provider for each protocol, all behind one trait.

use async_trait::async_trait;
use common::config::ProviderKind;
use futures_util::stream::BoxStream;

use crate::llm::{
    chunk::Chunk,
    error::{ModelError, ProviderError},
    redaction::Redactor,
    request::ChatRequest,
};

mod classify;
pub(super) mod demo;
mod finish;
mod http;
mod lenient_json;
mod lines;
pub(super) mod ollama;
pub(super) mod openai;
mod response_stream;
mod sse;
#[cfg(test)]
mod tests;
mod unicode;

/// The window where neither the operator nor the server says one, in tokens.
pub(super) const DEFAULT_WINDOW: u32 = 8192;

/// A model that a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelInfo {
    /// Its id at that server.
    pub(super) id: String,
    /// The tokens that prompt and answer may have together, where the server tells.
    pub(super) window: Option<u32>,
    /// What it can do, where the server tells.
    pub(super) capabilities: Option<Capabilities>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// It answers chats; embedding models do not.
    pub(super) completion: bool,
    pub(super) vision: bool,
    pub(super) tools: bool,
    pub(super) thinking: bool,
}

impl ModelInfo {
    /// Whether it answers chats, as far as is known.
    pub(super) fn can_chat(&self) -> bool {
        self.capabilities
            .is_none_or(|capabilities| capabilities.completion)
    }
}

/// What one read of the connection brought: nothing at all, where it held only a part of a line or a keep-alive.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<Chunk>,
    /// Pieces of output, which are a token each on most servers; also pieces of a tool call that is not whole yet.
    pub(super) deltas: u64,
}

/// An answer as it comes. Dropping it closes the connection, which stops the model.
pub(super) type ChunkStream = BoxStream<'static, Result<Batch, ProviderError>>;

/// One model server.
#[async_trait]
pub(super) trait Provider: Send + Sync {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError>;

    /// Sends the request, always streamed; returns once the server has answered with a good status.
    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError>;

    /// Whether the requested name means the listed model.
    fn same_model(&self, listed: &str, requested: &str) -> bool {
        listed == requested
    }
}

impl Batch {
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.chunks.last(), Some(Chunk::End { .. }))
    }
}

/// The chunks of an answer that is given as bytes, for benchmarks and fuzzing.
///
/// # Errors
/// As reading them from the server.
pub fn parse<'a>(
    kind: ProviderKind,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Chunk>, ModelError> {
    let parsed = match kind {
        ProviderKind::Ollama => parse_all(ollama::parser(&ChatRequest::default()), pieces),
        _ => parse_all(openai::parser(), pieces),
    };
    let not_found = || ModelError::NotFound(String::new());
    parsed.map_err(|error| error.into_model_error(&Redactor::default(), not_found))
}

fn parse_all<'a>(
    mut parser: impl response_stream::Parser,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Chunk>, ProviderError> {
    let mut batch = Batch::default();
    for piece in pieces {
        parser.feed(piece, &mut batch)?;
        if batch.is_finished() {
            return Ok(batch.chunks);
        }
    }
    parser.finish(&mut batch)?;
    Ok(batch.chunks)
}
