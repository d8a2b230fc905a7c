//! Model servers: one provider for each protocol, all behind one trait.

use std::sync::Arc;

use async_trait::async_trait;
use common::config::ProviderKind;
use futures_util::stream::BoxStream;

use crate::llm::{
    chunk::Chunk,
    error::{ModelError, ProviderError},
    model::{Capabilities, ModelFacts},
    providers::{
        ollama::OllamaParser,
        openai::OpenAiParser,
        response_stream::Parser,
        unicode::{RawText, TextJoiner},
    },
    redaction::Redactor,
    request::{ChatRequest, EmbeddingRequest},
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelInfo {
    pub(super) id: String,
    /// The tokens that prompt and answer may have together, where the server tells.
    pub(super) window: Option<u32>,
    /// What it can do, where the server tells.
    pub(super) capabilities: Option<Capabilities>,
    pub(super) facts: Arc<ModelFacts>,
}

#[derive(Debug, PartialEq)]
pub(super) struct EmbeddingAnswer {
    /// One for each input, in their order.
    pub(super) vectors: Vec<Vec<f32>>,
    /// The tokens of the inputs, if the server counted.
    pub(super) tokens: Option<u64>,
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

/// Names of loaded models, and until when they stay.
pub(super) type Loaded = Vec<(String, Option<String>)>;

#[async_trait]
pub(super) trait Provider: Send + Sync {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError>;

    /// Sends the request, always streamed; returns once the server has answered with a good status.
    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError>;

    async fn embed(
        &self,
        model: &str,
        part: &EmbeddingRequest,
    ) -> Result<EmbeddingAnswer, ProviderError>;

    /// The names of the models that it holds in memory, and until when; `None` where it does not tell.
    async fn loaded(&self) -> Result<Option<Loaded>, ProviderError> {
        Ok(None)
    }

    async fn version(&self) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    /// Whether the requested name means the listed model.
    fn same_model(&self, listed: &str, requested: &str) -> bool {
        listed == requested
    }
}

impl Batch {
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.chunks.last(), Some(Chunk::End { .. }))
    }

    /// Appends what can be said of a text with this piece.
    fn push(
        &mut self,
        chunk: fn(String) -> Chunk,
        joiner: &mut TextJoiner,
        piece: RawText,
    ) -> Result<(), ProviderError> {
        let no_text = || ProviderError::failed("a text that is not UTF-8");
        self.push_text(chunk, joiner.push(piece).ok_or_else(no_text)?);
        Ok(())
    }

    /// Appends what is left of a text that has ended.
    fn flush(&mut self, chunk: fn(String) -> Chunk, joiner: &mut TextJoiner) {
        self.push_text(chunk, joiner.finish().to_owned());
    }

    fn push_text(&mut self, chunk: fn(String) -> Chunk, text: String) {
        if !text.is_empty() {
            self.chunks.push(chunk(text));
        }
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
    let mut parser: Box<dyn Parser> = match kind {
        ProviderKind::Ollama => Box::new(OllamaParser::default()),
        _ => Box::new(OpenAiParser::default()),
    };
    let not_found = || ModelError::NotFound(String::new());
    let failed = |error: ProviderError| error.into_model_error(&Redactor::default(), not_found);
    let mut batch = Batch::default();
    for piece in pieces {
        parser.feed(piece, &mut batch).map_err(failed)?;
        if batch.is_finished() {
            return Ok(batch.chunks);
        }
    }
    parser.finish(&mut batch).map_err(failed)?;
    Ok(batch.chunks)
}
