//! One model server as this instance uses it: its provider, health, scheduler, circuit breaker and timeouts.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use common::{
    clients::http::model_server,
    config::{self, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::llm::{
    circuit_breaker::{CallOutcome, CircuitBreaker},
    deadlines::StreamTimeouts,
    error::{ErrorKind, ModelError, ProviderError},
    health::{Health, Reachability},
    providers::{
        ChunkStream, DEFAULT_WINDOW, ModelInfo, Provider,
        demo::{self, Demo},
        ollama::{Ollama, can_be_pulled},
        openai::OpenAi,
    },
    redaction::Redactor,
    request::ChatRequest,
    scheduler::{Scheduler, SchedulerPermit},
};

pub(super) struct Upstream {
    kind: ProviderKind,
    provider: Box<dyn Provider>,
    api_key: Option<SecretString>,
    /// The model where nobody names one, of this provider's own settings.
    default_model: Option<String>,
    default_window: u32,
    timeouts: Timeouts,
    health: Health,
    scheduler: Arc<Scheduler>,
    breaker: Arc<CircuitBreaker>,
}

struct Timeouts {
    connect: Duration,
    first_token: Duration,
    idle: Duration,
    total: Duration,
}

/// Whether a server has a model, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Yes,
    No,
    /// It never listed its models.
    Unknown,
}

