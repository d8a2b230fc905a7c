//! Embeddings of Ollama: `/api/embed`.

use serde::Deserialize;
use serde_json::json;

use crate::llm::{
    error::ProviderError,
    providers::{EmbeddingAnswer, http::Endpoint, lenient_json::tokens_or_none},
    request::{EmbeddingInput, EmbeddingRequest},
};

#[derive(Deserialize)]
struct OllamaEmbeddings {
    embeddings: Vec<Vec<f32>>,
    #[serde(default, deserialize_with = "tokens_or_none")]
    prompt_eval_count: Option<u64>,
}

pub(super) async fn embed(
    endpoint: &Endpoint,
    model: &str,
    part: &EmbeddingRequest,
) -> Result<EmbeddingAnswer, ProviderError> {
    if matches!(part.input, EmbeddingInput::Tokens(_)) {
        return Err(ProviderError::unsupported(
            "This model takes texts only; send `input` as a text or a list of texts.",
        ));
    }
    let mut body = json!({ "model": model, "input": part.input, "truncate": part.truncate });
    if let Some(dimensions) = part.dimensions {
        body["dimensions"] = dimensions.into();
    }
    let answer: OllamaEmbeddings =
        endpoint.call(&["api", "embed"], &body, &part.request_id).await?;
    Ok(EmbeddingAnswer { vectors: answer.embeddings, tokens: answer.prompt_eval_count })
}
