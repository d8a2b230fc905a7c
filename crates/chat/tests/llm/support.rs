//! A service over fake model servers, and its answers.

use std::{sync::Arc, time::Duration};

use chat::{
    domain::{FinishReason, Usage},
    llm::{
        ChatRequest, Chunk, GenerationStream, LlmService, ModelError, Prompt, PromptMessage,
        ToolCall,
    },
};
use common::{
    config::{self, Provider, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use tokio::net::TcpListener;
use url::Url;

/// The most that a test waits for anything.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings for providers at those addresses, patient enough not to matter.
pub fn settings(servers: &[(ProviderKind, &Url)]) -> config::Llm {
    let at = |kind: ProviderKind| {
        let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
        let base_url = servers
            .iter()
            .find(|(other, _)| *other == kind)
            .map_or(nowhere, |(_, url)| (*url).clone());
        Provider {
            base_url,
            api_key: None,
            model: None,
            context_window: None,
            max_concurrency: 4.try_into().unwrap(),
            concurrency_scope: config::ConcurrencyScope::Instance,
            queue: 256,
            connect_timeout: Duration::from_secs(2),
            first_token_timeout: TEST_TIMEOUT,
            idle_timeout: TEST_TIMEOUT,
            total_timeout: 2 * TEST_TIMEOUT,
            think_tags: true,
            breaker_failures: 0,
        }
    };
    config::Llm {
        providers: servers.iter().map(|(kind, _)| *kind).collect(),
        model: "tiny".to_owned(),
        aliases: std::collections::BTreeMap::new(),
        ollama: at(ProviderKind::Ollama),
        openai: at(ProviderKind::OpenAi),
        huggingface: at(ProviderKind::HuggingFace),
    }
}

/// An address where nobody listens.
pub async fn nobody() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
}

/// The servers behind the chain, after their first look.
pub struct Service {
    pub llm: LlmService,
    stop: Shutdown,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Service {
    /// Waits for the first look at every provider.
    pub async fn probed(settings: &config::Llm) -> Self {
        let service = Self::unprobed(settings);
        service.until(|llm| llm.status().iter().all(|status| status.up.is_some())).await;
        service
    }

    pub fn unprobed(settings: &config::Llm) -> Self {
        let stop = Shutdown::new();
        Self { llm: LlmService::new(settings, &stop).unwrap(), stop }
    }

    /// Waits until it is so.
    pub async fn until(&self, is_so: impl Fn(&LlmService) -> bool) {
        let watching = async {
            while !is_so(&self.llm) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, watching).await.expect("it is so in time");
    }

    /// Joins the queue for that user, with a prompt.
    pub fn enqueue(&self, user: &str) -> Result<GenerationStream, ModelError> {
        self.enqueue_prompt(user, "Hi")
    }

    fn enqueue_prompt(
        &self,
        user: &str,
        prompt: &'static str,
    ) -> Result<GenerationStream, ModelError> {
        let route = self.llm.resolve(None)?;
        let generation = self.llm.enqueue(&route, &UserId::parse(user).unwrap())?;
        Ok(generation.begin(Arc::new(Say(prompt))))
    }

    /// Reads an answer to its end.
    pub async fn ask(&self) -> Answer {
        self.ask_for("Hi").await
    }

    pub async fn ask_for(&self, prompt: &'static str) -> Answer {
        match self.enqueue_prompt("alice", prompt) {
            Ok(generation) => Answer::read(generation).await,
            Err(error) => Answer { error: Some(error), ..Answer::default() },
        }
    }

    /// Waits until no place is taken.
    pub async fn idle(&self) {
        self.until(|llm| {
            llm.status().iter().all(|status| (status.running, status.waiting) == (0, 0))
        })
        .await;
    }
}

/// A prompt of one message.
pub struct Say(pub &'static str);

impl Prompt for Say {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let said = PromptMessage { role: "user".into(), content: self.0.to_owned(), extra: None };
        ChatRequest {
            model: model.to_owned(),
            messages: vec![said].into(),
            window,
            prompt_estimate: 10,
            ..ChatRequest::default()
        }
    }
}

/// What an answer was, to its end.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    pub thinking: String,
    pub calls: Vec<ToolCall>,
    pub provider: Option<ProviderKind>,
    pub model: Option<String>,
    pub dropped: Option<u64>,
    pub end: Option<(FinishReason, Option<Usage>)>,
    pub error: Option<ModelError>,
}

impl Answer {
    pub async fn read(mut generation: GenerationStream) -> Self {
        let mut answer = Self::default();
        let listening = async {
            while answer.end.is_none() && answer.error.is_none() {
                match generation.next().await {
                    Ok(progress) => {
                        assert!(!progress.is_empty());
                        progress.into_iter().for_each(|one| answer.take(one));
                    }
                    Err(error) => answer.error = Some(error),
                }
            }
        };
        tokio::time::timeout(3 * TEST_TIMEOUT, listening).await.expect("it ends");
        answer
    }

    fn take(&mut self, progress: Chunk) {
        match progress {
            Chunk::Queued { .. } => {}
            Chunk::Started { provider, model, dropped, .. } => {
                assert_eq!(self.provider, None, "told once");
                (self.provider, self.model) = (Some(provider), Some(model));
                self.dropped = Some(dropped);
            }
            Chunk::Thinking(text) => self.thinking.push_str(&text),
            Chunk::Text(text) => self.text.push_str(&text),
            Chunk::ToolCall(call) => self.calls.push(call),
            Chunk::End { finish, usage, .. } => self.end = Some((finish, usage)),
        }
    }

    /// In a few words, for comparing.
    pub fn summary(&self) -> String {
        let mut summary = String::new();
        for (name, text) in [("think", &self.thinking), ("text", &self.text)] {
            if !text.is_empty() {
                summary.push_str(&format!("{name}={text:?} "));
            }
        }
        for call in &self.calls {
            summary.push_str(&format!("{}({}) ", call.name, call.arguments));
        }
        if let Some((finish, usage)) = self.end {
            let usage = usage.map_or("?".to_owned(), |usage| {
                format!("{}+{}", usage.prompt_tokens, usage.completion_tokens)
            });
            summary.push_str(&format!("{finish:?} {usage}"));
        }
        if let Some(error) = &self.error {
            summary.push_str(kind(error));
        }
        summary
    }
}

/// The error's name.
pub fn kind(error: &ModelError) -> &'static str {
    match error {
        ModelError::Unavailable(_) => "Unavailable",
        ModelError::Timeout(_) => "Timeout",
        ModelError::Failed(_) => "Failed",
        ModelError::NotFound(_) => "NotFound",
        ModelError::ContextTooLong(_) => "ContextTooLong",
        ModelError::QueueFull => "QueueFull",
        ModelError::Busy { .. } => "Busy",
        ModelError::InvalidRequest { .. } => "InvalidRequest",
        ModelError::UnsupportedByModel(_) => "UnsupportedByModel",
    }
}
