//! Ollama, over its own API: `/api/chat` always streamed, and the models with their windows.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use common::{
    clients::http::PerThread,
    config::{self, ProviderKind},
};
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::IgnoredAny};
use url::Url;

mod models;
mod request;
mod response;

pub use crate::llm::providers::ollama::request::same_model;
use crate::llm::{
    error::{ModelError, RequestError},
    providers::{
        Chunks, ModelInfo, Provider, http,
        ollama::models::{Tag, tags},
        response_stream,
    },
    request::ChatRequest,
};

/// How long a look may spend on asking for windows.
const WINDOWS_PATIENCE: Duration = Duration::from_secs(2);

/// One Ollama server.
pub struct Ollama {
    client: PerThread,
    base: Url,
    api_key: Option<SecretString>,
    /// Windows that were looked up, by name and digest: a model's window changes only with its digest.
    windows: Mutex<HashMap<(String, String), Option<u32>>>,
}

#[derive(Deserialize)]
struct Show {
    #[serde(default)]
    model_info: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Ollama {
    /// An adapter for the server of those settings.
    pub fn new(client: PerThread, settings: &config::Provider) -> Self {
        let api_key = settings.api_key.clone();
        Self {
            client,
            base: settings.base_url.clone(),
            api_key,
            windows: Mutex::default(),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    async fn list(&self, what: &str) -> Result<Vec<Tag>, RequestError> {
        let request = self
            .client
            .here()
            .get(http::endpoint(&self.base, &["api", what]));
        let response = self
            .authorized(request)
            .send()
            .await
            .map_err(http::unreachable)?;
        let response = http::accepted(response, |status, body| failure(status, body, "")).await?;
        let answer = http::document(response).await?;
        tags(&answer).ok_or_else(http::no_list)
    }

    /// The model's own window: listed, remembered, asked for, or else what is allocated for it now.
    async fn window(&self, tag: &Tag) -> Option<u32> {
        if tag.window.is_some() {
            return tag.window;
        }
        let key = (tag.name.clone(), tag.digest.clone());
        let known = self.windows().get(&key).copied();
        if let Some(window) = known {
            return window;
        }
        let window = match self.trained_window(&tag.name).await.ok()? {
            Some(window) => Some(window),
            None => self.allocated_window(&tag.name).await,
        };
        self.windows().insert(key, window);
        window
    }

    async fn trained_window(&self, model: &str) -> Result<Option<u32>, RequestError> {
        let request = self
            .client
            .here()
            .post(http::endpoint(&self.base, &["api", "show"]));
        let request = self
            .authorized(request)
            .json(&serde_json::json!({ "model": model }));
        let response = request.send().await.map_err(http::unreachable)?;
        let response =
            http::accepted(response, |status, body| failure(status, body, model)).await?;
        let info = http::document::<Show>(response)
            .await?
            .model_info
            .unwrap_or_default();
        let length = info
            .iter()
            .find(|(key, _)| key.ends_with(".context_length"))
            .and_then(|(_, value)| value.as_u64());
        Ok(length.and_then(|length| u32::try_from(length).ok()))
    }

    async fn allocated_window(&self, model: &str) -> Option<u32> {
        let loaded = self.list("ps").await.ok()?;
        loaded
            .into_iter()
            .find(|tag| same_model(&tag.name, model))?
            .allocated
    }

    fn windows(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Option<u32>>> {
        self.windows
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Provider for Ollama {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Ollama
    }

    async fn list_models(&self) -> Result<Vec<ModelInfo>, RequestError> {
        let tags = self.list("tags").await?;
        let listed: HashSet<_> = tags
            .iter()
            .map(|tag| (tag.name.clone(), tag.digest.clone()))
            .collect();
        self.windows().retain(|key, _| listed.contains(key));
        let mut models = Vec::with_capacity(tags.len());
        // Whoever has very many models gets the rest of the windows with the next looks.
        let deadline = tokio::time::Instant::now() + WINDOWS_PATIENCE;
        for tag in tags {
            let window = tokio::time::timeout_at(deadline, self.window(&tag)).await;
            let window = window.ok().flatten().filter(|window| *window > 0);
            models.push(ModelInfo {
                id: tag.name,
                window,
            });
        }
        Ok(models)
    }

    async fn chat(&self, request: &ChatRequest) -> Result<Chunks, RequestError> {
        let body = request::body(request).map_err(RequestError::content)?;
        let call = self
            .client
            .here()
            .post(http::endpoint(&self.base, &["api", "chat"]))
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
            response::Answer::new(request),
        ))
    }
}

/// What a bad status means.
fn failure(status: u16, body: &str, model: &str) -> ModelError {
    #[derive(Deserialize)]
    struct Body {
        #[expect(
            dead_code,
            reason = "that it is there tells Ollama's answer from a proxy's"
        )]
        error: IgnoredAny,
    }
    let is_ours = serde_json::from_str::<Body>(body).is_ok();
    match http::classify_error(body) {
        Some(error) => error,
        None if status == 404 && is_ours => ModelError::NotFound(model.to_owned()),
        None => ModelError::Failed(format!("status {status}: {}", http::truncate(body))),
    }
}

/// What reads an answer, also where there is no server.
pub(super) fn parser(request: &ChatRequest) -> impl response_stream::Parser + use<> {
    response::Answer::new(request)
}
