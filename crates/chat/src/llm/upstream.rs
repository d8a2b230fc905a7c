//! One model server as this instance uses it: its provider, health, scheduler, circuit breaker and timeouts.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use common::{
    clients::http::model_server,
    config::{self, ProviderKind},
    model_name::is_model_name,
    otel::{Span, SpanKind},
    shutdown::Shutdown,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use crate::llm::{
    circuit_breaker::CircuitBreaker,
    deadlines::StreamTimeouts,
    error::{ErrorKind, ModelError, ProviderError},
    health::{Health, Snapshot},
    providers::{
        DEFAULT_WINDOW, ModelInfo, Provider,
        demo::{self, Demo},
        ollama::{Ollama, can_be_pulled},
        openai::OpenAi,
    },
    redaction::Redactor,
    request::ChatRequest,
    scheduler::Scheduler,
};

pub(super) struct Upstream {
    pub(super) kind: ProviderKind,
    pub(super) provider: Box<dyn Provider>,
    api_key: Option<SecretString>,
    /// The model where nobody names one, of this provider's own settings.
    pub(super) default_model: Option<String>,
    default_window: u32,
    address: Option<Url>,
    /// Whether thoughts may stand in tags inside the text.
    pub(super) think_tags: bool,
    timeouts: Timeouts,
    pub(super) health: Health,
    pub(super) scheduler: Arc<Scheduler>,
    breaker: Arc<CircuitBreaker>,
}

struct Timeouts {
    connect: Duration,
    first_token: Duration,
    idle: Duration,
    total: Duration,
}

impl Upstream {
    pub(super) fn new(kind: ProviderKind, settings: &config::Llm) -> Result<Self, reqwest::Error> {
        let Some(provider) = settings.provider(kind) else {
            return Ok(Self::demo(&settings.model));
        };
        let client = model_server(provider.connect_timeout)?;
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (running, waiting) = (size(provider.max_concurrency.get()), size(provider.queue));
        Ok(Self {
            kind,
            provider: match kind {
                ProviderKind::Ollama => Box::new(Ollama::new(client, provider)),
                _ => Box::new(OpenAi::new(kind, client, provider)),
            },
            api_key: provider.api_key.clone(),
            default_model: provider.model.clone(),
            default_window: provider.context_window.map_or(DEFAULT_WINDOW, NonZeroU32::get),
            address: Some(provider.base_url.clone()),
            think_tags: provider.think_tags,
            timeouts: Timeouts {
                connect: provider.connect_timeout,
                first_token: provider.first_token_timeout,
                idle: provider.idle_timeout,
                total: provider.total_timeout,
            },
            health: Health::new(Snapshot::default()),
            scheduler: Scheduler::new(kind.as_str(), running, waiting),
            breaker: CircuitBreaker::new(provider.breaker_failures),
        })
    }

    /// The built-in provider, which tells how to get `recommended_model`.
    fn demo(recommended_model: &str) -> Self {
        let second = Duration::from_secs(1);
        Self {
            kind: ProviderKind::Demo,
            provider: Box::new(Demo { recommended: recommended_model.to_owned() }),
            api_key: None,
            default_model: Some(demo::MODEL.to_owned()),
            default_window: DEFAULT_WINDOW,
            address: None,
            think_tags: false,
            timeouts: Timeouts {
                connect: second,
                first_token: 10 * second,
                idle: 10 * second,
                total: 60 * second,
            },
            health: Health::new(Snapshot::listed(vec![demo::model()])),
            scheduler: Scheduler::new(ProviderKind::Demo.as_str(), 64, 256),
            breaker: CircuitBreaker::new(0),
        }
    }

    pub(super) fn is_demo(&self) -> bool {
        self.kind == ProviderKind::Demo
    }

    /// Whether the circuit breaker lets a request through now.
    pub(super) fn is_breaker_closed(&self) -> bool {
        self.breaker.allows(Instant::now())
    }

    /// Whether the server has the model; `None` where it never listed its models.
    pub(super) fn has_model(&self, name: &str) -> Option<bool> {
        let models = self.health.snapshot().models.clone()?;
        Some(self.find(&models, name).is_some())
    }

    pub(super) fn model(&self, name: &str) -> Option<ModelInfo> {
        let models = self.health.snapshot().models.clone()?;
        self.find(&models, name).cloned()
    }

    /// The window that the model is always asked with, since another one makes Ollama load it anew.
    pub(super) fn window(&self, model: &str) -> u32 {
        let models = self.health.snapshot().models.clone().unwrap_or_default();
        self.window_of(self.find(&models, model))
    }

    pub(super) fn window_of(&self, model: Option<&ModelInfo>) -> u32 {
        model.and_then(|model| model.window).unwrap_or(self.default_window)
    }

    fn find<'a>(&self, models: &'a [ModelInfo], name: &str) -> Option<&'a ModelInfo> {
        models.iter().find(|model| self.provider.same_model(&model.id, name))
    }

    pub(super) fn stream_timeouts(&self) -> StreamTimeouts {
        StreamTimeouts::new(self.timeouts.first_token, self.timeouts.idle, self.timeouts.total)
    }

    /// What the call to the server gives; tells the circuit breaker how that went.
    pub(super) async fn guard<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderError>>,
        timeouts: &mut StreamTimeouts,
    ) -> Result<T, ProviderError> {
        let Some(permit) = self.breaker.try_acquire(Instant::now()) else {
            return Err(ProviderError::new(ErrorKind::Unreachable, "the circuit breaker is open"));
        };
        let result = timeouts.limit(call).await.flatten();
        permit.record(&result, Instant::now());
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

    pub(super) async fn run_probes(self: Arc<Self>, shutdown: Shutdown) {
        let (connect, redactor) = (self.timeouts.connect, self.redactor(None));
        self.health.run_probes(self.kind, &*self.provider, connect, redactor, &shutdown).await;
    }

    fn redactor<'a>(&'a self, request: Option<&'a ChatRequest>) -> Redactor<'a> {
        let api_key = self.api_key.as_ref().map(|key| key.expose_secret());
        Redactor { api_key, request }
    }
}

/// A span of what this server is asked, by the semantic conventions for generative AI.
pub(super) fn call_span(upstream: &Upstream, operation: &str, model: &str) -> Span {
    let span = Span::named_child(|| format!("{operation} {model}"), SpanKind::Client);
    span.set_all(|| {
        let url = upstream.address.as_ref();
        let host = url.and_then(Url::host_str).unwrap_or("localhost").to_owned();
        let port = url.and_then(Url::port_or_known_default).unwrap_or_default();
        [
            ("gen_ai.provider.name", upstream.kind.as_str().into()),
            ("gen_ai.request.model", model.to_owned().into()),
            ("server.address", host.into()),
            ("server.port", i64::from(port).into()),
        ]
    });
    span
}

/// That a server lacks a model, in words for the caller: what it is and how to get it.
pub(super) fn not_found(kind: ProviderKind, model: &str) -> ModelError {
    ModelError::NotFound(match kind {
        _ if !is_model_name(model) => {
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
