//! Model servers behind one service: routing, queueing, retries, circuit breakers and failover.

use std::sync::Arc;

use common::{
    config::{self, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};

mod attempt;
mod chunk;
mod circuit_breaker;
mod deadlines;
mod error;
mod generation;
mod health;
pub mod providers;
mod redaction;
mod request;
mod routing;
mod scheduler;
mod upstream;

pub use crate::llm::{
    chunk::{Chunk, ToolCall},
    error::{Feature, ModelError},
    generation::Generation,
    request::{ChatRequest, Prompt, PromptMessage},
};
use crate::llm::{
    health::Reachability,
    routing::{Router, Selection},
    upstream::Upstream,
};

/// All model servers of this instance. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct LlmService {
    router: Arc<Router>,
}

/// Where a request for a model will go: decided by the last health probes, without waiting.
#[derive(Clone, Debug)]
pub struct Route {
    pub model: String,
    /// The provider that is tried first.
    pub provider: ProviderKind,
    /// That provider's window for the model, in tokens.
    pub window: u32,
    /// The model that the caller named: each provider tried has its own where there was none.
    requested: Option<String>,
}

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub provider: ProviderKind,
    /// The window that it is asked with, in tokens.
    pub window: u32,
    /// Whether it answers where nobody names a model.
    pub is_default: bool,
    /// Whether it answers chats; embedding models do not.
    pub can_chat: bool,
}

/// How a provider is, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    pub provider: ProviderKind,
    /// Whether the last probe reached it; `None` before the first.
    pub up: Option<bool>,
    pub breaker_open: bool,
    /// Requests that run on it.
    pub running: usize,
    /// Requests that wait for it.
    pub waiting: usize,
}

impl LlmService {
    /// Probes each server in the background until the stop. What has not been probed yet counts as up.
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
        let upstreams: Vec<_> = kinds
            .into_iter()
            .map(|kind| Upstream::new(kind, settings).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for upstream in upstreams.iter().filter(|upstream| !upstream.is_demo()) {
            shutdown.spawn(upstream.clone().run_probes(shutdown.clone()));
        }
        Ok(Self {
            router: Arc::new(Router::new(upstreams, settings.model.clone())),
        })
    }

    /// The model that is asked where nothing else is named.
    pub fn default_model(&self) -> &str {
        self.router.default_model()
    }

    /// Where a request for that model (or the default one) goes.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the command that gets it, [`ModelError::Unavailable`] where every provider that
    /// has it is known to be down, [`ModelError::UnsupportedByModel`] for a model that does not chat.
    pub fn resolve(&self, model: Option<&str>) -> Result<Route, ModelError> {
        let selection = self.router.select(model, 0, &[])?;
        if !selection.upstream.can_chat(&selection.model) {
            return Err(ModelError::UnsupportedByModel(Feature::Chat));
        }
        Ok(Route {
            provider: selection.upstream.kind(),
            window: selection.upstream.window(&selection.model),
            model: selection.model,
            requested: model.map(str::to_owned),
        })
    }

    /// Joins the queue of the route's provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enqueue(&self, route: &Route, user: &UserId) -> Result<Generation, ModelError> {
        let mut upstreams = self.router.upstreams().iter().enumerate();
        let (index, upstream) = upstreams
            .find(|(_, upstream)| upstream.kind() == route.provider)
            .ok_or_else(|| ModelError::Unavailable("no such provider".to_owned()))?;
        let selection = Selection {
            index,
            upstream: upstream.clone(),
            model: route.model.clone(),
        };
        Generation::enqueue(
            self.router.clone(),
            user,
            route.requested.clone(),
            selection,
        )
    }

    /// The models of every provider that is up, in the order in which they are tried; `demo` where it stands in.
    pub fn models(&self) -> Vec<Model> {
        let default = self.resolve(None).ok();
        let mut models = Vec::new();
        for upstream in self.router.upstreams() {
            let route = default
                .as_ref()
                .filter(|route| route.provider == upstream.kind());
            if upstream.is_demo() {
                models.extend(route.map(|route| Model {
                    id: route.model.clone(),
                    provider: route.provider,
                    window: route.window,
                    is_default: true,
                    can_chat: true,
                }));
            } else if !upstream.is_down() {
                let listed = upstream.health().models().unwrap_or_default();
                models.extend(listed.iter().map(|model| Model {
                    id: model.id.clone(),
                    can_chat: model.can_chat(),
                    provider: upstream.kind(),
                    window: upstream.window_of(Some(model)),
                    is_default:
                        route.is_some_and(|route| upstream.same_model(&model.id, &route.model)),
                }));
            }
        }
        models
    }

    /// Whether two names may mean the same model at one of the providers.
    pub fn same_model(&self, listed: &Model, requested: &str) -> bool {
        let mut upstreams = self.router.upstreams().iter();
        upstreams.any(|upstream| {
            upstream.kind() == listed.provider && upstream.same_model(&listed.id, requested)
        })
    }

    /// What is wrong with the providers, for operators: what was asked, what came, and what to do.
    pub fn problems(&self) -> Vec<String> {
        let problem = |upstream: &Arc<Upstream>| {
            let problem = match upstream.health().problem() {
                Some(problem) if upstream.is_down() => format!("cannot be reached: {problem}"),
                Some(problem) => problem,
                None if !upstream.is_breaker_closed() => "failed too often in a row".to_owned(),
                None => return None,
            };
            Some(format!("{}: {problem}", upstream.kind().as_str()))
        };
        self.router.upstreams().iter().filter_map(problem).collect()
    }

    /// How every provider is, in the order of the settings.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let status = |upstream: &Arc<Upstream>| {
            let (running, waiting) = upstream.load();
            let reachability = upstream.health().reachability();
            ProviderStatus {
                provider: upstream.kind(),
                up: (reachability != Reachability::Unknown)
                    .then_some(reachability == Reachability::Up),
                breaker_open: !upstream.is_breaker_closed(),
                running,
                waiting,
            }
        };
        self.router.upstreams().iter().map(status).collect()
    }
}
