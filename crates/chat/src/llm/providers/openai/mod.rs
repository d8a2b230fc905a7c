//! Any OpenAI-compatible server (vLLM, llama.cpp, LM Studio, OpenAI) and the Hugging Face router: one protocol, always streamed.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use common::{
    clients::http::PerThread,
    config::{self, ProviderKind},
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::llm::{
    error::ProviderError,
    providers::{
        ChunkStream, DEFAULT_WINDOW, EmbeddingAnswer, ModelInfo, Provider, http,
        http::Endpoint,
        lenient_json::{self, OrNone},
        openai::errors::classify_error,
        response_stream,
    },
    request::{ChatRequest, EmbeddingRequest},
};

mod errors;
mod frame;
mod models;
mod request;
mod response;
mod tool_calls;

pub(super) use crate::llm::providers::openai::response::OpenAiParser;

pub(in crate::llm) struct OpenAi {
    kind: ProviderKind,
    is_openai: bool,
    endpoint: Endpoint,
    /// The largest window, in tokens.
    window: u32,
    /// Whether it is a llama-server, by its last list of models.
    is_llama_server: AtomicBool,
}

#[derive(Deserialize)]
struct OpenAiEmbeddings {
    data: Vec<OpenAiEmbedding>,
    #[serde(default)]
    usage: OrNone<Value>,
}

#[derive(Deserialize)]
struct OpenAiEmbedding {
    index: Option<usize>,
    embedding: Vec<f32>,
}

impl OpenAi {
    pub(in crate::llm) fn new(
        kind: ProviderKind,
        client: PerThread,
        settings: &config::Provider,
    ) -> Self {
        let base = versioned(&settings.base_url);
        Self {
            kind,
            is_openai: settings.base_url.host_str() == Some("api.openai.com"),
            endpoint: Endpoint::new(client, base, settings, classify_error),
            window: settings.context_window.map_or(DEFAULT_WINDOW, NonZeroU32::get),
            is_llama_server: AtomicBool::new(false),
        }
    }
}

/// The address with its API's version: `/v1`, unless a version is in it already.
fn versioned(base: &Url) -> Url {
    let is_version = |segment: &str| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if base.path_segments().is_some_and(|mut segments| segments.any(is_version)) {
        return base.clone();
    }
    http::below(base, &["v1"])
}

#[async_trait]
impl Provider for OpenAi {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        let answer: Value = self.endpoint.get(&["models"]).await?;
        let owner = answer.pointer("/data/0/owned_by").and_then(Value::as_str);
        self.is_llama_server.store(owner == Some("llamacpp"), Ordering::Relaxed);
        // LM Studio answers 200 to what it does not know.
        let models = models::models(&answer);
        let no_list = || ProviderError::failed("/models answered 200 without a list of models");
        let mut models = models.ok_or_else(no_list)?;
        for model in &mut models {
            model.window = model.window.map(|served| served.min(self.window));
        }
        Ok(models)
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError> {
        let mut body = request::body(request, self.is_openai);
        if request.options.stop.is_some() && self.is_llama_server.load(Ordering::Relaxed) {
            body.ask_for_stopping_word();
        }
        let response = self.endpoint.chat(&["chat", "completions"], &body, request).await?;
        Ok(response_stream::response_stream(response, OpenAiParser::new(request)))
    }

    async fn embed(
        &self,
        model: &str,
        part: &EmbeddingRequest,
    ) -> Result<EmbeddingAnswer, ProviderError> {
        let mut body = json!({ "model": model, "input": part.input, "encoding_format": "float" });
        if let Some(dimensions) = part.dimensions {
            body["dimensions"] = dimensions.into();
        }
        let mut answer: OpenAiEmbeddings =
            self.endpoint.call(&["embeddings"], &body, &part.request_id).await?;
        // Some servers answer out of order; those that leave the index out keep the order.
        answer.data.sort_by_key(|entry| entry.index);
        let usage = answer.usage.0;
        Ok(EmbeddingAnswer {
            vectors: answer.data.into_iter().map(|entry| entry.embedding).collect(),
            tokens: usage.and_then(|usage| lenient_json::tokens(&usage["prompt_tokens"])),
        })
    }

    fn same_model(&self, listed: &str, requested: &str) -> bool {
        // The router takes `org/name:where`.
        let is_routed = || {
            self.kind == ProviderKind::HuggingFace
                && requested.split_once(':').is_some_and(|(name, _)| name == listed)
        };
        listed == requested || is_routed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_good_with_and_without_its_version() {
        for (given, used) in [
            ("http://h:1", "http://h:1/v1"),
            ("http://h:1/", "http://h:1/v1"),
            ("http://h:1/v1", "http://h:1/v1"),
            ("http://h:1/v1/", "http://h:1/v1/"),
            ("http://h:1/proxy", "http://h:1/proxy/v1"),
            ("https://h/api/paas/v4/", "https://h/api/paas/v4/"),
            ("https://h/v1beta/openai/", "https://h/v1beta/openai/"),
            ("http://h:1/vllm", "http://h:1/vllm/v1"),
        ] {
            assert_eq!(versioned(&Url::parse(given).unwrap()).as_str(), used);
        }
    }
}
