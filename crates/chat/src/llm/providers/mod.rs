//! Model servers: one adapter for each wire, all behind one small trait.

use async_trait::async_trait;
use common::config::ProviderKind;
use futures_util::stream::BoxStream;

use crate::llm::{
    chunk::Chunk,
    error::{ModelError, RequestError},
    request::ChatRequest,
};

pub mod demo;
mod http;
mod lenient_json;
mod lines;
pub mod ollama;
pub mod openai;
mod response_stream;
mod sse;
#[cfg(test)]
mod tests;

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

/// What an answer's bytes say on that wire, in the pieces in which they came, for measurements and fuzzing, which have no
/// server.
///
/// # Errors
/// As reading them from the server.
pub fn parse<'a>(
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
        ProviderKind::Ollama => all(ollama::parser(&ChatRequest::default()), pieces),
        _ => all(openai::parser(""), pieces),
    }
}

/// One model server's wire.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Which it is.
    fn kind(&self) -> ProviderKind;

    /// The models that it has now.
    async fn list_models(&self) -> Result<Vec<ModelInfo>, RequestError>;

    /// Sends the request, always streamed; returns once the server has answered with a good status.
    async fn chat(&self, request: &ChatRequest) -> Result<Chunks, RequestError>;
}
