//! Embeddings, in the forms of OpenAI's and of Ollama's API: started, gathered, and written without holding the whole answer twice.

pub mod ollama;
pub mod openai;

use std::{convert::Infallible, fmt::Write as _};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use common::{
    errors::{ApiError, Code},
    http::Deadline,
};
use futures_util::stream::unfold;

use crate::{
    error::ChatError,
    generation::stateless::EmbeddingChunk,
    http::{
        error::about,
        inference::{BodyMemory, InferenceCaller},
    },
    llm::EmbeddingRequest,
};

pub const MAX_INPUTS: usize = 16_384;

/// How much of an answer is written at a time, in bytes.
const PIECE: usize = 64 * 1024;

#[derive(Debug)]
pub struct Vectors {
    pub model: String,
    pub vectors: Vec<Vec<f32>>,
    pub tokens: u64,
    memory: BodyMemory,
}

/// Has everything embedded. The vectors count with the memory of the body that asked for them.
///
/// # Errors
/// What ends it without all vectors, the end of the caller's credential, and `overloaded` where the memory is used up.
pub async fn embed(
    caller: InferenceCaller,
    model: Option<&str>,
    request: EmbeddingRequest,
) -> Result<Vectors, ApiError> {
    let InferenceCaller { app, identity, mut memory, .. } = caller;
    if request.input.len() > MAX_INPUTS {
        let detail = format!("`input` has at most {MAX_INPUTS} members; send several requests.");
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    // From here on: the body may have taken its time.
    let Deadline(deadline) = Deadline::from_now();
    let mut revoked = app.until_revoked(&identity);
    let embedding = app.completions.embed(identity, model, request, deadline);
    let mut embedding = embedding.map_err(about_input)?;
    let mut answer = Vectors { model: String::new(), vectors: Vec::new(), tokens: 0, memory: None };
    loop {
        let chunk = tokio::select! {
            chunk = embedding.recv() => chunk.unwrap_or(Err(ChatError::Broken)).map_err(about_input)?,
            error = &mut revoked => return Err(error),
        };
        match chunk {
            EmbeddingChunk::Part(part) => {
                let bytes = part.vectors.iter().map(|vector| vector.len() * 4).sum();
                app.body_budget.hold_more(&mut memory, bytes)?;
                answer.model = part.model;
                answer.vectors.extend(part.vectors);
            }
            EmbeddingChunk::End { tokens } => {
                return Ok(Vectors { tokens, memory, ..answer });
            }
        }
    }
}

/// The error in the words of embeddings, which have no conversation.
fn about_input(error: ChatError) -> ApiError {
    let error = ApiError::from(error);
    if error.code == Code::ContextTooLong {
        let detail = "An input is longer than the model's window; send it in parts.";
        return about(Some("/input"), error.code, detail.to_owned());
    }
    error
}

impl Vectors {
    /// A JSON document: `before`, the vectors as `write` writes each, commas between them, and `after`.
    pub fn into_response(
        self,
        before: String,
        write: impl Fn(usize, &[f32], &mut String) + Copy + Send + 'static,
        after: String,
    ) -> Response {
        let vectors = self.vectors.into_iter().enumerate().peekable();
        let state = (before, vectors, Some(after), self.memory);
        let pieces = unfold(state, move |(mut out, mut vectors, mut after, memory)| async move {
            while out.len() < PIECE {
                let Some((index, vector)) = vectors.next() else { break };
                write(index, &vector, &mut out);
                if vectors.peek().is_some() {
                    out.push(',');
                }
            }
            if vectors.peek().is_none() {
                out.push_str(&after.take()?);
            }
            let piece = Bytes::from(std::mem::take(&mut out));
            Some((Ok::<_, Infallible>(piece), (out, vectors, after, memory)))
        });
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (headers, Body::from_stream(pieces)).into_response()
    }
}

/// Appends a vector as a list of numbers.
pub fn write_floats(vector: &[f32], out: &mut String) {
    out.push('[');
    for (at, number) in vector.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // Writing to a string cannot fail; servers send no number that JSON lacks.
        let _ = write!(out, "{number:?}");
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::llm::ModelError;

    #[test]
    fn an_input_that_is_too_long_is_told_in_the_words_of_embeddings() {
        let told = |error| about_input(ChatError::Model(error)).detail;
        assert!(told(ModelError::ContextTooLong(String::new())).starts_with("An input is"));
        assert!(told(ModelError::QueueFull).starts_with("Too many requests"));
    }

    async fn written(count: usize) -> Value {
        let vectors = Vectors {
            model: String::new(),
            vectors: vec![vec![0.5, -1e-9, 3e20]; count],
            tokens: 0,
            memory: None,
        };
        let write = |_: usize, vector: &[f32], out: &mut String| write_floats(vector, out);
        let response = vectors.into_response("[".to_owned(), write, "]".to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn a_document_is_whole_however_many_vectors_it_has() {
        let numbers =
            |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
        for count in [0, 1, 2, 10_000] {
            let written = written(count).await;
            let list = written.as_array().unwrap();
            assert_eq!(list.len(), count);
            assert!(list.iter().all(|vector| numbers(vector) == [0.5, -1e-9, 3e20]));
        }
        assert_eq!(written(0).await, json!([]));
    }
}