impl Upstream {
    /// # Errors
    /// Where its HTTP client cannot be built.
    pub(super) fn new(kind: ProviderKind, settings: &config::Llm) -> Result<Self, reqwest::Error> {
        let provider = match kind {
            ProviderKind::Demo => return Ok(Self::demo(&settings.model)),
            ProviderKind::Ollama => &settings.ollama,
            ProviderKind::OpenAi => &settings.openai,
            ProviderKind::HuggingFace => &settings.huggingface,
        };
        let client = model_server(provider.connect_timeout)?;
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            kind,
            provider: match kind {
                ProviderKind::Ollama => Box::new(Ollama::new(client, provider)),
                _ => Box::new(OpenAi::new(kind, client, provider)),
            },
            api_key: provider.api_key.clone(),
            default_model: provider.model.clone(),
            default_window: provider
                .context_window
                .map_or(DEFAULT_WINDOW, NonZeroU32::get),
            timeouts: Timeouts {
                connect: provider.connect_timeout,
                first_token: provider.first_token_timeout,
                idle: provider.idle_timeout,
                total: provider.total_timeout,
            },
            health: Health::unknown(),
            scheduler: Scheduler::new(
                kind.as_str(),
                size(provider.max_concurrency.get()),
                size(provider.queue),
            ),
            breaker: CircuitBreaker::new(provider.breaker_failures),
        })
    }

    /// The built-in provider, which tells how to get `recommended_model`.
    fn demo(recommended_model: &str) -> Self {
        let second = Duration::from_secs(1);
        Self {
            kind: ProviderKind::Demo,
            provider: Box::new(Demo::new(recommended_model)),
            api_key: None,
            default_model: Some(demo::MODEL.to_owned()),
            default_window: DEFAULT_WINDOW,
            timeouts: Timeouts {
                connect: second,
                first_token: 10 * second,
                idle: 10 * second,
                total: 60 * second,
            },
            health: Health::always_up(),
            scheduler: Scheduler::new(ProviderKind::Demo.as_str(), 64, 256),
            breaker: CircuitBreaker::new(0),
        }
    }

    pub(super) fn kind(&self) -> ProviderKind {
        self.kind
    }

    pub(super) fn is_demo(&self) -> bool {
        self.kind == ProviderKind::Demo
    }

    pub(super) fn default_model(&self) -> Option<&str> {
        self.default_model.as_deref()
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn is_down(&self) -> bool {
        self.health.reachability() == Reachability::Down
    }

    /// Whether the circuit breaker lets a request through now.
    pub(super) fn is_breaker_closed(&self) -> bool {
        self.breaker.allows(Instant::now())
    }

    pub(super) fn availability(&self, model: &str) -> Availability {
        match self.health.models() {
            None => Availability::Unknown,
            Some(models) if self.find(&models, model).is_some() => Availability::Yes,
            Some(_) => Availability::No,
        }
    }

    /// Whether the model answers chats, as far as is known.
    pub(super) fn can_chat(&self, model: &str) -> bool {
        let models = self.health.models().unwrap_or_default();
        self.find(&models, model).is_none_or(ModelInfo::can_chat)
    }

    /// The window that the model is always asked with, since another one makes Ollama load it anew.
    pub(super) fn window(&self, model: &str) -> u32 {
        let models = self.health.models().unwrap_or_default();
        self.window_of(self.find(&models, model))
    }

    /// The window that a listed model is asked with.
    pub(super) fn window_of(&self, model: Option<&ModelInfo>) -> u32 {
        model
            .and_then(|model| model.window)
            .unwrap_or(self.default_window)
    }

    pub(super) fn same_model(&self, listed: &str, requested: &str) -> bool {
        self.provider.same_model(listed, requested)
    }

    fn find<'a>(&self, models: &'a [ModelInfo], name: &str) -> Option<&'a ModelInfo> {
        models.iter().find(|model| self.same_model(&model.id, name))
    }

    /// Joins the queue; `None` where it is full.
    pub(super) fn enqueue(&self, user: &UserId) -> Option<SchedulerPermit> {
        self.scheduler.enqueue(user)
    }

    /// How many requests run and how many wait.
    pub(super) fn load(&self) -> (usize, usize) {
        self.scheduler.load()
    }

    pub(super) fn stream_timeouts(&self) -> StreamTimeouts {
        StreamTimeouts::new(
            self.timeouts.first_token,
            self.timeouts.idle,
            self.timeouts.total,
        )
    }

    /// Sends one request and tells the circuit breaker how that went.
    pub(super) async fn call(
        &self,
        request: &ChatRequest,
        timeouts: &mut StreamTimeouts,
    ) -> Result<ChunkStream, ProviderError> {
        let Some(permit) = self.breaker.try_acquire(Instant::now()) else {
            return Err(ProviderError::new(
                ErrorKind::Unreachable,
                "the circuit breaker is open",
            ));
        };
        let result = timeouts.limit(self.provider.chat(request)).await.flatten();
        permit.record(CallOutcome::of(&result), Instant::now());
        result
    }

    /// The error as it leaves the model layer, and as it may be logged.
    pub(super) fn model_error(
        &self,
        error: ProviderError,
        model: &str,
        request: Option<&ChatRequest>,
    ) -> ModelError {
        error.into_model_error(&self.redactor(request), || not_found(self.kind, model))
    }

    /// Probes the server until the stop.
    pub(super) async fn run_probes(self: Arc<Self>, shutdown: Shutdown) {
        let (connect, redactor) = (self.timeouts.connect, self.redactor(None));
        self.health
            .run_probes(self.kind, &*self.provider, connect, redactor, &shutdown)
            .await;
    }

    fn redactor<'a>(&'a self, request: Option<&'a ChatRequest>) -> Redactor<'a> {
        Redactor::new(
            self.api_key.as_ref().map(|key| key.expose_secret()),
            request,
        )
    }
}

/// That a server lacks a model, in words for the caller: what it is and how to get it.
pub(super) fn not_found(kind: ProviderKind, model: &str) -> ModelError {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-@".contains(c);
    ModelError::NotFound(match kind {
        _ if model.len() > 128 || !model.chars().all(is_plain) => {
            "No model has that name; GET /chat/models lists those that there are.".to_owned()
        }
        ProviderKind::Ollama if can_be_pulled(model) => {
            format!("The model `{model}` is not there yet; `ollama pull {model}` gets it.")
        }
        _ => format!(
            "No model server here has `{model}`; GET /chat/models lists the models that there are."
        ),
    })
}
