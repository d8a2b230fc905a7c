//! The chat service: messages, sessions, streams, and the model servers behind them.
//!
//! [`build`] puts the parts together; docs/architecture.md says what each module owns.

pub mod domain;
pub mod erasure;
pub mod error;
pub mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod generation;
mod health;
pub mod http;
pub mod llm;
mod metrics;
mod retry;
pub mod sessions;
pub mod state;
pub mod store;
pub mod turns;
pub mod usage;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use common::{
    config::{LoginMode, Settings},
    http::{
        HostPolicy, Layers, admin, complete_openapi, docs, health as health_routes,
        metrics::PrometheusHandle, wrap,
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
    http::ws::permits::Sockets,
    llm::LlmService,
    sessions::SessionService,
    state::AppState,
    store::ChatStore,
    turns::{
        request::TurnLimits,
        service::{TurnParts, TurnService},
    },
    usage::UsageService,
};

/// The routers of the service, ready to be served.
#[derive(Debug)]
pub struct Service {
    /// The public listener's.
    pub public: Router,
    /// The admin listener's.
    pub admin: Router,
}

/// Who checks tokens, and where calls to `auth` go.
pub struct Identities {
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// `/auth/*` and the key set, as this service passes them on.
    pub passed_on: Router,
}

impl Identities {
    /// Keys from, and calls passed on to, the `auth` that the settings name.
    ///
    /// # Errors
    /// Where the settings name none, or no HTTP client can be made.
    pub fn remote(settings: &Settings, store: &Store, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let url = settings
            .chat
            .auth_url
            .clone()
            .context("chat.auth_url must be set")?;
        let client = common::clients::http::auth().context("the HTTP client for auth")?;
        let keys = JwksClient::start(&url, client.clone(), shutdown);
        let rules = TokenRules {
            issuer: settings.auth.issuer.clone(),
            audience: settings.auth.audience.clone(),
        };
        Ok(Self {
            authenticator: Authenticator::start(rules, keys, store.clone(), shutdown),
            passed_on: http::auth_proxy::routes(http::auth_proxy::RemoteAuth { url, client }),
        })
    }
}

/// The description of the public API.
pub fn openapi() -> OpenApi {
    complete_openapi(http::router::document())
}

/// Puts the service together.
pub fn build(
    settings: &Settings,
    store: Store,
    llm: LlmService,
    identities: Identities,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> Service {
    let Identities {
        authenticator,
        passed_on,
    } = identities;
    self::metrics::describe();
    self::metrics::watch(llm.clone(), shutdown);
    let chat_store = ChatStore::new(
        store.clone(),
        settings.chat.session_ttl,
        settings.chat.lease,
    );
    let estimates = TokenEstimates::default();
    let recovery = Recovery::new(estimates.clone());
    let registry = Arc::new(Registry::default());
    let sessions = SessionService::new(chat_store.clone(), Arc::clone(&registry), recovery.clone());
    ErasureService::spawn(chat_store.clone(), sessions.clone(), shutdown);
    let completions = CompletionService::new(
        chat_store.clone(),
        llm.clone(),
        estimates.clone(),
        settings.rate_limit.tokens_per_day,
        shutdown.clone(),
    );
    let turns = TurnService::new(TurnParts {
        store: chat_store.clone(),
        llm: llm.clone(),
        limits: turn_limits(settings),
        estimates,
        registry,
        recovery,
        shutdown: shutdown.clone(),
    });
    let quota = Quota {
        burst: settings.rate_limit.requests.get(),
        period: settings.rate_limit.period,
    };
    let state = Arc::new(AppState {
        turns,
        completions,
        sessions,
        usage: UsageService::new(chat_store),
        llm: llm.clone(),
        authenticator: authenticator.clone(),
        limiter: RateLimiter::new(store.clone(), quota, "c"),
        disconnect_grace: settings.chat.disconnect_grace,
        tokens_per_day: settings.rate_limit.tokens_per_day,
        allowed_origins: settings.chat.allowed_origins.clone().into(),
        sockets: Sockets::new(settings.chat.sockets_per_user),
        shutdown: shutdown.clone(),
    });
    let health = health::build(store, authenticator.clone(), llm, shutdown.clone());
    let router = http::router::build(&state)
        .merge(passed_on)
        .merge(health_routes::routes(health.clone()))
        .merge(docs::routes(openapi()))
        .merge(http::web_ui::routes());
    let mut layers = Layers::new("chat", hosts(settings, authenticator), &settings.server);
    layers
        .allowed_origins
        .clone_from(&settings.chat.allowed_origins);
    layers.error_shape = Some(http::openai::error::shape());
    Service {
        public: wrap(router, layers),
        admin: wrap(
            admin::router(health, metrics, shutdown),
            Layers::admin("chat"),
        ),
    }
}

fn turn_limits(settings: &Settings) -> TurnLimits {
    TurnLimits {
        history_messages: settings.chat.history_messages,
        max_session_messages: settings.chat.max_session_messages,
        system_prompt: settings.chat.system_prompt.clone(),
        tokens_per_day: settings.rate_limit.tokens_per_day,
    }
}

/// Names are guarded while bound to loopback, or while `auth` says that login is open.
fn hosts(settings: &Settings, authenticator: Authenticator) -> HostPolicy {
    let is_loopback = settings.chat.listen.ip().is_loopback();
    HostPolicy::guarded(settings.server.allowed_hosts.clone(), move || {
        is_loopback || authenticator.login_mode() == LoginMode::Open
    })
}
