//! The model servers as one: which has a model, whose turn it is, retry, breaker and fallback.

use std::sync::Arc;

use common::{
    config::{self, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use tokio::time::Instant;

mod attempt;
mod chunk;
mod circuit_breaker;
mod deadlines;
mod error;
mod generation;
mod health;
pub mod providers;
mod request;
mod routing;
mod scheduler;
mod upstream;

use crate::llm::{attempt::ProviderAttempt, health::Reach, routing::Inner, upstream::Upstream};
pub use crate::llm::{
    chunk::{Chunk, ToolCall},
    error::ModelError,
    generation::Generation,
    request::{ChatRequest, Prompt, PromptMessage},
};

/// Where a request for a model will go: decided from the last look, without waiting.
#[derive(Clone, Debug)]
pub struct Route {
    /// The model's id.
    pub model: String,
    /// The provider that is tried first.
    pub provider: ProviderKind,
    /// That provider's window for the model, in tokens.
    pub window: u32,
    /// The model that was asked for by name: each provider tried has its own where there was none.
    asked: Option<String>,
}

/// All model servers of this instance. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct LlmService {
    inner: Arc<Inner>,
}

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub provider: ProviderKind,
    /// The window it is asked with, in tokens.
    pub window: u32,
    /// Whether it answers where nobody names a model.
    pub is_default: bool,
}

/// How a provider is, for people who look after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    /// Which.
    pub provider: ProviderKind,
    /// Whether it was there at the last look; `None` before the first.
    pub up: Option<bool>,
    /// Whether its breaker lets requests through.
    pub breaker_open: bool,
    /// Turns that run on it.
    pub running: usize,
    /// Turns that wait for it.
    pub waiting: usize,
}

impl LlmService {
    /// The model servers of those settings, and a task each that looks at them until the stop. The first look begins at
    /// once; what has not been looked at yet counts as up.
    ///
    /// # Errors
    /// Where an HTTP client cannot be built.
    pub fn new(settings: &config::Llm, shutdown: &Shutdown) -> Result<Self, reqwest::Error> {
        let mut kinds: Vec<ProviderKind> = Vec::new();
        for kind in &settings.providers {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        let providers: Vec<_> = kinds
            .into_iter()
            .map(|kind| Upstream::new(kind, settings).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for provider in providers.iter().filter(|provider| !provider.is_demo()) {
            shutdown.spawn(provider.clone().watch(shutdown.clone()));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                providers,
                model: settings.model.clone(),
            }),
        })
    }

    /// The model that is asked where nothing else is named.
    pub fn default_model(&self) -> &str {
        &self.inner.model
    }

    /// Where a request for that model (or the default one) goes.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the command that gets it, [`ModelError::Unavailable`] where every provider that
    /// has it is known to be down.
    pub fn resolve(&self, model: Option<&str>) -> Result<Route, ModelError> {
        let choice = self.inner.choose(model, 0, &[])?;
        let (provider, window) = (choice.provider.kind, choice.provider.window(&choice.model));
        Ok(Route {
            model: choice.model,
            provider,
            window,
            asked: model.map(str::to_owned),
        })
    }

    /// Takes a place in the queue of the route's first provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enqueue(&self, route: &Route, user: &UserId) -> Result<Generation, ModelError> {
        let found = self
            .inner
            .providers
            .iter()
            .enumerate()
            .find(|(_, provider)| provider.kind == route.provider);
        let (index, provider) =
            found.ok_or_else(|| ModelError::Unavailable("no such provider".to_owned()))?;
        let place = provider
            .scheduler
            .enqueue(user)
            .ok_or(ModelError::QueueFull)?;
        let leg = ProviderAttempt::new(index, provider.clone(), route.model.clone(), place);
        let (llm, user, asked) = (self.inner.clone(), user.clone(), route.asked.clone());
        Ok(Generation::entered(llm, user, asked, leg))
    }

    /// The models of every provider that is up, in the order in which they are tried; `demo` where it stands in.
    pub fn models(&self) -> Vec<Model> {
        let default = self.resolve(None).ok();
        let mut models = Vec::new();
        for provider in &self.inner.providers {
            let is_default = |id: &str| {
                let route = default
                    .as_ref()
                    .filter(|route| route.provider == provider.kind);
                route.is_some_and(|route| provider.same_model(id, &route.model))
            };
            let entry = |id: &str, own: Option<u32>| Model {
                id: id.to_owned(),
                provider: provider.kind,
                window: provider.window_of(own),
                is_default: is_default(id),
            };
            if provider.is_demo() {
                models.extend(
                    provider
                        .model
                        .as_deref()
                        .map(|id| entry(id, None))
                        .filter(|model| model.is_default),
                );
            } else if provider.reach() != Reach::Down {
                models.extend(
                    provider
                        .models()
                        .iter()
                        .flat_map(|listed| listed.iter())
                        .map(|model| entry(&model.id, model.window)),
                );
            }
        }
        models
    }

    /// How every provider is, in the order of the settings.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let status = |provider: &Arc<Upstream>| {
            let (running, waiting) = provider.scheduler.load();
            let up = match provider.reach() {
                Reach::Unknown => None,
                reach => Some(reach == Reach::Up),
            };
            ProviderStatus {
                provider: provider.kind,
                up,
                breaker_open: !provider.breaker.allows(Instant::now()),
                running,
                waiting,
            }
        };
        self.inner.providers.iter().map(status).collect()
    }
}
