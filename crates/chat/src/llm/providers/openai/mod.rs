//! Any OpenAI-compatible server (vLLM, llama.cpp, LM Studio, OpenAI) and the Hugging Face router: one protocol, always
//! streamed.

use std::num::NonZeroU32;

use async_trait::async_trait;
use common::{
    clients::http::PerThread,
    config::{self, ProviderKind},
};
use serde_json::Value;
use url::Url;

use crate::llm::{
    error::ProviderError,
    providers::{
        ChunkStream, DEFAULT_WINDOW, ModelInfo, Provider, http,
        http::Endpoint,
        openai::{errors::classify_error, response::OpenAiParser},
        response_stream,
    },
    request::ChatRequest,
};

mod errors;
mod frame;
mod models;
mod request;
mod response;
mod tool_calls;

pub(in crate::llm) struct OpenAi {
    kind: ProviderKind,
    endpoint: Endpoint,
    /// The largest window, in tokens.
    window: u32,
}

impl OpenAi {
    pub(in crate::llm) fn new(
        kind: ProviderKind,
        client: PerThread,
        settings: &config::Provider,
    ) -> Self {
        Self {
            kind,
            endpoint: Endpoint::new(client, versioned(&settings.base_url), settings),
            window: settings
                .context_window
                .map_or(DEFAULT_WINDOW, NonZeroU32::get),
        }
    }
}

/// The address with its API's version: `/v1`, unless a version is in it already.
fn versioned(base: &Url) -> Url {
    let is_version = |segment: &str| {
        segment
            .strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if base
        .path_segments()
        .is_some_and(|mut segments| segments.any(is_version))
    {
        return base.clone();
    }
    http::below(base, &["v1"])
}

#[async_trait]
impl Provider for OpenAi {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        let answer: Value = self.endpoint.get(&["models"], classify_error).await?;
        // LM Studio answers 200 to what it does not know.
        let models = models::models(&answer);
        let no_list = || ProviderError::failed("/models answered 200 without a list of models");
        let mut models = models.ok_or_else(no_list)?;
        for model in &mut models {
            let served = model.window.unwrap_or(self.window);
            model.window = Some(served.min(self.window));
        }
        Ok(models)
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError> {
        let is_openai = self.endpoint.base().host_str() == Some("api.openai.com");
        let body = request::body(request, is_openai);
        let response = self
            .endpoint
            .chat(
                &["chat", "completions"],
                &body,
                &request.request_id,
                classify_error,
            )
            .await
            .map_err(|error| error.attributed(request.untrimmed))?;
        Ok(response_stream::response_stream(
            response,
            OpenAiParser::default(),
        ))
    }

    fn same_model(&self, listed: &str, requested: &str) -> bool {
        // The router takes `org/name:where`.
        let is_routed = || {
            self.kind == ProviderKind::HuggingFace
                && requested
                    .split_once(':')
                    .is_some_and(|(name, _)| name == listed)
        };
        listed == requested || is_routed()
    }
}

pub(super) fn parser() -> impl response_stream::Parser {
    OpenAiParser::default()
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
