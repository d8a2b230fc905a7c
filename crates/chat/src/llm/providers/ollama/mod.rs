//! Ollama, over its own API: `/api/chat`, always streamed, and the models with what they can do.

use std::num::NonZeroU32;

use async_trait::async_trait;
use common::{clients::http::PerThread, config};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::llm::{
    error::{Feature, ProviderError},
    providers::{
        ChunkStream, EmbeddingAnswer, Loaded, ModelInfo, Provider,
        http::Endpoint,
        lenient_json::tokens_or_none,
        ollama::{catalog::Catalog, errors::classify_error},
        response_stream,
    },
    request::{ChatRequest, EmbeddingInput, EmbeddingRequest},
};

mod catalog;
mod errors;
mod names;
mod request;
mod response;

pub(in crate::llm) use crate::llm::providers::ollama::names::{can_be_pulled, same_model};
pub(super) use crate::llm::providers::ollama::response::OllamaParser;

pub(in crate::llm) struct Ollama {
    endpoint: Endpoint,
    catalog: Catalog,
}

#[derive(Deserialize)]
struct OllamaEmbeddings {
    embeddings: Vec<Vec<f32>>,
    #[serde(default, deserialize_with = "tokens_or_none")]
    prompt_eval_count: Option<u64>,
}

impl Ollama {
    pub(in crate::llm) fn new(client: PerThread, settings: &config::Provider) -> Self {
        Self {
            endpoint: Endpoint::new(client, settings.base_url.clone(), settings, classify_error),
            catalog: Catalog::new(settings.context_window.map(NonZeroU32::get)),
        }
    }
}

#[async_trait]
impl Provider for Ollama {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        self.catalog.refresh(&self.endpoint).await
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError> {
        let body = request::body(request, self.catalog.traits(&request.model))?;
        let response = self.endpoint.chat(&["api", "chat"], &body, request).await?;
        Ok(response_stream::response_stream(response, OllamaParser::new(request)))
    }

    async fn embed(
        &self,
        model: &str,
        part: &EmbeddingRequest,
    ) -> Result<EmbeddingAnswer, ProviderError> {
        if matches!(part.input, EmbeddingInput::Tokens(_)) {
            return Err(ProviderError::unsupported(Feature::Tokens, "Ollama embeds texts alone"));
        }
        let mut body = json!({ "model": model, "input": part.input, "truncate": part.truncate });
        if let Some(dimensions) = part.dimensions {
            body["dimensions"] = dimensions.into();
        }
        let answer: OllamaEmbeddings =
            self.endpoint.call(&["api", "embed"], &body, &part.request_id).await?;
        Ok(EmbeddingAnswer { vectors: answer.embeddings, tokens: answer.prompt_eval_count })
    }

    async fn loaded(&self) -> Result<Option<Loaded>, ProviderError> {
        let tags = catalog::list(&self.endpoint, "ps").await?.into_iter();
        Ok(Some(tags.map(|tag| (tag.name, tag.expires_at)).collect()))
    }

    async fn version(&self) -> Result<Option<String>, ProviderError> {
        let answer: Value = self.endpoint.get(&["api", "version"]).await?;
        Ok(answer.get("version").and_then(Value::as_str).map(str::to_owned))
    }

    fn same_model(&self, listed: &str, requested: &str) -> bool {
        same_model(listed, requested)
    }
}
