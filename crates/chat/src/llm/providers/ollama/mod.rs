//! Ollama, over its own API: `/api/chat`, always streamed, and the models with what they can do.

use std::num::NonZeroU32;

use async_trait::async_trait;
use common::{clients::http::PerThread, config};

use crate::llm::{
    error::ProviderError,
    providers::{
        ChunkStream, ModelInfo, Provider,
        http::Endpoint,
        ollama::{
            catalog::Catalog, errors::classify_error, request::ModelTraits, response::OllamaParser,
        },
        response_stream,
    },
    request::ChatRequest,
};

mod catalog;
mod errors;
mod names;
mod request;
mod response;

pub(in crate::llm) use crate::llm::providers::ollama::names::can_be_pulled;
use crate::llm::providers::ollama::names::same_model;

pub(in crate::llm) struct Ollama {
    endpoint: Endpoint,
    catalog: Catalog,
}

impl Ollama {
    pub(in crate::llm) fn new(client: PerThread, settings: &config::Provider) -> Self {
        Self {
            endpoint: Endpoint::new(client, settings.base_url.clone(), settings),
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
        let details = self.catalog.get(&request.model);
        let model = ModelTraits {
            capabilities: details.and_then(|details| details.capabilities()),
            sends_window: self.catalog.sends_window(details.as_ref()),
        };
        let body = request::body(request, model)?;
        let response = self
            .endpoint
            .chat(&["api", "chat"], &body, &request.request_id, classify_error)
            .await
            .map_err(|error| error.attributed(request.untrimmed))?;
        Ok(response_stream::response_stream(
            response,
            OllamaParser::new(request),
        ))
    }

    fn same_model(&self, listed: &str, requested: &str) -> bool {
        same_model(listed, requested)
    }
}

pub(super) fn parser(request: &ChatRequest) -> impl response_stream::Parser + use<> {
    OllamaParser::new(request)
}
