//! Embeddings of an OpenAI-compatible server: `/v1/embeddings`.

use serde::Deserialize;
use serde_json::json;

use crate::llm::{
    error::ProviderError,
    providers::{
        EmbeddingAnswer, http::Endpoint, lenient_json::or_none, lenient_json::tokens_or_none,
    },
    request::EmbeddingRequest,
};

#[derive(Deserialize)]
struct OpenAiEmbeddings {
    data: Vec<OpenAiEmbedding>,
    #[serde(default, deserialize_with = "or_none")]
    usage: Option<OpenAiUsage>,
}

#[derive(Deserialize)]
struct OpenAiEmbedding {
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct OpenAiUsage {
    #[serde(default, deserialize_with = "tokens_or_none")]
    prompt_tokens: Option<u64>,
}

pub(super) async fn embed(
    endpoint: &Endpoint,
    model: &str,
    part: &EmbeddingRequest,
) -> Result<EmbeddingAnswer, ProviderError> {
    let mut body = json!({ "model": model, "input": part.input, "encoding_format": "float" });
    if let Some(dimensions) = part.dimensions {
        body["dimensions"] = dimensions.into();
    }
    let mut answer: OpenAiEmbeddings =
        endpoint.call(&["embeddings"], &body, &part.request_id).await?;
    // Some servers answer out of order; those that leave the index out keep the order.
    answer.data.sort_by_key(|entry| entry.index);
    Ok(EmbeddingAnswer {
        vectors: answer.data.into_iter().map(|entry| entry.embedding).collect(),
        tokens: answer.usage.and_then(|usage| usage.prompt_tokens),
    })
}
