//! Model servers behind one service: routing, queueing, retries, circuit breakers and failover.

use std::{collections::HashSet, sync::Arc, time::Duration};

use common::{
    config::{self, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use tokio::time::timeout;

mod attempt;
mod call;
mod chunk;
mod circuit_breaker;
mod deadlines;
mod embedding;
mod error;
mod failover;
mod generation;
mod health;
mod model;
pub mod providers;
mod redaction;
mod request;
mod routing;
mod scheduler;
mod think_tags;
mod upstream;

use crate::llm::{
    attempt::ProviderAttempt,
    failover::Failover,
    routing::{Router, Selection},
    scheduler::Lane,
    upstream::Upstream,
};
pub use crate::llm::{
    chunk::{Chunk, ToolCall, UsageDetails},
    embedding::{EmbeddedPart, EmbeddingRun},
    error::{Feature, ModelError},
    generation::{Generation, GenerationStream},
    health::Problem,
    model::{Capabilities, LoadedModel, Model, ModelFacts},
    request::{ChatRequest, EmbeddingInput, EmbeddingRequest, Prompt, PromptMessage},
    scheduler::{Placement, Scheduler},
};

/// How long a server may take to say what it holds, or which one it is.
const BRIEFLY: Duration = Duration::from_secs(2);

/// All model servers of this instance. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct LlmService {
    router: Arc<Router>,
}

/// Where a request for a model will go: decided by the last health probes, without waiting.
#[derive(Clone, Debug)]
pub struct Route {
    pub model: String,
    pub provider: ProviderKind,
    /// That provider's window for the model, in tokens.
    pub window: u32,
    index: usize,
    /// The model that the caller named: each provider tried has its own where there was none.
    requested: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    pub provider: ProviderKind,
    /// Whether the last probe reached it; `None` before the first.
    pub up: Option<bool>,
    pub breaker_open: bool,
    pub running: usize,
    pub waiting: usize,
}

impl LlmService {
    /// Probes each server in the background until the stop. What has not been probed yet counts as up.
    ///
    /// # Errors
    /// Where an HTTP client cannot be built.
    pub fn new(settings: &config::Llm, shutdown: &Shutdown) -> Result<Self, reqwest::Error> {
        let kinds = settings.providers.iter();
        let upstreams: Vec<_> = kinds
            .map(|kind| Upstream::new(*kind, settings).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for upstream in upstreams.iter().filter(|upstream| !upstream.is_demo()) {
            shutdown.spawn(upstream.clone().run_probes(shutdown.clone()));
        }
        Ok(Self {
            router: Arc::new(Router {
                upstreams,
                default_model: settings.model.clone(),
                aliases: settings.aliases.clone(),
            }),
        })
    }

    /// The model that is asked where nothing else is named.
    pub fn default_model(&self) -> &str {
        &self.router.default_model
    }

    /// Where a request for that model (or the default one) goes.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the command that gets it, [`ModelError::Unavailable`] where every provider that
    /// has it is known to be down, [`ModelError::UnsupportedByModel`] for a model that does not chat.
    pub fn resolve(&self, model: Option<&str>) -> Result<Route, ModelError> {
        self.route(model, Feature::Chat, |all| all.completion)
    }

    /// Where a request for embeddings of that model goes.
    ///
    /// # Errors
    /// As [`Self::resolve`]; [`ModelError::UnsupportedByModel`] for a model that makes none.
    pub fn resolve_embedding(&self, model: Option<&str>) -> Result<Route, ModelError> {
        self.route(model, Feature::Embeddings, |all| all.embedding)
    }

    fn route(
        &self,
        requested: Option<&str>,
        feature: Feature,
        can: fn(Capabilities) -> bool,
    ) -> Result<Route, ModelError> {
        let Selection { index, upstream, model } = self.router.select(requested, 0, &[])?;
        // Where the demo only stands in, the others may be back soon.
        let stands_in = upstream.is_demo() && self.router.upstreams.len() > 1;
        if stands_in && feature == Feature::Embeddings {
            let why = "the demo makes no embeddings".to_owned();
            return Err(ModelError::Unavailable(why));
        }
        let capabilities = upstream.model(&model).and_then(|model| model.capabilities);
        if capabilities.is_some_and(|all| !can(all)) {
            return Err(ModelError::UnsupportedByModel(feature));
        }
        Ok(Route {
            provider: upstream.kind,
            window: upstream.window(&model),
            model,
            index,
            requested: requested.map(str::to_owned),
        })
    }

    /// What the model can do that would answer, where its server tells.
    pub fn capabilities(&self, model: &str) -> Option<Capabilities> {
        let selection = self.router.select(Some(model), 0, &[]).ok()?;
        selection.upstream.model(&selection.model)?.capabilities
    }

    /// Joins the queue of the route's provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enqueue(&self, route: &Route, user: &UserId) -> Result<Box<Generation>, ModelError> {
        let (failover, call) = Failover::begin(&self.router, user, route, Lane::Answers)?;
        Ok(Box::new(Generation { failover, attempt: ProviderAttempt::new(call) }))
    }

    /// Joins the lane for embeddings of the route's provider: answers go first.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enqueue_embedding(
        &self,
        route: &Route,
        user: &UserId,
    ) -> Result<EmbeddingRun, ModelError> {
        let (failover, call) = Failover::begin(&self.router, user, route, Lane::Embeddings)?;
        Ok(EmbeddingRun { failover, call, done: 0, length: None })
    }

    /// The models of every provider that is up, each once, in the order in which they are tried; `demo` where it stands in; then the
    /// aliases of these.
    pub fn models(&self) -> Vec<Model> {
        let default = self.resolve(None).ok();
        let mut models = Vec::new();
        for upstream in &self.router.upstreams {
            let route = default.as_ref().filter(|route| route.provider == upstream.kind);
            let is_idle_demo = upstream.is_demo() && route.is_none();
            if is_idle_demo || upstream.health.is_down() {
                continue;
            }
            let listed = upstream.health.snapshot().models.clone().unwrap_or_default();
            let mut known = HashSet::new();
            models.extend(listed.iter().filter(|model| known.insert(&model.id)).map(|model| {
                Model {
                    id: model.id.clone(),
                    capabilities: model.capabilities,
                    facts: model.facts.clone(),
                    provider: upstream.kind,
                    window: upstream.window_of(Some(model)),
                    is_default: route
                        .is_some_and(|route| upstream.provider.same_model(&model.id, &route.model)),
                }
            }));
        }
        let mut aliases = Vec::new();
        for (alias, target) in &self.router.aliases {
            let model = models.iter().find(|model| self.same_model(model, target));
            aliases.extend(model.map(|model| Model {
                id: alias.clone(),
                is_default: false,
                ..model.clone()
            }));
        }
        models.extend(aliases);
        models
    }

    /// The models that servers hold in memory now; all of a server's where it does not tell. Servers that do not answer in
    /// time are left out.
    pub async fn loaded(&self) -> Vec<LoadedModel> {
        let mut loaded = Vec::new();
        let models = self.distinct_models();
        for upstream in self.router.upstreams.iter().filter(|it| !it.health.is_down()) {
            let Ok(Ok(told)) = timeout(BRIEFLY, upstream.provider.loaded()).await else { continue };
            let known = models.iter().filter(|model| model.provider == upstream.kind);
            loaded.extend(known.filter_map(|model| {
                let expires_at = match &told {
                    None => None,
                    Some(told) => {
                        let id = self.router.aliased(&model.id);
                        let same =
                            |(name, _): &&(String, _)| upstream.provider.same_model(id, name);
                        told.iter().find(same)?.1.clone()
                    }
                };
                Some(LoadedModel { model: model.clone(), expires_at })
            }));
        }
        loaded
    }

    /// The version of the first server that tells one.
    pub async fn server_version(&self) -> Option<String> {
        for upstream in self.router.upstreams.iter().filter(|it| !it.health.is_down()) {
            let answer = timeout(BRIEFLY, upstream.provider.version()).await;
            if let Ok(Ok(Some(version))) = answer {
                return Some(version);
            }
        }
        None
    }

    /// Each id once, of the provider that answers for it.
    pub fn distinct_models(&self) -> Vec<Model> {
        let mut known = HashSet::new();
        let mut models = self.models();
        models.retain(|model| known.insert(model.id.clone()));
        models
    }

    /// The model of that name, or one that the name may mean at its provider; aliases are found as [`Self::resolve`] finds them.
    pub fn find(&self, name: &str) -> Option<Model> {
        let models = self.distinct_models();
        let name = self.router.alias(name).map_or(name, |(alias, _)| alias);
        let exact = models.iter().position(|model| model.id == name);
        let found = exact.or_else(|| models.iter().position(|model| self.same_model(model, name)));
        models.into_iter().nth(found?)
    }

    fn same_model(&self, listed: &Model, requested: &str) -> bool {
        let mut upstreams = self.router.upstreams.iter();
        upstreams.any(|upstream| {
            upstream.kind == listed.provider && upstream.provider.same_model(&listed.id, requested)
        })
    }

    pub fn problems(&self) -> Vec<(ProviderKind, Problem)> {
        let problem = |upstream: &Arc<Upstream>| {
            let words = || "failed too often in a row".to_owned();
            let failing = || Problem { shown: words(), reason: words() };
            let broken = (!upstream.is_breaker_closed()).then(failing);
            Some((upstream.kind, upstream.health.snapshot().problem.clone().or(broken)?))
        };
        self.router.upstreams.iter().filter_map(problem).collect()
    }

    pub fn schedulers(&self) -> impl Iterator<Item = (ProviderKind, &Arc<Scheduler>)> {
        self.router.upstreams.iter().map(|upstream| (upstream.kind, &upstream.scheduler))
    }

    /// How every provider is, in the order of the settings.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let status = |upstream: &Arc<Upstream>| {
            let (running, waiting) = upstream.scheduler.load();
            ProviderStatus {
                provider: upstream.kind,
                up: upstream.health.snapshot().up,
                breaker_open: !upstream.is_breaker_closed(),
                running,
                waiting,
            }
        };
        self.router.upstreams.iter().map(status).collect()
    }
}
