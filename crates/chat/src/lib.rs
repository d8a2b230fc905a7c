//! The chat service: messages, sessions, streams, and the model servers behind them.
//!
//! [`build`] puts the parts together; docs/architecture.md says what each module owns.

mod concurrency;
pub mod connect;
pub mod domain;
pub mod erasure;
pub mod error;
pub mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod generation;
pub mod http;
pub mod llm;
mod metrics;
mod offload;
mod retry;
pub mod sessions;
pub mod state;
pub mod store;
pub mod turns;
pub mod usage;

use std::{future::ready, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, http::Uri, middleware::from_fn};
use common::{
    config::{LoginMode, ProviderKind, Settings},
    http::{
        BodyLimit, HostPolicy, Layers, LoadShedder, admin, complete_openapi, docs,
        health as health_routes, health::Health, metrics::PrometheusHandle, wrap,
    },
    identity::{Authenticator, JwksClient, TokenRules},
    rate_limiter::RateLimiter,
    shutdown::Shutdown,
    store::{Quota, Store},
};
use utoipa::openapi::OpenApi;

use crate::{
    erasure::ErasureService,
    events::{recovery::Recovery, registry::Registry},
    generation::{stateless::CompletionService, tokens::TokenEstimates},
    http::{anthropic::messages::COUNT_QUOTA, inference::body::BodyBudget, ws::permits::Sockets},
    llm::{LlmService, Problem},
    sessions::SessionService,
    state::AppState,
    store::ChatStore,
    turns::service::{TurnParts, TurnService},
    usage::UsageService,
};

/// How long a large body may take to arrive.
const LARGE_BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The routers of the service, ready to be served.
#[derive(Debug)]
pub struct Service {
    pub public: Router,
    pub admin: Router,
}

/// Who checks tokens, and where calls to `auth` go.
pub struct Identities {
    pub authenticator: Authenticator,
    /// `/auth/*` and the key set, as this service passes them on.
    pub auth_proxy: Router,
}

impl Identities {
    /// Keys from, and calls passed on to, the `auth` that the settings name.
    ///
    /// # Errors
    /// Where the settings name none, or no HTTP client can be made.
    pub fn remote(settings: &Settings, store: &Store, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let url = settings.chat.auth_url.clone().context("chat.auth_url must be set")?;
        let client = common::clients::http::auth().context("the HTTP client for auth")?;
        let keys = JwksClient::start(&url, client.clone(), shutdown);
        let rules = TokenRules {
            issuer: settings.auth.issuer.clone(),
            audience: settings.auth.audience.clone(),
        };
        Ok(Self {
            authenticator: Authenticator::start(rules, keys, store.clone(), shutdown),
            auth_proxy: http::auth_proxy::routes(http::auth_proxy::RemoteAuth { url, client }),
        })
    }
}

pub fn openapi() -> OpenApi {
    complete_openapi(http::router::document())
}

