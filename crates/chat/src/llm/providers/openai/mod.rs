//! Any OpenAI-compatible server (vLLM, llama.cpp, LM Studio, OpenAI) and the Hugging Face router: one wire, always streamed.

use async_trait::async_trait;
use common::{
    clients::http::PerThread,
    config::{self, ProviderKind},
};
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::llm::{
    error::{ModelError, RequestError},
    providers::{Chunks, ModelInfo, Provider, http, response_stream},
    request::ChatRequest,
};

mod frame;
mod models;
mod request;
mod response;

/// One OpenAI-compatible server.
pub struct OpenAi {
    kind: ProviderKind,
    client: PerThread,
    base: Url,
    api_key: Option<SecretString>,
}

impl OpenAi {
    /// An adapter for the server of those settings.
    pub fn new(kind: ProviderKind, client: PerThread, settings: &config::Provider) -> Self {
        Self {
            kind,
            client,
            base: versioned(&settings.base_url),
            api_key: settings.api_key.clone(),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
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
    http::endpoint(base, &["v1"])
}

#[async_trait]
impl Provider for OpenAi {
    fn kind(&self) -> ProviderKind {
        self.kind
    }

    async fn list_models(&self) -> Result<Vec<ModelInfo>, RequestError> {
        let request = self
            .client
            .here()
            .get(http::endpoint(&self.base, &["models"]));
        let response = self
            .authorized(request)
            .send()
            .await
            .map_err(http::unreachable)?;
        let response = http::accepted(response, |status, body| failure(status, body, "")).await?;
        let answer = http::document(response).await?;
        // LM Studio answers 200 to what it does not know.
        models::models(&answer).ok_or_else(http::no_list)
    }

    async fn chat(&self, request: &ChatRequest) -> Result<Chunks, RequestError> {
        let is_openai = self.base.host_str() == Some("api.openai.com");
        let body = request::body(request, is_openai);
        let call = self
            .client
            .here()
            .post(http::endpoint(&self.base, &["chat", "completions"]))
            .json(&body);
        let response = http::traced(self.authorized(call), &request.request_id)
            .send()
            .await
            .map_err(http::unanswered)?;
        let response = http::accepted(response, |status, body| {
            http::refused(request, status, || failure(status, body, &request.model))
        })
        .await?;
        Ok(response_stream::chunks(
            response,
            response::Answer::new(&request.model),
        ))
    }
}

/// What a bad status means.
fn failure(status: u16, body: &str, model: &str) -> ModelError {
    match http::classify_error(body) {
        Some(error) => error,
        None if body.contains("model_not_found") => ModelError::NotFound(model.to_owned()),
        // A 404 without a word of the model is about the address.
        None if status == 404 && says_model(body) => ModelError::NotFound(model.to_owned()),
        None if status == 404 => {
            ModelError::Failed("status 404: is the base URL right?".to_owned())
        }
        None => ModelError::Failed(format!("status {status}: {}", http::truncate(body))),
    }
}

/// Whether an error object speaks of a model: in `error`, or in `message` alone (SGLang, vLLM before 0.10).
fn says_model(body: &str) -> bool {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let error = body.get("error").or_else(|| body.get("message"));
    error.is_some_and(|error| error.to_string().to_lowercase().contains("model"))
}

/// What reads an answer, also where there is no server.
pub(super) fn parser(model: &str) -> impl response_stream::Parser + use<> {
    response::Answer::new(model)
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