pub fn build(
    settings: &Settings,
    store: Store,
    llm: LlmService,
    identities: Identities,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> Service {
    let Identities { authenticator, auth_proxy } = identities;
    self::metrics::describe();
    self::metrics::watch(llm.clone(), shutdown);
    let state = state(settings, &store, &llm, &authenticator, shutdown);
    let health = health(store, authenticator, llm, shutdown);
    let ollama_api = settings.chat.ollama_api;
    let router = http::router::build(&state, ollama_api)
        .merge(auth_proxy)
        .merge(health_routes::routes(health.clone()))
        .merge(docs::routes(openapi))
        .merge(http::anthropic::probe_routes())
        .merge(page(ollama_api))
        .fallback(async move |uri: Uri| http::not_found::not_found(&uri, ollama_api));
    Service {
        public: wrap(router, public_layers(settings, &state)),
        admin: wrap(admin::router(health, metrics, shutdown), Layers::admin("chat")),
    }
}

/// The checks of `/readyz`. Model servers are reported, and do not affect readiness.
fn health(
    store: Store,
    authenticator: Authenticator,
    llm: LlmService,
    shutdown: &Shutdown,
) -> Health {
    Health::builder("Chat", shutdown.clone())
        .store(store)
        .gate("keys", move || {
            let has_keys = authenticator.has_keys();
            async move { if has_keys { Ok(()) } else { Err("none from auth yet".into()) } }
        })
        .report("llm", move || {
            let told = |(provider, problem): (ProviderKind, Problem)| {
                format!("{}: {}", provider.as_str(), problem.shown)
            };
            let problems: Vec<_> = llm.problems().into_iter().map(told).collect();
            let is_well = problems.is_empty();
            ready(if is_well { Ok(()) } else { Err(problems.join("; ").into()) })
        })
        .build()
}

/// The services, each with what it needs, and what handlers need beside them.
fn state(
    settings: &Settings,
    store: &Store,
    llm: &LlmService,
    authenticator: &Authenticator,
    shutdown: &Shutdown,
) -> Arc<AppState> {
    let chat_store = ChatStore::new(store.clone(), settings.chat.session_ttl, settings.chat.lease);
    let estimates = TokenEstimates::default();
    let recovery = Recovery::new(estimates.clone());
    let registry = Arc::new(Registry::default());
    let sessions = SessionService::new(chat_store.clone(), Arc::clone(&registry), recovery.clone());
    concurrency::spawn(&chat_store, llm, &settings.llm, shutdown);
    ErasureService::spawn(chat_store.clone(), sessions.clone(), shutdown);
    let completions = CompletionService::new(
        chat_store.clone(),
        authenticator.clone(),
        llm.clone(),
        estimates.clone(),
        settings.rate_limit.tokens_per_day,
        shutdown.clone(),
    );
    let turns = TurnService::new(TurnParts {
        store: chat_store.clone(),
        authenticator: authenticator.clone(),
        llm: llm.clone(),
        settings: settings.chat.clone(),
        tokens_per_day: settings.rate_limit.tokens_per_day,
        estimates,
        registry,
        recovery,
        shutdown: shutdown.clone(),
    });
    let quota =
        Quota { burst: settings.rate_limit.requests.get(), period: settings.rate_limit.period };
    Arc::new(AppState {
        turns,
        completions,
        sessions,
        usage: UsageService(chat_store),
        llm: llm.clone(),
        authenticator: authenticator.clone(),
        limiter: RateLimiter::new(store.clone(), quota, "c"),
        load_shedder: LoadShedder::default(),
        count_limiter: RateLimiter::new(store.clone(), COUNT_QUOTA, "c").of("rate:counts"),
        disconnect_grace: settings.chat.disconnect_grace,
        tokens_per_day: settings.rate_limit.tokens_per_day,
        allowed_origins: settings.chat.allowed_origins.clone().into(),
        sockets: Sockets::new(settings.chat.sockets_per_user),
        body_budget: BodyBudget::new(settings.server.body_memory),
        shutdown: shutdown.clone(),
    })
}

fn public_layers(settings: &Settings, state: &AppState) -> Layers {
    let hosts = hosts(settings, state.authenticator.clone());
    let mut layers = Layers::new("chat", hosts, &settings.server);
    layers.allowed_origins.clone_from(&settings.chat.allowed_origins);
    layers.load_shedder = Some(state.load_shedder.clone());
    layers.error_shape = Some(http::error_shape(settings.chat.ollama_api));
    layers.limits.has_large_body = http::inference::has_large_body;
    layers.limits.large_body =
        BodyLimit { bytes: settings.server.inference_body_limit, time: LARGE_BODY_TIMEOUT };
    layers
}

/// The page; with Ollama's API, who does not ask for a page is told that an Ollama is there.
fn page(ollama_api: bool) -> Router {
    let page = http::web_ui::routes();
    if ollama_api { page.layer(from_fn(http::web_ui::answer_as_ollama)) } else { page }
}

/// Names are guarded while bound to loopback, or while `auth` says that login is open.
fn hosts(settings: &Settings, authenticator: Authenticator) -> HostPolicy {
    let is_loopback = settings.chat.listen.ip().is_loopback();
    HostPolicy::guarded(settings.server.allowed_hosts.clone(), move || {
        is_loopback || authenticator.login_mode() == LoginMode::Open
    })
}
